//! `POST /v1/purges`, which begins to remove a tenant's things whatever their age and state, and `GET /v1/purges/{id}`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Request, Response};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Admin, accepted, json, request, unavailable};
use crate::access::authenticate;
use crate::event::to_microsecond;
use crate::problem::{FieldError, Problem};
use crate::record::{MAX_OPEN_PURGES, NewPurge, Purge, PurgeBegun, PurgeId, Target};
use crate::snapshot::Tenant;

/// A purge as the API shows it. The value that it looks for is not repeated.
#[derive(Serialize)]
struct PurgeView<'a> {
    id: String,
    target: TargetView<'a>,
    state: &'static str,
    /// Events.
    matched: u64,
    done: u64,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum TargetView<'a> {
    Tenant(&'a str),
    Attribute { name: &'a str },
    Pointer(&'a str),
}

pub(super) async fn begin(
    State(admin): State<Arc<Admin>>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let (parts, body) = request.into_parts();
    let tenant = authenticate(&admin.current, &parts.headers)?;
    let (target, value) = read(&request::body(body).await?, &tenant)?;
    let purge = NewPurge {
        id: PurgeId::generate(),
        tenant: Arc::clone(tenant.name()),
        target,
        value,
        created_at: to_microsecond(Timestamp::now()),
    };
    let (purge, repeated) = match admin.pipeline.begin_purge(purge).await.map_err(unavailable)? {
        PurgeBegun::New(purge) => (purge, false),
        PurgeBegun::Open(purge) => (purge, true),
        PurgeBegun::TooMany => {
            return Err(Problem::too_many_purges(format!(
                "{MAX_OPEN_PURGES} purges are open; wait until some have ended"
            )));
        }
    };
    accepted(&PurgeView::new(&purge), &format!("/v1/purges/{}", purge.id), repeated)
}

pub(super) async fn one(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let tenant = authenticate(&admin.current, &headers)?;
    let missing = || Problem::not_found(format!("there is no purge with the id {id:?}"));
    let parsed = PurgeId::parse(&id).ok_or_else(missing)?;
    let found = admin.store.purge(Arc::clone(tenant.name()), parsed).await.map_err(unavailable)?;
    json(&PurgeView::new(&found.ok_or_else(missing)?))
}

impl<'a> PurgeView<'a> {
    fn new(purge: &'a Purge) -> Self {
        let target = match &purge.target {
            Target::Tenant => TargetView::Tenant(&purge.tenant),
            Target::Attribute(name) => TargetView::Attribute { name },
            Target::Pointer(pointer) => TargetView::Pointer(pointer),
        };
        let state = match (purge.started_at, purge.ended_at) {
            (_, Some(_)) => "completed",
            (Some(_), None) => "running",
            (None, None) => "waiting",
        };
        let Purge { matched, done, created_at, started_at, ended_at, .. } = *purge;
        let id = purge.id.to_string();
        Self { id, target, state, matched, done, created_at, started_at, ended_at }
    }
}

/// What a body asks for, and the value to look for.
fn read(body: &[u8], tenant: &Tenant) -> Result<(Target, Value), Problem> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::invalid_json(format!("the body is not JSON: {error}")))?;
    let Value::Object(fields) = value else {
        return Err(Problem::invalid_purge("the body must be a JSON object"));
    };
    target(fields, tenant).map_err(|error| {
        Problem::invalid_purge("`errors` has what is wrong; nothing was begun")
            .with_errors(vec![error])
    })
}

fn target(mut fields: Map<String, Value>, tenant: &Tenant) -> Result<(Target, Value), FieldError> {
    let found = if let Some(name) = fields.remove("tenant") {
        of_tenant(&name, tenant)?
    } else if let Some(attribute) = fields.remove("attribute") {
        of_attribute(attribute)?
    } else if let Some(pointer) = fields.remove("pointer") {
        let value = fields.remove("value").unwrap_or_default();
        of_pointer(&pointer, value)?
    } else {
        let detail = "is missing: one of `tenant`, `attribute` and `pointer` says what is purged";
        return Err(wrong("tenant", detail));
    };
    no_more(&fields, "")?;
    Ok(found)
}

fn of_tenant(name: &Value, tenant: &Tenant) -> Result<(Target, Value), FieldError> {
    let own = tenant.name();
    if name.as_str() != Some(own) {
        let detail = format!("must be the tenant whose key this is, {own:?}");
        return Err(wrong("tenant", detail));
    }
    Ok((Target::Tenant, Value::Null))
}

fn of_attribute(attribute: Value) -> Result<(Target, Value), FieldError> {
    let Value::Object(mut fields) = attribute else {
        return Err(wrong("attribute", "must be an object with `name` and `value`"));
    };
    let (name, value) = (fields.remove("name"), fields.remove("value"));
    no_more(&fields, "attribute.")?;
    match (name, value) {
        (Some(Value::String(name)), Some(value @ Value::String(_))) => {
            Ok((Target::Attribute(name), value))
        }
        (Some(Value::String(_)), _) => Err(wrong("attribute.value", "must be a string")),
        _ => Err(wrong("attribute.name", "must be a string")),
    }
}

fn of_pointer(pointer: &Value, value: Value) -> Result<(Target, Value), FieldError> {
    let detail = "must be a JSON Pointer into the data, such as \"/customer/id\"; in a name, `~1` stands for a slash \
                  and `~0` for a tilde";
    let pointer =
        pointer.as_str().filter(|text| is_pointer(text)).ok_or_else(|| wrong("pointer", detail))?;
    match value {
        Value::String(_) | Value::Number(_) | Value::Bool(_) => {
            Ok((Target::Pointer(pointer.to_owned()), value))
        }
        Value::Null | Value::Array(_) | Value::Object(_) => Err(wrong(
            "value",
            "must be a string, a number, true or false: what the data has there",
        )),
    }
}

/// Whether text is a JSON Pointer (RFC 6901).
fn is_pointer(text: &str) -> bool {
    let mut escapes = text.split('~').skip(1);
    (text.is_empty() || text.starts_with('/'))
        && escapes.all(|escape| escape.starts_with(['0', '1']))
}

/// Nothing may stand beside what was read: a purge that takes something else than was meant cannot be undone.
fn no_more(fields: &Map<String, Value>, prefix: &str) -> Result<(), FieldError> {
    match fields.keys().next() {
        None => Ok(()),
        Some(name) => Err(wrong(
            &format!("{prefix}{name}"),
            "does not belong here; a purge is `{\"tenant\"}`, `{\"attribute\": {\"name\", \"value\"}}` \
             or `{\"pointer\", \"value\"}`",
        )),
    }
}

fn wrong(field: &str, detail: impl Into<String>) -> FieldError {
    FieldError { field: field.to_owned(), detail: detail.into() }
}
