//! What every store has to do, as tests that run against each of them.

mod model;

mod order;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::delivery::{Delivery, Failure, FailureKind, State, Timings};
use crate::digest::Digest;
use crate::event::EventType;
use crate::kv::{Answer, Entry, Observed, Operation as Op, Outcome, Quota, Refusal, Run, Scope};

mod purge;
mod retention;

use purge::*;
use retention::*;

use order::*;

mod told;

use told::*;

/// A store that can be closed and opened again, as a process that ends and starts.
trait Fixture {
    type Store: Store;
    fn create() -> Self;
    fn open(&self) -> Self::Store;
}

struct Sqlite(tempfile::TempDir);

impl Fixture for Sqlite {
    type Store = SqliteStore;

    fn create() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open(&Config::new(self.0.path().to_owned())).unwrap()
    }
}

/// Runs each test of the contract against a store.
macro_rules! contract {
    ($fixture:ident: $($test:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test($fixture::create()).await;
            }
        )*
    };
}

mod jobs;
mod overtaken;
mod states;
mod webhooks;

mod sqlite {
    use super::*;

    contract!(Sqlite:
        an_accepted_event_reads_back_byte_for_byte
        a_repeated_key_gives_the_first_answer
        a_key_used_for_another_request_is_refused
        a_key_is_forgotten_after_its_time
        a_given_id_makes_a_repeat_a_duplicate
        a_conflict_keeps_nothing_of_the_submission
        tenants_do_not_see_each_other
        what_is_in_hand_is_not_claimed_until_the_store_opens_again
        claims_come_in_due_order_and_tell_the_next_due_time
        claims_are_of_the_webhooks_that_are_asked_for
        first_attempts_and_retries_do_not_starve_each_other
        a_claim_ends_where_its_bytes_do
        webhooks_that_wait_are_known_with_their_first_due_time
        released_deliveries_can_be_claimed_again
        a_retry_keeps_its_request_and_its_attempts
        a_split_makes_deliveries_of_their_own
        what_is_recorded_twice_counts_once
        finished_deliveries_are_never_claimed
        held_deliveries_are_never_due_and_keep_their_reason
        held_deliveries_are_taken_in_order_of_acceptance
        an_attempt_that_leaves_a_delivery_held_is_kept_and_not_counted
        what_was_taken_from_the_held_ones_is_held_again_after_a_crash
        the_last_one_taken_from_the_held_ones_is_due_after_a_crash
        a_split_of_a_held_delivery_is_due_after_a_crash
        a_hold_is_forgotten_once_nothing_is_held
        only_the_head_of_a_queue_is_due
        the_next_one_of_a_queue_is_in_hand_once_its_head_is_finished
        a_head_that_is_retried_or_held_keeps_its_place
        the_parts_of_a_split_come_before_later_events
        what_follows_a_dead_head_waits_until_it_is_skipped
        what_is_blocked_can_be_let_go_for_a_webhook
        queues_survive_a_crash
        queues_keep_the_order_of_acceptance_whatever_fails
        many_tasks_can_write_at_once
        keys_are_set_read_and_removed
        keys_are_seen_by_their_plugin_and_tenant_alone
        adding_at_once_loses_nothing
        a_repeated_run_gets_the_same_answers_and_changes_nothing
        what_was_read_before_a_change_is_remembered_with_it
        a_run_with_an_outcome_is_forgotten
        keys_expire_and_are_swept
        a_quota_bounds_keys_and_bytes_and_expired_ones_make_room
        the_random_seed_stays_the_same
        finished_events_go_with_everything_of_them
        what_is_owed_stays
        what_was_taken_up_again_after_a_search_stays
        age_counts_from_the_last_attempt
        data_and_attempts_can_go_before_the_rest
        what_is_owed_for_too_long_is_given_up
        what_keeps_an_order_is_given_up_in_order
        a_head_that_was_handed_on_is_given_again
        a_purge_of_a_tenant_leaves_nothing_of_it
        a_purge_takes_what_has_the_value_and_nothing_else
        jobs_that_name_what_is_purged_go_with_it
        a_purge_goes_on_after_a_crash
        what_comes_after_a_purge_began_stays
        nothing_is_kept_of_what_was_in_hand_when_it_was_purged
        a_queue_goes_on_without_what_is_purged
        a_tenant_has_so_many_purges_open_at_most
        tenants_keep_their_own
        a_clock_that_is_set_loses_and_repeats_nothing
        what_is_owed_is_counted
        keys_of_requests_are_forgotten
        room_that_was_made_is_used_or_given_back
        what_is_told_of_an_outcome_is_kept_with_it
        an_outcome_is_kept_although_the_id_of_what_tells_of_it_is_taken
        what_is_told_takes_its_place_in_a_queue
        attempts_on_record_are_counted_whether_they_count_or_not
        what_was_cancelled_is_told_of_only_if_the_receiver_took_it
        what_tells_of_a_webhook_is_kept_with_its_change_and_once
    );
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn webhook(name: &str) -> WebhookId {
    WebhookId(name.into())
}

fn event(id: &str, data: &str) -> NewEvent {
    NewEvent {
        event: Arc::new(Event {
            tenant: "acme".into(),
            id: EventId::parse(id).unwrap(),
            event_type: EventType::parse("order.paid").unwrap(),
            timestamp: at(-5),
            accepted_at: at(0),
            data: Bytes::copy_from_slice(data.as_bytes()),
            attributes: vec![("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())],
            ordering_key: Some("customer-7".to_owned()),
            webhook_url: Some("https://example.com/of/this/event?a=b".parse().unwrap()),
        }),
        given_id: true,
        deliveries: vec![delivery("wh_a", Start::Due)],
    }
}

fn delivery(name: &str, start: Start) -> NewDelivery {
    NewDelivery { id: DeliveryId::generate(), webhook: webhook(name), start }
}

fn hold(cause: &str, second: i64) -> Arc<Hold> {
    let failure = Failure::new(FailureKind::PluginTrap, format!("{cause}: trapped"));
    let setup = Digest::of(cause.as_bytes());
    Arc::new(Hold { cause: cause.into(), setup, failure, since: at(second) })
}

/// Accepts an event whose delivery to `wh_a` is held from the start; gives the delivery's id.
async fn held(store: &impl Store, id: &str, why: &Arc<Hold>) -> DeliveryId {
    let mut new = event(id, "1");
    new.deliveries = vec![delivery("wh_a", Start::Held(Arc::clone(why)))];
    let delivery = new.deliveries[0].id;
    store.accept(submission(vec![new])).await.unwrap();
    delivery
}

async fn take(store: &impl Store, which: Which) -> (Vec<DeliveryId>, u64) {
    let taken = store.take_held(webhook("wh_a"), which).await.unwrap();
    (taken.deliveries.iter().map(|(_, delivery)| delivery.id).collect(), taken.left)
}

fn submission(events: Vec<NewEvent>) -> Submission {
    Submission { tenant: "acme".into(), accepted_at: at(0), idempotency: None, events }
}

fn keyed(key: &str, body: &str, events: Vec<NewEvent>) -> Submission {
    let fingerprint = Digest::of(body.as_bytes());
    let idempotency =
        Some(Idempotency { key: key.to_owned(), fingerprint, kept: Idempotency::KEPT });
    Submission { idempotency, ..submission(events) }
}

fn request(body: &str) -> Arc<Request> {
    let mut request = Request::json(Bytes::copy_from_slice(body.as_bytes()));
    request.query = vec![("a b".to_owned(), "ü".to_owned())];
    request.headers = vec![("x-part".to_owned(), "1".to_owned())];
    request.removed_headers = vec!["x-old".to_owned()];
    Arc::new(request)
}

/// Of an attempt over a connection to a literal address.
const TIMINGS: Timings = Timings {
    dns: None,
    connect: Some(Duration::from_micros(17)),
    first_byte: Some(Duration::from_micros(1_234)),
};

fn failed(second: i64, kind: FailureKind) -> Option<Attempt> {
    Some(Attempt {
        started_at: at(second),
        duration_us: 1_500,
        status: Some(500),
        failure: Some(Failure::new(kind, "answered 500")),
        excerpt: "oops".to_owned(),
        retry_after: Some(Duration::from_secs(7)),
        timings: TIMINGS,
    })
}

fn update(delivery: DeliveryId, attempt: Option<Attempt>, next: Next) -> Update {
    Update { delivery, attempt, chain: Arc::default(), next }
}

async fn read(store: &impl Store, id: &str) -> Option<EventRecord> {
    store.event("acme".into(), EventId::parse(id).unwrap()).await.unwrap()
}

/// Claims all that is due, whatever the webhook.
async fn claim(store: &impl Store, now: Timestamp) -> Vec<Delivery> {
    let waiting = store.waiting().await.unwrap();
    let asks = waiting.into_iter().map(|waiting| ask(&waiting.webhook.0, 100)).collect();
    let claimed = store.claim(now, asks, usize::MAX).await.unwrap();
    let deliveries = claimed.into_iter().flat_map(|claimed| claimed.deliveries);
    deliveries.map(|(_, delivery)| delivery).collect()
}

fn ask(name: &str, limit: usize) -> Ask {
    Ask { webhook: webhook(name), limit, first: Kind::Fresh }
}

async fn claim_one(store: &impl Store, now: Timestamp, ask: Ask) -> Claimed {
    let mut claimed = store.claim(now, vec![ask], usize::MAX).await.unwrap();
    assert_eq!(claimed.len(), 1, "each ask has its answer");
    claimed.pop().unwrap()
}

fn statuses(accepted: &Accepted) -> Vec<AcceptedStatus> {
    match accepted {
        Accepted::Stored(events) | Accepted::Repeated(events) => {
            events.iter().map(|event| event.status).collect()
        }
        Accepted::KeyReused | Accepted::IdTaken(_) => Vec::new(),
    }
}

async fn an_accepted_event_reads_back_byte_for_byte(fixture: impl Fixture) {
    let data = "{ \"b\":1.50, \"a\" :\"\\u00e9\u{1F980}\", \"b\": null }";
    let store = fixture.open();
    let new = event("evt-1", data);
    let accepted = store.accept(submission(vec![new.clone()])).await.unwrap();
    assert_eq!(statuses(&accepted), [AcceptedStatus::Accepted]);
    drop(store);

    let record = read(&fixture.open(), "evt-1").await.unwrap();
    assert_eq!(record.event.data, data);
    assert_eq!(record.event.attributes, new.event.attributes);
    assert_eq!(record.event.timestamp, at(-5));
    assert_eq!(record.event.accepted_at, at(0));
    assert_eq!(record.event.ordering_key.as_deref(), Some("customer-7"));
    let [delivery] = &record.deliveries[..] else { panic!("one delivery: {record:?}") };
    assert_eq!(delivery.id, new.deliveries[0].id);
    assert_eq!((delivery.part, delivery.state), (1, State::Pending));
}

async fn a_repeated_key_gives_the_first_answer(fixture: impl Fixture) {
    let store = fixture.open();
    let first = store.accept(keyed("k", "body", vec![event("evt-1", "1")])).await.unwrap();
    let Accepted::Stored(answers) = first else { panic!("{first:?}") };
    // A producer without ids of its own gets new ones each time; the answer names the first ones.
    let again = store.accept(keyed("k", "body", vec![event("evt-2", "1")])).await.unwrap();
    assert_eq!(again, Accepted::Repeated(answers));
    assert!(read(&store, "evt-2").await.is_none());
}

async fn a_key_used_for_another_request_is_refused(fixture: impl Fixture) {
    let store = fixture.open();
    store.accept(keyed("k", "body", vec![event("evt-1", "1")])).await.unwrap();
    let other = store.accept(keyed("k", "other", vec![event("evt-2", "2")])).await.unwrap();
    assert_eq!(other, Accepted::KeyReused);
    assert!(read(&store, "evt-2").await.is_none());
}

async fn a_key_is_forgotten_after_its_time(fixture: impl Fixture) {
    let store = fixture.open();
    store.accept(keyed("k", "body", vec![event("evt-1", "1")])).await.unwrap();
    let mut later = keyed("k", "other", vec![event("evt-2", "2")]);
    later.accepted_at = at(0) + SignedDuration::try_from(Idempotency::KEPT).unwrap();
    let accepted = store.accept(later).await.unwrap();
    assert_eq!(statuses(&accepted), [AcceptedStatus::Accepted]);
}

async fn a_given_id_makes_a_repeat_a_duplicate(fixture: impl Fixture) {
    let store = fixture.open();
    let events = vec![event("evt-1", "1"), event("evt-2", "2"), event("evt-1", "1")];
    let accepted = store.accept(submission(events)).await.unwrap();
    let expected = [AcceptedStatus::Accepted, AcceptedStatus::Accepted, AcceptedStatus::Duplicate];
    assert_eq!(statuses(&accepted), expected);
    let again = store.accept(submission(vec![event("evt-2", "2")])).await.unwrap();
    assert_eq!(statuses(&again), [AcceptedStatus::Duplicate]);
    assert_eq!(read(&store, "evt-2").await.unwrap().deliveries.len(), 1);
}

async fn a_conflict_keeps_nothing_of_the_submission(fixture: impl Fixture) {
    let store = fixture.open();
    store.accept(submission(vec![event("evt-1", "1")])).await.unwrap();
    let events = vec![event("evt-2", "2"), event("evt-1", "changed")];
    assert_eq!(store.accept(submission(events)).await.unwrap(), Accepted::IdTaken(1));
    assert!(read(&store, "evt-2").await.is_none());
    assert_eq!(read(&store, "evt-1").await.unwrap().event.data, "1");
}

async fn tenants_do_not_see_each_other(fixture: impl Fixture) {
    let store = fixture.open();
    store.accept(submission(vec![event("evt-1", "1")])).await.unwrap();
    let id = EventId::parse("evt-1").unwrap();
    assert!(store.event("globex".into(), id).await.unwrap().is_none());

    let mut other = event("evt-1", "other");
    Arc::get_mut(&mut other.event).unwrap().tenant = "globex".into();
    let accepted = store
        .accept(Submission { tenant: "globex".into(), ..submission(vec![other]) })
        .await
        .unwrap();
    assert_eq!(statuses(&accepted), [AcceptedStatus::Accepted]);
}

async fn what_is_in_hand_is_not_claimed_until_the_store_opens_again(fixture: impl Fixture) {
    let store = fixture.open();
    let mut new = event("evt-1", "1");
    new.deliveries = vec![delivery("wh_a", Start::InHand), delivery("wh_b", Start::Due)];
    store.accept(submission(vec![new.clone()])).await.unwrap();
    let in_hand = async || -> Vec<bool> {
        let record = read(&store, "evt-1").await.unwrap();
        record.deliveries.iter().map(|delivery| delivery.in_hand).collect()
    };
    assert_eq!(in_hand().await, [true, false]);
    let claimed = claim(&store, at(0)).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].id, new.deliveries[1].id);
    assert_eq!(in_hand().await, [true, true]);
    assert!(claim(&store, at(1000)).await.is_empty());
    drop(store);

    let store = fixture.open();
    assert_eq!(claim(&store, at(0)).await.len(), 2);
}

async fn claims_come_in_due_order_and_tell_the_next_due_time(fixture: impl Fixture) {
    let store = fixture.open();
    for (id, second) in [("evt-1", 30), ("evt-2", 10), ("evt-3", 20)] {
        let mut new = event(id, "1");
        new.deliveries = vec![delivery("wh_a", Start::InHand)];
        let id = new.deliveries[0].id;
        store.accept(submission(vec![new])).await.unwrap();
        let next = Next::Retry { at: at(second), request: None };
        store.record(update(id, failed(0, FailureKind::Status), next)).await.unwrap();
    }
    let none = claim_one(&store, at(9), ask("wh_a", 100)).await;
    assert!(none.deliveries.is_empty());
    assert_eq!(none.next_due, Some(at(10)));
    let first = claim_one(&store, at(25), ask("wh_a", 1)).await;
    assert_eq!(first.deliveries[0].0.id.as_str(), "evt-2");
    assert_eq!(first.next_due, Some(at(20)));
    let second = claim_one(&store, at(25), ask("wh_a", 100)).await;
    assert_eq!(second.deliveries.len(), 1);
    assert_eq!(second.next_due, Some(at(30)));
}

async fn claims_are_of_the_webhooks_that_are_asked_for(fixture: impl Fixture) {
    let store = fixture.open();
    let mut new = event("evt-1", "1");
    new.deliveries = ["wh_a", "wh_b", "wh_c"].map(|name| delivery(name, Start::Due)).into();
    store.accept(submission(vec![new])).await.unwrap();
    let asks = vec![ask("wh_c", 100), ask("wh_none", 100), ask("wh_b", 0)];
    let claimed = store.claim(at(0), asks, usize::MAX).await.unwrap();
    let [c, none, b] = &claimed[..] else { panic!("each ask has its answer: {claimed:?}") };
    assert_eq!(c.deliveries.len(), 1);
    assert_eq!(c.deliveries[0].1.webhook, webhook("wh_c"));
    assert_eq!(c.next_due, None);
    assert!(none.deliveries.is_empty() && none.next_due.is_none());
    assert!(b.deliveries.is_empty());
    assert_eq!(b.next_due, Some(at(0)));
}

async fn first_attempts_and_retries_do_not_starve_each_other(fixture: impl Fixture) {
    let store = fixture.open();
    for number in 0..20 {
        store.accept(submission(vec![event(&format!("evt-{number}"), "1")])).await.unwrap();
    }
    for delivery in claim_one(&store, at(0), ask("wh_a", 10)).await.deliveries {
        let next = Next::Retry { at: at(1), request: None };
        let update = update(delivery.1.id, failed(0, FailureKind::Status), next);
        store.record(update).await.unwrap();
    }
    let retries = |claimed: &Claimed| {
        claimed.deliveries.iter().filter(|(_, delivery)| delivery.attempts == 1).count()
    };
    let both = claim_one(&store, at(5), ask("wh_a", 4)).await;
    assert_eq!((both.deliveries.len(), retries(&both)), (4, 2));
    for (first, expected) in [(Kind::Fresh, 0), (Kind::Retries, 1)] {
        let one = claim_one(&store, at(5), Ask { first, ..ask("wh_a", 1) }).await;
        assert_eq!((one.deliveries.len(), retries(&one)), (1, expected));
    }
    // One kind gets what the other leaves.
    let rest = claim_one(&store, at(5), Ask { first: Kind::Retries, ..ask("wh_a", 13) }).await;
    assert_eq!((rest.deliveries.len(), retries(&rest)), (13, 7));
    assert_eq!(claim_one(&store, at(5), ask("wh_a", 13)).await.deliveries.len(), 1);
}

async fn a_claim_ends_where_its_bytes_do(fixture: impl Fixture) {
    let store = fixture.open();
    for id in ["evt-1", "evt-2", "evt-3"] {
        let mut new = event(id, r#""0123456789""#);
        new.deliveries = ["wh_a", "wh_b"].map(|name| delivery(name, Start::Due)).into();
        store.accept(submission(vec![new])).await.unwrap();
    }
    let asks = || vec![ask("wh_a", 100), ask("wh_b", 100)];
    let claimed = store.claim(at(0), asks(), 20).await.unwrap();
    let counts: Vec<_> = claimed.iter().map(|claimed| claimed.deliveries.len()).collect();
    assert_eq!(counts, [2, 0]);
    assert!(claimed.iter().all(|claimed| claimed.next_due == Some(at(0))));
    assert!(store.claim(at(0), asks(), 0).await.unwrap()[0].deliveries.is_empty());
    assert_eq!(claim(&store, at(0)).await.len(), 4);
}

async fn webhooks_that_wait_are_known_with_their_first_due_time(fixture: impl Fixture) {
    let store = fixture.open();
    assert!(store.waiting().await.unwrap().is_empty());
    let why = hold("p@1", 0);
    let mut new = event("evt-1", "1");
    new.deliveries = vec![
        delivery("wh_due", Start::Due),
        delivery("wh_due", Start::Due),
        delivery("wh_hand", Start::InHand),
        delivery("wh_held", Start::Held(why)),
        delivery("wh_later", Start::InHand),
    ];
    let later = new.deliveries[4].id;
    store.accept(submission(vec![new])).await.unwrap();
    let next = Next::Retry { at: at(60), request: None };
    store.record(update(later, failed(0, FailureKind::Status), next)).await.unwrap();
    let mut waiting = store.waiting().await.unwrap();
    waiting.sort_by(|a, b| a.webhook.cmp(&b.webhook));
    let expected = [("wh_due", at(0)), ("wh_later", at(60))];
    let expected = expected.map(|(name, next_due)| Waiting { webhook: webhook(name), next_due });
    assert_eq!(waiting, expected);
}

async fn released_deliveries_can_be_claimed_again(fixture: impl Fixture) {
    let store = fixture.open();
    store.accept(submission(vec![event("evt-1", "1")])).await.unwrap();
    let claimed = claim(&store, at(0)).await;
    store.release(vec![claimed[0].id]).await.unwrap();
    let again = claim(&store, at(0)).await;
    assert_eq!(again[0].id, claimed[0].id);
    assert_eq!(again[0].attempts, 0);
}

async fn a_retry_keeps_its_request_and_its_attempts(fixture: impl Fixture) {
    let store = fixture.open();
    store.accept(submission(vec![event("evt-1", "1")])).await.unwrap();
    let id = claim(&store, at(0)).await[0].id;
    let rendered = request("{\"v\":1}");
    let next = Next::Retry { at: at(5), request: Some(Arc::clone(&rendered)) };
    let first =
        Update { chain: "summary@abc".into(), ..update(id, failed(0, FailureKind::Status), next) };
    store.record(first).await.unwrap();
    drop(store);

    let store = fixture.open();
    assert!(claim(&store, at(4)).await.is_empty());
    let again = claim(&store, at(5)).await;
    assert_eq!(again[0].attempts, 1);
    assert_eq!(again[0].request.as_ref(), Some(&rendered));
    let next = Next::Retry { at: at(10), request: None };
    store.record(update(id, failed(5, FailureKind::Timeout), next)).await.unwrap();
    assert_eq!(claim(&store, at(10)).await[0].request.as_ref(), Some(&rendered));
    store.record(update(id, failed(10, FailureKind::Dns), Next::Dead)).await.unwrap();

    let record = read(&store, "evt-1").await.unwrap();
    let delivery = &record.deliveries[0];
    assert_eq!(delivery.state, State::Dead);
    assert_eq!(delivery.chain, "summary@abc");
    assert_eq!(delivery.due_at, None);
    let kinds: Vec<_> =
        delivery.attempts.iter().map(|made| made.failure.as_ref().unwrap().kind).collect();
    assert_eq!(kinds, [FailureKind::Status, FailureKind::Timeout, FailureKind::Dns]);
    let first = &delivery.attempts[0];
    assert_eq!((first.started_at, first.duration_us), (at(0), 1_500));
    assert_eq!((first.status, first.excerpt.as_str()), (Some(500), "oops"));
    assert_eq!(first.retry_after, Some(Duration::from_secs(7)));
    assert_eq!(first.timings, TIMINGS);
}

async fn a_split_makes_deliveries_of_their_own(fixture: impl Fixture) {
    let store = fixture.open();
    store.accept(submission(vec![event("evt-1", "1")])).await.unwrap();
    let first = claim(&store, at(0)).await[0].id;
    let others = vec![
        (delivery("wh_a", Start::InHand), request("2")),
        (delivery("wh_a", Start::Due), request("3")),
    ];
    let second = others[0].0.id;
    let split = Update {
        chain: "items@abc".into(),
        ..update(first, None, Next::Split { first: request("1"), others })
    };
    store.record(split).await.unwrap();

    let third = claim(&store, at(0)).await;
    assert_eq!(third.len(), 1, "the first and second part are in hand");
    assert_eq!(third[0].part, 3);
    assert_eq!(third[0].request.as_ref().unwrap().body, "3");
    store.record(update(second, None, Next::Delivered)).await.unwrap();

    let record = read(&store, "evt-1").await.unwrap();
    let parts: Vec<_> =
        record.deliveries.iter().map(|made| (made.part, made.state, &made.chain[..])).collect();
    assert_eq!(
        parts,
        [
            (1, State::Pending, "items@abc"),
            (2, State::Delivered, "items@abc"),
            (3, State::Pending, "items@abc"),
        ]
    );
    drop(store);

    let open = claim(&fixture.open(), at(0)).await;
    let bodies: Vec<_> = open.iter().map(|part| &part.request.as_ref().unwrap().body[..]).collect();
    assert_eq!(bodies.len(), 2);
    assert!(bodies.contains(&&b"1"[..]) && bodies.contains(&&b"3"[..]), "{bodies:?}");
}

async fn what_is_recorded_twice_counts_once(fixture: impl Fixture) {
    let store = fixture.open();
    let twice = async |update: Update| {
        store.record(update.clone()).await.unwrap();
        store.record(update).await.unwrap();
    };
    store.accept(submission(vec![event("e1", "1"), event("e2", "2")])).await.unwrap();
    let [first, second] = &claim(&store, at(0)).await[..] else { panic!("two deliveries") };

    let attempt = failed(1, FailureKind::Status);
    twice(update(first.id, attempt, Next::Retry { at: at(5), request: None })).await;
    let [again] = &claim(&store, at(5)).await[..] else { panic!("one delivery") };
    assert_eq!((again.id, again.attempts), (first.id, 1));
    twice(update(first.id, failed(6, FailureKind::Status), Next::Dead)).await;
    let deliveries = read(&store, "e1").await.unwrap().deliveries;
    assert_eq!((deliveries[0].state, deliveries[0].attempts.len()), (State::Dead, 2));

    let others = vec![(delivery("wh_a", Start::InHand), request("[2]"))];
    twice(update(second.id, None, Next::Split { first: request("[1]"), others })).await;
    assert_eq!(read(&store, "e2").await.unwrap().deliveries.len(), 2);
    twice(update(second.id, None, Next::Held(hold("p@1", 0)))).await;
    assert_eq!(store.holds().await.unwrap()[0].deliveries, 1);
}

async fn finished_deliveries_are_never_claimed(fixture: impl Fixture) {
    let store = fixture.open();
    for (id, next) in [
        ("evt-1", Next::Delivered),
        ("evt-2", Next::Dropped("not wanted".to_owned())),
        ("evt-3", Next::Dead),
    ] {
        store.accept(submission(vec![event(id, "1")])).await.unwrap();
        let delivery = claim(&store, at(0)).await[0].id;
        store.record(update(delivery, None, next)).await.unwrap();
    }
    drop(store);

    let store = fixture.open();
    let claimed = claim_one(&store, at(1_000_000), ask("wh_a", 100)).await;
    assert!(claimed.deliveries.is_empty());
    assert_eq!(claimed.next_due, None);
    let dropped = read(&store, "evt-2").await.unwrap();
    assert_eq!(dropped.deliveries[0].state, State::Dropped);
    assert_eq!(dropped.deliveries[0].reason.as_deref(), Some("not wanted"));
}

async fn held_deliveries_are_never_due_and_keep_their_reason(fixture: impl Fixture) {
    let store = fixture.open();
    let why = hold("p@1", 7);
    let first = held(&store, "evt-1", &why).await;
    store.accept(submission(vec![event("evt-2", "2")])).await.unwrap();
    let second = claim(&store, at(0)).await[0].id;
    store.record(update(second, None, Next::Held(Arc::clone(&why)))).await.unwrap();
    drop(store);

    let store = fixture.open();
    let none = claim_one(&store, at(1_000_000), ask("wh_a", 100)).await;
    assert!(none.deliveries.is_empty());
    assert_eq!(none.next_due, None);
    for (id, delivery) in [("evt-1", first), ("evt-2", second)] {
        let record = read(&store, id).await.unwrap();
        let found = &record.deliveries[0];
        assert_eq!((found.id, found.state, found.due_at), (delivery, State::Held, None));
        let reason = "held since 2023-11-14T22:13:27Z because p@1 keeps failing, last with \
                      plugin_trap: p@1: trapped";
        assert_eq!(found.reason.as_deref(), Some(reason));
        assert!(found.attempts.is_empty());
    }
    let holds = store.holds().await.unwrap();
    let [found] = &holds[..] else { panic!("{holds:?}") };
    assert_eq!((&found.webhook, &found.hold), (&webhook("wh_a"), &*why));
    assert_eq!((found.deliveries, found.releasing), (2, false));
}

async fn held_deliveries_are_taken_in_order_of_acceptance(fixture: impl Fixture) {
    let store = fixture.open();
    let why = hold("p@1", 0);
    // The first two are in hand when the third is held, and join it afterwards.
    let mut ids = Vec::new();
    for id in ["evt-1", "evt-2"] {
        store.accept(submission(vec![event(id, "1")])).await.unwrap();
        ids.push(claim(&store, at(0)).await[0].id);
    }
    for id in ["evt-3", "evt-4", "evt-5"] {
        ids.push(held(&store, id, &why).await);
    }
    for id in [ids[1], ids[0]] {
        store.record(update(id, None, Next::Held(Arc::clone(&why)))).await.unwrap();
    }
    let mut other = event("evt-6", "1");
    other.deliveries = vec![delivery("wh_b", Start::Held(Arc::clone(&why)))];
    store.accept(submission(vec![other])).await.unwrap();

    assert_eq!(take(&store, Which::Trial(None)).await, (vec![ids[0]], 4));
    let record = read(&store, "evt-1").await.unwrap();
    assert_eq!((record.deliveries[0].state, &record.deliveries[0].reason), (State::Pending, &None));
    assert!(claim(&store, at(1_000)).await.is_empty(), "it is in hand");
    store
        .record(update(ids[0], failed(0, FailureKind::PluginTrap), Next::Held(why)))
        .await
        .unwrap();
    assert_eq!(take(&store, Which::Trial(Some(ids[0]))).await, (vec![ids[1]], 4));
    assert!(!store.holds().await.unwrap().iter().any(|held| held.releasing));
    assert_eq!(take(&store, Which::Release(2)).await, (vec![ids[0], ids[2]], 2));
    let holds = store.holds().await.unwrap();
    assert_eq!(holds.iter().filter(|held| held.releasing).count(), 1);
    // After the last one, the first one has its turn again.
    let (last, _) = take(&store, Which::Trial(Some(ids[4]))).await;
    assert_eq!(last, [ids[3]]);
    assert_eq!(take(&store, Which::Release(100)).await, (vec![ids[4]], 0));
    assert_eq!(take(&store, Which::Release(100)).await, (vec![], 0));
    assert_eq!(take(&store, Which::Trial(None)).await, (vec![], 0));
}

async fn an_attempt_that_leaves_a_delivery_held_is_kept_and_not_counted(fixture: impl Fixture) {
    let store = fixture.open();
    store.accept(submission(vec![event("evt-1", "1")])).await.unwrap();
    let id = claim(&store, at(0)).await[0].id;
    let trapped = |second| failed(second, FailureKind::PluginTrap);
    let again = Next::Retry { at: at(0), request: None };
    store.record(update(id, trapped(0), again)).await.unwrap();
    assert_eq!(claim(&store, at(0)).await[0].attempts, 1);
    store.record(update(id, trapped(1), Next::Held(hold("p@1", 5)))).await.unwrap();
    for second in 2..4 {
        let taken = store.take_held(webhook("wh_a"), Which::Trial(None)).await.unwrap();
        assert_eq!(taken.deliveries[0].1.attempts, 1);
        store.record(update(id, trapped(second), Next::Held(hold("p@2", 5)))).await.unwrap();
    }
    // What joins without an attempt of its own tells nothing new.
    held(&store, "evt-2", &hold("p@1", 5)).await;
    let record = read(&store, "evt-1").await.unwrap();
    let starts: Vec<_> =
        record.deliveries[0].attempts.iter().map(|attempt| attempt.started_at).collect();
    assert_eq!(starts, [at(0), at(1), at(2), at(3)]);
    let holds = store.holds().await.unwrap();
    assert_eq!((holds[0].hold.clone(), holds[0].deliveries), ((*hold("p@2", 5)).clone(), 2));
    take(&store, Which::Release(1)).await;
    store.record(update(id, trapped(4), Next::Dead)).await.unwrap();
    assert_eq!(read(&store, "evt-1").await.unwrap().deliveries[0].attempts.len(), 5);
}

async fn what_was_taken_from_the_held_ones_is_held_again_after_a_crash(fixture: impl Fixture) {
    let store = fixture.open();
    let why = hold("p@1", 0);
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(held(&store, &format!("evt-{number}"), &why).await);
    }
    assert_eq!(take(&store, Which::Trial(None)).await.1, 4);
    assert_eq!(take(&store, Which::Release(2)).await.1, 2);
    store.record(update(ids[0], None, Next::Delivered)).await.unwrap();
    drop(store);

    let store = fixture.open();
    assert!(claim(&store, at(1_000)).await.is_empty());
    let holds = store.holds().await.unwrap();
    assert_eq!((holds[0].deliveries, holds[0].releasing), (4, true));
    assert_eq!(take(&store, Which::Release(100)).await, (ids[1..].to_vec(), 0));
}

async fn the_last_one_taken_from_the_held_ones_is_due_after_a_crash(fixture: impl Fixture) {
    let store = fixture.open();
    let id = held(&store, "evt-1", &hold("p@1", 0)).await;
    assert_eq!(take(&store, Which::Trial(None)).await, (vec![id], 0));
    drop(store);

    let store = fixture.open();
    assert!(store.holds().await.unwrap().is_empty());
    assert_eq!(claim(&store, at(0)).await[0].id, id);
}

async fn a_split_of_a_held_delivery_is_due_after_a_crash(fixture: impl Fixture) {
    let store = fixture.open();
    let why = hold("p@1", 0);
    let first = held(&store, "evt-1", &why).await;
    held(&store, "evt-2", &why).await;
    take(&store, Which::Trial(None)).await;
    let others = vec![(delivery("wh_a", Start::InHand), request("2"))];
    let split = Next::Split { first: request("1"), others };
    store.record(update(first, None, split)).await.unwrap();
    drop(store);

    let store = fixture.open();
    let open = claim(&store, at(0)).await;
    let parts: Vec<_> = open.iter().map(|part| (part.part, part.request.is_some())).collect();
    assert_eq!(parts, [(1, true), (2, true)], "what has a request is not held");
    assert_eq!(store.holds().await.unwrap()[0].deliveries, 1);
}

async fn a_hold_is_forgotten_once_nothing_is_held(fixture: impl Fixture) {
    let store = fixture.open();
    let why = hold("p@1", 0);
    held(&store, "evt-1", &why).await;
    store.lift(webhook("wh_a")).await.unwrap();
    assert_eq!(store.holds().await.unwrap().len(), 1);
    take(&store, Which::Release(1)).await;
    assert!(store.holds().await.unwrap().is_empty());
    store.lift(webhook("wh_a")).await.unwrap();
    held(&store, "evt-2", &hold("p@2", 9)).await;
    let holds = store.holds().await.unwrap();
    assert_eq!(holds[0].hold, *hold("p@2", 9), "nothing is left of the earlier one");
    assert!(!holds[0].releasing);
}

async fn many_tasks_can_write_at_once(fixture: impl Fixture) {
    let store = Arc::new(fixture.open());
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut new = event(&format!("evt-{n}"), &n.to_string());
                new.deliveries = vec![delivery("wh_a", Start::InHand)];
                let id = new.deliveries[0].id;
                store.accept(submission(vec![new])).await.unwrap();
                store.record(update(id, None, Next::Delivered)).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for n in 0..200 {
        let record = read(&*store, &format!("evt-{n}")).await.unwrap();
        assert_eq!(record.event.data, n.to_string());
        assert_eq!(record.deliveries[0].state, State::Delivered);
    }
}

/// A run of the plugin `count` for the tenant `acme`.
#[derive(Clone)]
struct KeyRun {
    scope: Scope,
    run: Run,
    quota: Quota,
    now: Timestamp,
}

impl KeyRun {
    fn new() -> Self {
        Self {
            scope: Scope { tenant: "acme".into(), plugin: "count".into() },
            run: Run { delivery: DeliveryId::generate(), step: 0, part: 0 },
            quota: Quota { keys: 100, bytes: 10_000 },
            now: at(0),
        }
    }

