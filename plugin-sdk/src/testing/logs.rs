//! Where log messages go outside the sandbox.

use std::cell::RefCell;

use crate::log::Level;

thread_local! {
    /// The messages of this thread since capturing began, while it goes on.
    static CAPTURED: RefCell<Option<Vec<(Level, String)>>> = const { RefCell::new(None) };
}

/// Calls `run`, and gives the messages that it logged on this thread along with its result.
///
/// ```
/// use hookmill_plugin::{log, testing};
///
/// let (sum, messages) = testing::capture_logs(|| {
///     log::info("adding");
///     1 + 2
/// });
/// assert_eq!(sum, 3);
/// assert_eq!(messages, [(log::Level::Info, "adding".to_owned())]);
/// ```
pub fn capture_logs<T>(run: impl FnOnce() -> T) -> (T, Vec<(Level, String)>) {
    let outer = CAPTURED.replace(Some(Vec::new()));
    let result = run();
    let messages = CAPTURED.replace(outer).unwrap_or_default();
    (result, messages)
}

/// Keeps a message that is being captured, and writes any other to standard error.
pub(crate) fn emit(level: Level, message: &str) {
    CAPTURED.with_borrow_mut(|captured| match captured {
        Some(messages) => messages.push((level, message.to_owned())),
        None => write(level, message),
    });
}

#[expect(clippy::print_stderr, reason = "the log of a native run is standard error")]
fn write(level: Level, message: &str) {
    let level = match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    eprintln!("{level}: {message}");
}
