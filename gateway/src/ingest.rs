//! The ingest stage: takes events over HTTP and answers once they are durable.

mod body;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use jiff::Timestamp;
use serde::Serialize;
use url::Url;

use crate::access::authenticate;
use crate::digest::Digest;
use crate::event::to_microsecond;
use crate::failpoint::{self, Point};
use crate::pipeline::{Pipeline, Refusal};
use crate::problem::Problem;
use crate::record::{Accepted, AcceptedEvent, Fault, Idempotency};
use crate::snapshot::{Current, Tenant};

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest idempotency key, in bytes.
const MAX_KEY_LEN: usize = 256;

/// The longest `webhook_url` of an event, in bytes.
const MAX_URL_LEN: usize = 2_048;

/// What is taken, and from where.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// The most events in one request.
    pub max_events: usize,
    /// The deepest nesting of an event's data.
    pub max_depth: usize,
    /// How long idempotency keys are remembered; set by `[retention]`.
    pub idempotency: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            max_body_bytes: 1 << 20,
            max_events: 1_000,
            max_depth: 64,
            idempotency: Idempotency::KEPT,
        }
    }
}

struct Ingest {
    config: Config,
    current: Current,
    pipeline: Pipeline,
}

/// `POST /v1/events`.
pub fn routes(config: Config, current: Current, pipeline: Pipeline) -> Router {
    let ingest = Arc::new(Ingest { config, current, pipeline });
    Router::new().route("/v1/events", post(accept)).with_state(ingest)
}

/// The answer to accepted events.
#[derive(Serialize)]
struct Answer {
    events: Vec<AcceptedEvent>,
}

async fn accept(
    State(ingest): State<Arc<Ingest>>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let (parts, body) = request.into_parts();
    let tenant = authenticate(&ingest.current, &parts.headers)?;
    check_content_type(&parts.headers)?;
    let key = idempotency_key(&parts.headers)?;
    let body = read(body, ingest.config.max_body_bytes).await?;
    failpoint::hit(Point::BodyRead);
    let events = {
        let about = body::About {
            config: &ingest.config,
            tenant: tenant.name(),
            destination: &|text| destination(text, &tenant, &ingest.pipeline),
        };
        body::parse(&body, &about, to_microsecond(Timestamp::now()))?
    };
    let ids: Vec<_> = events.iter().map(|(event, _)| event.id.clone()).collect();
    let idempotency = key.map(|key| Idempotency {
        key,
        fingerprint: Digest::of(&body),
        kept: ingest.config.idempotency,
    });
    let accepted = ingest
        .pipeline
        .accept(tenant, events, idempotency)
        .await
        .map_err(|error| refused(&error))?;
    failpoint::hit(Point::EventsAccepted);
    match accepted {
        Accepted::Stored(events) => Ok(answer(events, false)),
        Accepted::Repeated(events) => Ok(answer(events, true)),
        Accepted::KeyReused => Err(Problem::idempotency_key_reused(
            "the same `Idempotency-Key` came with another body before; use a new key for a new request",
        )),
        Accepted::IdTaken(index) => {
            let id = ids.get(index).map_or("", |id| id.as_str());
            Err(Problem::event_id_taken(format!(
                "event [{index}]: an event with the id {id:?} and another type or data exists; \
                 nothing of this request was accepted"
            )))
        }
    }
}

/// Reads where an event is to be delivered beside the webhooks that match it.
fn destination(text: &str, tenant: &Tenant, pipeline: &Pipeline) -> Result<Url, String> {
    if tenant.ad_hoc().is_none() {
        return Err("is not taken for this tenant: its configuration needs the table `ad_hoc`, which says how \
                    such events are signed and sent"
            .to_owned());
    }
    if text.len() > MAX_URL_LEN {
        return Err(format!("has {} bytes; at most {MAX_URL_LEN} are taken", text.len()));
    }
    pipeline.parse_url(text)
}

/// The problem for a refusal, with when it may be worth trying again.
fn refused(refusal: &Refusal) -> Problem {
    match refusal {
        Refusal::Store(error) => {
            tracing::error!(%error, "events cannot be kept");
            let (why, seconds) = match error.fault() {
                Fault::Behind => ("the disk does not keep up", 2),
                Fault::Full => ("there is too little room on the disk", 10),
                Fault::Disk => ("the disk fails", 10),
                Fault::Damaged => ("the database is damaged", 60),
                Fault::Other | Fault::InUse => ("the gateway's log says why", 1),
            };
            let detail = format!("nothing was accepted ({why}); send the request again later");
            Problem::store_unavailable(detail).with_retry_after(seconds)
        }
        Refusal::Backlog(full) => {
            tracing::debug!(%full, "events are refused");
            let detail = format!("nothing was accepted: {full}; send the request again later");
            let problem = match full.of_tenant {
                true => Problem::backlog_full(detail),
                false => Problem::store_unavailable(detail),
            };
            problem.with_retry_after(5)
        }
    }
}

fn answer(events: Vec<AcceptedEvent>, repeated: bool) -> Response<Body> {
    // Ids and numbers always become JSON.
    let body = serde_json::to_vec(&Answer { events }).unwrap_or_default();
    let mut response =
        (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    if repeated {
        let value = HeaderValue::from_static("true");
        response.headers_mut().insert("idempotent-replayed", value);
    }
    response
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::unsupported_media_type(format!(
        "the content type is {text:?}; send `content-type: application/json`"
    )))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default().trim();
    if key.is_empty() || key.len() > MAX_KEY_LEN {
        return Err(Problem::invalid_request(format!(
            "`Idempotency-Key` must have 1 to {MAX_KEY_LEN} visible ASCII characters"
        )));
    }
    Ok(Some(key.to_owned()))
}

async fn read(body: Body, limit: usize) -> Result<Bytes, Problem> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::body_too_large(format!(
            "the body is larger than {limit} bytes (`ingest.max_body_bytes`); send fewer events at once"
        ))),
        Ok(Err(error)) => Err(Problem::invalid_request(format!("the body broke off: {error}"))),
        Err(_) => Err(Problem::request_timeout(format!("the body took over {BODY_TIMEOUT:?}"))),
    }
}
