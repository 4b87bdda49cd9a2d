//! `GET /v1/webhooks` and `/v1/webhooks/{id}`, and `POST …/disable` and `…/enable`: whether webhooks are sent to, and
//! what waits for them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Request, Response};
use jiff::Timestamp;
use serde::Serialize;

use super::jobs::JobView;
use super::{Admin, json, request, unavailable};
use crate::access::authenticate;
use crate::event::to_microsecond;
use crate::pipeline::OnEnable;
use crate::problem::Problem;
use crate::record::{Disabled, WebhookState};
use crate::snapshot::{Tenant, Webhook};

#[derive(Serialize)]
struct WebhooksView<'a> {
    webhooks: Vec<StateView<'a>>,
}

#[derive(Serialize)]
struct StateView<'a> {
    id: &'a str,
    name: &'a str,
    /// `active`; `inactive`, as it is declared; or `disabled`.
    state: &'static str,
    /// Since when it is disabled, and why.
    since: Option<Timestamp>,
    reason: Option<String>,
    /// Nothing has got through since then.
    failing_since: Option<Timestamp>,
    /// Deliveries that wait until it is enabled.
    waiting: u64,
}

#[derive(Serialize)]
struct EnabledView<'a> {
    webhook: StateView<'a>,
    /// What sees to the deliveries that waited.
    job: JobView<'a>,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let tenant = authenticate(&admin.current, &headers)?;
    let webhooks = views(&admin, tenant.webhooks()).await?;
    json(&WebhooksView { webhooks })
}

pub(super) async fn one(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let tenant = authenticate(&admin.current, &headers)?;
    json(&view(&admin, find(&tenant, &id)?).await?)
}

pub(super) async fn disable(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let tenant = authenticate(&admin.current, &headers)?;
    let webhook = find(&tenant, &id)?;
    let since = to_microsecond(Timestamp::now());
    let disabled = Disabled { since, reason: "it was disabled by a request to the API".to_owned() };
    admin.pipeline.disable(webhook, disabled).await.map_err(unavailable)?;
    json(&view(&admin, webhook).await?)
}

pub(super) async fn enable(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let (parts, body) = request.into_parts();
    let tenant = authenticate(&admin.current, &parts.headers)?;
    let webhook = find(&tenant, &id)?;
    let body = request::body(body).await?;
    let value: serde_json::Value = serde_json::from_slice(&body)
        .map_err(|error| Problem::invalid_json(format!("the body is not JSON: {error}")))?;
    let only = value.as_object().is_some_and(|fields| fields.len() == 1);
    let waiting = match value.get("waiting").and_then(serde_json::Value::as_str) {
        Some("deliver") if only => OnEnable::Deliver,
        Some("discard") if only => OnEnable::Discard,
        _ => {
            return Err(Problem::invalid_selection(
                "the body says what becomes of the deliveries that wait: {\"waiting\": \"deliver\"} or \
                 {\"waiting\": \"discard\"}",
            ));
        }
    };
    let job = admin.pipeline.enable(webhook, waiting).await.map_err(unavailable)?;
    let snapshot = admin.current.load();
    let view = view(&admin, webhook).await?;
    json(&EnabledView { webhook: view, job: JobView::new(&job, &snapshot) })
}

/// A declared webhook, by its id or its name.
fn find<'a>(tenant: &'a Tenant, id: &str) -> Result<&'a Arc<Webhook>, Problem> {
    let is_it = |webhook: &&Arc<Webhook>| *webhook.id.0 == *id || webhook.definition.name == id;
    tenant
        .webhooks()
        .iter()
        .find(is_it)
        .ok_or_else(|| Problem::not_found(format!("there is no webhook {id:?}")))
}

async fn view<'a>(admin: &Admin, webhook: &'a Arc<Webhook>) -> Result<StateView<'a>, Problem> {
    let views = views(admin, std::slice::from_ref(webhook)).await?;
    views.into_iter().next().ok_or_else(|| Problem::not_found("there is no such webhook"))
}

async fn views<'a>(
    admin: &Admin,
    webhooks: &'a [Arc<Webhook>],
) -> Result<Vec<StateView<'a>>, Problem> {
    let ids = webhooks.iter().map(|webhook| webhook.id.clone()).collect();
    let waiting = admin.store.paused(ids).await.map_err(unavailable)?;
    let states = admin.store.webhook_states().await.map_err(unavailable)?;
    let views = webhooks.iter().zip(waiting).map(|(webhook, waiting)| {
        let known = states.iter().find(|state| state.webhook == webhook.id);
        StateView::new(webhook, known, waiting)
    });
    Ok(views.collect())
}

impl<'a> StateView<'a> {
    fn new(webhook: &'a Webhook, known: Option<&WebhookState>, waiting: u64) -> Self {
        let disabled = known.and_then(|state| state.disabled.as_ref());
        Self {
            id: &webhook.id.0,
            name: &webhook.definition.name,
            state: match (disabled, webhook.definition.active) {
                (Some(_), _) => "disabled",
                (None, true) => "active",
                (None, false) => "inactive",
            },
            since: disabled.map(|disabled| disabled.since),
            reason: disabled.map(|disabled| disabled.reason.clone()),
            failing_since: known.and_then(|state| state.failing_since),
            waiting,
        }
    }
}
