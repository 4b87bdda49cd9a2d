//! The pipeline: the one place that knows the order of the stages.
//!
//! An event's path folds at the store. [`Pipeline::accept`] routes it and ends where it is durable; dispatch
//! starts from a delivery, runs the plugins, signs, sends, and records what came of it. Fresh deliveries are
//! handed over in memory; retries, and what a crash left behind, come from the store by due time.

mod breaker;
mod breakers;
mod claim;
mod dispatch;
mod health;
mod hold;
mod host;
mod jobs;
mod keeper;
mod ready;
mod render;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::deliver::Client;
use crate::delivery::{Delivery, DeliveryId, Request};
use crate::event::Event;
use crate::record::{
    Accepted, AcceptedStatus, Held, Idempotency, NewDelivery, NewEvent, Start, Store, StoreError,
    Submission,
};
use crate::shutdown::Drain;
use crate::snapshot::{Current, Tenant};
use breaker::Turn;
use breakers::{Breakers, Joining};
use claim::Alarm;
use health::Health;
use ready::{Job, Ready, Slot};

pub use self::breaker::Config as BreakerConfig;
pub use self::health::Waiting;
pub use self::host::services;

/// How much work is under way at once, and when it is held.
#[derive(Debug, Clone)]
pub struct Config {
    /// Deliveries held in memory, waiting or under way; the rest wait in the store.
    pub max_ready: usize,
    /// The bytes of their events; what is held may be a request's worth over it.
    pub max_ready_bytes: usize,
    /// Deliveries under way at once.
    pub concurrency: usize,
    /// Deliveries under way at once for one tenant; the others are for other tenants.
    pub tenant_concurrency: usize,
    /// Deliveries under way at once for a webhook that sets no limit of its own.
    pub webhook_concurrency: usize,
    /// When the deliveries of a webhook are held because its plugins fail.
    pub breaker: BreakerConfig,
    /// A webhook to which nothing gets through for so long is disabled; none is if nothing is said.
    pub disable_after: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_ready: 10_000,
            max_ready_bytes: 256 << 20,
            concurrency: 1_024,
            tenant_concurrency: 768,
            webhook_concurrency: 256,
            breaker: BreakerConfig::default(),
            disable_after: Some(Duration::from_secs(5 * 24 * 60 * 60)),
        }
    }
}

/// Takes events in and sees their deliveries through. Cheap to clone.
#[derive(Clone)]
pub struct Pipeline(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    current: Current,
    client: Client,
    ready: Ready,
    breakers: Breakers,
    health: Health,
    /// Rings when there may be something to claim from the store.
    alarm: Arc<Alarm>,
    /// Rings when a job has been made.
    new_job: Notify,
}

impl Pipeline {
    /// Starts dispatching what is due. Ends when the drain begins, once what is under way is recorded.
    ///
    /// # Errors
    /// When the store cannot tell what is held.
    pub async fn start(
        config: &Config,
        store: Arc<dyn Store>,
        current: Current,
        client: Client,
        drain: Drain,
    ) -> Result<Self, StoreError> {
        let held = store.holds().await?;
        for Held { webhook, hold, deliveries, .. } in &held {
            tracing::warn!(%webhook, deliveries, "deliveries are {hold}");
        }
        let alarm = Arc::default();
        let ready = Ready::new(config, Arc::clone(&alarm));
        let breakers = Breakers::new(config.breaker.clone(), held);
        let states = store.webhook_states().await?;
        let health = Health::new(config.disable_after, states);
        let new_job = Notify::new();
        let inner = Inner { store, current, client, ready, breakers, health, alarm, new_job };
        let pipeline = Self(Arc::new(inner));
        tokio::spawn(host::sweep(Arc::clone(&pipeline.0.store), drain.clone()));
        tokio::spawn(keeper::run(pipeline.clone(), drain.clone()));
        tokio::spawn(jobs::run(pipeline.clone(), drain.clone()));
        tokio::spawn(claim::run(pipeline.clone(), drain));
        Ok(pipeline)
    }

    /// Routes events and makes them durable together, or not at all; then their deliveries begin.
    ///
    /// `events` come each with whether the producer chose its id.
    ///
    /// # Errors
    /// When the store cannot keep them; nothing is accepted then.
    pub async fn accept(
        &self,
        tenant: Arc<Tenant>,
        events: Vec<(Event, bool)>,
        idempotency: Option<Idempotency>,
    ) -> Result<Accepted, StoreError> {
        let pipeline = self.clone();
        // A task of its own: a producer that hangs up must not stop us between the commit, which marks
        // the deliveries as in hand, and taking them in hand.
        tokio::spawn(async move { pipeline.accept_now(&tenant, events, idempotency).await })
            .await
            .map_err(StoreError::new)?
    }

