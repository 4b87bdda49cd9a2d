//! What is removed, and what is not.

use super::*;

/// Everything of `acme` that was accepted at 0 is past its time.
fn expired() -> Search {
    search(Cutoffs { events: at(10), payloads: at(10), attempts: at(10), undelivered: None })
}

fn search(cutoffs: Cutoffs) -> Search {
    Search::Expired("acme".into(), cutoffs)
}

/// Removes all that a search finds, looking at two events in one go.
async fn remove(store: &impl Store, search: Search) -> Removed {
    let mut removed = Removed::default();
    let mut cursor = None;
    loop {
        let found = store.search(search.clone(), cursor, 2).await.unwrap();
        removed += store.remove(found.removals).await.unwrap();
        cursor = found.next;
        if cursor.is_none() {
            return removed;
        }
    }
}

/// Accepts an event and finishes its delivery with an attempt.
async fn finished(store: &impl Store, id: &str, second: i64) {
    let new = event(id, "\"12345678\"");
    let delivery = new.deliveries[0].id;
    store.accept(submission(vec![new])).await.unwrap();
    let attempt = failed(second, FailureKind::Timeout);
    let mut dead = update(delivery, attempt, Next::Dead);
    dead.chain = "redact@1".into();
    store.record(dead).await.unwrap();
}

pub(super) async fn finished_events_go_with_everything_of_them(fixture: impl Fixture) {
    let store = fixture.open();
    for id in ["evt_1", "evt_2", "evt_3", "evt_4", "evt_5"] {
        finished(&store, id, 5).await;
    }
    let mut unrouted = event("evt_6", "6");
    unrouted.deliveries.clear();
    store.accept(submission(vec![unrouted])).await.unwrap();
    assert_eq!(store.usage("acme".into()).await.unwrap(), 51);

    let removed = remove(&store, expired()).await;
    assert_eq!(removed, Removed { events: 6, ..Removed::default() });
    assert!(read(&store, "evt_1").await.is_none());
    assert!(store.tenants().await.unwrap().is_empty());
    assert_eq!(store.usage("acme".into()).await.unwrap(), 0);

    // The chain went too, and can come again.
    finished(&store, "evt_1", 5).await;
    assert_eq!(read(&store, "evt_1").await.unwrap().deliveries[0].chain, "redact@1");
}

pub(super) async fn what_is_owed_stays(fixture: impl Fixture) {
    let store = fixture.open();
    let mut half = event("evt_half", "1");
    half.deliveries.push(delivery("wh_b", Start::Due));
    let done = half.deliveries[0].id;
    let new = [half, event("evt_pending", "2"), event("evt_retrying", "3")];
    let retrying = new[2].deliveries[0].id;
    store.accept(submission(new.to_vec())).await.unwrap();
    held(&store, "evt_held", &hold("redact@1", 1)).await;
    store.record(update(done, None, Next::Delivered)).await.unwrap();
    let next = Next::Retry { at: at(100), request: Some(request("x")) };
    store.record(update(retrying, failed(1, FailureKind::Status), next)).await.unwrap();

    assert_eq!(remove(&store, expired()).await, Removed::default());
    assert_eq!(remove(&store, Search::Finished(None)).await, Removed::default());
    assert_eq!(claim(&store, at(1_000)).await.len(), 3);
}

pub(super) async fn what_was_taken_up_again_after_a_search_stays(fixture: impl Fixture) {
    let store = fixture.open();
    let new = event("evt_1", "1");
    let id = new.deliveries[0].id;
    store.accept(submission(vec![new])).await.unwrap();
    store.record(update(id, None, Next::Delivered)).await.unwrap();
    let mut found = store.search(expired(), None, 10).await.unwrap();
    while found.removals.is_empty() {
        assert!(found.next.is_some());
        found = store.search(expired(), found.next, 10).await.unwrap();
    }
    let next = Next::Retry { at: at(1), request: None };
    store.record(update(id, None, next)).await.unwrap();
    assert_eq!(store.remove(found.removals).await.unwrap(), Removed::default());
    assert!(read(&store, "evt_1").await.is_some());
}

pub(super) async fn age_counts_from_the_last_attempt(fixture: impl Fixture) {
    let store = fixture.open();
    finished(&store, "evt_old", 10).await;
    finished(&store, "evt_young", 11).await;
    assert_eq!(remove(&store, expired()).await.events, 1);
    assert!(read(&store, "evt_old").await.is_none());
    assert!(read(&store, "evt_young").await.is_some());
}

