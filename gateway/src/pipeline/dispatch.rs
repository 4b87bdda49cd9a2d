//! Dispatch: one delivery from in hand to recorded.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::time::Instant;
use url::Url;

use super::breaker::Turn;
use super::breakers::Joining;
use super::{Pipeline, STORE_AGAIN, backlog, hold, operational, order, parts, render};
use crate::deliver::{Exchange, Outbound, Schedule};
use crate::delivery::{
    Attempt, Delivery, DeliveryId, Failure, FailureKind, Request, Timings, WebhookId,
};
use crate::event::{Event, to_microsecond};
use crate::failpoint::{self, Point};
use crate::record::{NewEvent, Next, Recorded, Update};
use crate::snapshot::{Snapshot, Webhook};
use crate::transform::{self, Failed, Outcome, Recipient};

/// Sees one delivery through an attempt and records what came of it.
pub(super) async fn run(
    pipeline: &Pipeline,
    event: Arc<Event>,
    mut delivery: Delivery,
    turn: Turn,
) {
    failpoint::hit(Point::DeliveryBegun);
    let began = Began::now();
    let attempt = AssertUnwindSafe(attempt(pipeline, &event, &mut delivery, turn, began));
    let mut ended = match attempt.catch_unwind().await {
        Ok(ended) => ended,
        // A defect of the gateway's own; the delivery must not be lost in it.
        Err(_) => {
            let failure = Failure::new(FailureKind::Internal, "the gateway panicked; see its log");
            let attempt = began.failed(failure);
            failed(&delivery, &Schedule::default(), attempt, Arc::default(), None).into()
        }
    };
    if turn == Turn::Trial {
        pipeline.0.breakers.tried(&delivery.webhook, delivery.id);
    }
    pipeline.ended(&delivery.webhook, delivery.id);
    order::block(pipeline, &delivery, &mut ended.update);
    tell(pipeline, &event, &delivery, &ended);
    let told = operational::of_turn(pipeline, &event, &delivery, &ended);
    let Ended { update, joining, .. } = ended;
    let is_end = backlog::is_end(&update.next);
    let recorded = record(pipeline, &delivery.webhook, update, &told).await;
    if recorded.purged {
        pipeline.0.purges.take(delivery.id);
    }
    pipeline.told(&told, recorded.told);
    // What was cancelled was owed no more from then on.
    if recorded.purged || is_end && !recorded.cancelled {
        pipeline.0.backlog.less(&event.tenant, 1);
    }
    drop(joining);
    // It starts once this one has given its slot back.
    if let Some((event, delivery)) = recorded.follower {
        pipeline.0.ready.push(pipeline.job(event, delivery, Turn::Own));
    }
}

/// How a delivery's turn ended.
pub(super) struct Ended {
    pub(super) update: Update,
    /// The plugin that failed, as in [`transform::Failed::plugin`].
    pub(super) plugin: Option<Arc<str>>,
    /// Kept until the update is on record when that holds the delivery.
    pub(super) joining: Option<Joining>,
    /// This is what makes the plugins' breaker hold the webhook's deliveries.
    pub(super) tripped: bool,
}

impl From<Update> for Ended {
    fn from(update: Update) -> Self {
        Self { update, plugin: None, joining: None, tripped: false }
    }
}

/// When an attempt began.
#[derive(Clone, Copy)]
pub(super) struct Began {
    at: Timestamp,
    instant: Instant,
}

impl Began {
    fn now() -> Self {
        Self { at: to_microsecond(Timestamp::now()), instant: Instant::now() }
    }

    /// An attempt that got no answer.
    pub(super) fn failed(self, failure: Failure) -> Attempt {
        Attempt {
            started_at: self.at,
            duration_us: self.elapsed_us(),
            status: None,
            failure: Some(failure),
            excerpt: String::new(),
            retry_after: None,
            timings: Timings::default(),
        }
    }

    fn ended(self, exchange: Exchange) -> Attempt {
        let Exchange { status, failure, excerpt, retry_after, timings, .. } = exchange;
        let (started_at, duration_us) = (self.at, self.elapsed_us());
        Attempt { started_at, duration_us, status, failure, excerpt, retry_after, timings }
    }

