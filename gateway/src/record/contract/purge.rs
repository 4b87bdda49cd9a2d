//! What is purged, what is left, and that nothing of it comes back.

use serde_json::{Value, json};

use super::*;

fn new(target: Target, value: Value) -> NewPurge {
    let id = PurgeId::generate();
    NewPurge { id, tenant: "acme".into(), target, value, created_at: at(0) }
}

fn whole() -> NewPurge {
    new(Target::Tenant, Value::Null)
}

fn of_attribute(value: &str) -> NewPurge {
    new(Target::Attribute("who".to_owned()), json!(value))
}

fn of_pointer(value: Value) -> NewPurge {
    new(Target::Pointer("/customer/id".to_owned()), value)
}

async fn begin(store: &impl Store, purge: NewPurge) -> PurgeId {
    match store.begin_purge(purge).await.unwrap() {
        PurgeBegun::New(purge) | PurgeBegun::Open(purge) => purge.id,
        PurgeBegun::TooMany => panic!("too many"),
    }
}

/// Goes on with a purge until it is through; gives it and what its steps came to together.
async fn finish(store: &impl Store, id: PurgeId) -> Purged {
    let (mut in_hand, mut given_up, mut moved) = (Vec::new(), 0, Vec::new());
    loop {
        let stepped = store.step_purge(id, at(7)).await.unwrap();
        in_hand.extend(stepped.in_hand);
        given_up += stepped.given_up;
        moved.extend(stepped.moved);
        if stepped.purge.ended_at.is_some() {
            return Purged { purge: stepped.purge, in_hand, given_up, moved, waits: false };
        }
    }
}

async fn purge(store: &impl Store, purge: NewPurge) -> Purged {
    let id = begin(store, purge).await;
    finish(store, id).await
}

/// An event about somebody, in an attribute and in its data.
fn about(id: &str, who: &str) -> NewEvent {
    let mut new = event(id, &json!({ "customer": { "id": who } }).to_string());
    let event = Arc::get_mut(&mut new.event).unwrap();
    event.attributes = vec![("region".to_owned(), "eu".to_owned()), ("who".to_owned(), who.into())];
    new
}

fn of_globex(mut new: NewEvent) -> Submission {
    Arc::get_mut(&mut new.event).unwrap().tenant = "globex".into();
    for delivery in &mut new.deliveries {
        delivery.webhook = webhook("wh_globex");
    }
    Submission { tenant: "globex".into(), ..keyed("key", "body", vec![new]) }
}

pub(super) async fn a_purge_of_a_tenant_leaves_nothing_of_it(fixture: impl Fixture) {
    let store = fixture.open();
    store.accept(of_globex(event("evt_1", "1"))).await.unwrap();
    store.accept(keyed("key", "body", vec![event("evt_1", "1")])).await.unwrap();
    store
        .accept(submission((2..300).map(|n| event(&format!("evt_{n}"), "2")).collect()))
        .await
        .unwrap();
    held(&store, "evt_held", &hold("redact@1", 1)).await;
    let run = KeyRun { quota: Quota { keys: 1_000, bytes: 1 << 20 }, ..KeyRun::new() };
    for n in 0..250 {
        run.first(&store, &format!("key {n}"), Op::Set(entry("1"))).await.unwrap();
    }
    let retried = claim_one(&store, at(0), ask("wh_a", 1)).await.deliveries[0].1.id;
    let next = Next::Retry { at: at(100), request: Some(request("x")) };
    store.record(update(retried, failed(1, FailureKind::Status), next)).await.unwrap();

    let purged = purge(&store, whole()).await;
    assert_eq!((purged.purge.matched, purged.purge.done), (300, 300));
    assert_eq!((purged.given_up, purged.in_hand.len()), (300, 0));
    assert_eq!((purged.purge.started_at, purged.purge.ended_at), (Some(at(7)), Some(at(7))));
    for id in ["evt_1", "evt_2", "evt_held"] {
        assert!(read(&store, id).await.is_none(), "{id}");
    }
    assert!(store.holds().await.unwrap().is_empty());
    assert_eq!(store.usage("acme".into()).await.unwrap(), 0);
    assert_eq!(run.value(&store, "key 7").await, None);
    assert_eq!(store.tenants().await.unwrap(), ["globex".into()]);
    // The other tenant's are as they were, and the key can be used for something else.
    let claimed = claim(&store, at(1_000)).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(&*claimed[0].webhook.0, "wh_globex");
    let again = store.accept(of_globex(event("evt_1", "1"))).await.unwrap();
    assert!(matches!(again, Accepted::Repeated(_)), "{again:?}");
    let other = store.accept(keyed("key", "other", vec![event("evt_1", "2")])).await.unwrap();
    assert_eq!(statuses(&other), [AcceptedStatus::Accepted]);
}

