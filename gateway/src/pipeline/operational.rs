//! Operational events: what the gateway tells a tenant's webhooks of its own work.
//!
//! Once made, they are events like all others. What tells of a delivery is recorded in one transaction with the
//! outcome that it tells of, so neither is ever there without the other. The deliveries of operational events cause no
//! further ones, and where no webhook asks for them there are none at all.

mod data;
pub(super) mod plugins;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use self::data::{After, DeliveryData, FailingData, WebhookData};
use super::dispatch::Ended;
use super::{Pipeline, STORE_AGAIN};
use crate::delivery::{Delivery, DeliveryId, State};
use crate::digest::Digest;
use crate::event::operational::Operational;
use crate::event::{Event, EventId, to_microsecond};
use crate::record::{Accepted, Disabled, NewDelivery, NewEvent, Next, Start, Submission};
use crate::snapshot::{Snapshot, Tenant, Webhook};

/// What there is to tell.
struct News<'a, T> {
    what: Operational,
    /// Tells it from all else that the tenant is told, and is the same when it is told again.
    identity: &'a [&'a [u8]],
    happened_at: Timestamp,
    data: T,
    /// The event that it is about, if any.
    about: Option<&'a Event>,
    ordering_key: Option<String>,
}

impl<'a, T: Serialize> News<'a, T> {
    fn new(what: Operational, identity: &'a [&'a [u8]], happened_at: Timestamp, data: T) -> Self {
        Self { what, identity, happened_at, data, about: None, ordering_key: None }
    }

    /// The event for a tenant; none unless one of its webhooks asks for that type.
    fn event(self, tenant: &Tenant) -> Option<NewEvent> {
        let event_type = self.what.event_type();
        let webhooks: Vec<_> = tenant.route(&event_type).collect();
        if webhooks.is_empty() {
            return None;
        }
        let data = match serde_json::to_vec(&self.data) {
            Ok(data) => Bytes::from(data),
            Err(error) => {
                tracing::error!(%error, r#type = %event_type, "an operational event cannot be written");
                return None;
            }
        };
        let mut identity = vec![tenant.name().as_bytes(), self.what.as_str().as_bytes()];
        identity.extend(self.identity);
        let event = Event {
            tenant: tenant.name().clone(),
            id: id(&identity),
            event_type,
            timestamp: to_microsecond(self.happened_at),
            accepted_at: to_microsecond(Timestamp::now()),
            data,
            // Labels say whom an event is about, and what is about somebody has to be found by them.
            attributes: self.about.map(|about| about.attributes.clone()).unwrap_or_default(),
            ordering_key: self.ordering_key,
            webhook_url: None,
        };
        let owed = |webhook: &Webhook| NewDelivery {
            id: DeliveryId::generate(),
            webhook: webhook.id.clone(),
            // Never in hand: what customers are owed comes first where memory is short.
            start: webhook.queue_of(&event).map_or(Start::Due, Start::Queued),
        };
        let deliveries = webhooks.into_iter().map(|webhook| owed(webhook)).collect();
        Some(NewEvent { event: event.into(), given_id: true, deliveries })
    }
}

fn id(identity: &[&[u8]]) -> EventId {
    let mut bytes = [0; 16];
    let digest = Digest::of_parts(identity);
    bytes.iter_mut().zip(digest.as_bytes()).for_each(|(byte, of)| *byte = *of);
    EventId::from_bytes(bytes)
}

/// What is to be told of how a delivery's turn ended.
pub(super) fn of_turn(
    pipeline: &Pipeline,
    event: &Event,
    delivery: &Delivery,
    ended: &Ended,
) -> Vec<NewEvent> {
    // What comes of telling is not told, or one failing receiver would keep the gateway busy with itself.
    if event.event_type.is_operational() {
        return Vec::new();
    }
    let snapshot = pipeline.0.current.load();
    let Some(tenant) = snapshot.tenant(&event.tenant).filter(|tenant| tenant.is_listening()) else {
        return Vec::new();
    };
    let outcome = of_attempt(tenant, &snapshot, event, delivery, ended);
    let failing = of_breaker(tenant, &snapshot, delivery, ended, pipeline.0.breakers.failures());
    outcome.into_iter().chain(failing).collect()
}

