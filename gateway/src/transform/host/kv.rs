//! `kv`: checks an operation's sizes, gives it its place in the run, and waits for what it comes to.

use jiff::Timestamp;

use super::contract::hookmill::plugin::kv::{Error, Host};
use crate::kv::{
    Answer, Entry, MAX_KEY_BYTES, MAX_VALUE_BYTES, Observed, Operation, Refusal, Request,
};
use crate::transform::host::Session;
use crate::transform::state::State;

/// What a host function gives: an error of the engine ends the call, an error of `kv` goes to the plugin.
type Outcome<T> = wasmtime::Result<Result<T, Error>>;

impl Host for State {
    async fn get(&mut self, key: String) -> Outcome<Option<String>> {
        self.operate(key, Operation::Get, |answer| match answer {
            Answer::Value(value) => Some(value),
            _ => None,
        })
        .await
    }

    async fn set(&mut self, key: String, value: String, ttl_seconds: Option<u64>) -> Outcome<()> {
        let operation = Operation::Set(Entry { value, ttl_seconds });
        self.operate(key, operation, |answer| (answer == Answer::Done).then_some(())).await
    }

    async fn set_if_absent(
        &mut self,
        key: String,
        value: String,
        ttl_seconds: Option<u64>,
    ) -> Outcome<bool> {
        let operation = Operation::SetIfAbsent(Entry { value, ttl_seconds });
        self.operate(key, operation, |answer| changed(&answer)).await
    }

    async fn delete(&mut self, key: String) -> Outcome<bool> {
        self.operate(key, Operation::Delete, |answer| changed(&answer)).await
    }

    async fn add(&mut self, key: String, delta: i64, ttl_seconds: Option<u64>) -> Outcome<i64> {
        self.operate(key, Operation::Add { delta, ttl_seconds }, |answer| match answer {
            Answer::Sum(sum) => Some(sum),
            _ => None,
        })
        .await
    }
}

fn changed(answer: &Answer) -> Option<bool> {
    match answer {
        Answer::Changed(changed) => Some(*changed),
        _ => None,
    }
}

impl State {
    /// Does an operation; `read` takes out of the answer what operations of its kind answer.
    async fn operate<T>(
        &mut self,
        key: String,
        operation: Operation,
        read: fn(Answer) -> Option<T>,
    ) -> Outcome<T> {
        let session = self.session()?;
        let Some(services) = session.services() else {
            return Ok(Err(Error::Unavailable("there is no store here".to_owned())));
        };
        if let Err(error) = session.admit(&key, &operation) {
            return Ok(Err(error));
        }
        let request = session.request(key, operation);
        let asked = (request.key.clone(), request.occurrence, request.operation == Operation::Get);
        let outcome = match self.wait(services.keys.operate(request)).await? {
            Ok(outcome) => outcome,
            Err(message) => return Ok(Err(Error::Unavailable(message))),
        };
        let session = self.session_again()?;
        match (asked, &outcome) {
            ((key, occurrence, true), Ok(Answer::Value(value))) => {
                session.received(value.as_deref());
                session.observed.push(Observed { key, occurrence, value: value.clone() });
            }
            // A change is kept along with all that was read before it.
            _ => session.observed.clear(),
        }
        Ok(match outcome {
            Ok(answer) => read(answer).ok_or_else(|| {
                Error::Other("the store's answer is another operation's".to_owned())
            }),
            Err(Refusal::Quota(message)) => Err(Error::Quota(message)),
            Err(Refusal::NotANumber(message)) => Err(Error::NotANumber(message)),
        })
    }
}

impl Session {
    /// Checks what can be told without the store.
    fn admit(&mut self, key: &str, operation: &Operation) -> Result<(), Error> {
        let value = match operation {
            Operation::Set(entry) | Operation::SetIfAbsent(entry) => entry.value.as_str(),
            Operation::Get | Operation::Delete | Operation::Add { .. } => "",
        };
        if key.is_empty() {
            return Err(Error::TooLarge("the key is empty".to_owned()));
        }
        if key.len() > MAX_KEY_BYTES {
            let len = key.len();
            return Err(Error::TooLarge(format!(
                "the key has {len} bytes; the limit is {MAX_KEY_BYTES}"
            )));
        }
        if value.len() > MAX_VALUE_BYTES {
            let len = value.len();
            return Err(Error::TooLarge(format!(
                "the value has {len} bytes; the limit is {MAX_VALUE_BYTES}"
            )));
        }
        let moved = key.len().saturating_add(value.len());
        match self.left.kv_bytes.checked_sub(moved) {
            Some(left) => {
                self.left.kv_bytes = left;
                Ok(())
            }
            None => Err(Error::Quota(format!(
                "the call moved more than {} bytes of keys and values",
                Self::KV_BYTES
            ))),
        }
    }

    /// Charges what was read.
    fn received(&mut self, value: Option<&str>) {
        self.left.kv_bytes = self.left.kv_bytes.saturating_sub(value.map_or(0, str::len));
    }

    /// The operation with its place in the run.
    fn request(&mut self, key: String, operation: Operation) -> Request {
        let occurrence = self.occurrence(operation.name(), &key);
        let observed = match operation {
            Operation::Get => Vec::new(),
            // Copied: it is needed again when the store cannot answer.
            _ => self.observed.clone(),
        };
        Request {
            scope: self.scope().clone(),
            run: self.about().run,
            operation,
            key,
            occurrence,
            observed,
            quota: self.quota(),
            now: Timestamp::now(),
        }
    }
}
