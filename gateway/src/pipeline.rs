//! The pipeline: the one place that knows the order of the stages.
//!
//! An event's path folds at the store. [`Pipeline::accept`] routes it and ends where it is durable; dispatch
//! starts from a delivery, runs the plugins, signs, sends, and records what came of it. Fresh deliveries are
//! handed over in memory; retries, and what a crash left behind, come from the store by due time.

mod agenda;
mod backlog;
mod breaker;
mod breakers;
mod claim;
mod dispatch;
mod flow;
mod health;
mod hold;
mod host;
mod jobs;
mod keeper;
mod operational;
mod order;
mod parts;
mod purge;
mod ready;
mod render;
mod retention;
mod under_way;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use url::Url;

use crate::deliver::Client;
use crate::delivery::{Delivery, DeliveryId, Request, WebhookId};
use crate::event::Event;
use crate::record::{
    Accepted, AcceptedStatus, Held, Idempotency, NewDelivery, NewEvent, Start, Store, StoreError,
    Submission, Waiting,
};
use crate::shutdown::Drain;
use crate::snapshot::{Current, Tenant};
use backlog::Backlog;
use breaker::Turn;
use breakers::{Breakers, Joining};
use claim::Alarm;
use flow::Flows;
use health::Health;
use purge::Purges;
use ready::{Job, Ready};

pub use self::backlog::{BacklogFull, Refusal};
pub use self::breaker::Config as BreakerConfig;
pub use self::flow::ReceiverBreakerConfig;
pub use self::health::OnEnable;
pub use self::host::services;
pub use self::retention::Config as RetentionConfig;
pub use self::waiting::WaitingFor;

/// How long to wait before asking the store again for what has to be done.
const STORE_AGAIN: Duration = Duration::from_millis(500);

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
    /// How long what is finished is kept.
    pub retention: RetentionConfig,
    /// Deliveries that may be owed before no more events are taken; what is in one request may go over it.
    pub max_backlog: usize,
    /// The same for a tenant that sets no limit of its own.
    pub tenant_max_backlog: usize,
    /// When a receiver that fails is left alone.
    pub receiver_breaker: ReceiverBreakerConfig,
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
            retention: RetentionConfig::default(),
            max_backlog: 10_000_000,
            tenant_max_backlog: 5_000_000,
            receiver_breaker: ReceiverBreakerConfig::default(),
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
    backlog: Arc<Backlog>,
    flows: Arc<Flows>,
    health: Health,
    purges: Purges,
    /// Rings when there may be something to claim from the store.
    alarm: Arc<Alarm>,
    /// Rings when a job has been made.
    new_job: Notify,
    /// How long idempotency keys are remembered.
    idempotency: Duration,
}

