//! Whatever happens to deliveries, in whatever order, each is in one state; and jobs that are stopped.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::runtime::Builder;

use super::jobs::{PACE, begin, do_job, ended, finish, ids, in_state, list, new_job};
use super::*;

mod sqlite {
    use super::*;

    contract!(Sqlite: a_stopped_job_does_nothing_more);
}

async fn a_stopped_job_does_nothing_more(fixture: impl Fixture) {
    let store = fixture.open();
    ended(&store, "evt", 9, &Next::Dead).await;
    let id = begin(&store, Action::Replay, Selection::Filter(in_state(State::Dead))).await;
    store.step_job(id, at(100), PACE).await.unwrap();
    let stopped = store.stop_job("acme".into(), id, at(101)).await.unwrap().unwrap();
    assert_eq!((stopped.state, stopped.done), (JobState::Cancelled, 3));
    let stepped = store.step_job(id, at(102), PACE).await.unwrap();
    assert_eq!((stepped.made, stepped.ended.is_some()), (0, false));
    assert!(store.open_jobs().await.unwrap().is_empty());
    assert_eq!(ids(&store, &in_state(State::Pending)).await.len(), 3);
}

/// Something that can happen to deliveries, in any order.
#[derive(Debug, Clone)]
enum Happening {
    Accept,
    Record(usize, usize),
    Claim,
    Release(usize),
    Replay,
    Cancel(Option<State>),
    Disable,
    Enable(Action),
    Reopen,
}

fn happening() -> impl Strategy<Value = Happening> {
    let state = prop_oneof![Just(None), Just(Some(State::Held)), Just(Some(State::Retrying))];
    prop_oneof![
        3 => Just(Happening::Accept),
        6 => (0..100usize, 0..6usize).prop_map(|(which, next)| Happening::Record(which, next)),
        3 => Just(Happening::Claim),
        1 => (0..100usize).prop_map(Happening::Release),
        2 => Just(Happening::Replay),
        1 => state.prop_map(Happening::Cancel),
        1 => Just(Happening::Disable),
        1 => prop_oneof![Just(Action::Resume), Just(Action::Discard)].prop_map(Happening::Enable),
        1 => Just(Happening::Reopen),
    ]
}

/// Whatever happens, each delivery is found in exactly one state, none is repeated twice, what is held and owed is
/// counted, and at last all is finished: no queue is left without a head.
#[test]
fn each_delivery_is_in_one_state_and_comes_to_an_end() {
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let happenings = proptest::collection::vec(happening(), 1..50);
    let tried = TestRunner::new(config).run(&happenings, |happenings| {
        runtime.block_on(happen(happenings));
        Ok(())
    });
    if let Err(failure) = tried {
        panic!("{failure}");
    }
}

async fn happen(happenings: Vec<Happening>) {
    let fixture = Sqlite::create();
    let mut store = fixture.open();
    let mut in_hand = Vec::new();
    for (n, happening) in happenings.into_iter().enumerate() {
        match happening {
            Happening::Accept => {
                let mut new = event(&format!("evt-{n}"), "1");
                new.deliveries.push(delivery("wh_b", Start::Queued("".into())));
                new.deliveries.push(delivery("wh_c", Start::Paused));
                store.accept(submission(vec![new])).await.unwrap();
            }
            Happening::Claim => {
                in_hand.extend(claim(&store, at(1_000_000)).await.iter().map(|one| one.id));
            }
            Happening::Record(which, next) if !in_hand.is_empty() => {
                let id = in_hand.swap_remove(which % in_hand.len());
                // No two attempts begin at once.
                let attempt = failed(i64::try_from(n).unwrap(), FailureKind::Status);
                let recorded = store.record(update(id, attempt, ending(next))).await.unwrap();
                in_hand.extend(recorded.follower.map(|(_, delivery)| delivery.id));
            }
            Happening::Release(which) if !in_hand.is_empty() => {
                let id = in_hand.swap_remove(which % in_hand.len());
                store.release(vec![id]).await.unwrap();
            }
            Happening::Record(..) | Happening::Release(_) => {}
            Happening::Replay => {
                let before = ids(&store, &in_state(State::Dead)).await.len() as u64;
                let selection = Selection::Filter(in_state(State::Dead));
                let job = do_job(&store, Action::Replay, selection).await;
                assert!(job.matched <= before && job.failed == 0, "{job:?}");
            }
            Happening::Cancel(state) => {
                let filter = Filter { state, ..Filter::default() };
                do_job(&store, Action::Cancel, Selection::Filter(filter)).await;
            }
            Happening::Disable => disable(&store).await,
            Happening::Enable(action) => enable(&store, action).await,
            Happening::Reopen => {
                drop(store);
                store = fixture.open();
                in_hand.clear();
            }
        }
        check(&store).await;
    }
    come_to_an_end(&store, in_hand).await;
}

