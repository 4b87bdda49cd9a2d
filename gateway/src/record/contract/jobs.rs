//! Lists of deliveries, and jobs: each delivery is acted on once, whenever the process ends.

use super::*;

mod sqlite {
    use super::*;

    contract!(Sqlite:
        a_list_is_of_one_tenant_newest_first_and_in_pages
        a_filter_finds_what_fits_and_nothing_else
        a_replay_is_a_new_delivery_of_the_same_event
        a_job_goes_on_where_it_was_and_acts_once_on_each
        a_filter_means_the_latest_of_what_was_replayed
        a_replay_waits_for_what_it_has_made
        a_replay_of_a_part_is_of_that_part_alone
        the_same_bytes_are_sent_while_they_are_kept
        what_is_cancelled_is_not_due_and_not_held
        what_is_cancelled_in_hand_stays_so_unless_it_was_delivered
        what_is_cancelled_is_not_split
        a_listed_delivery_that_cannot_be_acted_on_is_counted_and_told
        another_tenants_things_are_missing
        a_repeated_request_gives_the_same_job
    );
}

pub(super) const PACE: Pace = Pace { batch: 3, looks: 5, pending: 1_000 };

pub(super) fn new_job(action: Action, selection: Selection) -> NewJob {
    NewJob {
        id: JobId::generate(),
        tenant: "acme".into(),
        action,
        selection,
        until: DeliveryId::generate(),
        created_at: at(0),
        idempotency: None,
    }
}

pub(super) async fn begin(store: &impl Store, action: Action, selection: Selection) -> JobId {
    match store.begin_job(new_job(action, selection)).await.unwrap() {
        Begun::New(job) => job.id,
        other => panic!("{other:?}"),
    }
}

/// Does all steps of a job and gives it as it is then.
pub(super) async fn finish(store: &impl Store, id: JobId) -> Job {
    for _ in 0..1_000 {
        if let Some(job) = store.step_job(id, at(100), PACE).await.unwrap().ended {
            return job;
        }
    }
    panic!("the job does not end");
}

pub(super) async fn do_job(store: &impl Store, action: Action, selection: Selection) -> Job {
    finish(store, begin(store, action, selection).await).await
}

pub(super) fn in_state(state: State) -> Filter {
    Filter { state: Some(state), ..Filter::default() }
}

/// So many events, each with a delivery to `wh_a` that ends so. Gives the deliveries.
pub(super) async fn ended(
    store: &impl Store,
    prefix: &str,
    count: usize,
    next: &Next,
) -> Vec<DeliveryId> {
    let mut ids = Vec::new();
    for n in 0..count {
        let mut new = event(&format!("{prefix}-{n}"), "1");
        new.deliveries = vec![delivery("wh_a", Start::InHand)];
        let id = new.deliveries[0].id;
        store.accept(submission(vec![new])).await.unwrap();
        let is_dead = matches!(next, Next::Dead);
        let attempt = failed(10, FailureKind::Status).filter(|_| is_dead);
        store.record(update(id, attempt, next.clone())).await.unwrap();
        ids.push(id);
    }
    ids
}

pub(super) async fn list(store: &impl Store, filter: &Filter) -> Vec<Listed> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store.deliveries("acme".into(), filter.clone(), after, 2).await.unwrap();
        assert!(page.deliveries.len() <= 2);
        all.extend(page.deliveries);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

pub(super) async fn ids(store: &impl Store, filter: &Filter) -> Vec<DeliveryId> {
    list(store, filter).await.iter().map(|listed| listed.id).collect()
}

