//! Events that tell of an outcome are kept with it, once.

use super::*;

/// An event that tells of something, for these webhooks.
fn told(id: &str, deliveries: Vec<NewDelivery>) -> NewEvent {
    NewEvent { deliveries, ..event(id, r#"{"told":true}"#) }
}

async fn states(store: &impl Store, id: &str) -> Vec<State> {
    let record = read(store, id).await.unwrap();
    record.deliveries.iter().map(|delivery| delivery.state).collect()
}

pub(super) async fn what_is_told_of_an_outcome_is_kept_with_it(fixture: impl Fixture) {
    let store = fixture.open();
    store.accept(submission(vec![event("evt-1", "1")])).await.unwrap();
    let id = claim(&store, at(0)).await[0].id;
    let before = store.usage("acme".into()).await.unwrap();
    let news = told("told-1", vec![delivery("wh_b", Start::Due), delivery("wh_c", Start::Due)]);
    let update = update(id, failed(1, FailureKind::Status), Next::Dead);
    let recorded = store.record_and_tell(update.clone(), vec![news.clone()]).await.unwrap();
    assert_eq!(recorded.told, 2);
    drop(store);

    let store = fixture.open();
    assert_eq!(states(&store, "evt-1").await, [State::Dead]);
    assert_eq!(read(&store, "told-1").await.unwrap().event.data, news.event.data);
    let grown = u64::try_from(news.event.data.len()).unwrap();
    assert_eq!(store.usage("acme".into()).await.unwrap(), before + grown);
    // An answer that was lost is asked for again.
    let again = store.record_and_tell(update, vec![news.clone()]).await.unwrap();
    assert_eq!(again.told, 2, "they are owed, whoever has counted them");
    assert_eq!(store.usage("acme".into()).await.unwrap(), before + grown);
    let mut claimed: Vec<_> = claim(&store, at(2)).await.iter().map(|it| it.id).collect();
    let mut owed: Vec<_> = news.deliveries.iter().map(|it| it.id).collect();
    claimed.sort();
    owed.sort();
    assert_eq!(claimed, owed, "each is due once");
}

pub(super) async fn an_outcome_is_kept_although_the_id_of_what_tells_of_it_is_taken(
    fixture: impl Fixture,
) {
    let store = fixture.open();
    let taken = told("told-1", vec![]);
    store.accept(submission(vec![event("evt-1", "1"), taken])).await.unwrap();
    let id = claim(&store, at(0)).await[0].id;
    let mut news = told("told-1", vec![delivery("wh_b", Start::Due)]);
    Arc::get_mut(&mut news.event).unwrap().data = Bytes::from_static(b"{}");
    let update = update(id, failed(1, FailureKind::Status), Next::Dead);
    let recorded = store.record_and_tell(update, vec![news]).await.unwrap();
    assert_eq!(recorded.told, 0);
    assert_eq!(states(&store, "evt-1").await, [State::Dead]);
    assert_eq!(read(&store, "told-1").await.unwrap().event.data, r#"{"told":true}"#);
    assert!(claim(&store, at(2)).await.is_empty());
}

pub(super) async fn what_is_told_takes_its_place_in_a_queue(fixture: impl Fixture) {
    let store = fixture.open();
    let queued = || vec![delivery("wh_a", Start::Queued("".into()))];
    let first = NewEvent { deliveries: queued(), ..event("evt-1", "1") };
    let second = NewEvent { deliveries: queued(), ..event("evt-2", "2") };
    store.accept(submission(vec![first, second.clone()])).await.unwrap();
    let id = claim(&store, at(0)).await[0].id;
    let news = told("told-1", queued());
    let delivered = |id, second| {
        let attempt = Attempt { failure: None, ..failed(second, FailureKind::Status).unwrap() };
        update(id, Some(attempt), Next::Delivered)
    };
    // To the very webhook whose delivery it tells of, behind what that is owed already.
    let recorded = store.record_and_tell(delivered(id, 1), vec![news.clone()]).await.unwrap();
    let (_, follower) = recorded.follower.unwrap();
    assert_eq!(follower.id, second.deliveries[0].id);
    let recorded = store.record(delivered(follower.id, 2)).await.unwrap();
    let (told, follower) = recorded.follower.unwrap();
    assert_eq!((told.id.as_str(), follower.id), ("told-1", news.deliveries[0].id));
    // The last one of a queue tells of itself.
    let news = NewEvent { deliveries: queued(), ..event("told-2", "3") };
    let recorded =
        store.record_and_tell(delivered(follower.id, 3), vec![news.clone()]).await.unwrap();
    assert!(recorded.follower.is_none());
    assert_eq!(claim(&store, at(4)).await[0].id, news.deliveries[0].id);
}

pub(super) async fn attempts_on_record_are_counted_whether_they_count_or_not(
    fixture: impl Fixture,
) {
    let store = fixture.open();
    store.accept(submission(vec![event("evt-1", "1")])).await.unwrap();
    let fresh = claim(&store, at(0)).await.remove(0);
    assert_eq!((fresh.attempts, fresh.tried), (0, 0));
    let trap = failed(1, FailureKind::PluginTrap);
    let held = Next::Held(hold("summary@abc", 1));
    store.record(update(fresh.id, trap, held)).await.unwrap();
    let taken = store.take_held(webhook("wh_a"), Which::Trial(None)).await.unwrap();
    assert_eq!((taken.deliveries[0].1.attempts, taken.deliveries[0].1.tried), (0, 1));
    let retry = Next::Retry { at: at(3), request: None };
    store.record(update(fresh.id, failed(2, FailureKind::Status), retry)).await.unwrap();
    let again = claim(&store, at(3)).await.remove(0);
    assert_eq!((again.attempts, again.tried), (1, 2));
}
