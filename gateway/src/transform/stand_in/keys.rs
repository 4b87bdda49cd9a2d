//! Keys and values in memory, for one plugin and one tenant.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::kv::{Decision, Held, Kept, Outcome, Request};
use crate::transform::Keys;

/// Keys and values, as they were at first and as they are now. Every run is made once here, so nothing has to be
/// remembered for its repetition.
pub(super) struct MemoryKeys {
    /// The time by which they expire; that of each operation when absent.
    time: Option<Timestamp>,
    first: BTreeMap<String, String>,
    now: Mutex<Contents>,
}

struct Contents {
    keys: BTreeMap<String, Kept>,
    held: Held,
}

impl MemoryKeys {
    pub(super) fn new(first: &BTreeMap<String, String>, time: Option<Timestamp>) -> Self {
        let kept = |(key, value): (String, String)| (key, Kept { value, expires_at: None });
        let mut contents =
            Contents { keys: first.clone().into_iter().map(kept).collect(), held: Held::default() };
        contents.count();
        Self { time, first: first.clone(), now: Mutex::new(contents) }
    }

    /// The keys that are not as they were at first.
    pub(super) fn changed(&self) -> BTreeMap<String, Option<String>> {
        let contents = self.lock();
        let removed = self.first.keys().filter(|key| !contents.keys.contains_key(*key));
        let set =
            contents.keys.iter().filter(|(key, kept)| self.first.get(*key) != Some(&kept.value));
        removed
            .map(|key| (key.clone(), None))
            .chain(set.map(|(key, kept)| (key.clone(), Some(kept.value.clone()))))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys for MemoryKeys {
    fn operate(&self, request: Request) -> BoxFuture<'_, Result<Outcome, String>> {
        let now = self.time.unwrap_or(request.now);
        let outcome = self.lock().apply(&request, now);
        Box::pin(std::future::ready(Ok(outcome)))
    }
}

impl Contents {
    fn apply(&mut self, request: &Request, now: Timestamp) -> Outcome {
        let before = self.keys.get(&request.key);
        let live = before.filter(|kept| kept.is_live(now));
        match request.operation.decide(live, now) {
            Decision::Leave(outcome) => outcome,
            Decision::Remove(answer) => {
                if let Some(removed) = self.keys.remove(&request.key) {
                    self.held.keys -= 1;
                    self.held.bytes -= size(&request.key, &removed);
                }
                Ok(answer)
            }
            Decision::Put(kept, answer) => {
                let more = Held {
                    keys: i64::from(before.is_none()),
                    bytes: size(&request.key, &kept)
                        - before.map_or(0, |before| size(&request.key, before)),
                };
                if let Err(refusal) = request.quota.admit(self.held, more) {
                    // The key's own value may be among those that have expired, so all is looked at again.
                    return if self.sweep(now) { self.apply(request, now) } else { Err(refusal) };
                }
                self.held.keys += more.keys;
                self.held.bytes += more.bytes;
                self.keys.insert(request.key.clone(), kept);
                Ok(answer)
            }
        }
    }

    /// Removes what has expired; false if there was nothing.
    fn sweep(&mut self, now: Timestamp) -> bool {
        let before = self.keys.len();
        self.keys.retain(|_, kept| kept.is_live(now));
        self.count();
        self.keys.len() < before
    }