    /// The first operation of its kind on its key.
    async fn first(&self, store: &impl Store, key: &str, operation: Op) -> Outcome {
        self.operate(store, key, 0, operation, Vec::new()).await
    }

    async fn operate(
        &self,
        store: &impl Store,
        key: &str,
        occurrence: u32,
        operation: Op,
        observed: Vec<Observed>,
    ) -> Outcome {
        let request = kv::Request {
            scope: self.scope.clone(),
            run: self.run,
            operation,
            key: key.to_owned(),
            occurrence,
            observed,
            quota: self.quota,
            now: self.now,
        };
        store.kv(request).await.unwrap()
    }

    /// The value, as another run sees it.
    async fn value(&self, store: &impl Store, key: &str) -> Option<String> {
        let run = Run { delivery: DeliveryId::generate(), ..self.run };
        match (Self { run, ..self.clone() }).first(store, key, Op::Get).await {
            Ok(Answer::Value(value)) => value,
            other => panic!("{other:?}"),
        }
    }
}

fn entry(value: &str) -> Entry {
    Entry { value: value.to_owned(), ttl_seconds: None }
}

fn one_more() -> Op {
    Op::Add { delta: 1, ttl_seconds: None }
}

async fn keys_are_set_read_and_removed(fixture: impl Fixture) {
    let store = fixture.open();
    let run = KeyRun::new();
    assert_eq!(run.value(&store, "k").await, None);
    assert_eq!(run.first(&store, "k", Op::Set(entry("a"))).await, Ok(Answer::Done));
    let absent = Op::SetIfAbsent(entry("b"));
    assert_eq!(run.first(&store, "k", absent.clone()).await, Ok(Answer::Changed(false)));
    assert_eq!(run.first(&store, "other", absent).await, Ok(Answer::Changed(true)));
    drop(store);

    let store = fixture.open();
    assert_eq!(run.value(&store, "k").await.as_deref(), Some("a"));
    assert_eq!(run.value(&store, "other").await.as_deref(), Some("b"));
    assert_eq!(run.first(&store, "k", Op::Delete).await, Ok(Answer::Changed(true)));
    assert_eq!(run.first(&store, "none", Op::Delete).await, Ok(Answer::Changed(false)));
    assert_eq!(run.value(&store, "k").await, None);
    assert_eq!(run.first(&store, "n", one_more()).await, Ok(Answer::Sum(1)));
    let less = Op::Add { delta: -5, ttl_seconds: None };
    assert_eq!(run.operate(&store, "n", 1, less, Vec::new()).await, Ok(Answer::Sum(-4)));
    assert_eq!(run.value(&store, "n").await.as_deref(), Some("-4"));
    for (key, value) in [("text", "b"), ("full", &i64::MAX.to_string())] {
        run.first(&store, key, Op::Set(entry(value))).await.unwrap();
        let sum = run.first(&store, key, one_more()).await;
        assert!(matches!(sum, Err(Refusal::NotANumber(_))), "{sum:?}");
    }
}

async fn keys_are_seen_by_their_plugin_and_tenant_alone(fixture: impl Fixture) {
    let store = fixture.open();
    let run = KeyRun::new();
    run.first(&store, "k", Op::Set(entry("a"))).await.unwrap();
    for (tenant, plugin) in [("acme", "other"), ("globex", "count")] {
        let scope = Scope { tenant: tenant.into(), plugin: plugin.into() };
        assert_eq!(KeyRun { scope, ..run.clone() }.value(&store, "k").await, None);
    }
}

async fn adding_at_once_loses_nothing(fixture: impl Fixture) {
    let store = Arc::new(fixture.open());
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { KeyRun::new().first(&*store, "n", one_more()).await })
        })
        .collect();
    let mut sums = Vec::new();
    for task in tasks {
        let Ok(Answer::Sum(sum)) = task.await.unwrap() else { panic!("a sum") };
        sums.push(sum);
    }
    sums.sort_unstable();
    assert_eq!(sums, (1..=200).collect::<Vec<i64>>());
}