async fn a_list_is_of_one_tenant_newest_first_and_in_pages(fixture: impl Fixture) {
    let store = fixture.open();
    let mut made = ended(&store, "evt", 5, &Next::Dead).await;
    let other = {
        let mut new = event("evt-0", "1");
        Arc::get_mut(&mut new.event).unwrap().tenant = "globex".into();
        Submission { tenant: "globex".into(), ..submission(vec![new]) }
    };
    store.accept(other).await.unwrap();
    made.reverse();
    for filter in [Filter::default(), in_state(State::Dead)] {
        assert_eq!(ids(&store, &filter).await, made);
    }
    let listed = &list(&store, &Filter::default()).await[0];
    assert_eq!((listed.event.as_str(), &*listed.webhook.0), ("evt-4", "wh_a"));
    assert_eq!((listed.state, listed.attempts, listed.accepted_at), (State::Dead, 1, at(0)));
    assert_eq!(listed.last_attempt.as_ref().unwrap().status, Some(500));
    let theirs = store.deliveries("globex".into(), Filter::default(), None, 10).await.unwrap();
    assert_eq!(theirs.deliveries.len(), 1);
}

async fn a_filter_finds_what_fits_and_nothing_else(fixture: impl Fixture) {
    let store = fixture.open();
    let dead = ended(&store, "dead", 1, &Next::Dead).await;
    let delivered = ended(&store, "delivered", 1, &Next::Delivered).await;
    let mut new = event("late", "1");
    let late = Arc::get_mut(&mut new.event).unwrap();
    late.accepted_at = at(50);
    late.event_type = EventType::parse("order.late").unwrap();
    new.deliveries = vec![delivery("wh_b", Start::Due)];
    let late = vec![new.deliveries[0].id];
    store.accept(submission(vec![new])).await.unwrap();
    let none = Vec::new();
    let of = |change: fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        filter
    };
    for (filter, expected) in [
        (of(|filter| filter.webhook = Some(webhook("wh_b"))), &late),
        (of(|filter| filter.webhook = Some(webhook("wh_c"))), &none),
        (in_state(State::Pending), &late),
        (in_state(State::Delivered), &delivered),
        (Filter { webhook: Some(webhook("wh_a")), ..in_state(State::Dead) }, &dead),
        (Filter { webhook: Some(webhook("wh_b")), ..in_state(State::Dead) }, &none),
        (of(|filter| filter.event_type = EventType::parse("order.late").ok()), &late),
        (of(|filter| filter.accepted_after = Some(at(50))), &late),
        (of(|filter| filter.accepted_after = Some(at(51))), &none),
        (Filter { accepted_before: Some(at(50)), ..in_state(State::Pending) }, &none),
        (Filter { accepted_before: Some(at(51)), ..in_state(State::Pending) }, &late),
        (of(|filter| filter.failed_since = Some(at(10))), &dead),
        (of(|filter| filter.failed_since = Some(at(11))), &none),
    ] {
        assert_eq!(&ids(&store, &filter).await, expected, "{filter:?}");
    }
}

async fn a_replay_is_a_new_delivery_of_the_same_event(fixture: impl Fixture) {
    let store = fixture.open();
    let dead = ended(&store, "evt", 1, &Next::Dead).await[0];
    let selection = Selection::Event(EventId::parse("evt-0").unwrap());
    let job = do_job(&store, Action::Replay, selection).await;
    assert_eq!((job.state, job.matched, job.done), (JobState::Completed, 1, 1));
    assert_eq!(job.ended_at, Some(at(100)));

    let claimed = claim(&store, at(100)).await;
    let [replay] = &claimed[..] else { panic!("one replay: {claimed:?}") };
    assert!(replay.id != dead && replay.request.is_none() && !replay.only_part);
    assert_eq!((replay.part, replay.attempts), (1, 0));
    store.record(update(replay.id, None, Next::Delivered)).await.unwrap();
    let record = read(&store, "evt-0").await.unwrap();
    let states: Vec<_> = record.deliveries.iter().map(|one| (one.state, one.replay_of)).collect();
    assert_eq!(states, [(State::Dead, None), (State::Delivered, Some(dead))]);
}

