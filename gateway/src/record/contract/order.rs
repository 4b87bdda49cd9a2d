//! What every store has to do for deliveries that keep an order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Accepts an event for `wh_a` that keeps its order in the queue with this key; gives its delivery.
async fn queued(store: &impl Store, id: &str, key: &str) -> DeliveryId {
    let mut new = event(id, "1");
    new.deliveries = vec![delivery("wh_a", Start::Queued(key.into()))];
    let delivery = new.deliveries[0].id;
    store.accept(submission(vec![new])).await.unwrap();
    delivery
}

async fn record(store: &impl Store, delivery: DeliveryId, next: Next) -> Option<DeliveryId> {
    let recorded = store.record(update(delivery, None, next)).await.unwrap();
    recorded.follower.map(|(_, delivery)| delivery.id)
}

fn retry(second: i64) -> Next {
    Next::Retry { at: at(second), request: None }
}

async fn claimed(store: &impl Store, now: Timestamp) -> Vec<DeliveryId> {
    claim(store, now).await.iter().map(|delivery| delivery.id).collect()
}

pub(super) async fn only_the_head_of_a_queue_is_due(fixture: impl Fixture) {
    let store = fixture.open();
    let first = queued(&store, "evt-1", "").await;
    queued(&store, "evt-2", "").await;
    let of_key = queued(&store, "evt-3", "k").await;
    let found = claim(&store, at(1_000)).await;
    let ids: Vec<_> = found.iter().map(|delivery| delivery.id).collect();
    assert_eq!(ids, [first, of_key]);
    assert_eq!(found[0].queue.as_deref(), Some(""));
    assert_eq!(found[1].queue.as_deref(), Some("k"));
    assert!(store.waiting().await.unwrap().is_empty());
    let record = read(&store, "evt-2").await.unwrap();
    let waits = &record.deliveries[0];
    assert_eq!((waits.state, waits.due_at), (State::Pending, None));
    let reason = format!("waits behind {first} of the event evt-1");
    assert_eq!(waits.reason.as_deref(), Some(&*reason));
}

pub(super) async fn the_next_one_of_a_queue_is_in_hand_once_its_head_is_finished(
    fixture: impl Fixture,
) {
    let store = fixture.open();
    let mut ids = Vec::new();
    for number in 1..=4 {
        ids.push(queued(&store, &format!("evt-{number}"), "k").await);
    }
    assert_eq!(claimed(&store, at(0)).await, ids[..1]);
    for (index, next) in [Next::Delivered, Next::Dropped("not wanted".to_owned()), Next::Dead]
        .into_iter()
        .enumerate()
    {
        assert_eq!(record(&store, ids[index], next).await, Some(ids[index + 1]));
        assert!(claim(&store, at(1_000)).await.is_empty(), "it is in hand");
    }
    assert_eq!(record(&store, ids[3], Next::Delivered).await, None);
    // The queue is gone, and the next one is its head.
    let last = queued(&store, "evt-5", "k").await;
    assert_eq!(claimed(&store, at(0)).await, [last]);
}

pub(super) async fn a_head_that_was_handed_on_is_given_again(fixture: impl Fixture) {
    let store = fixture.open();
    let mut ids = Vec::new();
    for number in 1..=4 {
        ids.push(queued(&store, &format!("evt-{number}"), "k").await);
    }
    claim(&store, at(0)).await;
    // The answer was lost, and lost again.
    let with_attempt = update(ids[0], failed(1, FailureKind::Status), Next::Dead);
    for _ in 0..3 {
        let recorded = store.record(with_attempt.clone()).await.unwrap();
        assert_eq!(recorded.follower.unwrap().1.id, ids[1]);
    }
    for _ in 0..2 {
        assert_eq!(record(&store, ids[1], Next::Delivered).await, Some(ids[2]));
    }
    // Whoever it was told to has gone on.
    assert_eq!(record(&store, ids[2], retry(5)).await, None);
    assert_eq!(record(&store, ids[1], Next::Delivered).await, None);
    assert_eq!(claimed(&store, at(5)).await, [ids[2]]);
    assert_eq!(record(&store, ids[2], Next::Blocks).await, None);
    assert_eq!(record(&store, ids[2], Next::Blocks).await, None);
    store.unblock(webhook("wh_a")).await.unwrap();
    assert_eq!(claimed(&store, at(5)).await, [ids[3]]);
    // It was claimed, not handed on.
    assert_eq!(record(&store, ids[2], Next::Dead).await, None);
}

