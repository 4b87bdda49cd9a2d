//! The transform stage: runs an event through a chain of sandboxed plugins.

mod limits;

use std::path::PathBuf;

pub use self::limits::Limits;

/// How plugins are run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Calls that can run at once; more wait for their turn.
    pub instances: u32,
    /// The largest plugin file that is loaded, in bytes.
    pub max_file_bytes: u64,
    /// Limits of plugins that bring none of their own.
    pub limits: Limits,
    /// The most memory any plugin may be granted, in bytes: the size of a slot in the pool.
    pub max_memory_bytes: usize,
    /// Where compiled plugins are kept. Only the gateway may write there: it is native code.
    pub cache_dir: PathBuf,
}
