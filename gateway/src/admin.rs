//! What can be asked of a running gateway: an event with all that became of it, deliveries by their state, replays and
//! cancellations, the plugins and how they fare, what is held to be tried, what is purged, and the probes.

mod breakers;
mod order;
mod deliveries;
mod jobs;
mod plugins;
mod purges;
mod request;
mod selection;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::access::authenticate;
use crate::delivery::WebhookId;
use crate::delivery::view::{AttemptView, milliseconds};
use crate::event::EventId;
use crate::pipeline::{Pipeline, WaitingFor};
use crate::problem::Problem;
use crate::record::{DeliveryRecord, EventRecord, Store, StoreError};
use crate::shutdown::Drain;
use crate::snapshot::{Current, Snapshot};

struct Admin {
    current: Current,
    store: Arc<dyn Store>,
    pipeline: Pipeline,
    drain: Drain,
}

/// `GET /v1/events/{id}`, `/v1/deliveries`, `/v1/jobs`, `/v1/jobs/{id}`, `/v1/webhooks`, `/v1/webhooks/{id}`, `/v1/plugins`,
/// `/v1/plugins/{name}`, `/v1/purges/{id}`, `/healthz` and `/readyz`, and `POST /v1/events/{id}/skip`, `/v1/replays`,
/// `/v1/cancellations`, `/v1/jobs/{id}/cancel`, `/v1/webhooks/{id}/disable`, `…/enable`, `/v1/plugins/{name}/reset` and
/// `/v1/purges`.
pub fn routes(current: Current, store: Arc<dyn Store>, pipeline: Pipeline, drain: Drain) -> Router {
    Router::new()
        .route("/v1/events/{id}", get(event))
        .route("/v1/events/{id}/skip", post(order::skip))
        .route("/v1/deliveries", get(deliveries::list))
        .route("/v1/replays", post(jobs::replay))
        .route("/v1/cancellations", post(jobs::cancel))
        .route("/v1/jobs", get(jobs::list))
        .route("/v1/jobs/{id}", get(jobs::one))
        .route("/v1/jobs/{id}/cancel", post(jobs::stop))
        .route("/v1/webhooks", get(webhooks::list))
        .route("/v1/webhooks/{id}", get(webhooks::one))
        .route("/v1/webhooks/{id}/disable", post(webhooks::disable))
        .route("/v1/webhooks/{id}/enable", post(webhooks::enable))
        .route("/v1/plugins", get(plugins::plugins))
        .route("/v1/plugins/{name}", get(plugins::plugin))
        .route("/v1/plugins/{name}/reset", post(breakers::reset))
        .route("/v1/purges", post(purges::begin))
        .route("/v1/purges/{id}", get(purges::one))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Arc::new(Admin { current, store, pipeline, drain }))
}

/// Ready: the store answers, and no shutdown has begun.
async fn ready(State(admin): State<Arc<Admin>>) -> Result<&'static str, Problem> {
    if admin.drain.has_begun() {
        return Err(Problem::not_ready("the gateway is shutting down"));
    }
    admin.store.ping().await.map_err(unavailable)?;
    Ok("ready\n")
}

fn unavailable(error: StoreError) -> Problem {
    tracing::error!(%error, "the store does not answer");
    drop(error);
    Problem::store_unavailable("the store does not answer; the gateway's log says why")
}

async fn event(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let tenant = authenticate(&admin.current, &headers)?;
    let missing = || Problem::not_found(format!("there is no event with the id {id:?}"));
    let parsed = EventId::parse(&id).map_err(|_| missing())?;
    let found = admin.store.event(Arc::clone(tenant.name()), parsed).await.map_err(unavailable)?;
    let record = found.ok_or_else(missing)?;
    json(&EventView::new(&record, &admin.current.load(), &admin.pipeline))
}

