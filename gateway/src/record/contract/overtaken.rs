//! What jobs do to queues, and what retention does to jobs.

use super::jobs::{PACE, begin, do_job, ended, finish, ids, in_state, new_job};
use super::*;

mod sqlite {
    use super::*;

    contract!(Sqlite:
        what_waits_behind_a_cancelled_head_follows
        nothing_overtakes_a_head_that_was_cancelled_in_hand
        a_cancelled_head_that_is_given_back_or_lost_lets_the_others_follow
        a_replay_joins_the_end_of_its_queue
        what_waits_behind_what_is_paused_is_discarded_with_it
        all_that_a_webhook_was_owed_is_discarded
        disabling_ends_what_enabling_began
        what_has_no_data_any_more_is_not_replayed
        an_outcome_of_what_is_gone_is_no_error
        jobs_are_forgotten_after_their_time
    );
}

async fn queued(store: &impl Store, id: &str) -> DeliveryId {
    let mut new = event(id, "1");
    new.deliveries = vec![delivery("wh_a", Start::Queued("k".into()))];
    let delivery = new.deliveries[0].id;
    store.accept(submission(vec![new])).await.unwrap();
    delivery
}

async fn three(store: &impl Store) -> [DeliveryId; 3] {
    [queued(store, "evt-1").await, queued(store, "evt-2").await, queued(store, "evt-3").await]
}

async fn claimed(store: &impl Store) -> Vec<DeliveryId> {
    claim(store, at(1_000)).await.iter().map(|delivery| delivery.id).collect()
}

async fn cancel(store: &impl Store, delivery: DeliveryId) -> Stepped {
    let id = begin(store, Action::Cancel, Selection::Deliveries(vec![delivery])).await;
    store.step_job(id, at(100), PACE).await.unwrap()
}

async fn what_waits_behind_a_cancelled_head_follows(fixture: impl Fixture) {
    let store = fixture.open();
    let [first, second, third] = three(&store).await;
    assert!(cancel(&store, second).await.due.is_empty(), "it is not the head");
    let stepped = cancel(&store, first).await;
    assert!(stepped.due.contains(&webhook("wh_a")));
    assert_eq!((stepped.cancelled, &*stepped.tenant), (1, "acme"));
    assert_eq!(claimed(&store).await, [third]);
}

async fn nothing_overtakes_a_head_that_was_cancelled_in_hand(fixture: impl Fixture) {
    let store = fixture.open();
    let [first, second, third] = three(&store).await;
    let last = queued(&store, "evt-4").await;
    assert_eq!(claimed(&store).await, [first]);
    let paused = Next::Paused(None);
    for (id, follower, next, state) in [
        (first, second, Next::Delivered, State::Delivered),
        (second, third, Next::Dead, State::Cancelled),
        (third, last, paused, State::Cancelled),
    ] {
        let stepped = cancel(&store, id).await;
        assert_eq!((stepped.due.len(), stepped.in_hand.len()), (0, 1));
        assert!(claimed(&store).await.is_empty(), "it may be on its way");
        let attempt = failed(5, FailureKind::Status);
        let recorded = store.record(update(id, attempt, next)).await.unwrap();
        assert!(recorded.cancelled);
        assert_eq!(recorded.follower.unwrap().1.id, follower);
        assert_eq!(ids(&store, &in_state(state)).await[0], id);
    }
}

async fn a_cancelled_head_that_is_given_back_or_lost_lets_the_others_follow(fixture: impl Fixture) {
    let store = fixture.open();
    let [first, second, third] = three(&store).await;
    claim(&store, at(0)).await;
    cancel(&store, first).await;
    store.release(vec![first]).await.unwrap();
    assert_eq!(claimed(&store).await, [second]);
    cancel(&store, second).await;
    drop(store);

    let store = fixture.open();
    assert_eq!(claimed(&store).await, [third]);
}

async fn a_replay_joins_the_end_of_its_queue(fixture: impl Fixture) {
    let store = fixture.open();
    let [first, second, third] = three(&store).await;
    claim(&store, at(0)).await;
    store.record(update(first, None, Next::Dead)).await.unwrap();
    let id = begin(&store, Action::Replay, Selection::Deliveries(vec![first])).await;
    assert_eq!(store.step_job(id, at(100), PACE).await.unwrap().made, 1);
    let last = queued(&store, "evt-4").await;
    let mut order = vec![second];
    for _ in 0..4 {
        let current = *order.last().unwrap();
        let recorded = store.record(update(current, None, Next::Delivered)).await.unwrap();
        order.extend(recorded.follower.map(|(_, delivery)| delivery.id));
    }
    let replay = read(&store, "evt-1").await.unwrap().deliveries[1].id;
    assert_eq!(order, [second, third, replay, last]);
}

/// Disables `wh_a`, and finds its head paused.
async fn disable(store: &impl Store, head: DeliveryId) {
    let disabled = Disabled { since: at(5), reason: "it is gone".to_owned() };
    store.disable_webhook(webhook("wh_a"), disabled, None).await.unwrap();
    assert_eq!(claimed(store).await, [head]);
    store.record(update(head, None, Next::Paused(None))).await.unwrap();
}

fn enabling(action: Action) -> NewJob {
    let filter = Filter { webhook: Some(webhook("wh_a")), ..in_state(State::Paused) };
    new_job(action, Selection::Filter(filter))
}

