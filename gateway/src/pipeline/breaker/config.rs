//! When breakers trip, and how they let go.

use std::time::Duration;

/// Releases a second that are taken from the store one by one; more are taken together.
const STEPS_PER_SECOND: u32 = 10;

/// When breakers trip, and how they let go.
#[derive(Debug, Clone)]
pub struct Config {
    /// Deliveries that have to fail in a row.
    pub failures: usize,
    /// How long to wait before trying whether one that is held still fails.
    pub probe: Duration,
    /// Held deliveries that are released a second, beside as many as are held meanwhile.
    pub release_per_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { failures: 10, probe: Duration::from_secs(5 * 60), release_per_second: 100 }
    }
}

impl Config {
    /// How many are released in one step.
    pub(super) fn batch(&self) -> u32 {
        self.release_per_second.div_ceil(STEPS_PER_SECOND).max(1)
    }

    /// The time from one step to the next.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_secs(1) * self.batch() / self.release_per_second.max(1)
    }
}
