//! `POST /v1/plugins/{name}/reset`: tries what is held because a plugin failed, without waiting any longer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response};
use jiff::Timestamp;
use serde::Serialize;

use super::{Admin, json, unavailable};
use crate::access::authenticate;
use crate::problem::Problem;
use crate::record::{Held, Hold};
use crate::snapshot::Tenant;

#[derive(Serialize)]
struct ResetView {
    plugin: String,
    /// What is being released: in each webhook one delivery first, and the others once that succeeded.
    webhooks: Vec<HeldView>,
}

#[derive(Serialize)]
struct HeldView {
    id: String,
    name: Option<String>,
    #[serde(flatten)]
    hold: HoldView,
}

/// What a webhook holds, and why.
#[derive(Serialize)]
pub(super) struct HoldView {
    /// The version that failed, as `name@sha256`.
    plugin: String,
    held: u64,
    since: Timestamp,
    /// The failure that is on record.
    failure: FailureView,
}

#[derive(Serialize)]
struct FailureView {
    kind: &'static str,
    fault: &'static str,
    message: String,
}

pub(super) async fn reset(
    State(admin): State<Arc<Admin>>,
    Path(plugin): Path<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let tenant = authenticate(&admin.current, &headers)?;
    let held = admin.pipeline.reset(&tenant, &plugin).await.map_err(unavailable)?;
    if held.is_empty() && !tenant.webhooks().iter().any(|webhook| webhook.uses(&plugin)) {
        return Err(Problem::not_found(format!("no webhook has a plugin {plugin:?}")));
    }
    let webhooks = held.iter().map(|held| HeldView::new(held, &tenant)).collect();
    json(&ResetView { plugin, webhooks })
}

impl HeldView {
    fn new(held: &Held, tenant: &Tenant) -> Self {
        let webhook = tenant.webhooks().iter().find(|webhook| webhook.id == held.webhook);
        Self {
            name: webhook.map(|webhook| webhook.definition.name.clone()),
            id: held.webhook.to_string(),
            hold: HoldView::new(held),
        }
    }
}

impl HoldView {
    pub(super) fn new(held: &Held) -> Self {
        let Hold { cause, failure, since, .. } = &held.hold;
        Self {
            plugin: cause.to_string(),
            held: held.deliveries,
            since: *since,
            failure: FailureView {
                kind: failure.kind.as_str(),
                fault: failure.kind.fault().as_str(),
                message: failure.message.clone(),
            },
        }
    }
}