async fn a_repeated_run_gets_the_same_answers_and_changes_nothing(fixture: impl Fixture) {
    let store = fixture.open();
    let run = KeyRun::new();
    let seen = Op::SetIfAbsent(entry("1"));
    assert_eq!(run.first(&store, "seen", seen.clone()).await, Ok(Answer::Changed(true)));
    assert_eq!(run.first(&store, "n", one_more()).await, Ok(Answer::Sum(1)));
    drop(store);

    let store = fixture.open();
    assert_eq!(run.first(&store, "seen", seen.clone()).await, Ok(Answer::Changed(true)));
    assert_eq!(run.first(&store, "n", one_more()).await, Ok(Answer::Sum(1)));
    assert_eq!(run.value(&store, "n").await.as_deref(), Some("1"));
    // The second of its kind is another operation, and so is that of another step, part or plugin.
    assert_eq!(run.operate(&store, "n", 1, one_more(), Vec::new()).await, Ok(Answer::Sum(2)));
    for changed in [Run { step: 1, ..run.run }, Run { part: 1, ..run.run }] {
        let other = KeyRun { run: changed, ..run.clone() };
        assert_eq!(other.first(&store, "seen", seen.clone()).await, Ok(Answer::Changed(false)));
    }
    let scope = Scope { plugin: "other".into(), ..run.scope.clone() };
    let other = KeyRun { scope, ..run };
    assert_eq!(other.first(&store, "n", one_more()).await, Ok(Answer::Sum(1)));
}

