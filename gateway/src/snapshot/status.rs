//! How a plugin's files fare, as the reloader last saw them.

use jiff::Timestamp;

use crate::digest::Digest;

/// How a plugin's files fare. What is active was loaded before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginStatus {
    /// Why the files as they are now do not run.
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
    /// The reason names those who use the plugin, of whichever tenant.
    pub names_users: bool,
    /// When it was first refused for that reason.
    pub since: Timestamp,
}
