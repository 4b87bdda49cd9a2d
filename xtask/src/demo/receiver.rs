//! The receiver: `hookmill listen --json`, and all that it has told so far.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use serde_json::value::RawValue;

use crate::layout;
use crate::process::Process;
use crate::report;

/// A running receiver.
pub(super) struct Receiver {
    pub(super) url: String,
    pub(super) process: Process,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

/// A request that came to the receiver.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) key: MessageKey,
    pub(super) verified: bool,
    /// Why it was not verified.
    reason: String,
    /// JSON on one line, as it came.
    pub(super) body: String,
}

/// What a receiver tells messages apart by: where they came, and their `webhook-id`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct MessageKey {
    /// Tenant and webhook, the first two names of the path.
    pub(super) webhook: String,
    pub(super) id: String,
}

impl Receiver {
    pub(super) fn start(hookmill: &Path, secrets: &[&str], log: PathBuf) -> Result<Self> {
        let mut command = Command::new(hookmill);
        command.args(["listen", "--json", "--port", "0"]);
        for secret in secrets {
            command.args(["--secret", secret]);
        }
        let mut process = Process::start("the receiver", &mut command, log)?;
        let url = process.address("{\"listening\":\"", "\"")?;
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let lines = process.lines();
        let told = Arc::clone(&arrivals);
        thread::spawn(move || {
            for arrival in lines.iter().filter_map(|line| Arrival::read(&line)) {
                told.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
            }
        });
        Ok(Self { url, process, arrivals })
    }

    /// How many requests have come.
    pub(super) fn count(&self) -> usize {
        self.locked(|arrivals| arrivals.len())
    }

    /// Those after the first `seen`.
    pub(super) fn since(&self, seen: usize) -> Vec<Arrival> {
        self.locked(|arrivals| arrivals.iter().skip(seen).cloned().collect())
    }

    /// The first that carried this message.
    pub(super) fn find(&self, key: &MessageKey) -> Option<Arrival> {
        self.locked(|arrivals| arrivals.iter().find(|one| one.key == *key).cloned())
    }

    fn locked<T>(&self, look: impl FnOnce(&[Arrival]) -> T) -> T {
        look(&self.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Arrival {
    /// Reads a line of the receiver's; nothing from one that is not about a request.
    fn read(line: &str) -> Option<Self> {
        let members: HashMap<String, Box<RawValue>> = serde_json::from_str(line).ok()?;
        let text = |name| serde_json::from_str::<String>(members.get(name)?.get()).ok();
        let path = text("path")?;
        let mut names = path.split('/').skip(1);
        Some(Self {
            key: MessageKey {
                webhook: format!("{}/{}", names.next()?, names.next()?),
                id: text("id").unwrap_or_default(),
            },
            verified: members.get("verified")?.get() == "true",
            reason: text("reason").unwrap_or_default(),
            body: layout::compact(members.get("body")?.get()),
        })
    }

    /// A few lines for people.
    pub(super) fn describe(&self) -> String {
        let MessageKey { webhook, id } = &self.key;
        let verified = self.signature();
        let body = layout::pretty(&self.body);
        format!("{} {id}  {verified}\n{body}\n", report::strong(webhook))
    }

    /// Whether the signature is good, for people.
    pub(super) fn signature(&self) -> String {
        if self.verified {
            report::good("signature verified")
        } else {
            report::bad(&format!("NOT VERIFIED: {}", self.reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_about_a_request_is_read() {
        let line = r#"{"received_at":"t","method":"POST","path":"/acme/stream/delay/20ms","headers":{},"id":"evt_1","verified":true,"reason":null,"answered":200,"body":{"b":1.50,"a":2}}"#;
        let arrival = Arrival::read(line).unwrap();
        assert_eq!(arrival.key.webhook, "acme/stream");
        assert_eq!(arrival.key.id, "evt_1");
        assert!(arrival.verified);
        assert_eq!(arrival.body, r#"{"b":1.50,"a":2}"#);
        assert!(Arrival::read(r#"{"summary":{"received":1}}"#).is_none());
    }
}