async fn a_job_goes_on_where_it_was_and_acts_once_on_each(fixture: impl Fixture) {
    let mut store = fixture.open();
    let dead = ended(&store, "evt", 20, &Next::Dead).await;
    let id = begin(&store, Action::Replay, Selection::Filter(in_state(State::Dead))).await;
    let mut steps = 0;
    loop {
        let stepped = store.step_job(id, at(100), PACE).await.unwrap();
        steps += 1;
        // A process that ends after any step.
        drop(store);
        store = fixture.open();
        let open = store.open_jobs().await.unwrap();
        assert_eq!(open.contains(&id), stepped.ended.is_none());
        if stepped.ended.is_some() {
            break;
        }
    }
    assert!(steps > 6, "no more than three at once: {steps}");
    let mut repeated: Vec<_> = list(&store, &in_state(State::Pending))
        .await
        .iter()
        .filter_map(|one| one.replay_of)
        .collect();
    repeated.sort_unstable();
    assert_eq!(repeated, dead);
    let again = store.step_job(id, at(101), PACE).await.unwrap();
    assert_eq!(again.made, 0, "it has ended");
}

async fn a_filter_means_the_latest_of_what_was_replayed(fixture: impl Fixture) {
    let store = fixture.open();
    ended(&store, "evt", 4, &Next::Dead).await;
    for round in 0..3 {
        let job = do_job(&store, Action::Replay, Selection::Filter(in_state(State::Dead))).await;
        assert_eq!(job.matched, 4, "round {round}");
        for delivery in claim(&store, at(100)).await {
            store.record(update(delivery.id, None, Next::Dead)).await.unwrap();
        }
    }
    assert_eq!(ids(&store, &in_state(State::Dead)).await.len(), 16);
}

async fn a_replay_waits_for_what_it_has_made(fixture: impl Fixture) {
    let store = fixture.open();
    ended(&store, "evt", 5, &Next::Dead).await;
    let id = begin(&store, Action::Replay, Selection::Filter(in_state(State::Dead))).await;
    let pace = Pace { pending: 2, ..PACE };
    let step = async || store.step_job(id, at(100), pace).await.unwrap();
    assert_eq!(step().await.made, 2);
    assert!(step().await.waits);
    let first = claim(&store, at(100)).await[0].id;
    assert!(step().await.waits, "it is in hand, and no attempt was made");
    store.record(update(first, None, Next::Delivered)).await.unwrap();
    let stepped = step().await;
    assert_eq!((stepped.made, stepped.waits), (1, false));
}

async fn a_replay_of_a_part_is_of_that_part_alone(fixture: impl Fixture) {
    let store = fixture.open();
    store.accept(submission(vec![event("evt-1", "1")])).await.unwrap();
    let first = claim(&store, at(0)).await[0].id;
    let others = vec![(delivery("wh_a", Start::InHand), request("2"))];
    let second = others[0].0.id;
    let split = Next::Split { first: request("1"), others };
    store.record(update(first, None, split)).await.unwrap();
    for id in [first, second] {
        store.record(update(id, None, Next::Dead)).await.unwrap();
    }
    let job = do_job(&store, Action::Replay, Selection::Deliveries(vec![second, first])).await;
    assert_eq!(job.done, 2);
    let mut parts: Vec<_> =
        claim(&store, at(100)).await.iter().map(|one| (one.part, one.only_part)).collect();
    parts.sort_unstable();
    assert_eq!(parts, [(1, true), (2, true)]);
}

