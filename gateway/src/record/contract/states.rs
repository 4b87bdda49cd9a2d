//! Whatever happens to deliveries, in whatever order, each is in one state; and jobs that are stopped.

use proptest::prelude::*;
use tokio::runtime::Builder;

use super::jobs::{PACE, begin, do_job, ended, ids, in_state, list};
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
    Replay,
    Cancel(Option<State>),
    Reopen,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => Just(Happening::Accept),
        6 => (0..100usize, 0..5usize).prop_map(|(which, next)| Happening::Record(which, next)),
        3 => Just(Happening::Claim),
        2 => Just(Happening::Replay),
        1 => prop_oneof![Just(None), Just(Some(State::Held)), Just(Some(State::Retrying))]
            .prop_map(Happening::Cancel),
        1 => Just(Happening::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever happens, each delivery is found in exactly one state, a job repeats none twice, and holds
    /// count what is held.
    #[test]
    fn no_delivery_is_in_two_states_or_repeated_twice(
        happenings in proptest::collection::vec(happening(), 1..40),
    ) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(happen(happenings));
    }
}

async fn happen(happenings: Vec<Happening>) {
    let fixture = Sqlite::create();
    let mut store = fixture.open();
    let mut in_hand = Vec::new();
    for (n, happening) in happenings.into_iter().enumerate() {
        match happening {
            Happening::Accept => {
                store
                    .accept(submission(vec![event(&format!("evt-{n}"), "1")]))
                    .await
                    .map(drop)
                    .unwrap();
            }
            Happening::Claim => {
                in_hand.extend(claim(&store, at(1_000_000)).await.iter().map(|one| one.id));
            }
            Happening::Record(which, next) if !in_hand.is_empty() => {
                let id = in_hand.swap_remove(which % in_hand.len());
                let next = match next {
                    0 => Next::Delivered,
                    1 => Next::Dropped("no".to_owned()),
                    2 => Next::Dead,
                    3 => Next::Retry { at: at(5), request: None },
                    _ => Next::Held(hold("p@1", 7)),
                };
                // No two attempts begin at once.
                let attempt = failed(i64::try_from(n).unwrap(), FailureKind::Status);
                store.record(update(id, attempt, next)).await.unwrap();
            }
            Happening::Record(..) => {}
            Happening::Replay => {
                let before = ids(&store, &in_state(State::Dead)).await.len() as u64;
                let selection = Selection::Filter(in_state(State::Dead));
                let job = do_job(&store, Action::Replay, selection).await;
                assert!(job.matched <= before && job.failed == 0);
            }
            Happening::Cancel(state) => {
                let filter = Filter { state, ..Filter::default() };
                do_job(&store, Action::Cancel, Selection::Filter(filter)).await;
            }
            Happening::Reopen => {
                drop(store);
                store = fixture.open();
                in_hand.clear();
            }
        }
        check(&store).await;
    }
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
    for one in &all {
        assert_eq!(one.state.is_finished() || one.state == State::Held, one.due_at.is_none());
    }
}
