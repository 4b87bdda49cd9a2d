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

pub(super) async fn what_was_cancelled_is_told_of_only_if_the_receiver_took_it(
    fixture: impl Fixture,
) {
    let store = fixture.open();
    store.accept(submission(vec![event("evt-1", "1"), event("evt-2", "2")])).await.unwrap();
    let ids: Vec<_> = claim(&store, at(0)).await.iter().map(|one| one.id).collect();
    jobs::do_job(&store, Action::Cancel, Selection::Filter(Filter::default())).await;
    let taken = Attempt { failure: None, ..failed(1, FailureKind::Status).unwrap() };
    for (id, attempt, next, expected) in [
        (ids[0], failed(1, FailureKind::Status), Next::Dead, 0),
        (ids[1], Some(taken), Next::Delivered, 1),
    ] {
        let news = told(&format!("told-{expected}"), vec![delivery("wh_b", Start::Due)]);
        let recorded = store.record_and_tell(update(id, attempt, next), vec![news]).await.unwrap();
        assert_eq!((recorded.cancelled, recorded.told), (true, expected));
    }
    assert!(read(&store, "told-0").await.is_none());
    assert!(read(&store, "told-1").await.is_some());
}

pub(super) async fn what_tells_of_a_webhook_is_kept_with_its_change_and_once(
    fixture: impl Fixture,
) {
    let store = fixture.open();
    let news = |id: &str| Some(told(id, vec![delivery("wh_b", Start::Due)]));
    let disabled =
        |second| Disabled { since: at(second), reason: format!("it is gone since {second}") };
    let disable = async |second, id| {
        store.disable_webhook(webhook("wh_a"), disabled(second), news(id)).await.unwrap()
    };
    // It was failing before.
    store.note_failing(webhook("wh_a"), Some(at(1))).await.unwrap();
    let before = store.usage("acme".into()).await.unwrap();
    assert_eq!(disable(5, "told-1").await, Changed { made: (), is_new: true, told: 1 });
    for (second, id) in [(5, "told-1"), (6, "told-2")] {
        assert_eq!(disable(second, id).await, Changed { made: (), is_new: false, told: 0 });
    }
    assert!(read(&store, "told-1").await.is_some());
    assert!(read(&store, "told-2").await.is_none());
    assert!(store.usage("acme".into()).await.unwrap() > before);
    assert_eq!(store.webhook_states().await.unwrap()[0].disabled, Some(disabled(5)));

    let enable = async |id| {
        let filter = Filter { webhook: Some(webhook("wh_a")), ..Filter::default() };
        let job = jobs::new_job(Action::Resume, Selection::Filter(filter));
        store.enable_webhook(webhook("wh_a"), job, news(id)).await.unwrap()
    };
    let enabled = enable("told-3").await;
    assert_eq!((enabled.is_new, enabled.told), (true, 1));
    let again = enable("told-4").await;
    assert_eq!((again.is_new, again.told), (false, 0));
    assert!(again.made.id != enabled.made.id, "what has come to wait meanwhile goes on, too");
    assert!(read(&store, "told-3").await.is_some());
    assert!(read(&store, "told-4").await.is_none());
    // One that fails is not disabled.
    store.note_failing(webhook("wh_a"), Some(at(7))).await.unwrap();
    assert_eq!(enable("told-5").await.told, 0);
}
