//! `POST /v1/events/{id}/skip`: lets what waits behind an event's dead deliveries follow.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response};
use serde::Serialize;

use super::{Admin, WebhookView, json, unavailable};
use crate::access::authenticate;
use crate::event::EventId;
use crate::problem::Problem;

#[derive(Serialize)]
struct SkipView<'a> {
    event: &'a str,
    /// The dead deliveries behind which nothing waits any more.
    skipped: Vec<SkippedView<'a>>,
}

#[derive(Serialize)]
struct SkippedView<'a> {
    delivery: String,
    webhook: WebhookView<'a>,
}

pub(super) async fn skip(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let tenant = authenticate(&admin.current, &headers)?;
    let missing = || Problem::not_found(format!("there is no event with the id {id:?}"));
    let event = EventId::parse(&id).map_err(|_| missing())?;
    let skipped = admin.pipeline.skip(Arc::clone(tenant.name()), event).await;
    let skipped = skipped.map_err(unavailable)?.ok_or_else(missing)?;
    let snapshot = admin.current.load();
    let skipped = skipped.iter().map(|skipped| SkippedView {
        delivery: skipped.delivery.to_string(),
        webhook: WebhookView::new(&skipped.webhook, &snapshot),
    });
    json(&SkipView { event: &id, skipped: skipped.collect() })
}
