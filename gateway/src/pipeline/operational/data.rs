//! The data of operational events. `docs/operational-events.md` documents their fields.

use jiff::Timestamp;
use serde::Serialize;

use crate::delivery::view::{AttemptView, FailureView};
use crate::delivery::{Attempt, Delivery, State};
use crate::event::{Event, to_microsecond};
use crate::record::Hold;
use crate::snapshot::Webhook;

/// Of what became of an attempt.
#[derive(Serialize)]
pub(super) struct DeliveryData<'a> {
    tenant: &'a str,
    webhook: WebhookName<'a>,
    event: EventName<'a>,
    delivery: DeliveryNow,
    attempt: AttemptView<'a>,
    /// The plugin that failed.
    plugin: Option<PluginName<'a>>,
}

#[derive(Serialize)]
struct WebhookName<'a> {
    id: &'a str,
    /// None when the webhook is no longer declared.
    name: Option<&'a str>,
}

#[derive(Serialize)]
struct EventName<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
}

/// A delivery after the attempt.
#[derive(Serialize)]
struct DeliveryNow {
    id: String,
    part: u32,
    /// The `webhook-id` that the receiver saw.
    message_id: String,
    state: &'static str,
    next_attempt_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct PluginName<'a> {
    name: &'a str,
    /// None when it is not loaded.
    version: Option<&'a str>,
}

/// Where a delivery stands after an attempt, and when the next one is due if that is known.
pub(super) struct After {
    pub(super) state: State,
    pub(super) next_attempt_at: Option<Timestamp>,
}

impl<'a> DeliveryData<'a> {
    /// Of a delivery to a webhook, if that is still declared; `number` is that of the attempt, and `plugin` the one
    /// that failed, as `name@version`.
    pub(super) fn new(
        (event, delivery): (&'a Event, &'a Delivery),
        webhook: Option<&'a Webhook>,
        (attempt, number): (&'a Attempt, u32),
        after: &After,
        plugin: Option<&'a str>,
    ) -> Self {
        let id = &delivery.webhook.0;
        let name = webhook.map(|webhook| webhook.definition.name.as_str());
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            tenant: &event.tenant,
            webhook: WebhookName { id, name },
            event: EventName { id: event.id.as_str(), event_type: event.event_type.as_str() },
            delivery: DeliveryNow {
                id: delivery.id.to_string(),
                part: delivery.part,
                message_id: event.id.of_part(delivery.part),
                state: after.state.as_str(),
                // As precise as the API shows it later.
                next_attempt_at: after.next_attempt_at.map(to_microsecond),
            },
            attempt: AttemptView::new((attempt, number)),
            plugin: plugin.map(PluginName::of),
        }
    }
}

impl<'a> PluginName<'a> {
    /// Of a label: `name@version`, or a name alone.
    fn of(label: &'a str) -> Self {
        match label.split_once('@') {
            Some((name, version)) => Self { name, version: Some(version) },
            None => Self { name: label, version: None },
        }
    }
}

/// Of plugins that keep failing.
#[derive(Serialize)]
pub(super) struct FailingData<'a> {
    tenant: &'a str,
    webhook: WebhookName<'a>,
    plugin: PluginName<'a>,
    /// How many deliveries failed in a row.
    failures: usize,
    failure: FailureView<'a>,
    since: Timestamp,
}

impl<'a> FailingData<'a> {
    /// Of the plugins of a webhook.
    pub(super) fn new(webhook: &'a Webhook, hold: &'a Hold, failures: usize) -> Self {
        Self {
            tenant: &webhook.tenant,
            webhook: WebhookName::of(webhook),
            plugin: PluginName::of(&hold.cause),
            failures,
            failure: FailureView::new(&hold.failure),
            since: to_microsecond(hold.since),
        }
    }
}

/// Of a webhook that is disabled or enabled.
#[derive(Serialize)]
pub(super) struct WebhookData<'a> {
    tenant: &'a str,
    webhook: WebhookName<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    since: Timestamp,
}

impl<'a> WebhookData<'a> {
    /// Of this webhook.
    pub(super) fn new(webhook: &'a Webhook, reason: Option<&'a str>, since: Timestamp) -> Self {
        let (tenant, since) = (&webhook.tenant, to_microsecond(since));
        Self { tenant, webhook: WebhookName::of(webhook), reason, since }
    }
}

impl<'a> WebhookName<'a> {
    fn of(webhook: &'a Webhook) -> Self {
        Self { id: &webhook.id.0, name: Some(&webhook.definition.name) }
    }
}

/// Of a plugin's files: what runs from now on, or why they are refused.
#[derive(Serialize)]
pub(super) struct PluginData<'a> {
    pub(super) tenant: &'a str,
    pub(super) plugin: FileName<'a>,
    #[serde(flatten)]
    pub(super) news: PluginNews<'a>,
}

#[derive(Serialize)]
pub(super) struct FileName<'a> {
    pub(super) name: &'a str,
    /// `tenant` or `all`: whose plugin it is.
    pub(super) scope: &'static str,
    /// The hash of its file; none where that could not be read.
    pub(super) version: Option<String>,
}

/// What there is to say of a plugin's files.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum PluginNews<'a> {
    /// They run from now on.
    Loaded {
        /// The version that they describe themselves as.
        described: &'a str,
        /// The version that ran before.
        replaced: Option<String>,
    },
    /// They are refused.
    Rejected {
        /// Why.
        reason: &'a str,
        /// The version that goes on running.
        kept: Option<String>,
        since: Timestamp,
    },
}
