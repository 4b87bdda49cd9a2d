//! Logging: where messages go, in which form, and which of them.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// The form of each message.
    pub format: Format,
    /// Which messages: `tracing-subscriber`'s filter syntax, such as `info,hookmill::deliver=debug`.
    pub filter: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::Human, filter: "info".to_owned() }
    }
}

/// The form of a log message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One line for people, in colour on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// Checks a filter.
///
/// # Errors
/// The parser's words about what is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(drop).map_err(|error| error.to_string())
}

/// Sends log messages to standard error from now on. Later calls in one process change nothing.
pub fn start(config: &Config) {
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error says that a subscriber is installed already, as in tests that start two gateways.
    drop(match config.format {
        Format::Human => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    });
}