pub(super) async fn data_and_attempts_can_go_before_the_rest(fixture: impl Fixture) {
    let store = fixture.open();
    finished(&store, "evt_1", 5).await;
    let cutoffs = Cutoffs { events: at(-1), payloads: at(10), attempts: at(0), undelivered: None };
    assert_eq!(remove(&store, search(cutoffs)).await.stripped, 1);
    let record = read(&store, "evt_1").await.unwrap();
    assert!(record.event.data.is_empty());
    assert_eq!(record.deliveries[0].attempts.len(), 1);
    assert_eq!(store.usage("acme".into()).await.unwrap(), 0);

    // Sent again, it is still known.
    let again = store.accept(submission(vec![event("evt_1", "\"12345678\"")])).await.unwrap();
    assert_eq!(statuses(&again), [AcceptedStatus::Duplicate]);

    let cutoffs = Cutoffs { attempts: at(10), ..cutoffs };
    assert_eq!(remove(&store, search(cutoffs)).await.stripped, 1);
    let record = read(&store, "evt_1").await.unwrap();
    assert!(record.deliveries[0].attempts.is_empty());
    assert_eq!(record.deliveries[0].state, State::Dead);
    // Nothing is left to do but to remove it whole.
    assert_eq!(remove(&store, search(cutoffs)).await, Removed::default());
    assert_eq!(remove(&store, expired()).await.events, 1);
}

pub(super) async fn what_is_owed_for_too_long_is_given_up(fixture: impl Fixture) {
    let store = fixture.open();
    let mut in_hand = event("evt_in_hand", "1");
    in_hand.deliveries = vec![delivery("wh_a", Start::InHand)];
    let new = vec![in_hand, event("evt_due", "2")];
    store.accept(submission(new)).await.unwrap();
    held(&store, "evt_held", &hold("redact@1", 1)).await;
    let cutoffs =
        Cutoffs { events: at(-9), payloads: at(-9), attempts: at(-9), undelivered: Some(at(1)) };
    assert_eq!(remove(&store, search(cutoffs)).await.given_up, 2);
    assert!(claim(&store, at(1_000)).await.is_empty());
    assert!(store.holds().await.unwrap().is_empty());
    let record = read(&store, "evt_due").await.unwrap();
    assert_eq!(record.deliveries[0].state, State::Dead);
    let reason = record.deliveries[0].reason.as_deref().unwrap();
    assert!(reason.contains("retention.undelivered"), "{reason}");
    assert_eq!(read(&store, "evt_in_hand").await.unwrap().deliveries[0].state, State::Pending);
}

pub(super) async fn what_keeps_an_order_is_given_up_in_order(fixture: impl Fixture) {
    let store = fixture.open();
    let queued = async |id: &str, second: i64| {
        let mut new = event(id, "1");
        Arc::get_mut(&mut new.event).unwrap().accepted_at = at(second);
        new.deliveries = vec![delivery("wh_a", Start::Queued("k".into()))];
        let delivery = new.deliveries[0].id;
        store.accept(submission(vec![new])).await.unwrap();
        delivery
    };
    let give_up = async |until: i64| {
        let undelivered = Some(at(until));
        let never = at(-9);
        let cutoffs = Cutoffs { events: never, payloads: never, attempts: never, undelivered };
        remove(&store, search(cutoffs)).await
    };
    let first = queued("evt_1", 1).await;
    for (id, second) in [("evt_2", 2), ("evt_3", 3), ("evt_4", 4)] {
        queued(id, second).await;
    }
    // The head is in hand: what waits behind it goes, it does not.
    assert_eq!(claim(&store, at(1)).await.len(), 1);
    assert_eq!(give_up(2).await.given_up, 1);
    store.release(vec![first]).await.unwrap();
    let removed = give_up(1).await;
    assert_eq!((removed.given_up, removed.moved), (1, vec![webhook("wh_a")]));
    // The next one that is left is due.
    let [third] = &claim(&store, at(10)).await[..] else { panic!("one") };
    let recorded = store.record(update(third.id, None, Next::Blocks)).await.unwrap();
    assert!(recorded.follower.is_none());
    // A dead one blocks for as long as that.
    assert_eq!(give_up(2).await, Removed::default());
    let removed = give_up(3).await;
    assert_eq!((removed.given_up, removed.moved), (0, vec![webhook("wh_a")]));
    let [fourth] = &claim(&store, at(10)).await[..] else { panic!("one") };
    store.record(update(fourth.id, None, Next::Blocks)).await.unwrap();
    // With nothing behind it, the queue is forgotten, and it is not kept for it any more.
    assert_eq!(give_up(10).await, Removed::default());
    assert!(store.blocked().await.unwrap().is_empty());
    assert_eq!(remove(&store, expired()).await.events, 4);
}

