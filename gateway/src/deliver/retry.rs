//! The retry schedule: when, if ever, to try again.

use std::time::Duration;

/// How long to wait after each failed attempt; after the last wait's attempt, the delivery is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    delays: Vec<Duration>,
}

/// The share of a delay that jitter may add. It only ever adds, so no retry comes early.
const MAX_JITTER: f64 = 0.2;

impl Default for Schedule {
    /// The example schedule of Standard Webhooks 1.0.0: ten attempts over about 76 hours.
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let seconds = [
            5,
            5 * MINUTE,
            30 * MINUTE,
            2 * HOUR,
            5 * HOUR,
            10 * HOUR,
            14 * HOUR,
            20 * HOUR,
            24 * HOUR,
        ];
        Self { delays: seconds.into_iter().map(Duration::from_secs).collect() }
    }
}

impl Schedule {
    /// A schedule with these delays; without any, the first attempt is the only one.
    #[must_use]
    pub fn new(delays: Vec<Duration>) -> Self {
        Self { delays }
    }

    /// How long to wait after `attempts` failed attempts; none when there is to be no other.
    ///
    /// `jitter` is a random number from 0 to 1: receivers that failed together are not tried together.
    #[must_use]
    pub fn delay_after(&self, attempts: u32, jitter: f64) -> Option<Duration> {
        let index = usize::try_from(attempts.checked_sub(1)?).ok()?;
        let delay = *self.delays.get(index)?;
        Some(delay + delay.mul_f64(MAX_JITTER * jitter.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_makes_ten_attempts_over_some_three_days() {
        let schedule = Schedule::default();
        let total: Duration = (1..).map_while(|n| schedule.delay_after(n, 0.0)).sum();
        assert_eq!(total.as_secs(), 5 + 5 * 60 + 30 * 60 + (2 + 5 + 10 + 14 + 20 + 24) * 3600);
        assert!(schedule.delay_after(9, 0.0).is_some());
        assert_eq!(schedule.delay_after(10, 0.0), None);
    }

    proptest! {
        #[test]
        fn jitter_only_adds_and_stays_bounded(
            millis in 0u64..1_000_000_000, attempts in 1u32..4, jitter in 0.0f64..=1.0,
        ) {
            let delay = Duration::from_millis(millis);
            let schedule = Schedule::new(vec![delay; 3]);
            let waited = schedule.delay_after(attempts, jitter).unwrap();
            prop_assert!(waited >= delay);
            prop_assert!(waited <= delay.mul_f64(1.0 + MAX_JITTER) + Duration::from_nanos(1));
        }
    }
}