async fn what_was_read_before_a_change_is_remembered_with_it(fixture: impl Fixture) {
    let store = fixture.open();
    let run = KeyRun::new();
    assert_eq!(run.first(&store, "k", Op::Get).await, Ok(Answer::Value(None)));
    let read = Observed { key: "k".to_owned(), occurrence: 0, value: None };
    run.operate(&store, "k", 0, Op::Set(entry("a")), vec![read]).await.unwrap();
    assert_eq!(run.first(&store, "k", Op::Get).await, Ok(Answer::Value(None)), "as it was read");
    let again = run.operate(&store, "k", 1, Op::Get, Vec::new()).await;
    assert_eq!(again, Ok(Answer::Value(Some("a".to_owned()))), "the second read sees the change");
}

async fn a_run_with_an_outcome_is_forgotten(fixture: impl Fixture) {
    let store = fixture.open();
    let kept = Next::Retry { at: at(5), request: None };
    let rendered = Next::Retry { at: at(5), request: Some(request("1")) };
    let split = Next::Split { first: request("1"), others: Vec::new() };
    for (id, next, forgotten) in [
        ("evt-1", kept, false),
        ("evt-2", rendered, true),
        ("evt-3", split, true),
        ("evt-4", Next::Delivered, true),
        ("evt-5", Next::Dropped("no".to_owned()), true),
        ("evt-6", Next::Dead, true),
    ] {
        store.accept(submission(vec![event(id, "1")])).await.unwrap();
        let delivery = claim(&store, at(0)).await[0].id;
        let mut run = KeyRun::new();
        run.run.delivery = delivery;
        assert_eq!(run.first(&store, id, one_more()).await, Ok(Answer::Sum(1)));
        store.record(update(delivery, None, next)).await.unwrap();
        let again = run.first(&store, id, one_more()).await;
        assert_eq!(again, Ok(Answer::Sum(if forgotten { 2 } else { 1 })), "{id}");
    }
}

