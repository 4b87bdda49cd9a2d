//! What a call used, and what it logged, as values.

use std::time::Duration;

use super::contract::hookmill::plugin::log::Level;

/// What one call used of what its limits bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Running time; waiting for a turn does not count.
    pub time: Duration,
    /// The most linear memory it had, in bytes. A memory never shrinks, so this is what it ended with.
    pub memory_bytes: usize,
    /// The most elements that its tables had.
    pub table_elements: usize,
    /// Calls of the gateway's functions.
    pub host_calls: usize,
    /// HTTP requests.
    pub fetches: usize,
}

/// A message of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters.
    pub level: LogLevel,
    /// The text, up to what the limits left of it.
    pub message: String,
}

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// The finest detail.
    Trace,
    /// For who is looking for a mistake.
    Debug,
    /// The usual.
    Info,
    /// Something may be wrong.
    Warn,
    /// Something is wrong.
    Error,
}

impl LogLevel {
    pub(super) fn from_contract(level: Level) -> Self {
        match level {
            Level::Trace => Self::Trace,
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
        }
    }

    /// The level's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}