fn json(answer: &impl Serialize) -> Result<Response<Body>, Problem> {
    let body = serde_json::to_vec(answer).map_err(|error| unavailable(StoreError::new(error)))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The answer to a request that begins something, which is to be looked at in this place. It is said when an earlier
/// request began it.
fn accepted(
    answer: &impl Serialize,
    place: &str,
    repeated: bool,
) -> Result<Response<Body>, Problem> {
    let mut response = json(answer)?;
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.extend(HeaderValue::from_str(place).ok().map(|place| (header::LOCATION, place)));
    if repeated {
        headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

#[derive(Serialize)]
struct EventView<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    timestamp: Timestamp,
    accepted_at: Timestamp,
    data: Option<&'a RawValue>,
    /// The data was removed before the rest.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    data_removed: bool,
    attributes: serde_json::Map<String, serde_json::Value>,
    ordering_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_url: Option<&'a str>,
    deliveries: Vec<DeliveryView<'a>>,
}

#[derive(Serialize)]
struct DeliveryView<'a> {
    id: String,
    webhook: WebhookView<'a>,
    /// The `webhook-id` that the receiver sees.
    message_id: String,
    part: u32,
    state: &'static str,
    reason: Option<&'a str>,
    next_attempt_at: Option<Timestamp>,
    /// What it waits for; absent when it is finished or under way.
    waiting_for: Option<&'static str>,
    /// The time before which it does not go out, where that is known.
    not_before: Option<Timestamp>,
    /// The delivery that it repeats.
    replay_of: Option<String>,
    plugins: Vec<PluginView<'a>>,
    attempts: Vec<AttemptView<'a>>,
}

#[derive(Serialize)]
struct WebhookView<'a> {
    id: &'a str,
    /// Absent when the webhook is no longer declared.
    name: Option<String>,
}

#[derive(Serialize)]
struct PluginView<'a> {
    name: &'a str,
    version: &'a str,
}

impl<'a> WebhookView<'a> {
    fn new(id: &'a WebhookId, snapshot: &Snapshot) -> Self {
        let name = snapshot.webhook(id).map(|webhook| webhook.definition.name.clone());
        Self { id: &id.0, name }
    }
}

impl<'a> EventView<'a> {
    fn new(record: &'a EventRecord, snapshot: &Snapshot, pipeline: &Pipeline) -> Self {
        let event = &record.event;
        Self {
            id: event.id.as_str(),
            event_type: event.event_type.as_str(),
            timestamp: event.timestamp,
            accepted_at: event.accepted_at,
            data: serde_json::from_slice(&event.data).ok(),
            data_removed: event.data.is_empty(),
            attributes: event
                .attributes
                .iter()
                .map(|(name, value)| (name.clone(), value.clone().into()))
                .collect(),
            ordering_key: event.ordering_key.as_deref(),
            webhook_url: event.webhook_url.as_ref().map(url::Url::as_str),
            deliveries: record
                .deliveries
                .iter()
                .map(|delivery| {
                    let waits = pipeline.waiting_for(delivery);
                    DeliveryView::new(record, delivery, snapshot, waits)
                })
                .collect(),
        }
    }
}

impl<'a> DeliveryView<'a> {
    fn new(
        record: &EventRecord,
        delivery: &'a DeliveryRecord,
        snapshot: &Snapshot,
        waits: Option<(WaitingFor, Option<Timestamp>)>,
    ) -> Self {
        let plugins = delivery.chain.split(',').filter_map(|plugin| plugin.split_once('@'));
        Self {
            id: delivery.id.to_string(),
            webhook: WebhookView::new(&delivery.webhook, snapshot),
            message_id: record.event.id.of_part(delivery.part),
            part: delivery.part,
            state: delivery.state.as_str(),
            reason: delivery.reason.as_deref(),
            next_attempt_at: delivery.due_at,
            waiting_for: waits.map(|(what, _)| what.as_str()),
            not_before: waits.and_then(|(_, not_before)| not_before),
            replay_of: delivery.replay_of.map(|id| id.to_string()),
            plugins: plugins.map(|(name, version)| PluginView { name, version }).collect(),
            attempts: delivery.attempts.iter().zip(1..).map(AttemptView::new).collect(),
        }
    }
}
