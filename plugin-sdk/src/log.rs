//! Messages for the operator.
//!
//! In the gateway they go to its log, with the plugin, webhook and delivery they came from, and to the
//! record of the delivery. Lines and bytes are bounded; what is over is counted and left out.
//! Natively they go to standard error, or to [`testing::capture_logs`](crate::testing::capture_logs).

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Every step.
    Trace,
    /// For whoever looks for a mistake.
    Debug,
    /// Worth knowing.
    Info,
    /// Worth a look.
    Warn,
    /// Something failed.
    Error,
}

/// Logs at level trace.
pub fn trace(message: &str) {
    log(Level::Trace, message);
}

/// Logs at level debug.
pub fn debug(message: &str) {
    log(Level::Debug, message);
}

/// Logs at level info.
///
/// ```
/// hookmill_plugin::log::info(&format!("{} items left out", 3));
/// ```
pub fn info(message: &str) {
    log(Level::Info, message);
}

/// Logs at level warn.
pub fn warn(message: &str) {
    log(Level::Warn, message);
}

/// Logs at level error.
pub fn error(message: &str) {
    log(Level::Error, message);
}

/// Logs at a level that is only known at run time.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::__guest::log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::logs::emit(level, message);
}
