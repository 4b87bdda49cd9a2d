//! The reckoning: every accepted event against what the gateway recorded and the receiver saw.

use std::collections::HashMap;
use std::ops::Add;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use super::receiver::{MessageKey, Receiver};
use super::stage::{Stage, Tenant};
use crate::report;

/// How long deliveries may be under way after the last event.
const PATIENCE: Duration = Duration::from_secs(60);

/// The events of one act.
pub(super) struct Ledger {
    accepted: Vec<(Tenant, String)>,
    /// How many requests had come to the receiver when the act began.
    seen: usize,
}

/// What became of the events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Events that the gateway acknowledged.
    accepted: usize,
    /// Messages that were owed for them, parts included.
    owed: usize,
    /// Of these: sent, recorded as delivered, and seen by the receiver.
    delivered: usize,
    /// Dropped by a plugin.
    dropped: usize,
    /// Given up.
    dead: usize,
    /// Owed, and neither delivered nor dropped nor dead; or recorded as delivered but never seen; or
    /// acknowledged, and unknown to the gateway.
    lost: usize,
    /// Requests that came to the receiver.
    requests: usize,
    /// Of these: with a good signature.
    verified: usize,
    /// Of these: for a message that had come before.
    duplicates: usize,
}

impl Ledger {
    pub(super) fn begin(receiver: &Receiver) -> Self {
        Self { accepted: Vec::new(), seen: receiver.count() }
    }

    /// Notes an event that the gateway has acknowledged.
    pub(super) fn accepted(&mut self, tenant: Tenant, id: String) {
        self.accepted.push((tenant, id));
    }

    /// Waits until nothing is under way any more, and adds up.
    pub(super) fn close(self, stage: &mut Stage) -> Result<Totals> {
        let mut totals = Totals { accepted: self.accepted.len(), ..Totals::default() };
        let until = Instant::now() + PATIENCE;
        for (tenant, id) in &self.accepted {
            match settled(stage, *tenant, id, until)? {
                Some(event) => {
                    for delivery in deliveries(&event) {
                        totals.count(delivery, *tenant, stage, until);
                    }
                }
                None => totals.lost += 1,
            }
        }
        let arrivals = stage.receiver.since(self.seen);
        let mut times = HashMap::new();
        for arrival in &arrivals {
            *times.entry(&arrival.key).or_insert(0_usize) += 1;
        }
        totals.requests = arrivals.len();
        totals.verified = arrivals.iter().filter(|arrival| arrival.verified).count();
        totals.duplicates = arrivals.len() - times.len();
        Ok(totals)
    }
}

/// The event once nothing of it is under way, or when time is up; nothing if it is unknown.
pub(super) fn settled(
    stage: &mut Stage,
    tenant: Tenant,
    id: &str,
    until: Instant,
) -> Result<Option<Value>> {
    loop {
        stage.check()?;
        let Some(event) = stage.api.event(tenant, id)? else {
            return Ok(None);
        };
        let is_under_way = |delivery| matches!(state(delivery), "pending" | "retrying");
        if !deliveries(&event).iter().any(is_under_way) || Instant::now() > until {
            return Ok(Some(event));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The deliveries of an event, as the API shows it.
pub(super) fn deliveries(event: &Value) -> &[Value] {
    let deliveries = event.get("deliveries").and_then(Value::as_array);
    deliveries.map(Vec::as_slice).unwrap_or_default()
}

/// A delivery's state.
pub(super) fn state(delivery: &Value) -> &str {
    delivery.get("state").and_then(Value::as_str).unwrap_or("?")
}

/// What the receiver knows a delivery's message by.
pub(super) fn message_key(delivery: &Value, tenant: Tenant) -> MessageKey {
    let text = |pointer| {
        let value = delivery.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    MessageKey {
        webhook: format!("{}/{}", tenant.name, text("/webhook/name")),
        id: text("/message_id"),
    }
}

impl Totals {
    fn count(&mut self, delivery: &Value, tenant: Tenant, stage: &Stage, until: Instant) {
        self.owed += 1;
        let counter = match state(delivery) {
            "dropped" => &mut self.dropped,
            "dead" => &mut self.dead,
            "delivered" if has_come(stage, &message_key(delivery, tenant), until) => {
                &mut self.delivered
            }
            _ => &mut self.lost,
        };
        *counter += 1;
    }

    /// Nothing lost or given up, and everything that came had a good signature.
    pub(super) fn is_flawless(self) -> bool {
        self.lost == 0 && self.dead == 0 && self.verified == self.requests
    }

    /// One line for people.
    pub(super) fn verdict(self) -> String {
        if self.is_flawless() {
            report::good(&format!(
                "demo result: ok. {} events accepted, none lost, all {} signatures verified",
                self.accepted, self.verified
            ))
        } else {
            report::bad(&format!(
                "demo result: FAILED. {} lost, {} dead, {} of {} signatures verified",
                self.lost, self.dead, self.verified, self.requests
            ))
        }
    }

    fn row(self, title: &str) -> Vec<String> {
        let counts = [
            self.accepted,
            self.owed,
            self.delivered,
            self.dropped,
            self.dead,
            self.lost,
            self.requests,
            self.verified,
            self.duplicates,
        ];
        let mut row = vec![title.to_owned()];
        row.extend(counts.map(|count| count.to_string()));
        row
    }
}

/// The receiver prints before it answers, but its line may still be on its way here.
fn has_come(stage: &Stage, key: &MessageKey, until: Instant) -> bool {
    while stage.receiver.find(key).is_none() {
        if Instant::now() > until {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

impl Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            owed: self.owed + other.owed,
            delivered: self.delivered + other.delivered,
            dropped: self.dropped + other.dropped,
            dead: self.dead + other.dead,
            lost: self.lost + other.lost,
            requests: self.requests + other.requests,
            verified: self.verified + other.verified,
            duplicates: self.duplicates + other.duplicates,
        }
    }
}

/// Prints the acts' totals as a table, and returns their sum.
pub(super) fn print(acts: &[(&str, Totals)]) -> Totals {
    let header = [
        "",
        "accepted",
        "owed",
        "delivered",
        "dropped",
        "dead",
        "lost",
        "requests",
        "verified",
        "duplicates",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(acts.iter().map(|(title, totals)| totals.row(title)));
    let sum = acts.iter().fold(Totals::default(), |sum, (_, act)| sum + *act);
    rows.push(sum.row("all"));
    report::table(&rows);
    report::line(
        "\n  accepted: acknowledged events. owed: messages for webhooks, parts of a split event included.\n  \
         dropped: by a plugin. requests, verified, duplicates: as the receiver saw them; a request that\n  \
         was under way when the gateway was killed is sent again, with the same id.",
    );
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_demo_without_loss_is_flawless() {
        let good = Totals {
            accepted: 2,
            owed: 2,
            delivered: 2,
            requests: 3,
            verified: 3,
            duplicates: 1,
            ..Totals::default()
        };
        assert!(good.is_flawless());
        assert!(!Totals { lost: 1, ..good }.is_flawless());
        assert!(!Totals { verified: 2, ..good }.is_flawless());
        assert!((good + good).verdict().contains("4 events accepted"));
    }
}
