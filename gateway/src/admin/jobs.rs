//! `POST /v1/replays` and `/v1/cancellations`, which make jobs, and `GET /v1/jobs`, `/v1/jobs/{id}` and
//! `POST /v1/jobs/{id}/cancel`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Request, Response, Uri};
use jiff::Timestamp;
use serde::Serialize;

use super::request::{self, bad_parameters, parameters, wrong};
use super::{Admin, WebhookView, accepted, json, selection, unavailable};
use crate::access::authenticate;
use crate::delivery::{DeliveryId, State as DeliveryState};
use crate::event::to_microsecond;
use crate::problem::Problem;
use crate::record::{Action, Begun, Job, JobId, MAX_OPEN_JOBS, NewJob, Selection};
use crate::snapshot::Snapshot;

#[derive(Serialize)]
struct JobsView<'a> {
    jobs: Vec<JobView<'a>>,
    /// The `after` of the next page.
    next: Option<String>,
}

/// A job as the API shows it.
#[derive(Serialize)]
pub(super) struct JobView<'a> {
    id: String,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    same_bytes: Option<bool>,
    selection: SelectionView<'a>,
    state: &'static str,
    matched: u64,
    done: u64,
    failed: u64,
    /// Why the last one of those that failed did.
    last_failure: Option<&'a str>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum SelectionView<'a> {
    Deliveries {
        deliveries: Vec<String>,
    },
    Event {
        event: &'a str,
    },
    Filter {
        webhook: Option<WebhookView<'a>>,
        event_type: Option<&'a str>,
        state: Option<&'static str>,
        accepted_after: Option<Timestamp>,
        accepted_before: Option<Timestamp>,
        failed_since: Option<Timestamp>,
    },
}

pub(super) async fn replay(
    state: State<Arc<Admin>>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    begin(state, request, Action::Replay).await
}

pub(super) async fn cancel(
    state: State<Arc<Admin>>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    begin(state, request, Action::Cancel).await
}

async fn begin(
    State(admin): State<Arc<Admin>>,
    request: Request<Body>,
    action: Action,
) -> Result<Response<Body>, Problem> {
    let (parts, body) = request.into_parts();
    let tenant = authenticate(&admin.current, &parts.headers)?;
    let body = request::body(body).await?;
    let kept = admin.pipeline.idempotency();
    let idempotency = request::idempotency(&parts.headers, parts.uri.path(), &body, kept)?;
    let (action, selection) = selection::read(&body, &tenant, action)?;
    let job = NewJob {
        id: JobId::generate(),
        tenant: Arc::clone(tenant.name()),
        action,
        selection,
        until: DeliveryId::generate(),
        created_at: to_microsecond(Timestamp::now()),
        idempotency,
    };
    let (job, repeated) = match admin.pipeline.begin_job(job).await.map_err(unavailable)? {
        Begun::New(job) => (job, false),
        Begun::Repeated(job) => (job, true),
        Begun::KeyReused => {
            return Err(Problem::idempotency_key_reused(
                "the same `Idempotency-Key` came with another request before; use a new key for a \
                 new request",
            ));
        }
        Begun::NoDelivery(id) => {
            let detail = format!("there is no delivery with the id \"{id}\"; nothing was begun");
            return Err(Problem::not_found(detail));
        }
        Begun::NoEvent(id) => {
            let detail = format!("there is no event with the id \"{id}\"; nothing was begun");
            return Err(Problem::not_found(detail));
        }
        Begun::TooMany => {
            return Err(Problem::too_many_jobs(format!(
                "{MAX_OPEN_JOBS} jobs are open; wait until some have ended, or cancel them. A filter \
                 can select many deliveries at once"
            )));
        }
    };
    let view = JobView::new(&job, &admin.current.load());
    accepted(&view, &format!("/v1/jobs/{}", job.id), repeated)
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let tenant = authenticate(&admin.current, &headers)?;
    let parameters = parameters(&uri, &[])?;
    let after = parameters.after.map(|text| {
        JobId::parse(&text).ok_or_else(|| {
            bad_parameters(vec![wrong("after", "must be the `next` of the page before")])
        })
    });
    let (name, limit) = (Arc::clone(tenant.name()), parameters.limit);
    let jobs = admin.store.jobs(name, after.transpose()?, limit).await.map_err(unavailable)?;
    let snapshot = admin.current.load();
    let full = jobs.len() == limit;
    json(&JobsView {
        jobs: jobs.iter().map(|job| JobView::new(job, &snapshot)).collect(),
        next: jobs.last().filter(|_| full).map(|last| last.id.to_string()),
    })
}

pub(super) async fn one(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let tenant = authenticate(&admin.current, &headers)?;
    let parsed = JobId::parse(&id).ok_or_else(|| missing(&id))?;
    let found = admin.store.job(Arc::clone(tenant.name()), parsed).await.map_err(unavailable)?;
    let job = found.ok_or_else(|| missing(&id))?;
    json(&JobView::new(&job, &admin.current.load()))
}

/// Stops a job. One that has ended is left as it is.
pub(super) async fn stop(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let tenant = authenticate(&admin.current, &headers)?;
    let parsed = JobId::parse(&id).ok_or_else(|| missing(&id))?;
    let (name, now) = (Arc::clone(tenant.name()), to_microsecond(Timestamp::now()));
    let found = admin.store.stop_job(name, parsed, now).await.map_err(unavailable)?;
    let job = found.ok_or_else(|| missing(&id))?;
    json(&JobView::new(&job, &admin.current.load()))
}

fn missing(id: &str) -> Problem {
    Problem::not_found(format!("there is no job with the id {id:?}"))
}

impl<'a> JobView<'a> {
    pub(super) fn new(job: &'a Job, snapshot: &Snapshot) -> Self {
        let (action, same_bytes) = match job.action {
            Action::Replay => ("replay", Some(false)),
            Action::ReplaySameBytes => ("replay", Some(true)),
            Action::Cancel => ("cancel", None),
            Action::Resume => ("resume", None),
            Action::Discard => ("discard", None),
        };
        Self {
            id: job.id.to_string(),
            action,
            same_bytes,
            selection: SelectionView::new(&job.selection, snapshot),
            state: job.state.as_str(),
            matched: job.matched,
            done: job.done,
            failed: job.failed,
            last_failure: job.failure.as_deref(),
            created_at: job.created_at,
            started_at: job.started_at,
            ended_at: job.ended_at,
        }
    }
}

impl<'a> SelectionView<'a> {
    fn new(selection: &'a Selection, snapshot: &Snapshot) -> Self {
        match selection {
            Selection::Deliveries(ids) => {
                Self::Deliveries { deliveries: ids.iter().map(ToString::to_string).collect() }
            }
            Selection::Event(event) => Self::Event { event: event.as_str() },
            Selection::Filter(filter) => Self::Filter {
                webhook: filter.webhook.as_ref().map(|id| WebhookView::new(id, snapshot)),
                event_type: filter.event_type.as_ref().map(|name| name.as_str()),
                state: filter.state.map(DeliveryState::as_str),
                accepted_after: filter.accepted_after,
                accepted_before: filter.accepted_before,
                failed_since: filter.failed_since,
            },
        }
    }
}