/// What became of an attempt.
fn of_attempt(
    tenant: &Tenant,
    snapshot: &Snapshot,
    event: &Event,
    delivery: &Delivery,
    ended: &Ended,
) -> Option<NewEvent> {
    let attempt = ended.update.attempt.as_ref()?;
    let (what, state) = match &ended.update.next {
        Next::Delivered => (Operational::DeliverySucceeded, State::Delivered),
        Next::Retry { .. } => (Operational::DeliveryFailed, State::Retrying),
        Next::Held(_) => (Operational::DeliveryFailed, State::Held),
        Next::Paused(_) => (Operational::DeliveryFailed, State::Paused),
        Next::Dropped(_) => (Operational::DeliveryExhausted, State::Dropped),
        Next::Dead | Next::Blocks => (Operational::DeliveryExhausted, State::Dead),
        // Its parts have attempts of their own.
        Next::Split { .. } => return None,
    };
    let next_attempt_at = match &ended.update.next {
        Next::Retry { at, .. } => Some(*at),
        _ => None,
    };
    let number = delivery.tried.saturating_add(1);
    let webhook = snapshot.webhook(&delivery.webhook).map(|webhook| &**webhook);
    let after = After { state, next_attempt_at };
    let plugin = ended.plugin.as_deref();
    let attempt = (attempt, number);
    let data = DeliveryData::new((event, delivery), webhook, attempt, &after, plugin);
    let identity: [&[u8]; 2] = [delivery.id.as_bytes(), &number.to_be_bytes()];
    let news = News {
        about: Some(event),
        // So that who wants it gets what became of one delivery in order.
        ordering_key: Some(delivery.id.to_string()),
        ..News::new(what, &identity, Timestamp::now(), data)
    };
    news.event(tenant)
}

/// That the plugins' breaker has tripped, if it has.
fn of_breaker(
    tenant: &Tenant,
    snapshot: &Snapshot,
    delivery: &Delivery,
    ended: &Ended,
    failures: usize,
) -> Option<NewEvent> {
    let Next::Held(hold) = &ended.update.next else { return None };
    if !ended.tripped {
        return None;
    }
    let webhook = snapshot.webhook(&delivery.webhook)?;
    let since = hold.since.as_microsecond().to_be_bytes();
    let identity = [webhook.id.0.as_bytes(), &since];
    let data = FailingData::new(webhook, hold, failures);
    News::new(Operational::PluginFailing, &identity, hold.since, data).event(tenant)
}

/// That a webhook is disabled. It is not told itself, since nothing is sent to it.
pub(super) fn of_disabled(
    snapshot: &Snapshot,
    webhook: &Webhook,
    disabled: &Disabled,
) -> Option<NewEvent> {
    let (what, reason) = (Operational::WebhookDisabled, Some(&*disabled.reason));
    let mut told = of_webhook(snapshot, what, webhook, reason, disabled.since)?;
    told.deliveries.retain(|owed| owed.webhook != webhook.id);
    (!told.deliveries.is_empty()).then_some(told)
}

/// That a webhook is enabled again.
pub(super) fn of_enabled(
    snapshot: &Snapshot,
    webhook: &Webhook,
    since: Timestamp,
) -> Option<NewEvent> {
    of_webhook(snapshot, Operational::WebhookEnabled, webhook, None, since)
}

fn of_webhook(
    snapshot: &Snapshot,
    what: Operational,
    webhook: &Webhook,
    reason: Option<&str>,
    since: Timestamp,
) -> Option<NewEvent> {
    let tenant = snapshot.tenant(&webhook.tenant).filter(|tenant| tenant.is_listening())?;
    let micros = since.as_microsecond().to_be_bytes();
    let identity = [webhook.id.0.as_bytes(), &micros];
    let data = WebhookData::new(webhook, reason, since);
    News::new(what, &identity, since, data).event(tenant)
}