async fn the_same_bytes_are_sent_while_they_are_kept(fixture: impl Fixture) {
    let store = fixture.open();
    store.accept(submission(vec![event("evt-1", "1")])).await.unwrap();
    let id = claim(&store, at(0)).await[0].id;
    let next = Next::Retry { at: at(5), request: Some(request("rendered")) };
    let first = Update { chain: "p@1".into(), ..update(id, failed(0, FailureKind::Status), next) };
    store.record(first).await.unwrap();
    store.record(update(id, failed(5, FailureKind::Status), Next::Dead)).await.unwrap();
    let selection = || Selection::Deliveries(vec![id]);
    assert_eq!(do_job(&store, Action::ReplaySameBytes, selection()).await.done, 1);
    let replay = &claim(&store, at(100)).await[0];
    assert_eq!(replay.request.as_ref().unwrap().body, "rendered");
    store.record(update(replay.id, None, Next::Delivered)).await.unwrap();
    assert_eq!(read(&store, "evt-1").await.unwrap().deliveries[1].chain, "p@1");

    let delivered = Selection::Deliveries(vec![replay.id]);
    let job = do_job(&store, Action::ReplaySameBytes, delivered).await;
    assert_eq!((job.done, job.failed), (0, 1));
    assert!(job.failure.unwrap().contains("replay it without `same_bytes`"));
}

async fn what_is_cancelled_is_not_due_and_not_held(fixture: impl Fixture) {
    let store = fixture.open();
    let why = hold("p@1", 7);
    held(&store, "evt-1", &why).await;
    held(&store, "evt-2", &why).await;
    store.accept(submission(vec![event("evt-3", "1")])).await.unwrap();
    let one = Selection::Event(EventId::parse("evt-1").unwrap());
    let cancel = do_job(&store, Action::Cancel, one).await;
    assert_eq!((cancel.matched, cancel.done), (1, 1));
    assert_eq!(store.holds().await.unwrap()[0].deliveries, 1);
    let all = do_job(&store, Action::Cancel, Selection::Filter(Filter::default())).await;
    assert_eq!(all.done, 2);
    assert!(store.holds().await.unwrap().is_empty());
    assert!(take(&store, Which::Release(9)).await.0.is_empty());
    drop(store);

    let store = fixture.open();
    assert!(claim(&store, at(1_000)).await.is_empty());
    let cancelled = list(&store, &in_state(State::Cancelled)).await;
    assert_eq!(cancelled.len(), 3);
    assert!(cancelled[2].reason.as_ref().unwrap().contains(&cancel.id.to_string()));
}

async fn what_is_cancelled_in_hand_stays_so_unless_it_was_delivered(fixture: impl Fixture) {
    let store = fixture.open();
    let retry = Next::Retry { at: at(200), request: Some(request("1")) };
    for (n, (next, state)) in [
        (Next::Delivered, State::Delivered),
        (Next::Dead, State::Cancelled),
        (Next::Dropped("no".to_owned()), State::Cancelled),
        (retry, State::Cancelled),
        (Next::Held(hold("p@1", 7)), State::Cancelled),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("evt-{n}");
        store.accept(submission(vec![event(&name, "1")])).await.unwrap();
        let id = claim(&store, at(0)).await[0].id;
        let job = begin(&store, Action::Cancel, Selection::Deliveries(vec![id])).await;
        let stepped = store.step_job(job, at(100), PACE).await.unwrap();
        assert_eq!(stepped.in_hand, [(webhook("wh_a"), id)]);
        let attempt = failed(100, FailureKind::Status);
        let recorded = store.record(update(id, attempt, next.clone())).await.unwrap();
        assert!(recorded.cancelled, "it was not owed any more");
        let record = read(&store, &name).await.unwrap();
        assert_eq!(record.deliveries[0].state, state, "{next:?}");
        assert_eq!(record.deliveries[0].attempts.len(), 1, "what was done is on record");
    }
    assert!(store.holds().await.unwrap().is_empty());
    assert!(claim(&store, at(1_000)).await.is_empty());
}

async fn what_is_cancelled_is_not_split(fixture: impl Fixture) {
    let store = fixture.open();
    store.accept(submission(vec![event("evt-1", "1")])).await.unwrap();
    let first = claim(&store, at(0)).await[0].id;
    do_job(&store, Action::Cancel, Selection::Deliveries(vec![first])).await;
    let others = vec![(delivery("wh_a", Start::Due), request("2"))];
    let split = Next::Split { first: request("1"), others };
    assert!(store.record(update(first, None, split)).await.unwrap().cancelled);
    assert_eq!(ids(&store, &Filter::default()).await, [first]);
    assert!(claim(&store, at(1_000)).await.is_empty());
}