impl Pipeline {
    /// Starts dispatching what is due. Ends when the drain begins, once what is under way is recorded.
    ///
    /// # Errors
    /// When the store cannot tell what is held, or what waits.
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
        let alarm: Arc<Alarm> = Arc::default();
        for Waiting { webhook, next_due } in store.waiting().await? {
            alarm.due(&webhook, next_due);
        }
        let flows = Arc::new(Flows::new(config.receiver_breaker.clone(), current.clone()));
        let ready = Ready::new(config, Arc::clone(&alarm), Arc::clone(&flows));
        let breakers = Breakers::new(config.breaker.clone(), held);
        let backlog = Backlog::new(config.max_backlog);
        backlog.load(Arc::clone(&store), current.clone()).await;
        let health = Health::new(config.disable_after, store.webhook_states().await?);
        let (new_job, idempotency) = (Notify::new(), config.retention.idempotency);
        let inner = Inner {
            store,
            current,
            client,
            ready,
            breakers,
            backlog,
            flows,
            health,
            purges: Purges::default(),
            alarm,
            new_job,
            idempotency,
        };
        let pipeline = Self(Arc::new(inner));
        let keeper = retention::Keeper {
            store: Arc::clone(&pipeline.0.store),
            current: pipeline.0.current.clone(),
            config: config.retention.clone(),
            backlog: Arc::clone(&pipeline.0.backlog),
            alarm: Arc::clone(&pipeline.0.alarm),
        };
        tokio::spawn(retention::run(keeper, drain.clone()));
        tokio::spawn(host::sweep(Arc::clone(&pipeline.0.store), drain.clone()));
        tokio::spawn(keeper::run(pipeline.clone(), drain.clone()));
        tokio::spawn(order::run(pipeline.clone(), drain.clone()));
        tokio::spawn(operational::plugins::run(pipeline.clone(), drain.clone()));
        tokio::spawn(purge::run(pipeline.clone(), drain.clone()));
        tokio::spawn(flow::run(pipeline.clone(), drain.clone()));
        tokio::spawn(jobs::run(pipeline.clone(), drain.clone()));
        tokio::spawn(claim::run(pipeline.clone(), drain));
        Ok(pipeline)
    }

    /// Routes events and makes them durable together, or not at all; then their deliveries begin.
    ///
    /// `events` come each with whether the producer chose its id.
    ///
    /// # Errors
    /// When the store cannot keep them, or too much is owed already; nothing is accepted then.
    pub async fn accept(
        &self,
        tenant: Arc<Tenant>,
        events: Vec<(Event, bool)>,
        idempotency: Option<Idempotency>,
    ) -> Result<Accepted, Refusal> {
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
    ) -> Result<Accepted, Refusal> {
        let mut fresh = Vec::with_capacity(events.len());
        let mut joining = Vec::new();
        let mut due = Vec::new();
        let events: Vec<_> = events
            .into_iter()
            .map(|(event, given_id)| {
                let event = Arc::new(event);
                let (deliveries, jobs) = self.route(tenant, &event, &mut joining);
                let is_due = |new: &&NewDelivery| {
                    matches!(new.start, Start::Due | Start::Queued(_) | Start::Paused)
                };
                due.extend(deliveries.iter().filter(is_due).map(|new| new.webhook.clone()));
                fresh.push(jobs);
                NewEvent { event, given_id, deliveries }
            })
            .collect();
        let owed = events.iter().map(|new: &NewEvent| new.deliveries.len()).sum();
        let reserved = self.0.backlog.reserve(tenant, owed).map_err(Refusal::Backlog)?;
        let accepted_at = Timestamp::now();
        let tenant = Arc::clone(tenant.name());
        let submission = Submission { tenant, accepted_at, idempotency, events };
        let accepted = match self.0.store.accept(submission).await {
            Ok(accepted) => accepted,
            Err(error) => {
                // A store whose answer was lost may have kept it, and a producer that sends it again is told that
                // it is kept, so it must not stay in hand with nobody.
                self.give_back(fresh.into_iter().flatten().collect(), due);
                return Err(error.into());
            }
        };
        drop(joining);
        if let Accepted::Stored(answers) = &accepted {
            reserved.kept(answers.iter().map(|answer| answer.deliveries).sum());
            // The jobs of what was not kept give their slots back.
            let kept = answers.iter().map(|answer| answer.status == AcceptedStatus::Accepted);
            let jobs = fresh.into_iter().zip(kept).filter(|(_, kept)| *kept);
            self.begin(jobs.flat_map(|(jobs, _)| jobs));
            due.iter().for_each(|webhook| self.0.alarm.due(webhook, accepted_at));
        }
        Ok(accepted)
    }

    /// Gives back to the store what is in hand and does not start, and looks then what is due of these webhooks, too.
    fn give_back(&self, jobs: Vec<Job>, mut due: Vec<WebhookId>) {
        let ids: Vec<_> = jobs.iter().map(|job| job.delivery.id).collect();
        due.extend(jobs.iter().map(|job| job.delivery.webhook.clone()));
        if due.is_empty() {
            return;
        }
        let pipeline = self.clone();
        tokio::spawn(async move {
            while let Err(error) = pipeline.0.store.release(ids.clone()).await {
                tracing::debug!(%error, "deliveries cannot be given back; trying again");
                tokio::time::sleep(STORE_AGAIN).await;
            }
            // Their slots until now: so many wait here at most, however long the store is away.
            drop(jobs);
            let now = Timestamp::now();
            due.iter().for_each(|webhook| pipeline.0.alarm.due(webhook, now));
        });
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
        let ad_hoc = tenant.ad_hoc().filter(|_| event.webhook_url.is_some());
        let deliveries = tenant
            .route(&event.event_type)
            .chain(ad_hoc)
            .map(|webhook| {
                let id = DeliveryId::generate();
                if let Some(key) = webhook.queue_of(event) {
                    // The store knows whether it is its turn. Its plugins' breaker is asked then.
                    let start = Start::Queued(key);
                    return NewDelivery { id, webhook: webhook.id.clone(), start };
                }
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
                    let delivery = Delivery::first_part(id, webhook);
                    jobs.push(Job { event: Arc::clone(event), delivery, slot, turn: Turn::Own });
                }
                NewDelivery { id, webhook: webhook.id.clone(), start }
            })
            .collect();
        (deliveries, jobs)
    }

    /// Reads a URL that an event is to be delivered to.
    ///
    /// # Errors
    /// Why nothing may be sent there.
    pub fn parse_url(&self, text: &str) -> Result<Url, String> {
        self.0.client.parse_url(text)
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

    /// A job for a delivery that the store has given in hand, room or not.
    fn job(&self, event: Arc<Event>, delivery: Delivery, turn: Turn) -> Job {
        let webhook = &delivery.webhook;
        let bytes = size(&event, delivery.request.as_deref());
        let snapshot = self.0.current.load();
        let concurrency =
            snapshot.webhook(webhook).map_or(1, |webhook| webhook.definition.concurrency);
        let slot = self.0.ready.admit(&event.tenant, webhook, bytes, concurrency);
        Job { event, delivery, slot, turn }
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
    }
}

/// What a delivery keeps in memory, in bytes: its event's data, and its request once there is one.
fn size(event: &Event, request: Option<&Request>) -> usize {
    event.data.len() + request.map_or(0, |request| request.body.len())
}
