//! The snapshot that is in force, swapped whole.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::Snapshot;

/// The current snapshot. Cheap to clone; all clones see the same one.
#[derive(Debug, Clone)]
pub struct Current {
    snapshot: Arc<ArcSwap<Snapshot>>,
    /// How often it was replaced.
    replaced: watch::Sender<u64>,
}

impl Current {
    /// Begins with this snapshot.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        Self { snapshot, replaced: watch::Sender::new(0) }
    }

    /// The snapshot as of now.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Replaces it. What is under way keeps the one that it has.
    pub fn store(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.replaced.send_modify(|times| *times += 1);
    }

    /// Counts how often it was replaced. Whoever sees a count sees a snapshot at least that new.
    #[must_use]
    pub fn replacements(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }
}
