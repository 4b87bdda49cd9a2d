//! Patience: whether the calls of a plugin are expected to be brief, from what the last ones were.

use std::sync::atomic::{AtomicU32, Ordering};

/// Brief calls in a row after which one is expected to be brief again.
const CALLS: u32 = 256;

/// How many more calls get a fibre at once. All calls of a plugin share it; it is a guess that costs a
/// little time when it is wrong, so nothing orders what calls at the same time make of it.
#[derive(Debug, Default)]
pub(super) struct Patience(AtomicU32);

impl Patience {
    pub(super) fn is_brief(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    pub(super) fn took_long(&self) {
        self.0.store(CALLS, Ordering::Relaxed);
    }

    pub(super) fn was_brief(&self) {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_long_call_is_remembered_for_many() {
        let patience = Patience::default();
        assert!(patience.is_brief());
        patience.was_brief();
        patience.took_long();
        for _ in 0..CALLS {
            assert!(!patience.is_brief());
            patience.was_brief();
        }
        assert!(patience.is_brief());
    }
}
