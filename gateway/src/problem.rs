//! Problem documents (RFC 9457): every error of the HTTP API, and the one place that chooses statuses.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;

/// An error for the client: what is wrong, where, and the way out.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    /// Stable; for programs.
    code: &'static str,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// When to try again, in seconds; goes into a header.
    #[serde(skip)]
    retry_after: Option<u16>,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where it is: `type`, `attributes.region`, `[3].data`.
    pub field: String,
    /// What is wrong, and the way out.
    pub detail: String,
}

/// Declares the problems: function, status, code and title.
macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $title:literal;)*) => {
        impl Problem {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(detail: impl Into<String>) -> Self {
                    Self::new(StatusCode::$status, stringify!($name), $title, detail.into())
                }
            )*
        }
    };
}

problems! {
    /// The request has no usable credentials.
    missing_key = UNAUTHORIZED, "An API key is needed";
    /// The key is nobody's.
    unknown_key = UNAUTHORIZED, "The API key is not known";
    /// There is no such thing, or it is another tenant's.
    not_found = NOT_FOUND, "There is no such thing";
    /// The path exists, with another method.
    method_not_allowed = METHOD_NOT_ALLOWED, "The path takes another method";
    /// The request took too long to arrive.
    request_timeout = REQUEST_TIMEOUT, "The request took too long";
    /// Another event has this id.
    event_id_taken = CONFLICT, "Another event has this id";
    /// The body is larger than allowed.
    body_too_large = PAYLOAD_TOO_LARGE, "The body is too large";
    /// The body is of a type that is not taken.
    unsupported_media_type = UNSUPPORTED_MEDIA_TYPE, "The body's type is not taken";
    /// The body is not JSON.
    invalid_json = BAD_REQUEST, "The body is not JSON";
    /// The body is cut off or otherwise broken.
    invalid_request = BAD_REQUEST, "The request is broken";
    /// The body is JSON, but not an event.
    invalid_event = UNPROCESSABLE_ENTITY, "The body is not an event";
    /// A parameter in the URL is wrong.
    invalid_parameter = BAD_REQUEST, "A parameter is wrong";
    /// The body does not say which deliveries.
    invalid_selection = UNPROCESSABLE_ENTITY, "The body does not select deliveries";
    /// The tenant has as many jobs under way as it may have.
    too_many_jobs = CONFLICT, "Too many jobs are open";
    /// The key was used for another request.
    idempotency_key_reused = UNPROCESSABLE_ENTITY, "The idempotency key was used for another request";
    /// Too much waits to be delivered for the tenant.
    backlog_full = TOO_MANY_REQUESTS, "Too much waits to be delivered";
    /// The body does not say what to purge.
    invalid_purge = UNPROCESSABLE_ENTITY, "The body does not say what to purge";
    /// The tenant has as many purges under way as it may have.
    too_many_purges = CONFLICT, "Too many purges are open";
    /// Nothing can be kept at the moment; nothing was.
    store_unavailable = SERVICE_UNAVAILABLE, "Events cannot be kept at the moment";
    /// The gateway is not ready to work.
    not_ready = SERVICE_UNAVAILABLE, "The gateway is not ready";
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: String) -> Self {
        Self {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            code,
            detail,
            errors: Vec::new(),
            // Whatever is unavailable may be back at once.
            retry_after: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        }
    }

    /// The same with when to try again, in seconds.
    #[must_use]
    pub fn with_retry_after(self, seconds: u16) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The same with what is wrong in each field.
    #[must_use]
    pub fn with_errors(self, errors: Vec<FieldError>) -> Self {
        Self { errors, ..self }
    }

    /// What is wrong, field by field.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A problem is strings and numbers, which always become JSON.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
