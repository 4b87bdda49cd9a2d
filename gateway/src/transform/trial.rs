//! A trial: one call outside the event path, of which everything is told.

use super::call::Answer;
use super::chain::{ask, judge};
use super::contract::exports::hookmill::plugin::transformer as guest;
use super::contract::hookmill::plugin::types::Outgoing;
use super::{LogLine, Outcome, Recipient, Step, Usage, output};
use crate::delivery::Failure;
use crate::event::Event;
use crate::kv::Run;

/// What one call came to.
#[derive(Debug)]
pub struct Trial {
    /// What would become of the event.
    pub outcome: Result<Outcome, Failure>,
    /// What the plugin logged.
    pub log: Vec<LogLine>,
    /// Messages that its limits left out.
    pub log_omitted: usize,
    /// What the call used.
    pub usage: Usage,
    /// What it returned.
    pub returned: Returned,
}

/// How much a call returned, also where that is more than it may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Returned {
    /// The bytes of all bodies, headers and other text.
    pub bytes: usize,
    /// The parts that the event became.
    pub parts: usize,
    /// The header changes of the part that has most.
    pub headers: usize,
}

impl Returned {
    fn of(parts: &[Outgoing]) -> Self {
        Self {
            bytes: parts.iter().map(output::size).sum(),
            parts: parts.len(),
            headers: parts.iter().map(|part| part.headers.len()).max().unwrap_or_default(),
        }
    }
}

/// Calls one plugin for an event, as the gateway would, and tells everything about it.
pub async fn trial(event: &Event, recipient: Recipient<'_>, step: &Step) -> Trial {
    observe(event, recipient, step).await.0
}

/// A trial, and what the plugin answered in its own words, where it did.
pub(super) async fn observe(
    event: &Event,
    recipient: Recipient<'_>,
    step: &Step,
) -> (Trial, Option<Answer>) {
    let run = Run { delivery: recipient.delivery, step: 0, part: 0 };
    let called = ask(event, recipient, step, run, event.data_text()).await;
    let returned = match &called.result {
        Ok(Ok(guest::Verdict::Forward(parts))) => Returned::of(parts),
        _ => Returned::default(),
    };
    let answer = called.result.as_ref().ok().cloned();
    let outcome = called.result.and_then(|answer| judge(answer, &step.plugin.limits));
    let (log, log_omitted) = called.log.into_lines();
    (Trial { outcome, log, log_omitted, usage: called.usage, returned }, answer)
}
