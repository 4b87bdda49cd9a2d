//! What is under way: jobs start as long as more may run, and each one that ends lets others start.

use super::ready::{Job, Slot};
use super::{Pipeline, dispatch};

impl Pipeline {
    /// Queues jobs and starts as many as may run.
    pub(super) fn begin(&self, jobs: impl Iterator<Item = Job>) {
        jobs.for_each(|job| self.0.ready.push(job));
        self.pump();
    }

    /// Starts waiting jobs as long as more may run.
    pub(super) fn pump(&self) {
        while let Some(job) = self.0.ready.next() {
            let Job { event, delivery, slot, turn } = job;
            let under_way = UnderWay { slot: Some(slot), pipeline: self.clone() };
            let pipeline = self.clone();
            tokio::spawn(async move {
                dispatch::run(&pipeline, event, delivery, turn).await;
                drop(under_way);
            });
        }
    }
}

/// A job under way. Dropping it gives its slot back and starts what waited for it, panics included.
struct UnderWay {
    slot: Option<Slot>,
    pipeline: Pipeline,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        drop(self.slot.take());
        self.pipeline.pump();
    }
}