async fn keys_expire_and_are_swept(fixture: impl Fixture) {
    let store = fixture.open();
    let mut run = KeyRun::new();
    let for_ten = |value: &str| Entry { ttl_seconds: Some(10), ..entry(value) };
    run.first(&store, "a", Op::Set(for_ten("1"))).await.unwrap();
    run.first(&store, "b", Op::Set(for_ten("1"))).await.unwrap();
    run.first(&store, "c", Op::Set(entry("1"))).await.unwrap();
    let add = Op::Add { delta: 1, ttl_seconds: Some(1_000) };
    run.first(&store, "a", add.clone()).await.unwrap();
    assert_eq!(store.sweep_keys(at(9), 100).await.unwrap(), 0);

    run.now = at(10);
    assert_eq!(run.value(&store, "a").await, None, "adding keeps the time that the key had");
    run.run.delivery = DeliveryId::generate();
    let absent = Op::SetIfAbsent(for_ten("2"));
    assert_eq!(run.first(&store, "b", absent).await, Ok(Answer::Changed(true)));
    assert_eq!(run.first(&store, "a", Op::Delete).await, Ok(Answer::Changed(false)));
    assert_eq!(run.first(&store, "a", add).await, Ok(Answer::Sum(1)));
    assert_eq!(store.sweep_keys(at(20), 100).await.unwrap(), 1);
    run.now = at(20);
    assert_eq!(run.value(&store, "a").await.as_deref(), Some("1"));
    assert_eq!(run.value(&store, "b").await, None);
    assert_eq!(run.value(&store, "c").await.as_deref(), Some("1"));
    assert_eq!(store.sweep_keys(at(2_000), 100).await.unwrap(), 1);
}

