//! Claiming: brings due deliveries from the store, when one falls due or room is made. Nothing polls.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::agenda::Agenda;
use super::breaker::Turn;
use super::flow::Gate;
use super::{Inner, Pipeline};
use crate::delivery::WebhookId;
use crate::failpoint::{self, Point};
use crate::record::{Ask, Claimed, StoreError};
use crate::shutdown::Drain;

/// Deliveries claimed in one go.
const BATCH: usize = 256;

/// The longest sleep. Due times are wall-clock times, and the wall clock can be set.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// How long to leave a store alone that failed.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// A webhook gets as many of a batch as there are for each, but no fewer than this: a claim has its price.
const MIN_SHARE: usize = 8;

/// Knows when there is something to claim, and wakes the claimer then.
#[derive(Default)]
pub(super) struct Alarm {
    bell: Notify,
    agenda: Mutex<Agenda>,
}

impl Alarm {
    /// A webhook has a delivery in the store that falls due then.
    pub(super) fn due(&self, webhook: &WebhookId, at: Timestamp) {
        let earliest = {
            let mut agenda = self.agenda();
            agenda.due(webhook, at) && agenda.next_due() == Some(at)
        };
        if earliest {
            self.ring();
        }
    }

    /// There is room again for what is due for a webhook.
    pub(super) fn room_for(&self, webhook: &WebhookId) {
        if self.agenda().room_for(webhook) {
            self.ring();
        }
    }

    /// There may be room again for all that is due.
    pub(super) fn room_for_all(&self) {
        self.agenda().room_for_all();
        self.ring();
    }

    /// Parks the webhook whose turn it is.
    #[cfg(test)]
    pub(super) fn park_next(&self, now: Timestamp) {
        self.agenda().next(now);
    }

    fn ring(&self) {
        self.bell.notify_one();
    }

    /// Sleeps until something falls due or it rings.
    async fn sleep(&self) {
        let micros = match self.agenda().next_due() {
            Some(due) => due.as_microsecond().saturating_sub(Timestamp::now().as_microsecond()),
            None => i64::MAX,
        };
        let duration = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        // Ringing and waking come to the same: look what is due.
        drop(tokio::time::timeout(duration.min(MAX_SLEEP), self.rung()).await);
    }

    /// Waits until it rings, or finds that it has rung.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Claims what is due until the drain begins; then hands back what waits, and lets what is under way end.
pub(super) async fn run(pipeline: Pipeline, drain: Drain) {
    let claiming = async {
        loop {
            match claim(&pipeline).await {
                Ok(Found::Work) => {}
                Ok(Found::Nothing) => pipeline.0.alarm.sleep().await,
                Ok(Found::NoRoom) => pipeline.0.alarm.rung().await,
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

/// What a look at the agenda found.
enum Found {
    /// Something was due.
    Work,
    /// Nothing is due for a webhook that has room.
    Nothing,
    /// There is no room at all; whoever makes some rings.
    NoRoom,
}

/// Claims once of the webhooks that are due and have room.
async fn claim(pipeline: &Pipeline) -> Result<Found, StoreError> {
    let (room, max_bytes) = pipeline.0.ready.room();
    if room == 0 {
        return Ok(Found::NoRoom);
    }
    let asks = asks(pipeline, room.min(BATCH));
    if asks.is_empty() {
        return Ok(Found::Nothing);
    }
    // In a task of its own: what is claimed has to be taken in hand even when the drain begins now.
    let claiming = pipeline.clone();
    tokio::spawn(async move { ask(&claiming, asks, max_bytes).await })
        .await
        .map_err(StoreError::new)??;
    Ok(Found::Work)
}

/// What to ask the store for: `left` deliveries, of webhooks in turn, as far as each has room.
fn asks(pipeline: &Pipeline, mut left: usize) -> Vec<Ask> {
    let Inner { ready, alarm, current, flows, .. } = &*pipeline.0;
    let snapshot = current.load();
    let now = Timestamp::now();
    let mut asks = Vec::new();
    while left > 0 {
        let (next, turns) = {
            let mut agenda = alarm.agenda();
            (agenda.next(now), agenda.turns())
        };
        let Some(webhook) = next else {
            break;
        };
        let most = match flows.gate(&webhook, Instant::now()) {
            Gate::Open => usize::MAX,
            Gate::Narrow(most) => most,
            Gate::Shut(until) => {
                let wait = until.map_or(MAX_SLEEP, |until| until - Instant::now());
                let until = now.checked_add(wait.min(MAX_SLEEP)).unwrap_or(Timestamp::MAX);
                alarm.agenda().put_off(&webhook, until);
                continue;
            }
        };
        let tenant = snapshot.webhook(&webhook).map(|webhook| &webhook.tenant);
        let share = (left / (turns + 1)).max(MIN_SHARE);
        let limit = ready.room_for(tenant, &webhook, most).min(share).min(left);
        if limit > 0 {
            let first = alarm.agenda().ask(&webhook);
            left -= limit;
            asks.push(Ask { webhook, limit, first });
        }
    }
    asks
}

/// Claims, and begins with what is claimed.
async fn ask(pipeline: &Pipeline, asks: Vec<Ask>, max_bytes: usize) -> Result<(), StoreError> {
    let alarm = &pipeline.0.alarm;
    let webhooks: Vec<_> = asks.iter().map(|ask| ask.webhook.clone()).collect();
    let now = Timestamp::now();
    let claimed = pipeline.0.store.claim(now, asks, max_bytes).await.inspect_err(|_| {
        webhooks.iter().for_each(|webhook| alarm.agenda().answered(webhook, Some(now)));
    })?;
    if claimed.iter().any(|claimed| !claimed.deliveries.is_empty()) {
        failpoint::hit(Point::DeliveriesClaimed);
    }
    for (id, Claimed { deliveries, next_due }) in webhooks.iter().zip(claimed) {
        for (event, delivery) in deliveries {
            pipeline.0.ready.push(pipeline.job(event, delivery, Turn::Own));
        }
        alarm.agenda().answered(id, next_due);
    }
    pipeline.pump();
    Ok(())
}
