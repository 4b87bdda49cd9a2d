//! An attempt as it is shown: in the API, and in the events that tell of it.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::{Attempt, Failure};

/// An attempt with its number, counted from 1.
#[derive(Debug, Serialize)]
pub struct AttemptView<'a> {
    number: usize,
    started_at: Timestamp,
    duration_ms: f64,
    status: Option<u16>,
    failure: Option<FailureView<'a>>,
    response_excerpt: &'a str,
    /// How long the receiver asked to wait, where it did.
    retry_after_ms: Option<f64>,
    timings: TimingsView,
}

/// Absent are the phases that it did not have, over a connection that was open, or did not get to.
#[derive(Debug, Serialize)]
struct TimingsView {
    dns_ms: Option<f64>,
    /// With the TLS handshake.
    connect_ms: Option<f64>,
    first_byte_ms: Option<f64>,
    total_ms: f64,
}

/// A failure, with whose fault it is.
#[derive(Debug, Serialize)]
pub struct FailureView<'a> {
    kind: &'static str,
    fault: &'static str,
    message: &'a str,
}

impl<'a> AttemptView<'a> {
    /// Shows an attempt.
    #[must_use]
    pub fn new((attempt, number): (&'a Attempt, usize)) -> Self {
        Self {
            number,
            started_at: attempt.started_at,
            duration_ms: milliseconds(attempt.duration_us),
            status: attempt.status,
            failure: attempt.failure.as_ref().map(FailureView::new),
            response_excerpt: &attempt.excerpt,
            retry_after_ms: attempt.retry_after.map(span_in_milliseconds),
            timings: TimingsView {
                dns_ms: attempt.timings.dns.map(span_in_milliseconds),
                connect_ms: attempt.timings.connect.map(span_in_milliseconds),
                first_byte_ms: attempt.timings.first_byte.map(span_in_milliseconds),
                total_ms: milliseconds(attempt.duration_us),
            },
        }
    }
}

impl<'a> FailureView<'a> {
    /// Shows a failure.
    #[must_use]
    pub fn new(failure: &'a Failure) -> Self {
        let Failure { kind, message } = failure;
        Self { kind: kind.as_str(), fault: kind.fault().as_str(), message }
    }
}

/// As [`milliseconds`] of what is stored in microseconds.
fn span_in_milliseconds(span: Duration) -> f64 {
    milliseconds(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
}

/// What is measured is short enough that no microsecond is lost.
#[expect(clippy::cast_precision_loss, reason = "up to 2^53 microseconds, 285 years, are exact")]
#[must_use]
pub fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1e3
}
