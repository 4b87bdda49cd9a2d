//! Wraps an event in the envelope of job status webhooks.
//!
//! ```json
//! {
//!   "event": "job.status",
//!   "liveMode": true,
//!   "messageId": "8e3bfae9-ac06-4a0a-beae-653b2d56f69f",
//!   "timestamp": "2022-04-05T12:46:17Z",
//!   "body": { "id": "a04c1abe-ff2b-4942-8584-daff733da98d", "status": "RUNNING" }
//! }
//! ```

mod message_id;

use hookmill_plugin::{Context, Event, Result, Verdict, config, transform};
use serde::Serialize;
use serde_json::value::RawValue;

use message_id::message_id;

/// The plugin's config.
#[config]
#[derive(Debug)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    /// Whether the events are real ones, rather than those of a test system.
    live_mode: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { live_mode: true }
    }
}

/// What the receiver gets. The members stand in this order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    /// The event's type.
    event: &'a str,
    live_mode: bool,
    /// A UUID, the same on every retry.
    message_id: String,
    /// When the event happened, to the second.
    timestamp: String,
    /// The payload, byte for byte.
    body: &'a RawValue,
}

/// Wraps the payload in the envelope of job status webhooks: event, liveMode, messageId, timestamp, body.
#[transform]
fn job_status_envelope(event: Event<&RawValue>, context: Context<Config>) -> Result<Verdict> {
    Verdict::forward(&Envelope {
        event: &event.event_type,
        live_mode: context.config.live_mode,
        message_id: message_id(&event.id),
        timestamp: to_the_second(&event.timestamp),
        body: event.payload,
    })
}

/// Leaves out the fraction of a second: receivers of this envelope never had one.
fn to_the_second(timestamp: &str) -> String {
    match timestamp.split_once('.') {
        Some((seconds, _fraction)) => format!("{seconds}Z"),
        None => timestamp.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::testing;

    use super::*;

    #[test]
    fn fixtures() {
        testing::fixtures(job_status_envelope, "fixtures");
    }

    #[test]
    fn timestamps_have_no_fraction() {
        for timestamp in ["2022-04-05T12:46:17Z", "2022-04-05T12:46:17.123456Z"] {
            assert_eq!(to_the_second(timestamp), "2022-04-05T12:46:17Z");
        }
    }
}
