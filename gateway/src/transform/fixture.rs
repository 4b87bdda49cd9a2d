//! Fixtures: files that say what a plugin makes of an event, run through the sandbox.
//!
//! The format is that of the SDK's `testing::fixtures`, which runs the same files natively; it is described
//! there. What the file leaves out has the same value here and there.

mod expect;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use self::expect::Expected;
use super::trial::{Trial, observe};
use super::{Mocks, Plugin, Recipient, ScriptedAnswer, StandIn, Step};
use crate::delivery::{DeliveryId, WebhookId};
use crate::event::{Event, EventId, EventType, to_microsecond};

/// The values of what a fixture leaves out: those of the SDK's `testing::event` and `testing::context`.
mod default {
    pub(super) const EVENT_ID: &str = "evt_0198a3c27f407a6b8c9d0e1f2a3b4c5d";
    pub(super) const EVENT_TYPE: &str = "order.paid";
    pub(super) const TENANT: &str = "acme";
    pub(super) const TIMESTAMP: &str = "2026-01-02T03:04:05Z";
    pub(super) const WEBHOOK_ID: &str = "wh_0198a3c27f407a6b8c9d0e1f2a3b4c5e";
    pub(super) const WEBHOOK_NAME: &str = "orders";
    pub(super) const DELIVERY_ID: &str = "dlv_0198a3c27f407a6b8c9d0e1f2a3b4c5f";
    pub(super) const CONFIG: &str = "{}";
}

/// One case: an event, for whom it is, a config, what stands in for the gateway, and what is expected of them.
#[derive(Debug, Clone)]
pub struct Fixture {
    event: Event,
    webhook: WebhookId,
    webhook_name: String,
    webhook_metadata: Vec<(String, String)>,
    delivery: DeliveryId,
    config: Arc<str>,
    mocks: Mocks,
    expected: Option<Expected>,
}

/// Why a file is no fixture: a phrase about the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixtureError(String);

impl fmt::Display for FixtureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FixtureError {}

/// What came of a case.
#[derive(Debug)]
pub struct Judgement {
    /// Whether it turned out as the fixture says.
    pub holds: bool,
    /// What the fixture says; none when it says nothing.
    pub expected: Option<Value>,
    /// What came out, in the words of a fixture. A failure that no fixture can expect, such as a trap, stands
    /// under the name of its kind.
    pub actual: Value,
    /// The call.
    pub trial: Trial,
}