pub(super) async fn a_head_that_is_retried_or_held_keeps_its_place(fixture: impl Fixture) {
    let store = fixture.open();
    let first = queued(&store, "evt-1", "").await;
    let second = queued(&store, "evt-2", "").await;
    claim(&store, at(0)).await;
    assert_eq!(record(&store, first, retry(10)).await, None);
    assert!(claim(&store, at(9)).await.is_empty());
    assert_eq!(claimed(&store, at(10)).await, [first]);
    assert_eq!(record(&store, first, Next::Held(hold("p@1", 0))).await, None);
    assert!(claim(&store, at(1_000)).await.is_empty());
    assert_eq!(take(&store, Which::Release(10)).await, (vec![first], 0));
    assert_eq!(record(&store, first, Next::Delivered).await, Some(second));
}

pub(super) async fn the_parts_of_a_split_come_before_later_events(fixture: impl Fixture) {
    let store = fixture.open();
    let first = queued(&store, "evt-1", "").await;
    let later = queued(&store, "evt-2", "").await;
    claim(&store, at(0)).await;
    let others = [2, 3].map(|_| (delivery("wh_a", Start::Queued("".into())), request("part")));
    let parts = [0, 1].map(|index: usize| others[index].0.id);
    let next = Next::Split { first: request("first"), others: others.into() };
    assert_eq!(record(&store, first, next).await, None);
    assert!(claim(&store, at(1_000)).await.is_empty());
    let mut finished = first;
    for expected in [parts[0], parts[1], later] {
        let follower = record(&store, finished, Next::Delivered).await;
        assert_eq!(follower, Some(expected));
        finished = expected;
    }
}

pub(super) async fn what_follows_a_dead_head_waits_until_it_is_skipped(fixture: impl Fixture) {
    let store = fixture.open();
    let first = queued(&store, "evt-1", "k").await;
    let second = queued(&store, "evt-2", "k").await;
    claim(&store, at(0)).await;
    assert_eq!(record(&store, first, Next::Blocks).await, None);
    drop(store);

    let store = fixture.open();
    let third = queued(&store, "evt-3", "k").await;
    assert!(claim(&store, at(1_000)).await.is_empty());
    assert_eq!(read(&store, "evt-1").await.unwrap().deliveries[0].state, State::Dead);
    let waits = read(&store, "evt-2").await.unwrap();
    let reason = format!(
        "waits behind {first} of the event evt-1 in the order of the key \"k\", which is dead; the webhook's \
         `on_dead` keeps what follows it waiting until it is skipped"
    );
    assert_eq!(waits.deliveries[0].reason, Some(reason));
    assert_eq!(store.blocked().await.unwrap(), [webhook("wh_a")]);

    let skip =
        async |tenant: &str, id| store.skip(tenant.into(), EventId::parse(id).unwrap()).await;
    assert_eq!(skip("globex", "evt-1").await.unwrap(), None);
    assert_eq!(skip("acme", "evt-2").await.unwrap(), Some(Vec::new()), "it does not block");
    let skipped = Skipped { webhook: webhook("wh_a"), delivery: first };
    assert_eq!(skip("acme", "evt-1").await.unwrap(), Some(vec![skipped]));
    assert_eq!(skip("acme", "evt-1").await.unwrap(), Some(Vec::new()));
    assert!(store.blocked().await.unwrap().is_empty());
    assert_eq!(claimed(&store, at(0)).await, [second]);
    assert_eq!(record(&store, second, Next::Delivered).await, Some(third));
}

pub(super) async fn what_is_blocked_can_be_let_go_for_a_webhook(fixture: impl Fixture) {
    let store = fixture.open();
    for (number, key) in [(1, "k"), (2, "l"), (3, "k"), (4, "m")] {
        queued(&store, &format!("evt-{number}"), key).await;
    }
    for delivery in claim(&store, at(0)).await {
        if delivery.queue.as_deref() != Some("m") {
            record(&store, delivery.id, Next::Blocks).await;
        }
    }
    assert_eq!(store.unblock(webhook("wh_b")).await.unwrap(), 0);
    assert_eq!(store.unblock(webhook("wh_a")).await.unwrap(), 2);
    assert!(store.blocked().await.unwrap().is_empty());
    assert_eq!(claim(&store, at(0)).await.len(), 1, "what waited behind the first");
}