async fn a_listed_delivery_that_cannot_be_acted_on_is_counted_and_told(fixture: impl Fixture) {
    let store = fixture.open();
    let mut listed = ended(&store, "evt", 1, &Next::Delivered).await;
    store.accept(submission(vec![event("open", "1")])).await.unwrap();
    listed.push(ids(&store, &in_state(State::Pending)).await[0]);
    listed.push(listed[0]);
    for (action, told) in [
        (Action::Replay, "is pending; it can be replayed once it is finished"),
        (Action::Cancel, "is delivered: there is nothing to cancel"),
    ] {
        let job = do_job(&store, action, Selection::Deliveries(listed.clone())).await;
        assert_eq!((job.matched, job.done, job.failed), (2, 1, 1), "each once");
        assert!(job.failure.unwrap().contains(told));
    }
}

async fn another_tenants_things_are_missing(fixture: impl Fixture) {
    let store = fixture.open();
    let dead = ended(&store, "evt", 1, &Next::Dead).await;
    let globex =
        |selection| NewJob { tenant: "globex".into(), ..new_job(Action::Replay, selection) };
    let begun = store.begin_job(globex(Selection::Deliveries(dead.clone()))).await.unwrap();
    assert!(matches!(begun, Begun::NoDelivery(id) if id == dead[0]), "{begun:?}");
    let event = EventId::parse("evt-0").unwrap();
    let begun = store.begin_job(globex(Selection::Event(event))).await.unwrap();
    assert!(matches!(begun, Begun::NoEvent(_)), "{begun:?}");
    for filter in
        [in_state(State::Dead), Filter { webhook: Some(webhook("wh_a")), ..in_state(State::Dead) }]
    {
        let begun = store.begin_job(globex(Selection::Filter(filter.clone()))).await.unwrap();
        let Begun::New(job) = begun else { panic!("{begun:?}") };
        assert_eq!(finish(&store, job.id).await.matched, 0, "{filter:?}");
        let theirs = store.deliveries("globex".into(), filter, None, 10).await.unwrap();
        assert!(theirs.deliveries.is_empty());
        assert!(store.job("acme".into(), job.id).await.unwrap().is_none());
        assert!(store.stop_job("acme".into(), job.id, at(0)).await.unwrap().is_none());
        assert!(store.jobs("acme".into(), None, 10).await.unwrap().is_empty());
    }
    assert_eq!(store.jobs("globex".into(), None, 10).await.unwrap().len(), 2);
}

async fn a_repeated_request_gives_the_same_job(fixture: impl Fixture) {
    let store = fixture.open();
    let keyed = |body: &str, second| {
        let fingerprint = Digest::of(body.as_bytes());
        let idempotency =
            Some(Idempotency { key: "k".to_owned(), fingerprint, kept: Idempotency::KEPT });
        let selection = Selection::Filter(in_state(State::Dead));
        NewJob { idempotency, created_at: at(second), ..new_job(Action::Replay, selection) }
    };
    let Begun::New(first) = store.begin_job(keyed("a", 0)).await.unwrap() else { panic!() };
    let Begun::Repeated(again) = store.begin_job(keyed("a", 9)).await.unwrap() else { panic!() };
    assert_eq!(first.id, again.id);
    assert_eq!(again.selection, Selection::Filter(in_state(State::Dead)));
    assert!(matches!(store.begin_job(keyed("b", 9)).await.unwrap(), Begun::KeyReused));
    let day = i64::try_from(Idempotency::KEPT.as_secs()).unwrap();
    let Begun::New(later) = store.begin_job(keyed("b", day)).await.unwrap() else { panic!() };
    assert_ne!(later.id, first.id);
}
