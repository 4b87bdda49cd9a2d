//! What has become of the plugins' files: what runs under each name, what was refused and why, and what is
//! still being loaded.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::PluginKey;
use crate::digest::Digest;
use crate::transform::Plugin;

/// All that is in the plugins folder, and what is loaded though its file is gone. Cheap to clone.
pub type PluginStatuses = Arc<BTreeMap<PluginKey, PluginStatus>>;

/// What has become of one plugin's files.
#[derive(Debug, Clone, Default)]
pub struct PluginStatus {
    /// What runs under this name.
    pub active: Option<Arc<Plugin>>,
    /// Why the files as they are now do not run. What is active was loaded before.
    pub rejected: Option<Rejection>,
    /// The files have changed, and are being read or compiled.
    pub loading: bool,
    /// The file is gone, and webhooks use the plugin, so that it stays active.
    pub missing: bool,
}

/// A file that is not run, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The hash of its content; none when it could not be read.
    pub version: Option<Digest>,
    /// Why.
    pub reason: String,
    /// When it was first refused for that reason.
    pub since: Timestamp,
}