pub(super) async fn queues_survive_a_crash(fixture: impl Fixture) {
    let store = fixture.open();
    let first = queued(&store, "evt-1", "").await;
    let second = queued(&store, "evt-2", "").await;
    assert_eq!(claimed(&store, at(0)).await, [first]);
    drop(store);

    let store = fixture.open();
    assert_eq!(claimed(&store, at(0)).await, [first]);
    assert_eq!(record(&store, first, Next::Delivered).await, Some(second));
    drop(store);

    let store = fixture.open();
    assert_eq!(claimed(&store, at(0)).await, [second]);
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Step {
    /// An event is accepted for this queue.
    Accept(u8),
    /// What is in hand, counted round, ends in this way.
    End(usize, u8),
    /// What is due is taken in hand.
    Claim,
    /// The process is killed and starts again.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3u8).prop_map(Step::Accept),
        6 => (any::<usize>(), 0..6u8).prop_map(|(which, how)| Step::End(which, how)),
        3 => Just(Step::Claim),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..40)
}

/// A run of steps, with what is expected.
#[derive(Default)]
struct Model {
    accepted: BTreeMap<String, Vec<String>>,
    finished: BTreeMap<String, Vec<String>>,
    in_hand: Vec<(String, String, DeliveryId)>,
    now: i64,
}

impl Model {
    fn take(&mut self, event: &Event, delivery: &Delivery) {
        let key = delivery.queue.as_deref().unwrap().to_owned();
        let earlier = self.in_hand.iter().find(|(other, ..)| *other == key);
        assert!(earlier.is_none(), "two of the queue {key:?} are in hand");
        self.in_hand.push((key, event.id.to_string(), delivery.id));
    }

    async fn claim(&mut self, store: &impl Store) {
        self.now += 10;
        let claimed = store.claim(at(self.now), vec![ask("wh_a", 2)], usize::MAX).await.unwrap();
        for (event, delivery) in &claimed[0].deliveries {
            self.take(event, delivery);
        }
    }

    async fn end(&mut self, store: &impl Store, which: usize, how: u8) {
        if self.in_hand.is_empty() {
            return;
        }
        let (key, event, id) = self.in_hand.swap_remove(which % self.in_hand.len());
        let next = match how {
            0 | 1 => retry(self.now + i64::from(how) * 25),
            2 => Next::Dead,
            3 => Next::Blocks,
            _ => Next::Delivered,
        };
        let blocks = matches!(next, Next::Blocks);
        if !matches!(next, Next::Retry { .. }) {
            self.finished.entry(key).or_default().push(event.clone());
        }
        let recorded = store.record(update(id, None, next)).await.unwrap();
        if let Some((event, delivery)) = recorded.follower {
            self.take(&event, &delivery);
        }
        if blocks {
            let event = EventId::parse(&event).unwrap();
            assert_eq!(store.skip("acme".into(), event).await.unwrap().unwrap().len(), 1);
        }
    }
}

pub(super) async fn queues_keep_the_order_of_acceptance_whatever_fails<F: Fixture>(_first: F) {
    tokio::task::block_in_place(|| {
        let run = |steps: Vec<Step>| {
            tokio::runtime::Handle::current().block_on(run_steps::<F>(steps));
            Ok(())
        };
        let config = ProptestConfig { cases: 24, ..ProptestConfig::default() };
        proptest::test_runner::TestRunner::new(config).run(&steps(), run).unwrap();
    });
}

async fn run_steps<F: Fixture>(steps: Vec<Step>) {
    let fixture = F::create();
    let mut store = fixture.open();
    let mut model = Model::default();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Accept(key) => {
                let (id, key) = (format!("evt-{number}"), key.to_string());
                queued(&store, &id, &key).await;
                model.accepted.entry(key).or_default().push(id);
            }
            Step::End(which, how) => model.end(&store, which, how).await,
            Step::Claim => model.claim(&store).await,
            Step::Crash => {
                drop(store);
                store = fixture.open();
                model.in_hand.clear();
            }
        }
    }
    // Everything gets its turn in the end.
    let open = |model: &Model| {
        let count = |of: &BTreeMap<String, Vec<String>>| of.values().map(Vec::len).sum::<usize>();
        count(&model.accepted) - count(&model.finished)
    };
    while open(&model) > 0 {
        let before = open(&model);
        model.now += 100;
        model.claim(&store).await;
        while !model.in_hand.is_empty() {
            model.end(&store, 0, 5).await;
        }
        assert!(open(&model) < before, "{:?} of {:?}", model.finished, model.accepted);
    }
    assert_eq!(model.finished, model.accepted);
}
