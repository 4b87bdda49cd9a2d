//! Random numbers that a seed repeats (SplitMix64).

use std::sync::Mutex;
use std::time::SystemTime;

/// A source of random numbers that tasks can share.
#[derive(Debug)]
pub struct Dice {
    /// What they grow from; said along with a failure, it makes most of it happen again.
    pub seed: u64,
    state: Mutex<u64>,
}

impl Dice {
    /// Those of this seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self { seed, state: Mutex::new(seed) }
    }

    /// Those of a seed that differs from run to run.
    #[must_use]
    pub fn fresh() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Self::of(now.as_secs() << 20 | u64::from(now.subsec_micros()))
    }

    /// A number below `limit`.
    pub fn below(&self, limit: u64) -> u64 {
        let mut state = self.state.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }

    /// True in so many of a hundred cases.
    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
