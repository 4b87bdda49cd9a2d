//! What an operation comes to, given what stands under its key: the same wherever keys are kept.

use std::time::Duration;

use jiff::Timestamp;

use super::{Answer, Entry, Operation, Outcome, Quota, Refusal};

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The value.
    pub value: String,
    /// When it is gone; never when absent.
    pub expires_at: Option<Timestamp>,
}

/// What an operation is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Leave(Outcome),
    /// Remove the key, if it is there.
    Remove(Answer),
    /// Put this under the key, if there is room for it.
    Put(Kept, Answer),
}

/// How much is kept, or more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Keys.
    pub keys: i64,
    /// The bytes of keys and values.
    pub bytes: i64,
}

impl Kept {
    /// Whether it is there at this time.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }
}

impl Operation {
    /// What to do with what stands under the key at this time.
    #[must_use]
    pub fn decide(&self, live: Option<&Kept>, now: Timestamp) -> Decision {
        let expiry = |ttl: Option<u64>| {
            let at = |ttl| now.checked_add(Duration::from_secs(ttl)).unwrap_or(Timestamp::MAX);
            ttl.map(at)
        };
        let put = |Entry { value, ttl_seconds }: &Entry, answer| {
            let kept = Kept { value: value.clone(), expires_at: expiry(*ttl_seconds) };
            Decision::Put(kept, answer)
        };
        match self {
            Self::Get => Decision::Leave(Ok(Answer::Value(live.map(|kept| kept.value.clone())))),
            Self::Set(entry) => put(entry, Answer::Done),
            Self::SetIfAbsent(_) if live.is_some() => Decision::Leave(Ok(Answer::Changed(false))),
            Self::SetIfAbsent(entry) => put(entry, Answer::Changed(true)),
            Self::Delete => Decision::Remove(Answer::Changed(live.is_some())),
            Self::Add { delta, ttl_seconds } => match sum(live, *delta) {
                Ok(sum) => {
                    let expires_at = live.map_or_else(|| expiry(*ttl_seconds), |it| it.expires_at);
                    Decision::Put(Kept { value: sum.to_string(), expires_at }, Answer::Sum(sum))
                }
                Err(refusal) => Decision::Leave(Err(refusal)),
            },
        }
    }
}

fn sum(live: Option<&Kept>, delta: i64) -> Result<i64, Refusal> {
    let Some(kept) = live else { return Ok(delta) };
    let number: i64 = kept
        .value
        .parse()
        .map_err(|_| Refusal::NotANumber("the key's value is no integer of 64 bits".to_owned()))?;
    number
        .checked_add(delta)
        .ok_or_else(|| Refusal::NotANumber(format!("{number} + {delta} is over 64 bits")))
}

impl Quota {
    /// Whether there is room for this much more. What makes it no fuller is always possible.
    ///
    /// # Errors
    /// When there is not.
    pub fn admit(self, held: Held, more: Held) -> Result<(), Refusal> {
        let fits = |held: i64, more: i64, quota: u64| {
            more <= 0 || held.saturating_add(more) <= i64::try_from(quota).unwrap_or(i64::MAX)
        };
        if fits(held.keys, more.keys, self.keys) && fits(held.bytes, more.bytes, self.bytes) {
            return Ok(());
        }
        let Held { keys, bytes } = held;
        Err(Refusal::Quota(format!(
            "the plugin keeps {keys} keys and {bytes} bytes for this tenant; its limits are {} keys \
             and {} bytes",
            self.keys, self.bytes
        )))
    }
}
