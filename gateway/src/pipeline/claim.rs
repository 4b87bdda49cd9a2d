//! Claiming: brings due deliveries from the store, when one falls due or room is made. Nothing polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use super::breaker::Turn;
use super::ready::Job;
use super::{Pipeline, size};
use crate::failpoint::{self, Point};
use crate::record::StoreError;
use crate::shutdown::Drain;

/// Deliveries claimed in one go.
const BATCH: usize = 256;

/// The longest sleep. Due times are wall-clock times, and the wall clock can be set.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// How long to leave a store alone that failed.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// Wakes the claimer. Knows when it will wake by itself, so that it is not woken for less.
pub(super) struct Alarm {
    bell: Notify,
    /// Microseconds since 1970; `i64::MAX` while the claimer is not asleep.
    wakes_at: AtomicI64,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { bell: Notify::new(), wakes_at: AtomicI64::new(i64::MAX) }
    }
}

impl Alarm {
    /// Something may be due now.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Something will be due then.
    pub(super) fn due(&self, at: Timestamp) {
        let at = at.as_microsecond();
        if at < self.wakes_at.fetch_min(at, Ordering::SeqCst) {
            self.bell.notify_one();
        }
    }

    /// Sleeps until `next_due`, or what became due earlier, or until it rings.
    async fn sleep(&self, next_due: Option<Timestamp>) {
        let next_due = next_due.map_or(i64::MAX, Timestamp::as_microsecond);
        let wakes_at = self.wakes_at.fetch_min(next_due, Ordering::SeqCst).min(next_due);
        let micros = wakes_at.saturating_sub(Timestamp::now().as_microsecond());
        let duration = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        // Ringing and waking come to the same: look what is due.
        drop(tokio::time::timeout(duration.min(MAX_SLEEP), self.rung()).await);
    }

    /// Waits until it rings, or finds that it has rung.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// From here on everything that becomes due rings, until the next sleep.
    fn awake(&self) {
        self.wakes_at.store(i64::MAX, Ordering::SeqCst);
    }
}

/// Claims what is due until the drain begins; then hands back what waits, and lets what is under way end.
pub(super) async fn run(pipeline: Pipeline, drain: Drain) {
    let claiming = async {
        loop {
            match claim(&pipeline).await {
                Ok(next_due) => pipeline.0.alarm.sleep(next_due).await,
                Err(error) => {
                    tracing::error!(%error, "due deliveries cannot be read; trying again");
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        }
    };
    tokio::select! {
        () = claiming => {}
        () = drain.begun() => {}
    }
    let waiting = pipeline.0.ready.close();
    // What was held before is left in hand: the next start finds it there, and can hold it in its place.
    let own = waiting.iter().filter(|job| job.turn == Turn::Own);
    let waiting: Vec<_> = own.map(|job| job.delivery.id).collect();
    if !waiting.is_empty()
        && let Err(error) = pipeline.0.store.release(waiting).await
    {
        tracing::warn!(%error, "waiting deliveries are not handed back; the next start finds them");
    }
    pipeline.0.ready.idle().await;
    drop(drain);
}

/// Claims as long as something is due and there is room; gives the next due time.
async fn claim(pipeline: &Pipeline) -> Result<Option<Timestamp>, StoreError> {
    loop {
        pipeline.0.alarm.awake();
        let (room, full) = pipeline.0.ready.room();
        if room == 0 {
            // Whoever makes room rings.
            return Ok(None);
        }
        let limit = room.min(BATCH);
        // In a task of its own: what is claimed has to be taken in hand even when the drain begins now.
        let claiming = pipeline.clone();
        let claimed = tokio::spawn(async move {
            let claimed = claiming.0.store.claim(Timestamp::now(), limit, full).await?;
            let snapshot = claiming.0.current.load();
            let count = claimed.deliveries.len();
            if count > 0 {
                failpoint::hit(Point::DeliveriesClaimed);
            }
            claiming.begin(claimed.deliveries.into_iter().map(|(event, delivery)| {
                let webhook = snapshot.webhook(&delivery.webhook);
                let max_running = webhook.map_or(1, |webhook| webhook.definition.concurrency);
                let bytes = size(&event, delivery.request.as_deref());
                let ready = &claiming.0.ready;
                let slot = ready.admit(&event.tenant, &delivery.webhook, bytes, max_running);
                Job { event: Arc::clone(&event), delivery, slot, turn: Turn::Own }
            }));
            Ok::<_, StoreError>((count, claimed.next_due))
        });
        let (count, next_due) = claimed.await.map_err(StoreError::new)??;
        if count < limit {
            return Ok(next_due);
        }
    }
}
