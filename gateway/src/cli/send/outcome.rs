//! What became of an event, read from the API and told to people.

use serde::Deserialize;

use crate::cli::terminal::{Harmless, Paint};
use crate::delivery::State;

/// An event and its deliveries.
#[derive(Debug, Deserialize)]
pub(super) struct EventStatus {
    id: Harmless,
    #[serde(rename = "type")]
    event_type: Harmless,
    #[serde(default)]
    deliveries: Vec<Delivery>,
}

#[derive(Debug, Deserialize)]
struct Delivery {
    webhook: Webhook,
    message_id: Option<Harmless>,
    state: Harmless,
    reason: Option<Harmless>,
    next_attempt_at: Option<Harmless>,
    #[serde(default)]
    attempts: Vec<Attempt>,
}

#[derive(Debug, Deserialize)]
struct Webhook {
    id: Harmless,
    name: Option<Harmless>,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    number: u32,
    duration_ms: Option<f64>,
    status: Option<u16>,
    failure: Option<Failure>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    kind: Harmless,
    message: Harmless,
}

impl EventStatus {
    /// Whether nothing is under way any more. What is held waits for people, or for long.
    pub(super) fn is_settled(&self) -> bool {
        self.deliveries.iter().all(|delivery| !delivery.is_under_way())
    }

    /// Whether every delivery ended as somebody wanted it to.
    pub(super) fn went_well(&self) -> bool {
        self.deliveries.iter().all(Delivery::went_well)
    }

    /// A line for the event, and a few for each delivery.
    pub(super) fn lines(&self, paint: Paint) -> String {
        let mut text = format!("{}  {}\n", paint.strong(self.id.as_str()), self.event_type);
        if self.deliveries.is_empty() {
            text.push_str("  no webhook wants it\n");
        }
        text.extend(self.deliveries.iter().map(|delivery| delivery.lines(paint)));
        text
    }
}

impl Delivery {
    fn is_under_way(&self) -> bool {
        matches!(State::parse(self.state.as_str()), Some(State::Pending | State::Retrying))
    }

    fn went_well(&self) -> bool {
        matches!(State::parse(self.state.as_str()), Some(State::Delivered | State::Dropped))
    }

    fn lines(&self, paint: Paint) -> String {
        let padded = format!("{:<9}", self.state.as_str());
        let state = if self.went_well() {
            paint.good(&padded)
        } else if self.is_under_way() {
            paint.faint(&padded)
        } else {
            paint.bad(&padded)
        };
        let webhook = self.webhook.name.as_ref().unwrap_or(&self.webhook.id);
        let mut line = format!("  {state}  {webhook}");
        let message_id = self.message_id.as_ref().map(Harmless::to_string);
        let reason = self.reason.as_ref().map(Harmless::to_string);
        let again = self.next_attempt_at.as_ref().map(|at| format!("again at {at}"));
        for known in [message_id, reason, again].into_iter().flatten() {
            line.push_str("  ");
            line.push_str(&known);
        }
        line.push('\n');
        line.extend(self.attempts.iter().map(|attempt| attempt.line(paint)));
        line
    }
}

impl Attempt {
    fn line(&self, paint: Paint) -> String {
        let answer = match (&self.failure, self.status) {
            (Some(failure), _) => paint.bad(&format!("{}: {}", failure.kind, failure.message)),
            (None, Some(status)) => format!("answered {status}"),
            (None, None) => String::new(),
        };
        let took = self.duration_ms.map(|millis| format!(" in {millis} ms")).unwrap_or_default();
        format!("    attempt {}  {answer}{took}\n", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{"id":"evt_1","type":"order.paid","timestamp":"t","accepted_at":"t","data":{},
        "deliveries":[
          {"id":"dlv_1","webhook":{"id":"wh_1","name":"orders"},"message_id":"evt_1","part":1,
           "state":"delivered","reason":null,"next_attempt_at":null,
           "attempts":[{"number":1,"started_at":"t","duration_ms":12,"status":200,"failure":null}]},
          {"id":"dlv_2","webhook":{"id":"wh_2"},"message_id":null,"part":1,
           "state":"dropped","reason":"too \u001b[2Jsmall","attempts":[]},
          {"id":"dlv_3","webhook":{"id":"wh_3","name":"slow"},"part":1,"state":"retrying",
           "next_attempt_at":"soon","attempts":[{"number":1,"failure":
             {"kind":"connect","message":"refused","fault":"receiver"}}]}]}"#;

    #[test]
    fn every_delivery_is_told() {
        let status: EventStatus = serde_json::from_str(STATUS).unwrap();
        assert_eq!(
            status.lines(Paint::plain()),
            "evt_1  order.paid\n  \
             delivered  orders  evt_1\n    attempt 1  answered 200 in 12 ms\n  \
             dropped    wh_2  too \u{fffd}[2Jsmall\n  \
             retrying   slow  again at soon\n    attempt 1  connect: refused\n"
        );
    }

    #[test]
    fn what_is_held_is_told_with_its_reason_and_not_waited_for() {
        let status = r#"{"id":"evt_1","type":"a","deliveries":[
            {"webhook":{"id":"wh_1","name":"crm"},"message_id":"evt_1","state":"held",
             "reason":"held since noon","attempts":[]}]}"#;
        let status: EventStatus = serde_json::from_str(status).unwrap();
        assert!(status.is_settled() && !status.went_well());
        assert_eq!(
            status.lines(Paint::plain()),
            "evt_1  a\n  held       crm  evt_1  held since noon\n"
        );
    }

    #[test]
    fn an_event_is_settled_when_nothing_is_under_way() {
        let mut status: EventStatus = serde_json::from_str(STATUS).unwrap();
        assert!(!status.is_settled() && !status.went_well());
        status.deliveries.pop();
        assert!(status.is_settled() && status.went_well());
    }
}
