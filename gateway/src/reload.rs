//! The reloader: watches the plugins folder and swaps the snapshot when a plugin changes.

use std::path::PathBuf;
use std::time::Duration;

/// What is watched, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder of the plugins.
    pub plugins_dir: PathBuf,
    /// How long a file must stay unchanged before it is read: a copy under way is not a plugin yet.
    pub settle: Duration,
    /// How often the folder is scanned even without a notification, which network file systems
    /// do not send.
    pub poll: Duration,
}
