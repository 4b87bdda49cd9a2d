//! Keeping credentials, and what steers a terminal, out of what goes on record of an exchange.
//!
//! A receiver sees all that a request carries, and may repeat it in its answer: a page for debugging does. The
//! record is read by more people than those who may know a credential.

use super::{Client, Exchange};

/// The shortest value that is replaced, in bytes: a shorter one would be found where it is not meant.
const MIN_REDACTED: usize = 8;

/// The shortest beginning of a value that is replaced where an excerpt is cut off, in bytes.
const MIN_BEGINNING: usize = 4;

/// What signing keys begin with; the rest is base64.
const KEY_PREFIXES: [&str; 2] = ["whsec_", "whsk_"];

/// What must not go on record, each value with what to call it.
#[derive(Default)]
pub struct Credentials(Vec<(String, String)>);

impl Credentials {
    /// Adds a value; one that is too short to be told from other text is ignored.
    pub fn add(&mut self, called: impl Into<String>, value: &str) {
        if value.len() < MIN_REDACTED {
            return;
        }
        let called = called.into();
        let escaped = json_escaped(value);
        if escaped != value {
            self.0.push((called.clone(), escaped));
        }
        self.0.push((called, value.to_owned()));
        // A value may hold another; the longer one goes first.
        self.0.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    }

    /// The text with a name in brackets in place of each value.
    fn redact(&self, mut text: String, cut_off: bool) -> String {
        for (called, value) in &self.0 {
            if text.contains(value.as_str()) {
                text = text.replace(value.as_str(), &format!("[{called}]"));
            }
        }
        if cut_off {
            self.redact_beginning(&mut text);
        }
        for prefix in KEY_PREFIXES {
            if text.contains(prefix) {
                text = without_keys(&text, prefix);
            }
        }
        text
    }

    /// Replaces the beginning of a value at the end of a text that was cut off there.
    fn redact_beginning(&self, text: &mut String) {
        let beginning = |value: &str| {
            let lengths = (MIN_BEGINNING..value.len()).rev();
            let mut ends = lengths.filter_map(|len| value.get(..len));
            ends.find(|start| text.ends_with(start)).map(str::len)
        };
        let found = self.0.iter().filter_map(|(called, value)| Some((beginning(value)?, called)));
        if let Some((len, called)) = found.max() {
            let marked = format!("[{called}]");
            text.truncate(text.len() - len);
            text.push_str(&marked);
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(called, _)| called)).finish()
    }
}

impl Client {
    /// The exchange as it may go on record: without these credentials, and without characters that steer a
    /// terminal.
    #[must_use]
    pub fn for_record(
        &self,
        mut exchange: Exchange,
        credentials: impl FnOnce() -> Credentials,
    ) -> Exchange {
        let Exchange { excerpt, failure, .. } = &mut exchange;
        if excerpt.is_empty() && failure.is_none() {
            return exchange;
        }
        let credentials = credentials();
        let cut_off = excerpt.len() >= self.config.max_response_bytes;
        *excerpt = harmless(credentials.redact(std::mem::take(excerpt), cut_off));
        // The names may be longer than the values.
        excerpt.truncate(excerpt.floor_char_boundary(self.config.max_response_bytes));
        if let Some(failure) = failure {
            failure.message = credentials.redact(std::mem::take(&mut failure.message), false);
        }
        exchange
    }
}

/// A value as it stands inside a JSON string.
fn json_escaped(value: &str) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    let inside = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inside.unwrap_or_default().to_owned()
}

/// The text with the signing keys that begin with this replaced.
fn without_keys(text: &str, prefix: &str) -> String {
    let mut pieces = text.split(prefix);
    let mut clean = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        clean.push_str("[signing key]");
        let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/-_=\\".contains(c);
        clean.push_str(piece.trim_start_matches(is_base64));
    }
    clean
}

/// The text with a replacement character for each one that steers a terminal or reorders what is shown.
fn harmless(text: String) -> String {
    let harms = |c: char| match c {
        '\n' | '\t' | '\r' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    };
    if text.contains(harms) { text.replace(harms, "\u{fffd}") } else { text }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::deliver::Config;
    use crate::delivery::{Failure, FailureKind, Timings};

    fn on_record(excerpt: &str, max_response_bytes: usize) -> Exchange {
        let config = Config { max_response_bytes, ..Config::default() };
        let mut credentials = Credentials::default();
        credentials.add("header authorization", "Bearer s3cr3t-t0ken");
        credentials.add("token", "s3cr3t-t0ken");
        credentials.add("quoted", "a\"quoted\\one");
        credentials.add("short", "on");
        let exchange = Exchange {
            duration: Duration::ZERO,
            status: Some(500),
            failure: Some(Failure::new(FailureKind::Status, "said s3cr3t-t0ken")),
            excerpt: excerpt.to_owned(),
            retry_after: None,
            timings: Timings::default(),
        };
        Client::new(&config).unwrap().for_record(exchange, || credentials)
    }

    #[test]
    fn credentials_do_not_go_on_record() {
        for (excerpt, expected) in [
            ("fine", "fine"),
            ("carry on", "carry on"),
            ("got Bearer s3cr3t-t0ken!", "got [header authorization]!"),
            ("s3cr3t-t0ken s3cr3t-t0ken", "[token] [token]"),
            (r#"{"v":"a\"quoted\\one"}"#, r#"{"v":"[quoted]"}"#),
            ("key whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw==, ok", "key [signing key], ok"),
            ("whsec_AAAA whsk_BBBB", "[signing key] [signing key]"),
        ] {
            assert_eq!(on_record(excerpt, 1_000).excerpt, expected);
        }
        let failure = on_record("", 1_000).failure.unwrap();
        assert_eq!(failure.message, "said [token]");
    }

    #[test]
    fn the_beginning_of_a_credential_is_not_left_where_the_excerpt_ends() {
        assert_eq!(on_record("0123456789 s3cr3t-t0", 20).excerpt, "0123456789 [token]");
        assert_eq!(on_record("0123456789 Bearer s3", 20).excerpt, "0123456789 [header a");
        // It was not cut off.
        assert_eq!(on_record("0123456789 s3cr3t-t0", 100).excerpt, "0123456789 s3cr3t-t0");
    }

    #[test]
    fn what_steers_a_terminal_is_replaced_and_the_bound_is_kept() {
        assert_eq!(
            on_record("a\u{1b}[31m\r\n\tb\u{202e}\0", 100).excerpt,
            "a\u{fffd}[31m\r\n\tb\u{fffd}\u{fffd}"
        );
        assert_eq!(on_record(&"\0".repeat(50), 50).excerpt.len(), 48);
    }
}
