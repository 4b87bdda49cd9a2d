//! How a plugin's file fares, as the reloader last saw it.

use crate::digest::Digest;

/// How a plugin's file fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The content that is there and is not run.
    pub rejected: Option<Rejected>,
    /// The file is gone; what was loaded from it stays for the webhooks that use it.
    pub gone: bool,
}

/// Content that is not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The hash of the plugin's file, where it can be read.
    pub version: Option<Digest>,
    /// Why it is not run.
    pub reason: String,
}