impl Fixture {
    /// Reads a fixture's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, FixtureError> {
        let file: File =
            serde_json::from_str(text).map_err(|error| FixtureError(error.to_string()))?;
        let File { event, context, config, secrets, kv, time, http, expect } = file;
        let delivery = context.delivery_id.as_deref().unwrap_or(default::DELIVERY_ID);
        let delivery = DeliveryId::parse(delivery).ok_or_else(|| {
            let why = "is not a delivery's id, such as dlv_0198a3c27f407a6b8c9d0e1f2a3b4c5f";
            FixtureError(format!("context.delivery_id {why}"))
        })?;
        Ok(Self {
            event: event.into_event(time)?,
            webhook: WebhookId(or(context.webhook_id, default::WEBHOOK_ID).into()),
            webhook_name: or(context.webhook_name, default::WEBHOOK_NAME),
            webhook_metadata: context.webhook_metadata.into_iter().collect(),
            delivery,
            config: config.as_deref().map_or(default::CONFIG, RawValue::get).into(),
            mocks: Mocks { secrets: secrets.into_iter().collect(), kv, http },
            expected: expect.map(Expected::parse).transpose().map_err(FixtureError)?,
        })
    }

    /// Runs the case. What it says of secrets, keys and servers is there for this run alone.
    ///
    /// # Errors
    /// When it says something of which the plugin's grants keep it from the plugin.
    pub async fn run(&self, plugin: &Plugin) -> Result<Judgement, FixtureError> {
        let stand_in = StandIn::for_fixture(&self.mocks, self.event.accepted_at);
        let plugin = Arc::new(stand_in.serve(plugin).map_err(FixtureError)?);
        let step = Step { plugin, config: Arc::clone(&self.config) };
        let recipient = Recipient {
            webhook: &self.webhook,
            name: &self.webhook_name,
            metadata: &self.webhook_metadata,
            delivery: self.delivery,
            secrets: stand_in.secrets(),
        };
        let (trial, answer) = observe(&self.event, recipient, &step).await;
        let actual = expect::written(&trial.outcome, answer.as_ref(), self.expected.as_ref());
        Ok(Judgement {
            holds: self.expected.as_ref().is_some_and(|expected| expected.holds(&actual)),
            expected: self.expected.as_ref().map(Expected::value).cloned(),
            actual,
            trial,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    event: EventFields,
    #[serde(default)]
    context: ContextFields,
    config: Option<Box<RawValue>>,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    #[serde(default)]
    kv: BTreeMap<String, String>,
    time: Option<String>,
    #[serde(default)]
    http: Vec<ScriptedAnswer>,
    expect: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventFields {
    id: Option<String>,
    r#type: Option<String>,
    tenant: Option<String>,
    timestamp: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    payload: Box<RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContextFields {
    webhook_id: Option<String>,
    webhook_name: Option<String>,
    #[serde(default)]
    webhook_metadata: BTreeMap<String, String>,
    delivery_id: Option<String>,
}

impl EventFields {
    /// The event, accepted at this time: by then a plugin knows what time it is.
    fn into_event(self, accepted_at: Option<String>) -> Result<Event, FixtureError> {
        let wrong =
            |field: &str, why: &dyn fmt::Display| FixtureError(format!("event.{field} {why}"));
        Ok(Event {
            tenant: or(self.tenant, default::TENANT).into(),
            id: EventId::parse(&or(self.id, default::EVENT_ID)).map_err(|why| wrong("id", &why))?,
            event_type: EventType::parse(&or(self.r#type, default::EVENT_TYPE))
                .map_err(|why| wrong("type", &why))?,
            timestamp: time(self.timestamp, "event.timestamp")?,
            accepted_at: time(accepted_at, "time")?,
            data: Bytes::from(self.payload.get().to_owned()),
            attributes: self.attributes.into_iter().collect(),
            ordering_key: None,
            webhook_url: None,
        })
    }
}

fn time(given: Option<String>, field: &str) -> Result<Timestamp, FixtureError> {
    let time: Timestamp = or(given, default::TIMESTAMP)
        .parse()
        .map_err(|error| FixtureError(format!("{field} is not RFC 3339: {error}")))?;
    Ok(to_microsecond(time))
}

fn or(given: Option<String>, default: &str) -> String {
    given.unwrap_or_else(|| default.to_owned())
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::testing;

    use super::*;

    fn refusal(text: &str) -> String {
        Fixture::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_left_out_is_as_in_a_native_run() {
        let fixture = Fixture::parse(r#"{"event":{"payload": 1.50}}"#).unwrap();
        let (event, context) = (testing::event(()), testing::context(()));
        assert_eq!(fixture.event.id.as_str(), event.id);
        assert_eq!(fixture.event.event_type.as_str(), event.event_type);
        assert_eq!(&*fixture.event.tenant, event.tenant);
        assert_eq!(fixture.event.timestamp.to_string(), event.timestamp);
        assert_eq!(fixture.event.accepted_at.to_string(), event.timestamp);
        assert_eq!(&*fixture.webhook.0, context.webhook_id);
        assert_eq!(fixture.webhook_name, context.webhook_name);
        assert_eq!(fixture.delivery.to_string(), context.delivery_id);
        assert_eq!(fixture.event.data_text(), "1.50");
        assert_eq!(&*fixture.config, "{}");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("{", "EOF"),
            (r#"{"evnt":{"payload":1}}"#, "unknown field `evnt`"),
            (r#"{"event":{"paylod":1}}"#, "unknown field `paylod`"),
            (r#"{"event":{}}"#, "missing field `payload`"),
            (r#"{"event":{"payload":1,"id":"a.b"}}"#, "event.id has the character '.'"),
            (r#"{"event":{"payload":1,"type":"a..b"}}"#, "event.type \"a..b\" has an empty name"),
            (r#"{"event":{"payload":1,"timestamp":"today"}}"#, "event.timestamp is not RFC 3339"),
            (r#"{"event":{"payload":1},"context":{"delivery_id":"7"}}"#, "context.delivery_id"),
            (r#"{"event":{"payload":1},"time":"today"}"#, "time is not RFC 3339"),
            (r#"{"event":{"payload":1},"kv":{"n":1}}"#, "expected a string"),
            (r#"{"event":{"payload":1},"http":[{"json":1}]}"#, "missing field `url`"),
            (r#"{"event":{"payload":1},"http":[{"url":"/x"}]}"#, "the url \"/x\" is none"),
            (
                r#"{"event":{"payload":1},"http":[{"url":"https://a.example/","jsn":1}]}"#,
                "unknown field `jsn`",
            ),
            (
                r#"{"event":{"payload":1},"expect":{"foward":[]}}"#,
                "expect: unknown variant `foward`",
            ),
            (r#"{"event":{"payload":1},"expect":{"forward":[{"jsn":1}]}}"#, "unknown field `jsn`"),
            (r#"{"event":{"payload":1},"expect":"drop"}"#, "expect"),
        ] {
            assert!(refusal(text).contains(expected), "{text}: {}", refusal(text));
        }
    }
}