    fn count(&mut self) {
        self.held = Held {
            keys: i64::try_from(self.keys.len()).unwrap_or(i64::MAX),
            bytes: self.keys.iter().map(|(key, kept)| size(key, kept)).sum(),
        };
    }
}

fn size(key: &str, kept: &Kept) -> i64 {
    i64::try_from(key.len().saturating_add(kept.value.len())).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::DeliveryId;
    use crate::kv::{Answer, Entry, Operation, Quota, Refusal, Run, Scope};

    const QUOTA: Quota = Quota { keys: 2, bytes: 20 };

    fn keys(first: &[(&str, &str)], time: Option<&str>) -> MemoryKeys {
        let first = first.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        MemoryKeys::new(&first.collect(), time.map(|time| time.parse().unwrap()))
    }

    async fn at(keys: &MemoryKeys, second: i64, key: &str, operation: Operation) -> Outcome {
        let run = Run { delivery: DeliveryId::generate(), step: 0, part: 0 };
        let request = Request {
            scope: Scope { tenant: "acme".into(), plugin: "p".into() },
            run,
            operation,
            key: key.to_owned(),
            occurrence: 0,
            observed: Vec::new(),
            quota: QUOTA,
            now: Timestamp::from_second(second).unwrap(),
        };
        keys.operate(request).await.unwrap()
    }

    fn set(value: &str, ttl_seconds: Option<u64>) -> Operation {
        Operation::Set(Entry { value: value.to_owned(), ttl_seconds })
    }

    fn value(value: Option<&str>) -> Outcome {
        Ok(Answer::Value(value.map(str::to_owned)))
    }

    #[tokio::test]
    async fn operations_answer_as_the_store_does() {
        let keys = keys(&[("n", "41"), ("x", "y")], None);
        let add = |delta| Operation::Add { delta, ttl_seconds: None };
        assert_eq!(at(&keys, 0, "n", add(1)).await, Ok(Answer::Sum(42)));
        assert_eq!(at(&keys, 0, "n", Operation::Get).await, value(Some("42")));
        assert!(matches!(at(&keys, 0, "x", add(1)).await, Err(Refusal::NotANumber(_))));
        assert!(matches!(at(&keys, 0, "n", add(i64::MAX)).await, Err(Refusal::NotANumber(_))));
        let entry = Entry { value: "z".to_owned(), ttl_seconds: None };
        let absent = at(&keys, 0, "x", Operation::SetIfAbsent(entry)).await;
        assert_eq!(absent, Ok(Answer::Changed(false)));
        assert_eq!(at(&keys, 0, "x", Operation::Delete).await, Ok(Answer::Changed(true)));
        assert_eq!(at(&keys, 0, "x", Operation::Delete).await, Ok(Answer::Changed(false)));
        assert_eq!(at(&keys, 0, "x", Operation::Get).await, value(None));
        let changed: Vec<_> = keys.changed().into_iter().collect();
        assert_eq!(changed, [("n".to_owned(), Some("42".to_owned())), ("x".to_owned(), None)]);
    }

    #[tokio::test]
    async fn keys_expire_by_the_time_of_the_operation_or_not_at_all() {
        let moving = keys(&[], None);
        assert_eq!(at(&moving, 0, "k", set("v", Some(10))).await, Ok(Answer::Done));
        assert_eq!(at(&moving, 9, "k", Operation::Get).await, value(Some("v")));
        assert_eq!(at(&moving, 10, "k", Operation::Get).await, value(None));
        assert_eq!(at(&moving, 10, "k", Operation::Delete).await, Ok(Answer::Changed(false)));

        let standing = keys(&[], Some("2026-01-02T03:04:05Z"));
        assert_eq!(at(&standing, 0, "k", set("v", Some(10))).await, Ok(Answer::Done));
        assert_eq!(at(&standing, 1 << 32, "k", Operation::Get).await, value(Some("v")));
        assert_eq!(at(&standing, 0, "k", set("v", Some(0))).await, Ok(Answer::Done));
        assert_eq!(at(&standing, 0, "k", Operation::Get).await, value(None));
    }

    #[tokio::test]
    async fn the_quota_counts_what_was_there_and_what_expires_makes_room() {
        let keys = keys(&[("a", "1")], None);
        assert_eq!(at(&keys, 0, "b", set("2", Some(10))).await, Ok(Answer::Done));
        let refused = at(&keys, 0, "c", set("3", None)).await.unwrap_err();
        let Refusal::Quota(message) = &refused else { panic!("{refused:?}") };
        assert!(message.contains("keeps 2 keys and 4 bytes"), "{message}");
        assert_eq!(at(&keys, 0, "a", set(&"x".repeat(17), None)).await, Ok(Answer::Done));
        assert!(at(&keys, 0, "a", set(&"x".repeat(18), None)).await.is_err());
        assert_eq!(at(&keys, 10, "c", set("3", None)).await, Ok(Answer::Done));
        assert_eq!(at(&keys, 10, "a", Operation::Delete).await, Ok(Answer::Changed(true)));
        assert_eq!(at(&keys, 10, "d", set(&"x".repeat(17), None)).await, Ok(Answer::Done));
    }
}