    fn elapsed_us(self) -> u64 {
        u64::try_from(self.instant.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

async fn attempt(
    pipeline: &Pipeline,
    event: &Arc<Event>,
    delivery: &mut Delivery,
    turn: Turn,
    began: Began,
) -> Ended {
    if pipeline.0.purges.take(delivery.id) {
        // It is not on record any more, and neither is this.
        let next = Next::Dropped("it is purged".to_owned());
        let (delivery, chain) = (delivery.id, Arc::default());
        return Update { delivery, attempt: None, chain, next }.into();
    }
    let snapshot = pipeline.0.current.load();
    let Some(webhook) = snapshot.webhook(&delivery.webhook) else {
        let failure = Failure::new(
            FailureKind::WebhookMissing,
            "the webhook is no longer declared; declare it again to have this delivered",
        );
        let attempt = began.failed(failure);
        return failed(delivery, &Schedule::default(), attempt, Arc::default(), None).into();
    };
    if pipeline.0.health.is_disabled(&webhook.id) {
        let (delivery, next) = (delivery.id, Next::Paused(None));
        return Update { delivery, attempt: None, chain: Arc::default(), next }.into();
    }
    let mut chain = Arc::default();
    // A stored request is sent as it is: the plugins do not run again.
    let stored = delivery.request.is_some();
    let request = match delivery.request.take() {
        Some(request) => request,
        None => {
            let run = hold::Run { pipeline, snapshot: &snapshot, webhook, delivery, turn };
            if let Some(held) = run.held() {
                return held;
            }
            let outcome = transformed(&snapshot, webhook, event, delivery.id, &mut chain).await;
            let outcome = match outcome {
                Ok(outcome) => outcome,
                Err(found) => return run.failed(began, chain, *found),
            };
            run.passed();
            let to_send = match outcome {
                Outcome::Drop(reason) => Err(reason),
                Outcome::Forward(parts) => {
                    parts::to_send(pipeline, webhook, event, delivery, parts, &chain).await
                }
            };
            match to_send {
                Ok(request) => request,
                Err(reason) => {
                    let next = Next::Dropped(reason);
                    return Update { delivery: delivery.id, attempt: None, chain, next }.into();
                }
            }
        }
    };
    let Some(url) = render::url(webhook, event, &request) else {
        // Routing sends no event without a URL to the ad-hoc webhook.
        let attempt = began.failed(Failure::new(FailureKind::Internal, "the event has no URL"));
        return failed(delivery, &webhook.definition.retry, attempt, chain, None).into();
    };
    let exchange = send(pipeline, webhook, event, delivery, &request, url, began.at).await;
    let attempt = began.ended(exchange);
    let disabled = pipeline.learn(webhook, delivery.id, &attempt).await;
    if attempt.failure.is_none() {
        let next = Next::Delivered;
        return Update { delivery: delivery.id, attempt: Some(attempt), chain, next }.into();
    }
    let keep = (!stored).then_some(request);
    if disabled && !is_permanent(&attempt) {
        let (delivery, attempt, next) = (delivery.id, Some(attempt), Next::Paused(keep));
        return Update { delivery, attempt, chain, next }.into();
    }
    failed(delivery, &webhook.definition.retry, attempt, chain, keep).into()
}

/// Runs the webhook's plugins; `chain` is set to the versions that ran.
async fn transformed(
    snapshot: &Snapshot,
    webhook: &Webhook,
    event: &Event,
    delivery: DeliveryId,
    chain: &mut Arc<str>,
) -> Result<Outcome, Box<Failed>> {
    let steps = snapshot.chain(webhook, &event.id)?;
    if steps.is_empty() {
        return Ok(Outcome::Forward(vec![render::plain(event, webhook.definition.body)]));
    }
    *chain = match &steps[..] {
        [step] => Arc::clone(step.plugin.label()),
        steps => {
            steps.iter().map(|step| &**step.plugin.label()).collect::<Vec<_>>().join(",").into()
        }
    };
    let recipient = Recipient {
        webhook: &webhook.id,
        name: &webhook.definition.name,
        metadata: &webhook.definition.metadata,
        delivery,
        secrets: &webhook.plugin_secrets,
    };
    transform::run(event, recipient, &steps).await
}

async fn send(
    pipeline: &Pipeline,
    webhook: &Webhook,
    event: &Event,
    delivery: &Delivery,
    request: &Request,
    url: Url,
    at: Timestamp,
) -> Exchange {
    let message_id = event.id.of_part(delivery.part);
    let outbound = Outbound {
        method: request.method,
        url,
        headers: render::headers(webhook, request, &message_id, at.as_second()),
        body: request.body.clone(),
        timeout: webhook.definition.timeout,
        auth: webhook.definition.auth.clone(),
        connection: webhook.definition.connection.clone(),
    };
    let client = &pipeline.0.client;
    failpoint::hit(Point::RequestReady);
    let exchange = client.send(outbound).await;
    failpoint::hit(Point::ResponseRead);
    client.for_record(exchange, || render::credentials(webhook, event, request))
}

/// What follows a failed attempt: another one when the schedule has one left, `keep` being the request to
/// send again.
pub(super) fn failed(
    delivery: &Delivery,
    schedule: &Schedule,
    attempt: Attempt,
    chain: Arc<str>,
    keep: Option<Arc<Request>>,
) -> Update {
    let delay = match is_permanent(&attempt) {
        true => None,
        false => schedule.delay_after(delivery.attempts.saturating_add(1), jitter(delivery.id)),
    };
    // The receiver can ask for a longer wait, never for a shorter one, and never for another attempt.
    let delay = delay.map(|delay| delay.max(attempt.retry_after.unwrap_or_default()));
    let at = delay.and_then(|delay| Timestamp::now().checked_add(delay).ok());
    let next = at.map_or(Next::Dead, |at| Next::Retry { at, request: keep });
    Update { delivery: delivery.id, attempt: Some(attempt), chain, next }
}

fn is_permanent(attempt: &Attempt) -> bool {
    attempt.failure.as_ref().is_some_and(|failure| failure.kind.is_permanent())
}

/// A number from 0 to 1 out of the random part of a delivery's id: the same for all its retries, and
/// different between the deliveries that failed together, which is what jitter is for.
fn jitter(delivery: DeliveryId) -> f64 {
    let [.., a, b, c, d] = *delivery.as_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

/// Records an update, with what is told of it. What became of a delivery must not be lost while the store is away, so this waits
/// until it is back; the slot that is held meanwhile keeps more from being taken in.
pub(super) async fn record(
    pipeline: &Pipeline,
    webhook: &WebhookId,
    update: Update,
    told: &[NewEvent],
) -> Recorded {
    let due = match &update.next {
        Next::Retry { at, .. } => Some(*at),
        // Its webhook may have been enabled meanwhile.
        Next::Paused(_) => Some(Timestamp::now()),
        _ => None,
    };
    let recorded = loop {
        match pipeline.0.store.record_and_tell(update.clone(), told.to_vec()).await {
            Ok(recorded) => break recorded,
            Err(error) => {
                tracing::error!(%error, delivery = %update.delivery, "an outcome cannot be recorded; trying again");
                tokio::time::sleep(STORE_AGAIN).await;
            }
        }
    };
    failpoint::hit(Point::OutcomeRecorded);
    if let Some(at) = due {
        pipeline.0.alarm.due(webhook, at);
    }
    recorded
}

/// Logs what came of an attempt.
fn tell(pipeline: &Pipeline, event: &Event, delivery: &Delivery, ended: &Ended) {
    let Ended { update, plugin, .. } = ended;
    let plugin = plugin.as_deref();
    let tenant = &*event.tenant;
    let (event, id, delivery) = (&event.id, &delivery.webhook, delivery.id);
    // People know a webhook by its name. Looking it up is left to when something is said.
    let name = || match pipeline.0.current.load().webhook(id) {
        Some(webhook) => webhook.definition.name.clone(),
        None => id.to_string(),
    };
    let failure = update.attempt.as_ref().and_then(|attempt| attempt.failure.as_ref());
    let fault = failure.map(|failure| failure.kind.fault().as_str());
    match (&update.next, failure) {
        (Next::Retry { at, .. }, Some(failure)) => {
            let webhook = name();
            tracing::warn!(tenant, webhook, plugin, %event, %delivery, %failure, fault, retry_at = %at, "attempt failed");
        }
        (Next::Held(_), Some(failure)) => {
            let webhook = name();
            tracing::warn!(tenant, webhook, plugin, %event, %delivery, %failure, fault, "attempt failed; the delivery is held");
        }
        (Next::Paused(_), Some(failure)) => {
            let webhook = name();
            tracing::warn!(tenant, webhook, plugin, %event, %delivery, %failure, fault, "attempt failed; the delivery waits, as its webhook is disabled");
        }
        (Next::Dropped(_), Some(failure)) => {
            let webhook = name();
            tracing::warn!(tenant, webhook, plugin, %event, %delivery, %failure, fault, "attempt failed; the delivery is dropped, as the webhook says");
        }
        (Next::Dead, Some(failure)) => {
            let webhook = name();
            tracing::error!(tenant, webhook, plugin, %event, %delivery, %failure, fault, "delivery is dead");
        }
        (Next::Blocks, Some(failure)) => {
            let webhook = name();
            tracing::error!(tenant, webhook, plugin, %event, %delivery, %failure, "delivery is dead, and what follows it waits until it is skipped");
        }
        (Next::Held(_), None) => {
            tracing::debug!(tenant, webhook = %id, %event, %delivery, "held");
        }
        (Next::Paused(_), None) => {
            tracing::debug!(tenant, webhook = %id, %event, %delivery, "paused");
        }
        (Next::Dropped(reason), None) => {
            tracing::debug!(tenant, webhook = %id, %event, %delivery, reason, "dropped");
        }
        _ => tracing::debug!(tenant, webhook = %id, %event, %delivery, "delivered"),
    }
}
