//! A chain: plugins one after the other, each seeing what the one before it made.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::call::{Answer, Called};
use super::contract::exports::hookmill::plugin::transformer as guest;
use super::host::About;
use super::wasi::Occasion;
use super::{Limits, Plugin, Secrets, output, text};
use crate::delivery::{DeliveryId, Failure, FailureKind, Request, WebhookId};
use crate::digest::Digest;
use crate::event::Event;
use crate::kv::Run;

/// A plugin in a chain, with its config.
#[derive(Debug, Clone)]
pub struct Step {
    /// The plugin.
    pub plugin: Arc<Plugin>,
    /// JSON text.
    pub config: Arc<str>,
}

/// For whom an event is transformed.
#[derive(Debug, Clone, Copy)]
pub struct Recipient<'a> {
    /// The webhook.
    pub webhook: &'a WebhookId,
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub metadata: &'a [(String, String)],
    /// The delivery.
    pub delivery: DeliveryId,
    /// The tenant's secrets, for plugins that may read them.
    pub secrets: &'a Secrets,
}

/// What a chain made of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Send these, in order; there is at least one.
    Forward(Vec<Request>),
    /// Send nothing: the reason, with the plugin's name.
    Drop(String),
}

/// A failure with the plugin whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Its label, `name@version`; its name alone when it is not loaded.
    pub plugin: Arc<str>,
    /// What failed; the message begins with the plugin's name.
    pub failure: Failure,
}

/// Runs an event through a chain of at least one step.
///
/// A plugin that splits the event makes each of the later ones run once for each part; a part that is
/// dropped leaves the others as they are. Only the last plugin may make a body of bytes.
///
/// # Errors
/// The first failure of any plugin, for any part: nothing of the event is sent then.
pub async fn run(
    event: &Event,
    recipient: Recipient<'_>,
    steps: &[Step],
) -> Result<Outcome, Box<Failed>> {
    let mut parts: Option<Vec<Request>> = None;
    let mut dropped = String::new();
    for (step, place) in steps.iter().zip(0..) {
        let inputs = match parts.take() {
            None => vec![None],
            Some(parts) => parts.into_iter().map(Some).collect(),
        };
        let mut outputs = Vec::with_capacity(inputs.len());
        for (input, part) in inputs.into_iter().zip(0..) {
            let run = Run { delivery: recipient.delivery, step: place, part };
            match call(event, recipient, step, run, input.as_ref()).await? {
                Outcome::Forward(made) => {
                    outputs.extend(made.into_iter().map(|made| match &input {
                        Some(before) => output::layered(before, made),
                        None => made,
                    }));
                }
                Outcome::Drop(reason) => dropped = reason,
            }
            check_count(&step.plugin, outputs.len())?;
        }
        if outputs.is_empty() {
            return Ok(Outcome::Drop(dropped));
        }
        parts = Some(outputs);
    }
    parts.map(Outcome::Forward).ok_or_else(|| {
        let failure = Failure::new(FailureKind::Internal, "the chain is empty");
        Box::new(Failed { plugin: Arc::default(), failure })
    })
}

fn check_count(plugin: &Plugin, count: usize) -> Result<(), Box<Failed>> {
    let Limits { parts, .. } = plugin.limits;
    if count <= parts {
        return Ok(());
    }
    let message = format!("the event became more than {parts} parts");
    Err(failed(plugin, Failure::new(FailureKind::PluginOutput, message)))
}

fn failed(plugin: &Plugin, mut failure: Failure) -> Box<Failed> {
    text::cut(&mut failure.message, plugin.limits.message_bytes);
    failure.message.insert_str(0, &format!("{}: ", plugin.name));
    Box::new(Failed { plugin: Arc::clone(&plugin.label), failure })
}

/// What this call, and the same one whenever the run is repeated, may know of time and chance.
fn occasion(event: &Event, run: Run) -> Occasion {
    let Run { delivery, step, part } = run;
    Occasion {
        accepted_at: Duration::try_from(event.accepted_at.duration_since(Timestamp::UNIX_EPOCH))
            .unwrap_or_default(),
        seed: Digest::of_parts(&[delivery.as_bytes(), &step.to_le_bytes(), &part.to_le_bytes()]),
    }
}

