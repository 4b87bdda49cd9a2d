//! Writing to the terminal: errors, colour, and text from strangers made harmless.

use std::borrow::Cow;
use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde::Deserialize;

/// Says on standard error why the command failed.
pub(super) fn fail(message: &str) -> ExitCode {
    // Where standard error is closed, the exit code still tells.
    drop(writeln!(std::io::stderr().lock(), "hookmill: {message}"));
    ExitCode::FAILURE
}

/// Writes to standard output and flushes, so that a program that reads along sees every line at once.
///
/// # Errors
/// When standard output is closed.
pub(super) fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Colour, if anybody sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    colour: bool,
}

impl Paint {
    /// Colour on a terminal, unless `NO_COLOR` is set.
    pub(super) fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: std::io::stdout().is_terminal() && !unwanted }
    }

    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self { colour: false }
    }

    pub(super) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The text without control characters, which could otherwise rewrite the terminal.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(harmful) { text.replace(harmful, "\u{fffd}").into() } else { text.into() }
}

/// Text from another process, printable from the moment it is read.
#[derive(Debug, Deserialize)]
#[serde(from = "String")]
pub(super) struct Harmless(String);

impl From<String> for Harmless {
    fn from(text: String) -> Self {
        Self(printable(&text).into_owned())
    }
}

impl Harmless {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Harmless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{9b}c\r"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}");
        assert_eq!(printable("lines\n\tand tabs"), "lines\n\tand tabs");
    }
}