impl Pipeline {
    /// Makes an event durable that tells of something other than an outcome. Waits while the store takes nothing new.
    async fn announce(&self, told: NewEvent) {
        let tenant = told.event.tenant.clone();
        let submission = Submission {
            tenant: tenant.clone(),
            accepted_at: told.event.accepted_at,
            idempotency: None,
            events: vec![told.clone()],
        };
        let accepted = loop {
            match self.0.store.accept(submission.clone()).await {
                Ok(accepted) => break accepted,
                Err(error) => {
                    let (id, event_type) = (&told.event.id, &told.event.event_type);
                    tracing::debug!(%error, event = %id, r#type = %event_type, "an operational event cannot be kept; trying again");
                    tokio::time::sleep(STORE_AGAIN).await;
                }
            }
        };
        // A duplicate is what a store kept whose answer was lost.
        if matches!(accepted, Accepted::Stored(_)) {
            self.told(std::slice::from_ref(&told), told.deliveries.len());
        }
    }

    /// Events that tell of something are on record, with so many deliveries. Or they may be, where a store's answer was
    /// lost; then it is looked whether something is due.
    pub(super) fn told(&self, events: &[NewEvent], deliveries: usize) {
        for told in events {
            let (due_at, deliveries) = (told.event.accepted_at, &told.deliveries);
            deliveries.iter().for_each(|owed| self.0.alarm.due(&owed.webhook, due_at));
        }
        // They are counted, and never refused: each has one outcome of another event to tell of.
        if let Some(first) = events.first() {
            self.0.backlog.more(&first.event.tenant, deliveries);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::{Config, Environment};
    use crate::deliver::Client;
    use crate::delivery::{Attempt, Failure, FailureKind, Timings, WebhookId};
    use crate::event::EventType;
    use crate::pipeline::OnEnable;
    use crate::record::{Filter, Hold, SqliteStore, Store, Update};
    use crate::shutdown::{self, Trigger};
    use crate::snapshot::{Current, PluginKey, PluginSet, Rejection, Shelf};

    /// A webhook of the tenant `acme` for events of these types. Nothing can be sent there.
    fn webhook(name: &str, globs: &[&str]) -> String {
        format!(
            "[[tenants.webhooks]]\nname = \"{name}\"\nurl = \"https://example.invalid/\"\nevent_types = {globs:?}\n"
        )
    }

    fn config(webhooks: &[String]) -> Config {
        let tenant = |name: &str| {
            format!("[[tenants]]\nname = \"{name}\"\nkeys = [\"{name}-key-0123456789abcdef\"]\n")
        };
        let text = format!("{}{}{}", tenant("acme"), webhooks.concat(), tenant("globex"));
        Config::parse(&text, Path::new("/nowhere"), &Environment::default()).unwrap()
    }

    fn snapshot(webhooks: &[String]) -> Snapshot {
        Snapshot::new(config(webhooks).tenants, PluginSet::default())
    }

    fn named<'a>(snapshot: &'a Snapshot, name: &str) -> &'a Webhook {
        snapshot.webhooks().find(|webhook| webhook.definition.name == name).unwrap()
    }

    fn event(event_type: &str) -> Event {
        Event {
            tenant: "acme".into(),
            id: EventId::parse("evt-1").unwrap(),
            event_type: EventType::parse(event_type).unwrap(),
            timestamp: Timestamp::UNIX_EPOCH,
            accepted_at: Timestamp::UNIX_EPOCH,
            data: Bytes::from_static(b"\"what customers send\""),
            attributes: vec![("customer".to_owned(), "7".to_owned())],
            ordering_key: None,
            webhook_url: None,
        }
    }

    fn delivery(webhook: &Webhook, tried: u32) -> Delivery {
        Delivery { tried, ..Delivery::first_part(DeliveryId::generate(), webhook.id.clone()) }
    }

    fn attempt(failure: Option<Failure>) -> Attempt {
        Attempt {
            started_at: Timestamp::UNIX_EPOCH,
            duration_us: 1_500,
            status: Some(503),
            failure,
            excerpt: "try later".to_owned(),
            retry_after: Some(Duration::from_secs(7)),
            timings: Timings::default(),
        }
    }

    fn ended(delivery: &Delivery, next: Next) -> Ended {
        let failure = match next {
            Next::Delivered => None,
            _ => Some(Failure::new(FailureKind::Status, "answered 503")),
        };
        let attempt = Some(attempt(failure));
        Ended::from(Update { delivery: delivery.id, attempt, chain: Arc::default(), next })
    }

    fn held() -> Next {
        let failure = Failure::new(FailureKind::PluginTrap, "trapped");
        let (cause, setup) = ("summary@abc".into(), Digest::of(b""));
        Next::Held(Arc::new(Hold { cause, setup, failure, since: Timestamp::UNIX_EPOCH }))
    }

    fn data(told: &NewEvent) -> Value {
        serde_json::from_slice(&told.event.data).unwrap()
    }

    #[test]
    fn each_outcome_of_an_attempt_is_told_as_what_it_is() {
        let snapshot = snapshot(&[webhook("orders", &["*"]), webhook("log", &["hookmill.*"])]);
        let tenant = snapshot.tenant("acme").unwrap();
        let orders = named(&snapshot, "orders");
        let at = Timestamp::from_nanosecond(1_234_567_890_123_456_789).unwrap();
        for (next, expected, state, next_attempt_at) in [
            (Next::Delivered, "hookmill.delivery.succeeded", "delivered", None),
            (
                Next::Retry { at, request: None },
                "hookmill.delivery.failed",
                "retrying",
                Some("2009-02-13T23:31:30.123456Z"),
            ),
            (held(), "hookmill.delivery.failed", "held", None),
            (Next::Dead, "hookmill.delivery.exhausted", "dead", None),
            (Next::Blocks, "hookmill.delivery.exhausted", "dead", None),
            (Next::Dropped("it failed".to_owned()), "hookmill.delivery.exhausted", "dropped", None),
        ] {
            let (event, delivery) = (event("order.paid"), delivery(orders, 1));
            let ended = ended(&delivery, next);
            let told = of_attempt(tenant, &snapshot, &event, &delivery, &ended).unwrap();
            assert_eq!(told.event.event_type.as_str(), expected);
            let [owed] = &told.deliveries[..] else { panic!("{told:?}") };
            assert_eq!(owed.webhook, named(&snapshot, "log").id);
            let data = data(&told);
            assert_eq!(data["delivery"]["state"], state, "{data}");
            assert_eq!(data["delivery"]["next_attempt_at"], json!(next_attempt_at), "{data}");
            assert_eq!(data["delivery"]["id"], delivery.id.to_string());
            assert_eq!(data["attempt"]["number"], 2);
            assert_eq!(data["attempt"]["response_excerpt"], "try later");
            assert_eq!(told.event.attributes, event.attributes, "found by its labels too");
            assert!(!told.event.data_text().contains("customers send"), "{data}");
            let again = of_attempt(tenant, &snapshot, &event, &delivery, &ended).unwrap();
            assert_eq!(again.event.id, told.event.id, "the same attempt is told as the same event");
        }
    }

    #[test]
    fn attempts_are_told_apart_and_so_are_tenants() {
        let ids = [
            id(&[b"acme", b"a", &1_u32.to_be_bytes()]),
            id(&[b"acme", b"a", &2_u32.to_be_bytes()]),
            id(&[b"globex", b"a", &1_u32.to_be_bytes()]),
        ];
        assert!(ids[0] != ids[1] && ids[0] != ids[2], "{ids:?}");
    }

    #[test]
    fn what_nobody_asks_for_is_not_made() {
        let failures = webhook("log", &["hookmill.delivery.failed"]);
        let snapshot = snapshot(&[webhook("orders", &["*"]), failures]);
        let tenant = snapshot.tenant("acme").unwrap();
        let delivery = delivery(named(&snapshot, "orders"), 0);
        let event = event("order.paid");
        let told = |next| of_attempt(tenant, &snapshot, &event, &delivery, &ended(&delivery, next));
        assert!(told(Next::Delivered).is_none());
        assert!(told(Next::Dead).is_none());
        assert!(told(held()).is_some());
    }

    #[test]
    fn a_verdict_without_an_attempt_is_no_news() {
        let snapshot = snapshot(&[webhook("log", &["*", "hookmill.*"])]);
        let tenant = snapshot.tenant("acme").unwrap();
        let delivery = delivery(named(&snapshot, "log"), 0);
        let mut ended = ended(&delivery, Next::Dropped("a test order".to_owned()));
        ended.update.attempt = None;
        assert!(of_attempt(tenant, &snapshot, &event("a"), &delivery, &ended).is_none());
    }

    #[test]
    fn a_breaker_is_told_of_when_it_trips_and_not_of_each_delivery_that_it_holds() {
        let snapshot =
            snapshot(&[webhook("orders", &["*"]), webhook("log", &["hookmill.plugin.*"])]);
        let tenant = snapshot.tenant("acme").unwrap();
        let delivery = delivery(named(&snapshot, "orders"), 0);
        let mut ended = ended(&delivery, held());
        assert!(of_breaker(tenant, &snapshot, &delivery, &ended, 10).is_none());
        ended.tripped = true;
        let told = of_breaker(tenant, &snapshot, &delivery, &ended, 10).unwrap();
        assert_eq!(told.event.event_type.as_str(), "hookmill.plugin.failing");
        let data = data(&told);
        assert_eq!(data["plugin"], json!({ "name": "summary", "version": "abc" }));
        assert_eq!(data["webhook"]["name"], "orders");
        assert_eq!(data["failures"], 10);
        let failure = json!({ "kind": "plugin_trap", "fault": "plugin", "message": "trapped" });
        assert_eq!(data["failure"], failure);
    }

    #[test]
    fn a_refusal_is_told_once_and_without_what_others_have() {
        let uses = format!("{}plugins = [\"redact\"]\n", webhook("orders", &["*"]));
        let snapshot = snapshot(&[uses, webhook("log", &["hookmill.*"])]);
        let told = |owner: Option<&str>, broken: &[&str]| {
            let of = |tenant: &&str| (Arc::from(*tenant), format!("webhook {tenant}/it"));
            let broken: Vec<_> = broken.iter().map(of).collect();
            let uses: Vec<_> = broken.iter().map(|(_, of)| of.as_str()).collect();
            let reason = Rejection::would_break(&uses);
            let since = Timestamp::UNIX_EPOCH;
            let mut shelf = Shelf::default();
            shelf.status.rejected = Some(Rejection { version: None, reason, broken, since });
            let key = PluginKey { tenant: owner.map(Into::into), name: "redact".to_owned() };
            let plugins = snapshot.plugins().with([(key, shelf)]);
            let mut known = plugins::Known::at_start(&snapshot);
            let told = known.compare(&snapshot.with_plugins(plugins.clone()));
            assert!(known.compare(&snapshot.with_plugins(plugins)).is_empty(), "it is told once");
            let told = told.iter().map(|told| data(told)["reason"].as_str().unwrap().to_owned());
            told.collect::<Vec<_>>()
        };
        for (owner, broken, expected) in [
            (None, &["acme"][..], "webhook acme/it"),
            (None, &["acme", "globex"], "webhook acme/it; other tenants"),
            (Some("acme"), &["acme"], "webhook acme/it"),
        ] {
            let told = told(owner, broken);
            assert!(told.len() == 1 && told[0].ends_with(&format!(": {expected}")), "{told:?}");
        }
        assert!(told(Some("globex"), &["globex"]).is_empty(), "it is none of its business");
    }

    /// A pipeline over a store of its own.
    struct Started {
        pipeline: Pipeline,
        store: Arc<dyn Store>,
        _trigger: Trigger,
        _folder: tempfile::TempDir,
    }

    async fn started(webhooks: &[String]) -> Started {
        let folder = tempfile::tempdir().unwrap();
        let config = config(webhooks);
        let store =
            SqliteStore::open(&crate::record::Config::new(folder.path().to_owned())).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let current = Current::new(Snapshot::new(config.tenants, PluginSet::default()));
        let client = Client::new(&config.deliver).unwrap();
        let (trigger, drain) = shutdown::channel();
        let pipeline =
            Pipeline::start(&config.pipeline, Arc::clone(&store), current, client, drain);
        Started { pipeline: pipeline.await.unwrap(), store, _trigger: trigger, _folder: folder }
    }

    impl Started {
        /// The deliveries of events of a type: which event, and to whom.
        async fn listed(&self, event_type: &str) -> Vec<(EventId, WebhookId)> {
            let event_type = Some(EventType::parse(event_type).unwrap());
            let filter = Filter { event_type, ..Filter::default() };
            let page = self.store.deliveries("acme".into(), filter, None, 10).await.unwrap();
            page.deliveries.into_iter().map(|one| (one.event, one.webhook)).collect()
        }
    }

    #[tokio::test]
    async fn the_deliveries_of_what_is_told_cause_nothing_to_be_told() {
        let started = started(&[webhook("log", &["*", "hookmill.*"])]).await;
        let snapshot = started.pipeline.0.current.load();
        let delivery = delivery(named(&snapshot, "log"), 0);
        let told = |event_type: &str, mut ended: Ended| {
            ended.tripped = matches!(ended.update.next, Next::Held(_));
            of_turn(&started.pipeline, &event(event_type), &delivery, &ended).len()
        };
        for (next, expected) in [(Next::Delivered, 1), (Next::Dead, 1), (held(), 2)] {
            assert_eq!(told("order.paid", ended(&delivery, next.clone())), expected);
            assert_eq!(told("hookmill.delivery.failed", ended(&delivery, next)), 0);
        }
    }

    #[tokio::test]
    async fn with_nobody_listening_there_is_nothing_to_tell() {
        let started = started(&[webhook("all", &["*", "*.delivery.failed"])]).await;
        let snapshot = started.pipeline.0.current.load();
        let delivery = delivery(named(&snapshot, "all"), 0);
        assert!(!snapshot.tenant("acme").unwrap().is_listening());
        let ended = ended(&delivery, Next::Dead);
        assert!(of_turn(&started.pipeline, &event("order.paid"), &delivery, &ended).is_empty());
    }

    #[tokio::test]
    async fn that_a_webhook_is_disabled_is_told_once_and_to_the_others() {
        let globs = &["hookmill.webhook.*"][..];
        let started = started(&[webhook("orders", globs), webhook("log", globs)]).await;
        let snapshot = started.pipeline.0.current.load();
        let orders = named(&snapshot, "orders");
        let disabled = |second| {
            let since = Timestamp::from_second(second).unwrap();
            Disabled { since, reason: "the receiver is gone".to_owned() }
        };
        // It stays as it is, whether that is said again or something else.
        for second in [1_700_000_000, 1_700_000_000, 1_700_000_001] {
            started.pipeline.disable(orders, disabled(second)).await.unwrap();
        }
        let expected = of_disabled(&snapshot, orders, &disabled(1_700_000_000)).unwrap();
        let listed = started.listed("hookmill.webhook.disabled").await;
        let [(event, owed)] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!((event, owed), (&expected.event.id, &named(&snapshot, "log").id));
        let record = started.store.event("acme".into(), event.clone()).await.unwrap().unwrap();
        assert_eq!(record.event.data, expected.event.data);
        let data = data(&expected);
        assert_eq!(
            (&data["reason"], &data["webhook"]["name"]),
            (&json!("the receiver is gone"), &json!("orders"))
        );

        for _ in 0..2 {
            started.pipeline.enable(orders, OnEnable::Discard).await.unwrap();
        }
        let listed = started.listed("hookmill.webhook.enabled").await;
        let [(first, _), (second, _)] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!(first, second, "one event, for the one that is sent to again, too");
    }
}