fn ending(number: usize) -> Next {
    match number {
        0 => Next::Delivered,
        1 => Next::Dropped("no".to_owned()),
        2 => Next::Dead,
        3 => Next::Retry { at: at(5), request: None },
        4 => Next::Paused(None),
        _ => Next::Held(hold("p@1", 7)),
    }
}

/// The webhooks that the deliveries go to: at once, in order, and one that is asked about when it begins.
const WEBHOOKS: [&str; 3] = ["wh_a", "wh_b", "wh_c"];

async fn disable(store: &impl Store) {
    for name in WEBHOOKS {
        let disabled = Disabled { since: at(5), reason: "it is gone".to_owned() };
        store.disable_webhook(webhook(name), disabled, None).await.unwrap();
    }
}

async fn enable(store: &impl Store, action: Action) {
    for name in WEBHOOKS {
        let filter = Filter { webhook: Some(webhook(name)), ..in_state(State::Paused) };
        let job = new_job(action, Selection::Filter(filter));
        let job = store.enable_webhook(webhook(name), job, None).await.unwrap().made;
        finish(store, job.id).await;
    }
    assert!(ids(store, &in_state(State::Paused)).await.is_empty());
}

async fn check(store: &impl Store) {
    let all = list(store, &Filter::default()).await;
    let mut by_state = Vec::new();
    for state in State::ALL {
        by_state.extend(ids(store, &in_state(state)).await);
    }
    by_state.sort_unstable();
    by_state.reverse();
    assert_eq!(by_state, all.iter().map(|one| one.id).collect::<Vec<_>>());
    let mut repeated: Vec<_> = all.iter().filter_map(|one| one.replay_of).collect();
    let count = repeated.len();
    repeated.sort_unstable();
    repeated.dedup();
    assert_eq!(repeated.len(), count, "a filter repeats each once, in whatever job");
    let held = all.iter().filter(|one| one.state == State::Held).count() as u64;
    let counted: u64 = store.holds().await.unwrap().iter().map(|hold| hold.deliveries).sum();
    assert_eq!(held, counted);
    let owed = all.iter().filter(|one| !one.state.is_finished()).count() as u64;
    let counted = store.owed(oneshot::channel().0).await.unwrap();
    assert_eq!(owed, counted.iter().map(|(_, owed)| owed).sum::<u64>());
    for one in &all {
        let is_behind = |reason: &str| reason.starts_with("waits behind");
        let waits = matches!(one.state, State::Held | State::Paused)
            || one.reason.as_deref().is_some_and(is_behind);
        assert_eq!(one.state.is_finished() || waits, one.due_at.is_none(), "{one:?}");
    }
}

/// Delivers all that is left.
async fn come_to_an_end(store: &impl Store, mut in_hand: Vec<DeliveryId>) {
    enable(store, Action::Resume).await;
    loop {
        in_hand.extend(claim(store, at(1_000_000)).await.iter().map(|one| one.id));
        for name in WEBHOOKS {
            let taken = store.take_held(webhook(name), Which::Release(1_000)).await.unwrap();
            in_hand.extend(taken.deliveries.iter().map(|(_, delivery)| delivery.id));
        }
        if in_hand.is_empty() {
            break;
        }
        while let Some(id) = in_hand.pop() {
            let recorded = store.record(update(id, None, Next::Delivered)).await.unwrap();
            in_hand.extend(recorded.follower.map(|(_, delivery)| delivery.id));
        }
    }
    for one in list(store, &Filter::default()).await {
        assert!(one.state.is_finished(), "{one:?}");
    }
}
