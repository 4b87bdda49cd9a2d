//! The record stage: the store that makes an event durable before it is acknowledged.

use std::path::PathBuf;

/// Where and how events are kept.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder of the database; created when missing.
    pub data_dir: PathBuf,
}
