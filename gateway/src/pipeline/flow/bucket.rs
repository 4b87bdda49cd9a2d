//! A token bucket: how often something may happen. A pure state machine; the time is passed in.

use std::time::Duration;

use tokio::time::Instant;

use crate::snapshot::RateLimit;

/// The time that a token is worth.
fn interval(rate: RateLimit) -> Duration {
    Duration::from_secs(1) / rate.per_second.max(1)
}

/// How much time the tokens of a full bucket are worth, but for one.
fn slack(rate: RateLimit) -> Duration {
    interval(rate) * rate.burst.max(1).saturating_sub(1)
}

/// How much can begin within a second.
pub(super) fn window(rate: RateLimit) -> usize {
    usize::try_from(rate.per_second.saturating_add(rate.burst)).unwrap_or(usize::MAX)
}

/// The tokens that are left, as the time at which the bucket is full again. The rate is not part of it, and may
/// change from one call to the next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// When there is a token, if there is none now.
    pub(super) fn wait(self, rate: RateLimit, now: Instant) -> Option<Instant> {
        let full_at = self.full_at?;
        let ahead = full_at.saturating_duration_since(now).saturating_sub(slack(rate));
        (!ahead.is_zero()).then(|| now + ahead)
    }

    /// Takes a token, whether there is one or not.
    pub(super) fn take(&mut self, rate: RateLimit, now: Instant) {
        let from = self.full_at.map_or(now, |full_at| full_at.max(now));
        self.full_at = Some(from + interval(rate));
    }

    /// Whether nothing has to be remembered.
    pub(super) fn is_full(self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_then_the_rate_holds() {
        let rate = RateLimit { per_second: 10, burst: 3 };
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        for _ in 0..3 {
            assert_eq!(bucket.wait(rate, now), None);
            bucket.take(rate, now);
        }
        let next = now + Duration::from_millis(100);
        assert_eq!(bucket.wait(rate, now), Some(next));
        assert_eq!(bucket.wait(rate, next), None);
        assert!(!bucket.is_full(next));
        assert!(bucket.is_full(now + Duration::from_millis(300)));
    }

    proptest! {
        #[test]
        fn no_more_begins_than_the_rate_allows_and_no_less(
            per_second in 1u32..2_000,
            burst in 1u32..50,
            pauses in prop::collection::vec(0u64..200_000, 1..200),
        ) {
            let rate = RateLimit { per_second, burst };
            let begin = Instant::now();
            let (mut bucket, mut now) = (Bucket::default(), begin);
            let mut taken: Vec<Instant> = Vec::new();
            for pause in pauses {
                now += Duration::from_micros(pause);
                // Waiting as long as it says is always enough.
                if let Some(at) = bucket.wait(rate, now) {
                    prop_assert!(at > now && at <= now + interval(rate));
                    now = at;
                }
                prop_assert_eq!(bucket.wait(rate, now), None);
                bucket.take(rate, now);
                taken.push(now);
            }
            for (first, begin) in taken.iter().enumerate() {
                for (count, end) in (1u32..).zip(&taken[first..]) {
                    let needed = interval(rate) * count.saturating_sub(burst);
                    prop_assert!(*end - *begin >= needed, "{count} in {:?}", *end - *begin);
                }
            }
        }
    }
}
