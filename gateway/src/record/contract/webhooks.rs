//! Webhooks that fail or are disabled, and what waits for them.

use super::jobs::{PACE, ids, in_state};
use super::*;

mod sqlite {
    use super::*;

    contract!(Sqlite:
        the_states_of_webhooks_are_kept
        what_is_paused_waits_until_its_webhook_is_enabled
        what_comes_to_be_paused_too_late_is_due
    );
}

fn disabled() -> Disabled {
    Disabled { since: at(5), reason: "it is gone".to_owned() }
}

fn job(action: Action) -> NewJob {
    let filter = Filter { webhook: Some(webhook("wh_a")), ..in_state(State::Paused) };
    NewJob {
        id: JobId::generate(),
        tenant: "acme".into(),
        action,
        selection: Selection::Filter(filter),
        until: DeliveryId::from_bytes([0xff; 16]),
        created_at: at(9),
        idempotency: None,
    }
}

async fn accept(store: &impl Store, id: &str, start: Start) -> DeliveryId {
    let mut new = event(id, "1");
    new.deliveries = vec![delivery("wh_a", start)];
    let delivery = new.deliveries[0].id;
    store.accept(submission(vec![new])).await.unwrap();
    delivery
}

async fn the_states_of_webhooks_are_kept(fixture: impl Fixture) {
    let store = fixture.open();
    store.note_failing(webhook("wh_a"), Some(at(1))).await.unwrap();
    store.note_failing(webhook("wh_b"), Some(at(2))).await.unwrap();
    store.disable_webhook(webhook("wh_a"), disabled(), None).await.unwrap();
    store.note_failing(webhook("wh_b"), None).await.unwrap();
    drop(store);

    let store = fixture.open();
    let state = WebhookState {
        webhook: webhook("wh_a"),
        failing_since: Some(at(1)),
        disabled: Some(disabled()),
    };
    assert_eq!(store.webhook_states().await.unwrap(), [state]);
    store.enable_webhook(webhook("wh_a"), job(Action::Resume), None).await.unwrap();
    assert!(store.webhook_states().await.unwrap().is_empty());
}

async fn what_is_paused_waits_until_its_webhook_is_enabled(fixture: impl Fixture) {
    let store = fixture.open();
    store.disable_webhook(webhook("wh_a"), disabled(), None).await.unwrap();
    let fresh = accept(&store, "evt-1", Start::Paused).await;
    let tried = accept(&store, "evt-2", Start::InHand).await;
    let next = Next::Paused(Some(request("1")));
    store.record(update(tried, failed(5, FailureKind::Status), next)).await.unwrap();
    assert_eq!(store.paused(vec![webhook("wh_b"), webhook("wh_a")]).await.unwrap(), [0, 2]);
    drop(store);

    let store = fixture.open();
    assert!(claim(&store, at(1_000)).await.is_empty());
    let record = read(&store, "evt-1").await.unwrap();
    assert_eq!(record.deliveries[0].state, State::Paused);
    let reason = record.deliveries[0].reason.as_deref();
    assert_eq!(reason, Some("its webhook is disabled: it is gone"));
    let job = store.enable_webhook(webhook("wh_a"), job(Action::Resume), None).await.unwrap().made;
    store.step_job(job.id, at(50), PACE).await.unwrap();
    let mut due = claim(&store, at(50)).await;
    due.sort_unstable_by_key(|delivery| delivery.id);
    let seen: Vec<_> =
        due.iter().map(|one| (one.id, one.attempts, one.request.is_some())).collect();
    assert_eq!(seen, [(fresh, 0, false), (tried, 1, true)]);
    assert!(ids(&store, &in_state(State::Paused)).await.is_empty());
}

async fn what_comes_to_be_paused_too_late_is_due(fixture: impl Fixture) {
    let store = fixture.open();
    let fresh = accept(&store, "evt-1", Start::Paused).await;
    let tried = accept(&store, "evt-2", Start::InHand).await;
    let untried = accept(&store, "evt-3", Start::InHand).await;
    let attempt = failed(5, FailureKind::Status);
    store.record(update(tried, attempt, Next::Paused(None))).await.unwrap();
    store.record(update(untried, None, Next::Paused(None))).await.unwrap();
    let mut due: Vec<_> = claim(&store, at(0)).await.iter().map(|one| one.id).collect();
    due.sort_unstable();
    assert_eq!(due, [fresh, tried, untried]);
}