async fn what_waits_behind_what_is_paused_is_discarded_with_it(fixture: impl Fixture) {
    let store = fixture.open();
    let mut old = Vec::new();
    for n in 0..8 {
        old.push(queued(&store, &format!("evt-{n}")).await);
    }
    disable(&store, old[0]).await;
    assert_eq!(store.paused(vec![webhook("wh_a")]).await.unwrap(), [8]);
    let job = enabling(Action::Discard);
    let new = queued(&store, "new").await;
    let job = store.enable_webhook(webhook("wh_a"), job, None).await.unwrap().made;
    // Three at a time, with a crash in between.
    store.step_job(job.id, at(100), PACE).await.unwrap();
    assert!(claimed(&store).await.is_empty(), "none of them gets away");
    drop(store);
    let store = fixture.open();
    assert!(claimed(&store).await.is_empty());
    let job = finish(&store, job.id).await;
    assert_eq!((job.matched, job.done), (8, 8));
    old.reverse();
    assert_eq!(ids(&store, &in_state(State::Cancelled)).await, old);
    assert_eq!(claimed(&store).await, [new]);
}

async fn all_that_a_webhook_was_owed_is_discarded(fixture: impl Fixture) {
    let store = fixture.open();
    let retried = ended(&store, "retried", 1, &Next::Retry { at: at(5_000), request: None }).await;
    let held = held(&store, "held", &hold("p@1", 7)).await;
    let mut new = event("evt", "1");
    new.deliveries = vec![
        delivery("wh_a", Start::Due),
        delivery("wh_a", Start::InHand),
        delivery("wh_b", Start::Due),
    ];
    let [due, in_hand, other] = [0, 1, 2].map(|index: usize| new.deliveries[index].id);
    store.accept(submission(vec![new])).await.unwrap();
    let job = enabling(Action::Discard);
    let job = NewJob { created_at: at(9), ..job };
    let later = queued(&store, "later").await;
    let job = store.enable_webhook(webhook("wh_a"), job, None).await.unwrap().made;
    assert_eq!(finish(&store, job.id).await.done, 4);
    let mut all = [retried[0], held, due, in_hand];
    all.reverse();
    assert_eq!(ids(&store, &in_state(State::Cancelled)).await, all);
    assert!(store.holds().await.unwrap().is_empty());
    let mut left = claimed(&store).await;
    left.sort_unstable();
    assert_eq!(left, [other, later]);
}

async fn disabling_ends_what_enabling_began(fixture: impl Fixture) {
    let store = fixture.open();
    let first = queued(&store, "evt-1").await;
    disable(&store, first).await;
    let job =
        store.enable_webhook(webhook("wh_a"), enabling(Action::Discard), None).await.unwrap().made;
    let disabled = Disabled { since: at(6), reason: "again".to_owned() };
    store.disable_webhook(webhook("wh_a"), disabled, None).await.unwrap();
    let job = store.job("acme".into(), job.id).await.unwrap().unwrap();
    assert_eq!((job.state, job.done), (JobState::Cancelled, 0));
    assert!(job.failure.unwrap().contains("disabled again"));
    assert_eq!(ids(&store, &in_state(State::Paused)).await, [first]);
}

async fn what_has_no_data_any_more_is_not_replayed(fixture: impl Fixture) {
    let store = fixture.open();
    let rendered = ended(&store, "evt", 1, &Next::Dead).await[0];
    let retry = Next::Retry { at: at(5), request: Some(request("rendered")) };
    let second = {
        store.accept(submission(vec![event("evt-second", "1")])).await.unwrap();
        let id = claim(&store, at(0)).await[0].id;
        store.record(update(id, failed(0, FailureKind::Status), retry)).await.unwrap();
        store.record(update(id, failed(5, FailureKind::Status), Next::Dead)).await.unwrap();
        id
    };
    let cutoffs =
        Cutoffs { events: at(-100), payloads: at(50), attempts: at(50), undelivered: None };
    let mut cursor = None;
    loop {
        let search = Search::Expired("acme".into(), cutoffs);
        let found = store.search(search, cursor, 10).await.unwrap();
        store.remove(found.removals).await.unwrap();
        cursor = found.next;
        if cursor.is_none() {
            break;
        }
    }
    for action in [Action::Replay, Action::ReplaySameBytes] {
        let selection = Selection::Deliveries(vec![rendered, second]);
        let job = do_job(&store, action, selection).await;
        assert_eq!((job.matched, job.failed), (2, 2));
        let failure = job.failure.unwrap();
        assert!(failure.contains("the data of its event is removed"), "{failure}");
    }
}

async fn an_outcome_of_what_is_gone_is_no_error(fixture: impl Fixture) {
    let store = fixture.open();
    let id = queued(&store, "evt-1").await;
    claim(&store, at(0)).await;
    cancel(&store, id).await;
    store.record(update(id, None, Next::Dead)).await.unwrap();
    let found = store.search(Search::Finished(None), None, 10).await.unwrap();
    assert_eq!(store.remove(found.removals).await.unwrap().events, 1);
    let attempt = failed(5, FailureKind::Status);
    let recorded = store.record(update(id, attempt, Next::Delivered)).await.unwrap();
    assert!(recorded.purged && recorded.follower.is_none());
}

async fn jobs_are_forgotten_after_their_time(fixture: impl Fixture) {
    let store = fixture.open();
    let all = || Selection::Filter(Filter::default());
    let open = begin(&store, Action::Cancel, all()).await;
    let first = do_job(&store, Action::Cancel, all()).await;
    do_job(&store, Action::Cancel, all()).await;
    assert_eq!(store.forget_jobs(at(100), 10).await.unwrap(), 0, "they ended then");
    assert_eq!(store.forget_jobs(at(101), 1).await.unwrap(), 1);
    assert!(store.job("acme".into(), first.id).await.unwrap().is_none());
    assert_eq!(store.forget_jobs(at(101), 10).await.unwrap(), 1);
    assert_eq!(store.open_jobs().await.unwrap(), [open]);
}