pub(super) async fn a_clock_that_is_set_loses_and_repeats_nothing(fixture: impl Fixture) {
    let store = fixture.open();
    let new: Vec<_> = (0..5).map(|n| event(&format!("evt_{n}"), "1")).collect();
    store.accept(submission(new)).await.unwrap();
    let ask = |limit| Ask { webhook: webhook("wh_a"), limit, first: Kind::Fresh };
    // A year back: nothing is due, and the store says when it will be.
    let year = SignedDuration::from_hours(365 * 24);
    let claimed = claim_one(&store, at(0) - year, ask(10)).await;
    assert!(claimed.deliveries.is_empty());
    assert_eq!(claimed.next_due, Some(at(0)));
    // A year ahead: no more at once than asked for, each of them once.
    let claimed = claim_one(&store, at(0) + year, ask(2)).await;
    assert_eq!(claimed.deliveries.len(), 2);
    let next = Next::Retry { at: at(0) + year + SignedDuration::from_secs(5), request: None };
    let first = claimed.deliveries[0].1.id;
    store.record(update(first, failed(1, FailureKind::Status), next)).await.unwrap();
    // Back again: what is owed is still there, and what was in hand is not given out twice.
    assert_eq!(claim(&store, at(0)).await.len(), 3);
    assert_eq!(claim(&store, at(0) + year + SignedDuration::from_secs(5)).await.len(), 1);
}

pub(super) async fn what_is_owed_is_counted(fixture: impl Fixture) {
    let store = fixture.open();
    let mut both = event("evt_1", "1");
    both.deliveries.push(delivery("wh_b", Start::InHand));
    let done = event("evt_2", "2");
    let id = done.deliveries[0].id;
    store.accept(submission(vec![both, done, event("evt_3", "3")])).await.unwrap();
    store.record(update(id, None, Next::Delivered)).await.unwrap();
    held(&store, "evt_4", &hold("redact@1", 1)).await;
    let (began, has_begun) = oneshot::channel();
    let mut owed: Vec<_> = store.owed(began).await.unwrap();
    has_begun.await.unwrap();
    owed.sort_by(|a, b| (&a.0.0, a.1).cmp(&(&b.0.0, b.1)));
    let (a, b) = (webhook("wh_a"), webhook("wh_b"));
    assert_eq!(owed, [(a.clone(), 1), (a, 2), (b, 1)], "held ones apart");
}

pub(super) async fn tenants_keep_their_own(fixture: impl Fixture) {
    let store = fixture.open();
    let mut other = submission(vec![event("evt_1", "1")]);
    other.tenant = "globex".into();
    let mut new = event("evt_1", "1");
    Arc::get_mut(&mut new.event).unwrap().tenant = "globex".into();
    new.deliveries.clear();
    other.events = vec![new];
    store.accept(other).await.unwrap();
    finished(&store, "evt_1", 5).await;
    assert_eq!(store.tenants().await.unwrap(), ["acme".into(), "globex".into()]);
    assert_eq!(remove(&store, expired()).await.events, 1);
    assert_eq!(store.tenants().await.unwrap(), ["globex".into()]);
    assert_eq!(remove(&store, Search::Finished(None)).await.events, 1);
}

pub(super) async fn keys_of_requests_are_forgotten(fixture: impl Fixture) {
    let store = fixture.open();
    for n in 0..5 {
        let new = event(&format!("evt_{n}"), "1");
        store.accept(keyed(&format!("key {n}"), "body", vec![new])).await.unwrap();
    }
    assert_eq!(store.forget_keys(at(0), 10).await.unwrap(), 0);
    assert_eq!(store.forget_keys(at(1), 3).await.unwrap(), 3);
    assert_eq!(store.forget_keys(at(1), 3).await.unwrap(), 2);
}

pub(super) async fn room_that_was_made_is_used_or_given_back(fixture: impl Fixture) {
    let store = fixture.open();
    let data = format!("\"{}\"", "x".repeat(100_000));
    for n in 0..20 {
        let mut new = event(&format!("evt_{n}"), &data);
        new.deliveries.clear();
        store.accept(submission(vec![new])).await.unwrap();
    }
    let full = store.size().await.unwrap();
    assert!(full.used > 2_000_000, "{full:?}");
    assert_eq!(remove(&store, expired()).await.events, 20);
    let empty = store.size().await.unwrap();
    assert!(empty.used < full.used - 1_900_000, "{empty:?}");
    assert!(empty.free > 1_900_000, "{empty:?}");
    let given = store.shrink(1_000_000).await.unwrap();
    assert!((1_000_000..1_100_000).contains(&given), "{given}");
    let smaller = store.size().await.unwrap();
    assert_eq!(smaller.free, empty.free - given);
}