async fn call(
    event: &Event,
    recipient: Recipient<'_>,
    step: &Step,
    run: Run,
    before: Option<&Request>,
) -> Result<Outcome, Box<Failed>> {
    let plugin = &*step.plugin;
    let payload = match before {
        None => event.data_text(),
        Some(request) => std::str::from_utf8(&request.body).map_err(|_| {
            let message = "the plugin before it made a body of bytes, which only the last may";
            failed(plugin, Failure::new(FailureKind::PluginOutput, message))
        })?,
    };
    let called = ask(event, recipient, step, run, payload).await;
    called.log.emit(&plugin.name, Some((event, recipient.delivery)));
    let outcome = match called.result.and_then(|answer| judge(answer, &plugin.limits)) {
        Ok(Outcome::Drop(reason)) => Ok(Outcome::Drop(format!("{}: {reason}", plugin.name))),
        Ok(forward) => Ok(forward),
        Err(failure) => Err(failed(plugin, failure)),
    };
    plugin.tally().record(&event.tenant, &outcome, called.usage.time);
    outcome
}

/// Calls a plugin for an event with this payload.
pub(super) async fn ask(
    event: &Event,
    recipient: Recipient<'_>,
    step: &Step,
    run: Run,
    payload: &str,
) -> Called<Answer> {
    let timestamp = event.timestamp.to_string();
    let delivery = recipient.delivery.to_string();
    let attributes = pairs(&event.attributes);
    let metadata = pairs(recipient.metadata);
    let guest_event = guest::Event {
        id: event.id.as_str(),
        type_: event.event_type.as_str(),
        tenant: &event.tenant,
        timestamp: &timestamp,
        payload,
        attributes: &attributes,
        extensions: &[],
    };
    let context = guest::Context {
        webhook_id: &recipient.webhook.0,
        webhook_name: recipient.name,
        webhook_metadata: &metadata,
        delivery_id: &delivery,
        config: &step.config,
        extensions: &[],
    };
    let secrets = recipient.secrets.granted(&step.plugin.grants.secrets);
    let session = step.plugin.session(|| About {
        tenant: Arc::clone(&event.tenant),
        run,
        accepted_at: event.accepted_at,
        secrets: secrets.clone(),
    });
    let occasion = || occasion(event, run);
    let mut called = step.plugin.call(&event.tenant, guest_event, context, session, occasion).await;
    called.result = match called.result {
        Ok(Ok(guest::Verdict::Drop(reason))) => {
            Ok(Ok(guest::Verdict::Drop(secrets.redact(reason))))
        }
        Ok(Err(guest::Failure::Invalid(message))) => {
            Ok(Err(guest::Failure::Invalid(secrets.redact(message))))
        }
        Ok(Err(guest::Failure::Retry(message))) => {
            Ok(Err(guest::Failure::Retry(secrets.redact(message))))
        }
        Err(Failure { kind, message }) => Err(Failure::new(kind, secrets.redact(message))),
        forward @ Ok(Ok(guest::Verdict::Forward(_))) => forward,
    };
    called
}

/// What a plugin's answer comes to, once it is checked.
pub(super) fn judge(answer: Answer, limits: &Limits) -> Result<Outcome, Failure> {
    match answer {
        Ok(guest::Verdict::Drop(mut reason)) => {
            text::cut(&mut reason, limits.message_bytes);
            Ok(Outcome::Drop(reason))
        }
        Ok(guest::Verdict::Forward(parts)) => output::requests(parts, limits)
            .map(Outcome::Forward)
            .map_err(|message| Failure::new(FailureKind::PluginOutput, message)),
        Err(guest::Failure::Invalid(message)) => {
            Err(Failure::new(FailureKind::PluginInvalid, message))
        }
        Err(guest::Failure::Retry(message)) => Err(Failure::new(FailureKind::PluginError, message)),
    }
}

fn pairs(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