async fn a_quota_bounds_keys_and_bytes_and_expired_ones_make_room(fixture: impl Fixture) {
    let store = fixture.open();
    let mut run = KeyRun::new();
    run.quota = Quota { keys: 3, bytes: 20 };
    let short = |value: &str| Op::Set(Entry { ttl_seconds: Some(10), ..entry(value) });
    for key in ["a", "b", "c"] {
        run.first(&store, key, short("12")).await.unwrap();
    }
    for (key, value) in [("d", "1"), ("a", "12345678901234")] {
        let refused = run.operate(&store, key, 1, short(value), Vec::new()).await;
        assert!(
            matches!(&refused, Err(Refusal::Quota(why)) if why.contains("3 keys and 9 bytes")),
            "{refused:?}"
        );
    }
    // A refusal is remembered too: what the plugin made of it must not change.
    run.first(&store, "c", Op::Delete).await.unwrap();
    let again = run.operate(&store, "d", 1, short("1"), Vec::new()).await;
    assert!(matches!(again, Err(Refusal::Quota(_))), "{again:?}");
    run.run.delivery = DeliveryId::generate();
    run.first(&store, "d", short("1")).await.unwrap();
    run.now = at(10);
    for key in ["e", "f", "g"] {
        run.first(&store, key, Op::Set(entry("12345"))).await.unwrap();
    }
    assert_eq!(store.sweep_keys(at(10), 100).await.unwrap(), 0, "they made room");
}

async fn the_random_seed_stays_the_same(fixture: impl Fixture) {
    let seed = fixture.open().random_seed().await.unwrap();
    assert_eq!(fixture.open().random_seed().await.unwrap(), seed);
    assert_ne!(seed, [0; 32]);
}