pub(super) async fn jobs_that_name_what_is_purged_go_with_it(fixture: impl Fixture) {
    let store = fixture.open();
    store.accept(submission(vec![about("evt_1", "c_1"), about("evt_2", "c_2")])).await.unwrap();
    let of = |id: &str| Selection::Event(EventId::parse(id).unwrap());
    let first = jobs::begin(&store, Action::Cancel, of("evt_1")).await;
    let second = jobs::begin(&store, Action::Cancel, of("evt_2")).await;
    let ids = async || -> Vec<JobId> {
        let jobs = store.jobs("acme".into(), None, 10).await.unwrap();
        jobs.iter().map(|job| job.id).collect()
    };
    assert_eq!(ids().await, [second, first]);
    purge(&store, of_attribute("c_1")).await;
    assert_eq!(ids().await, [second]);
    purge(&store, whole()).await;
    assert!(ids().await.is_empty());
    // Whoever was at it finds nothing to do.
    let stepped = store.step_job(second, at(1), jobs::PACE).await.unwrap();
    assert_eq!((stepped.cancelled, stepped.waits), (0, false));
}

pub(super) async fn a_purge_takes_what_has_the_value_and_nothing_else(fixture: impl Fixture) {
    let store = fixture.open();
    let events = vec![about("evt_1", "c_1"), about("evt_2", "c_2"), about("evt_3", "c_1")];
    store.accept(keyed("both", "1", events)).await.unwrap();
    store.accept(keyed("other", "2", vec![about("evt_4", "c_2")])).await.unwrap();
    store.accept(submission(vec![about("evt_5", "c_11")])).await.unwrap();
    store.accept(of_globex(about("evt_1", "c_1"))).await.unwrap();
    let mut odd = event("evt_6", r#"{"customer":{"id":"\u0063_3"},"other":"c_2"}"#);
    Arc::get_mut(&mut odd.event).unwrap().attributes.clear();
    store.accept(submission(vec![odd, event("evt_7", "{\"customer\":{\"id\":7}}")])).await.unwrap();

    let purged = purge(&store, of_attribute("c_1")).await;
    assert_eq!((purged.purge.matched, purged.purge.done), (2, 2));
    let left = async || {
        let mut left = Vec::new();
        for n in 1..=7 {
            if read(&store, &format!("evt_{n}")).await.is_some() {
                left.push(n);
            }
        }
        left
    };
    assert_eq!(left().await, [2, 4, 5, 6, 7]);
    // The answer that named what is gone is gone, and no other.
    let again = store.accept(keyed("both", "x", vec![])).await.unwrap();
    assert_eq!(again, Accepted::Stored(Vec::new()));
    let again = store.accept(keyed("other", "2", vec![about("evt_4", "c_2")])).await.unwrap();
    assert!(matches!(again, Accepted::Repeated(_)), "{again:?}");

    assert_eq!(purge(&store, of_pointer(json!("c_2"))).await.purge.done, 2);
    assert_eq!(purge(&store, of_pointer(json!("c_3"))).await.purge.done, 1);
    assert_eq!(purge(&store, of_pointer(json!("7"))).await.purge.done, 0);
    assert_eq!(purge(&store, of_pointer(json!(7))).await.purge.done, 1);
    assert_eq!(left().await, [5]);
    let globex = store.event("globex".into(), EventId::parse("evt_1").unwrap()).await.unwrap();
    assert!(globex.is_some());
}

pub(super) async fn a_purge_goes_on_after_a_crash(fixture: impl Fixture) {
    let store = fixture.open();
    for batch in 0..8 {
        let id = |n| format!("evt_{batch}_{n}");
        let events = (0..100).map(|n| about(&id(n), if n % 2 == 0 { "c_1" } else { "c_2" }));
        store.accept(submission(events.collect())).await.unwrap();
    }
    let purge = of_attribute("c_1");
    let id = begin(&store, purge.clone()).await;
    drop(store);
    let mut steps = 0;
    let purged = loop {
        let store = fixture.open();
        assert_eq!(store.open_purges().await.unwrap(), [id]);
        let stepped = store.step_purge(id, at(steps)).await.unwrap();
        steps += 1;
        if stepped.purge.ended_at.is_some() {
            assert!(store.open_purges().await.unwrap().is_empty());
            break stepped.purge;
        }
        if stepped.purge.done < 400 {
            assert_eq!(begin(&store, purge.clone()).await, id, "it is the same");
        }
    };
    assert!(steps > 5, "{steps}");
    assert_eq!((purged.matched, purged.done), (400, 400));
    assert_eq!(purged.started_at, Some(at(0)));
    let store = fixture.open();
    assert_eq!(store.purge("acme".into(), id).await.unwrap(), Some(purged));
    assert_eq!(store.purge("globex".into(), id).await.unwrap(), None);
    assert_eq!(claim_one(&store, at(1), ask("wh_a", 1_000)).await.deliveries.len(), 400);
    // The next one is another.
    assert_ne!(begin(&store, of_attribute("c_1")).await, id);
}

pub(super) async fn what_comes_after_a_purge_began_stays(fixture: impl Fixture) {
    let store = fixture.open();
    store.accept(keyed("old", "1", vec![about("evt_1", "c_1")])).await.unwrap();
    let id = begin(&store, whole()).await;
    // Its row is that of the event that goes, should that be gone first.
    store.accept(keyed("new", "2", vec![about("evt_2", "c_1")])).await.unwrap();
    finish(&store, id).await;
    assert!(read(&store, "evt_1").await.is_none());
    assert!(read(&store, "evt_2").await.is_some());
    let again = store.accept(keyed("new", "2", vec![about("evt_2", "c_1")])).await.unwrap();
    assert!(matches!(again, Accepted::Repeated(_)), "{again:?}");

    // Nothing is left of what there was when it began, and what comes gets the rows of that.
    let id = begin(&store, of_attribute("c_1")).await;
    let mut unrouted = submission(vec![about("evt_3", "c_1")]);
    for _ in 0..3 {
        store.step_purge(id, at(1)).await.unwrap();
    }
    assert!(read(&store, "evt_2").await.is_none());
    unrouted.events[0].deliveries.clear();
    store.accept(unrouted).await.unwrap();
    finish(&store, id).await;
    assert!(read(&store, "evt_3").await.is_some());
    // Asked for again while it is open, it takes that too.
    let id = begin(&store, of_attribute("c_2")).await;
    store.accept(submission(vec![about("evt_4", "c_2")])).await.unwrap();
    store.step_purge(id, at(1)).await.unwrap();
    assert_eq!(begin(&store, of_attribute("c_2")).await, id);
    assert_eq!(finish(&store, id).await.purge.done, 1);
}

pub(super) async fn nothing_is_kept_of_what_was_in_hand_when_it_was_purged(fixture: impl Fixture) {
    let store = fixture.open();
    let events = (0..6).map(|n| event(&format!("evt_{n}"), "1")).collect();
    store.accept(submission(events)).await.unwrap();
    let ids: Vec<_> = claim(&store, at(0)).await.iter().map(|delivery| delivery.id).collect();
    let purged = purge(&store, whole()).await;
    let mut in_hand = purged.in_hand;
    in_hand.sort_unstable();
    assert_eq!(in_hand, ids);
    assert_eq!(purged.given_up, 0);

    let others = vec![(delivery("wh_a", Start::Due), request("[2]"))];
    let nexts = [
        Next::Delivered,
        Next::Dropped("x".to_owned()),
        Next::Dead,
        Next::Retry { at: at(5), request: Some(request("x")) },
        Next::Held(hold("p@1", 0)),
        Next::Split { first: request("[1]"), others },
    ];
    let run = |delivery| KeyRun { run: Run { delivery, step: 0, part: 0 }, ..KeyRun::new() };
    for (id, next) in ids.into_iter().zip(nexts) {
        let answer = run(id).first(&store, "seen", one_more()).await;
        assert_eq!(answer, Ok(Answer::Sum(1)), "it does as if");
        let attempt =
            failed(1, FailureKind::Status).filter(|_| !matches!(next, Next::Split { .. }));
        let recorded = store.record(update(id, attempt, next)).await.unwrap();
        assert!(recorded.purged && recorded.follower.is_none());
    }
    assert_eq!(run(DeliveryId::generate()).value(&store, "seen").await, None);
    assert!(claim(&store, at(1_000)).await.is_empty());
    assert!(store.holds().await.unwrap().is_empty());
    drop(store);
    assert!(claim(&fixture.open(), at(1_000)).await.is_empty());
}

pub(super) async fn a_queue_goes_on_without_what_is_purged(fixture: impl Fixture) {
    let store = fixture.open();
    let mut ids = Vec::new();
    for (n, who) in ["c_1", "c_1", "c_2", "c_1", "c_2"].into_iter().enumerate() {
        let mut new = about(&format!("evt_{n}"), who);
        new.deliveries = vec![delivery("wh_a", Start::Queued("k".into()))];
        ids.push(new.deliveries[0].id);
        store.accept(submission(vec![new])).await.unwrap();
    }
    let purged = purge(&store, of_attribute("c_1")).await;
    assert_eq!((purged.given_up, purged.moved), (3, vec![webhook("wh_a")]));
    assert_eq!(claim(&store, at(1_000)).await[0].id, ids[2]);
    let recorded = store.record(update(ids[2], None, Next::Delivered)).await.unwrap();
    assert_eq!(recorded.follower.unwrap().1.id, ids[4]);
    // One that blocks keeps nothing waiting when it is gone.
    store.record(update(ids[4], None, Next::Blocks)).await.unwrap();
    let mut new = about("evt_5", "c_3");
    new.deliveries = vec![delivery("wh_a", Start::Queued("k".into()))];
    store.accept(submission(vec![new])).await.unwrap();
    assert!(claim(&store, at(1_000)).await.is_empty());
    assert_eq!(purge(&store, of_attribute("c_2")).await.moved, [webhook("wh_a")]);
    assert_eq!(claim(&store, at(1_000)).await.len(), 1);
}

pub(super) async fn a_tenant_has_so_many_purges_open_at_most(fixture: impl Fixture) {
    let store = fixture.open();
    for n in 0..MAX_OPEN_PURGES {
        begin(&store, of_attribute(&format!("c_{n}"))).await;
    }
    let more = store.begin_purge(of_attribute("more")).await.unwrap();
    assert!(matches!(more, PurgeBegun::TooMany));
    let open = store.begin_purge(of_attribute("c_0")).await.unwrap();
    assert!(matches!(open, PurgeBegun::Open(_)));
}
