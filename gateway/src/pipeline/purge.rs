//! Purges: removes what somebody asked to have removed, step by step beside the work of the day.
//!
//! What is purged is cancelled first. An attempt that is under way may still arrive, but nothing of it is recorded; what
//! waits in memory is not begun any more.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use super::Pipeline;
use crate::delivery::DeliveryId;
use crate::failpoint::{self, Point};
use crate::record::{NewPurge, PurgeBegun, PurgeId, Purged, StoreError, Waiting};
use crate::shutdown::Drain;

/// How long to leave purges alone when each of them waits for readers. To wait for those holds up what is written.
const WAIT: Duration = Duration::from_secs(1);

/// How long to leave a store alone that failed.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// What the pipeline knows of purges.
#[derive(Debug, Default)]
pub(super) struct Purges {
    begun: Notify,
    /// Whether `in_hand` has any.
    any: AtomicBool,
    /// Deliveries that are gone, and that may still be in hand here. One that was through already stays until
    /// the next start.
    in_hand: Mutex<HashSet<DeliveryId>>,
}

impl Purges {
    fn add(&self, deliveries: Vec<DeliveryId>) {
        if deliveries.is_empty() {
            return;
        }
        self.in_hand().extend(deliveries);
        self.any.store(true, Ordering::Release);
    }

    /// Whether a delivery is gone; it is forgotten then.
    pub(super) fn take(&self, delivery: DeliveryId) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let mut in_hand = self.in_hand();
        let gone = in_hand.remove(&delivery);
        self.any.store(!in_hand.is_empty(), Ordering::Release);
        gone
    }

    fn in_hand(&self) -> MutexGuard<'_, HashSet<DeliveryId>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of a turn.
enum Turn {
    /// There was something to do.
    Worked,
    /// Every open purge waits.
    Waits,
    /// No purge is open.
    Idle,
}

/// Purges until the drain begins; what is left goes on after the next start.
pub(super) async fn run(pipeline: Pipeline, drain: Drain) {
    let purging = async {
        loop {
            match turn(&pipeline).await {
                Ok(Turn::Worked) => tokio::task::yield_now().await,
                Ok(Turn::Waits) => tokio::time::sleep(WAIT).await,
                Ok(Turn::Idle) => pipeline.0.purges.begun.notified().await,
                Err(error) => {
                    tracing::error!(%error, "purges do not get on; trying again");
                    tokio::time::sleep(AFTER_ERROR).await;
                    // An answer that was lost may have told of queues that moved.
                    if let Ok(waiting) = pipeline.0.store.waiting().await {
                        let alarm = &pipeline.0.alarm;
                        let due = waiting.iter();
                        due.for_each(|Waiting { webhook, next_due }| alarm.due(webhook, *next_due));
                    }
                }
            }
        }
    };
    tokio::select! {
        () = purging => {}
        () = drain.begun() => {}
    }
}

/// One step of each open purge.
async fn turn(pipeline: &Pipeline) -> Result<Turn, StoreError> {
    let mut turn = Turn::Idle;
    for id in pipeline.0.store.open_purges().await? {
        match step(pipeline, id).await? {
            true if matches!(turn, Turn::Idle) => turn = Turn::Waits,
            true => {}
            false => turn = Turn::Worked,
        }
    }
    Ok(turn)
}

/// One step of a purge; true when it waits.
async fn step(pipeline: &Pipeline, id: PurgeId) -> Result<bool, StoreError> {
    let stepped = pipeline.0.store.step_purge(id, Timestamp::now()).await?;
    failpoint::hit(Point::PurgeCommitted);
    let Purged { purge, in_hand, given_up, moved, waits } = stepped;
    pipeline.0.purges.add(in_hand);
    pipeline.0.backlog.less(&purge.tenant, usize::try_from(given_up).unwrap_or(usize::MAX));
    moved.iter().for_each(|webhook| pipeline.0.alarm.due(webhook, Timestamp::now()));
    if purge.ended_at.is_some() {
        let (tenant, events) = (&purge.tenant, purge.done);
        tracing::info!(purge = %id, %tenant, events, "the purge is through; nothing is left");
    }
    Ok(waits)
}

impl Pipeline {
    /// Keeps a purge, which then begins.
    ///
    /// # Errors
    /// When the store cannot keep it.
    pub async fn begin_purge(&self, purge: NewPurge) -> Result<PurgeBegun, StoreError> {
        let (id, tenant) = (purge.id, Arc::clone(&purge.tenant));
        let begun = self.0.store.begin_purge(purge).await?;
        if let PurgeBegun::New(_) = &begun {
            tracing::info!(purge = %id, %tenant, "a purge begins");
        }
        self.0.purges.begun.notify_one();
        Ok(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_gone_once() {
        let purges = Purges::default();
        let (gone, other) = (DeliveryId::generate(), DeliveryId::generate());
        purges.add(Vec::new());
        assert!(!purges.take(gone));
        purges.add(vec![gone]);
        assert!(!purges.take(other));
        assert!(purges.take(gone));
        assert!(!purges.take(gone));
    }
}