    async fn accept_now(
        &self,
        tenant: &Tenant,
        events: Vec<(Event, bool)>,
        idempotency: Option<Idempotency>,
    ) -> Result<Accepted, StoreError> {
        let mut fresh = Vec::with_capacity(events.len());
        let mut joining = Vec::new();
        let mut all_in_hand = true;
        let events = events
            .into_iter()
            .map(|(event, given_id)| {
                let event = Arc::new(event);
                let (deliveries, jobs) = self.route(tenant, &event, &mut joining);
                let is_due = |new: &NewDelivery| matches!(new.start, Start::Due | Start::Paused);
                all_in_hand &= !deliveries.iter().any(is_due);
                fresh.push(jobs);
                NewEvent { event, given_id, deliveries }
            })
            .collect();
        let accepted_at = Timestamp::now();
        let tenant = Arc::clone(tenant.name());
        let submission = Submission { tenant, accepted_at, idempotency, events };
        let accepted = self.0.store.accept(submission).await?;
        drop(joining);
        if let Accepted::Stored(answers) = &accepted {
            // The jobs of what was not kept give their slots back.
            let kept = answers.iter().map(|answer| answer.status == AcceptedStatus::Accepted);
            let jobs = fresh.into_iter().zip(kept).filter(|(_, kept)| *kept);
            self.begin(jobs.flat_map(|(jobs, _)| jobs));
            if !all_in_hand {
                self.0.alarm.ring();
            }
        }
        Ok(accepted)
    }

    /// The deliveries that an event is owed, and jobs for those that there is room for now. What is to be
    /// held is not on record before `joining` is dropped.
    fn route(
        &self,
        tenant: &Tenant,
        event: &Arc<Event>,
        joining: &mut Vec<Joining>,
    ) -> (Vec<NewDelivery>, Vec<Job>) {
        let mut jobs = Vec::new();
        let deliveries = tenant
            .route(&event.event_type)
            .map(|webhook| {
                let id = DeliveryId::generate();
                if self.0.health.is_disabled(&webhook.id) {
                    let start = Start::Paused;
                    return NewDelivery { id, webhook: webhook.id.clone(), start };
                }
                if let Err((hold, joins)) = self.0.breakers.admit(&webhook.id, Turn::Own) {
                    joining.push(joins);
                    let start = Start::Held(hold);
                    return NewDelivery { id, webhook: webhook.id.clone(), start };
                }
                let bytes = size(event, None);
                let concurrency = webhook.definition.concurrency;
                let slot = self.0.ready.reserve(tenant.name(), &webhook.id, bytes, concurrency);
                let start = if slot.is_some() { Start::InHand } else { Start::Due };
                if let Some(slot) = slot {
                    let webhook = webhook.id.clone();
                    let delivery = Delivery {
                        id,
                        webhook,
                        part: 1,
                        attempts: 0,
                        request: None,
                        only_part: false,
                    };
                    jobs.push(Job { event: Arc::clone(event), delivery, slot, turn: Turn::Own });
                }
                NewDelivery { id, webhook: webhook.id.clone(), start }
            })
            .collect();
        (deliveries, jobs)
    }

    /// Tries now what is held for a plugin of this name in a tenant's webhooks, and releases it if that
    /// succeeds. Gives what is held.
    ///
    /// # Errors
    /// When the store cannot tell.
    pub async fn reset(&self, tenant: &Tenant, plugin: &str) -> Result<Vec<Held>, StoreError> {
        let mut held = self.0.store.holds().await?;
        held.retain(|held| {
            let is_own = tenant.webhooks().iter().any(|webhook| webhook.id == held.webhook);
            is_own && held.hold.name() == plugin
        });
        for Held { webhook, deliveries, hold, .. } in &held {
            if self.0.breakers.try_now(webhook, false) {
                let (tenant, plugin, since) = (tenant.name(), &hold.cause, hold.since);
                tracing::info!(
                    %tenant, %webhook, %plugin, %since, deliveries,
                    "reset; a held delivery is tried"
                );
            }
        }
        Ok(held)
    }

    /// Queues jobs and starts as many as may run.
    fn begin(&self, jobs: impl Iterator<Item = Job>) {
        jobs.for_each(|job| self.0.ready.push(job));
        self.pump();
    }

    /// Starts waiting jobs as long as more may run.
    fn pump(&self) {
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

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
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

/// What a delivery keeps in memory, in bytes: its event's data, and its request once there is one.
fn size(event: &Event, request: Option<&Request>) -> usize {
    event.data.len() + request.map_or(0, |request| request.body.len())
}
