//! `GET /v1/deliveries`: which deliveries are in a state, go to a webhook, or failed since a time.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri};
use jiff::Timestamp;
use serde::Serialize;

use super::request::{bad_parameters, parameters, wrong};
use super::{Admin, AttemptView, WebhookView, json, selection, unavailable};
use crate::access::authenticate;
use crate::delivery::DeliveryId;
use crate::problem::Problem;
use crate::record::{Filter, Listed};
use crate::snapshot::Snapshot;

#[derive(Serialize)]
struct PageView<'a> {
    deliveries: Vec<ListedView<'a>>,
    /// The `after` of the next page.
    next: Option<String>,
}

#[derive(Serialize)]
struct ListedView<'a> {
    id: String,
    event: EventView<'a>,
    webhook: WebhookView<'a>,
    message_id: String,
    part: u32,
    state: &'static str,
    reason: Option<&'a str>,
    next_attempt_at: Option<Timestamp>,
    replay_of: Option<String>,
    attempts: u32,
    last_attempt: Option<AttemptView<'a>>,
}

#[derive(Serialize)]
struct EventView<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    accepted_at: Timestamp,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let tenant = authenticate(&admin.current, &headers)?;
    let parameters = parameters(&uri, &selection::FIELDS)?;
    let mut filter = Filter::default();
    let mut errors = Vec::new();
    for (name, text) in &parameters.own {
        errors.extend(selection::read_field(&mut filter, &tenant, name, text).err());
    }
    let after = parameters.after.map(|text| {
        let unknown = || wrong("after", "must be the `next` of the page before");
        DeliveryId::parse(&text).ok_or_else(unknown)
    });
    let after = after.transpose().unwrap_or_else(|error| {
        errors.push(error);
        None
    });
    if !errors.is_empty() {
        return Err(bad_parameters(errors));
    }
    let name = Arc::clone(tenant.name());
    let page = admin.store.deliveries(name, filter, after, parameters.limit).await;
    let page = page.map_err(unavailable)?;
    let snapshot = admin.current.load();
    let view = |listed| ListedView::new(listed, &snapshot);
    json(&PageView {
        deliveries: page.deliveries.iter().map(view).collect(),
        next: page.next.map(|next| next.to_string()),
    })
}

impl<'a> ListedView<'a> {
    fn new(listed: &'a Listed, snapshot: &Snapshot) -> Self {
        let number = usize::try_from(listed.attempts).unwrap_or(usize::MAX);
        Self {
            id: listed.id.to_string(),
            event: EventView {
                id: listed.event.as_str(),
                event_type: listed.event_type.as_str(),
                accepted_at: listed.accepted_at,
            },
            webhook: WebhookView::new(&listed.webhook, snapshot),
            message_id: listed.event.of_part(listed.part),
            part: listed.part,
            state: listed.state.as_str(),
            reason: listed.reason.as_deref(),
            next_attempt_at: listed.due_at,
            replay_of: listed.replay_of.map(|id| id.to_string()),
            attempts: listed.attempts,
            last_attempt: listed.last_attempt.as_ref().map(|last| AttemptView::new((last, number))),
        }
    }
}
