//! The reckoning: what was acknowledged against what arrived and what the gateway says of it.
//!
//! The promises that it checks:
//! - each acknowledged event ends delivered, dropped with a reason, or dead with a failure;
//! - what is recorded as delivered has arrived, signed, with the data as it was sent;
//! - what arrives again has the same id and, from the same version of a plugin, the same bytes;
//! - nothing arrives that nobody sent. What was sent and not acknowledged may.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::ledger::{Api, Ledger};
use crate::receiver::{Received, Receiver};

/// How long everything that is owed may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Events that are asked for at once.
const ASKERS: usize = 8;

/// Problems that are shown.
const SHOWN: usize = 20;

/// What came of everything.
#[derive(Debug, Clone, Default)]
pub struct Reckoning {
    /// Events that were acknowledged.
    pub acknowledged: usize,
    /// What webhooks were owed for them, parts included.
    pub deliveries: usize,
    /// Of these: delivered and arrived.
    pub delivered: usize,
    /// Dropped with a reason.
    pub dropped: usize,
    /// Given up with a failure.
    pub dead: usize,
    /// Requests that arrived.
    pub arrivals: usize,
    /// Of these: for a message that the receiver had taken before.
    pub repeats: usize,
    /// Of these: not on record as attempts, since the gateway died before that.
    pub unrecorded: usize,
    /// What must not be.
    pub problems: Vec<String>,
}

/// What a receiver tells messages apart by: the webhook's name and the `webhook-id`.
type Key = (String, String);

impl Reckoning {
    /// Waits until nothing is owed any more, and adds up. `per_event` is the least number of deliveries that an
    /// event has.
    pub async fn of(ledger: &Ledger, api: &Api, receiver: &Receiver, per_event: usize) -> Self {
        let ids: Vec<_> = ledger.acknowledged().into_iter().collect();
        let ids = Arc::new(ids);
        let until = Instant::now() + PATIENCE;
        let askers = (0..ASKERS).map(|asker| {
            let (api, ids) = (api.clone(), Arc::clone(&ids));
            tokio::spawn(async move {
                let mut events = Vec::new();
                for id in ids.iter().skip(asker).step_by(ASKERS) {
                    events.push((id.clone(), settled(&api, id, until).await));
                }
                events
            })
        });
        let mut events = Vec::new();
        for asker in askers.collect::<Vec<_>>() {
            events.extend(asker.await.unwrap());
        }
        let mut reckoning = Self { acknowledged: ids.len(), ..Self::default() };
        reckoning.problems = ledger.refused();
        let mut arrivals: HashMap<Key, Vec<Received>> = HashMap::new();
        for received in receiver.received() {
            arrivals.entry(key(&received)).or_default().push(received);
        }
        for (id, event) in &events {
            let deliveries = event["deliveries"].as_array().map_or(&[][..], Vec::as_slice);
            if deliveries.len() < per_event {
                reckoning.wrong(format!("{id} is owed {} deliveries: {event}", deliveries.len()));
            }
            deliveries.iter().for_each(|delivery| reckoning.count(delivery, &arrivals));
        }
        arrivals.iter().for_each(|(key, arrivals)| reckoning.compare(ledger, key, arrivals));
        reckoning
    }

    fn wrong(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Counts a delivery as the gateway tells of it.
    fn count(&mut self, delivery: &Value, arrivals: &HashMap<Key, Vec<Received>>) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = (text(&delivery["webhook"]["name"]), text(&delivery["message_id"]));
        let arrived = arrivals.get(&key).map_or(0, Vec::len);
        let attempts = delivery["attempts"].as_array().map_or(&[][..], Vec::as_slice);
        self.deliveries += 1;
        self.unrecorded += arrived.saturating_sub(attempts.len());
        match delivery["state"].as_str() {
            Some("delivered") if arrived > 0 => self.delivered += 1,
            Some("dropped") if delivery["reason"].is_string() => self.dropped += 1,
            Some("dead") if attempts.last().is_some_and(|last| last["failure"].is_object()) => {
                self.dead += 1;
            }
            _ => self.wrong(format!("{key:?} arrived {arrived} times: {delivery}")),
        }
    }

    /// Compares what arrived under one key with itself and with what was sent.
    fn compare(&mut self, ledger: &Ledger, key: &Key, arrivals: &[Received]) {
        self.arrivals += arrivals.len();
        let taken = arrivals.iter().position(|arrival| (200..300).contains(&arrival.answered));
        self.repeats += taken.map_or(0, |first| arrivals.len() - first - 1);
        let (_, id) = key;
        let event = id.split_once('~').map_or(&**id, |(event, _)| event);
        let Some(data) = ledger.data(event) else {
            return self.wrong(format!("{key:?} arrived, and nobody sent it"));
        };
        let mut versions: BTreeMap<String, &Received> = BTreeMap::new();
        for arrival in arrivals {
            let body = String::from_utf8_lossy(&arrival.body);
            if !arrival.verified {
                self.wrong(format!("{key:?} has a wrong signature: {arrival:?}"));
            }
            if !body.contains(&data) {
                self.wrong(format!("{key:?} arrived without {data}: {body}"));
            }
            let first = *versions.entry(arrival.json()["version"].to_string()).or_insert(arrival);
            if first.body != arrival.body {
                self.wrong(format!("{key:?} arrived again with other bytes: {body}"));
            }
        }
    }

    /// Checks that no promise was broken, and that no more was sent again than could be under way when the
    /// gateway died so often.
    ///
    /// # Panics
    /// When a promise was broken; it says which.
    pub fn assert_kept(&self, deaths: usize, under_way: usize) {
        assert!(self.problems.is_empty(), "{self}");
        let limit = deaths * under_way;
        assert!(self.repeats <= limit && self.unrecorded <= limit, "limit {limit}: {self}");
    }
}

impl fmt::Display for Reckoning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, deliveries, delivered, dropped, dead, .. } = self;
        let Self { arrivals, repeats, unrecorded, problems, .. } = self;
        write!(
            f,
            "{acknowledged} events acknowledged, {deliveries} deliveries: {delivered} delivered, \
             {dropped} dropped, {dead} dead; {arrivals} arrivals, {repeats} of them again, {unrecorded} \
             not on record; {} problems",
            problems.len()
        )?;
        problems.iter().take(SHOWN).try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// An event once nothing of it is under way, or when time is up.
async fn settled(api: &Api, id: &str, until: Instant) -> Value {
    let open = |delivery: &Value| {
        matches!(delivery["state"].as_str(), Some("pending" | "retrying" | "held"))
    };
    loop {
        let answer = api.get(&format!("/v1/events/{id}")).await;
        let event = answer.map_or(Value::Null, |answer| answer.body);
        let is_settled = event["deliveries"].as_array().is_some_and(|all| !all.iter().any(open));
        if is_settled || Instant::now() > until {
            return event;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The key of what arrived: a webhook's URL ends with its name.
fn key(received: &Received) -> Key {
    let path = received.target.split('?').next().unwrap_or_default();
    (path.trim_start_matches('/').to_owned(), received.id().to_owned())
}
