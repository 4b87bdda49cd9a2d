//! A model of the store: what random sequences of operations, closing and opening included, have to come to. Each
//! delivery is in one place at any time, and nothing is given out twice or forgotten.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

/// The webhooks that events go to.
const WEBHOOKS: [&str; 2] = ["wh_a", "wh_b"];

/// Sequences that are tried, and how long they are at most.
const CASES: u32 = 48;
const MAX_ACTS: usize = 60;

/// What is done to the store. Picks are taken modulo what there is to pick from.
#[derive(Debug, Clone, Copy)]
enum Act {
    Accept(Begin),
    Claim {
        seconds_ahead: i64,
        limit: usize,
        /// Leaves one webhook out.
        except: Option<usize>,
    },
    Record {
        pick: usize,
        end: End,
    },
    /// Records the last outcome once more, as after an answer that was lost.
    RecordAgain,
    Release(usize),
    Take {
        webhook: usize,
        trial: bool,
    },
    Lift(usize),
    Reopen,
}

#[derive(Debug, Clone, Copy)]
enum Begin {
    InHand,
    Due,
    Held,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Delivered,
    Dropped,
    Dead,
    Retry { with_request: bool, seconds: i64 },
    Held { with_attempt: bool },
    Split { in_hand: bool },
}

fn act() -> impl Strategy<Value = Act> {
    let begin = prop_oneof![Just(Begin::InHand), Just(Begin::Due), Just(Begin::Held)];
    let end = prop_oneof![
        Just(End::Delivered),
        Just(End::Dropped),
        Just(End::Dead),
        (any::<bool>(), 1..10_i64)
            .prop_map(|(with_request, seconds)| End::Retry { with_request, seconds }),
        any::<bool>().prop_map(|with_attempt| End::Held { with_attempt }),
        any::<bool>().prop_map(|in_hand| End::Split { in_hand }),
    ];
    prop_oneof![
        4 => begin.prop_map(Act::Accept),
        4 => (0..10_i64, 1..5_usize, proptest::option::of(0..2_usize)).prop_map(
            |(seconds_ahead, limit, except)| Act::Claim { seconds_ahead, limit, except }
        ),
        8 => (any::<usize>(), end).prop_map(|(pick, end)| Act::Record { pick, end }),
        2 => Just(Act::RecordAgain),
        2 => any::<usize>().prop_map(Act::Release),
        3 => (0..2_usize, any::<bool>()).prop_map(|(webhook, trial)| Act::Take { webhook, trial }),
        1 => (0..2_usize).prop_map(Act::Lift),
        1 => Just(Act::Reopen),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Due,
    InHand,
    Held,
    Done,
}

/// A delivery as it should be.
#[derive(Debug, Clone)]
struct Row {
    id: DeliveryId,
    event: usize,
    webhook: usize,
    place: Place,
    state: State,
    /// In seconds; of no meaning when it is held or done.
    due: i64,
    has_request: bool,
    /// Attempts that the schedule counts.
    counted: u32,
    attempts: usize,
}

struct Model<F: Fixture> {
    fixture: F,
    /// None while it is closed.
    store: Option<F::Store>,
    rows: Vec<Row>,
    /// When each event was accepted.
    events: Vec<i64>,
    /// Passes by one with each act, so that no two attempts begin at once.
    second: i64,
    last: Option<Update>,
}

impl<F: Fixture> Model<F> {
    fn new() -> Self {
        let fixture = F::create();
        let store = Some(fixture.open());
        Self { fixture, store, rows: Vec::new(), events: Vec::new(), second: 0, last: None }
    }

    fn store(&self) -> &F::Store {
        self.store.as_ref().unwrap()
    }

    async fn act(&mut self, act: Act) {
        self.second += 1;
        let repeatable = self.last.take();
        match act {
            Act::Accept(begin) => self.accept(begin).await,
            Act::Claim { seconds_ahead, limit, except } => {
                self.claim(self.second + seconds_ahead, limit, except).await;
            }
            Act::Record { pick, end } => self.record(pick, end).await,
            Act::RecordAgain => {
                if let Some(update) = repeatable {
                    self.store().record(update).await.unwrap();
                }
            }
            Act::Release(pick) => {
                if let Some(index) = self.pick(pick) {
                    self.store().release(vec![self.rows[index].id]).await.unwrap();
                    self.rows[index].place = Place::Due;
                }
            }
            Act::Take { webhook, trial } => self.take(webhook, trial).await,
            Act::Lift(index) => self.store().lift(webhook(WEBHOOKS[index])).await.unwrap(),
            Act::Reopen => self.reopen(),
        }
    }

    /// One of those in hand.
    fn pick(&self, pick: usize) -> Option<usize> {
        let in_hand = self.all(Place::InHand);
        in_hand.get(pick % in_hand.len().max(1)).copied()
    }

    fn all(&self, place: Place) -> Vec<usize> {
        (0..self.rows.len()).filter(|row| self.rows[*row].place == place).collect()
    }

    async fn accept(&mut self, begin: Begin) {
        let number = self.events.len();
        let mut new = event(&format!("e{number}"), "1");
        Arc::get_mut(&mut new.event).unwrap().accepted_at = at(self.second);
        let (start, place, state) = match begin {
            Begin::InHand => (Start::InHand, Place::InHand, State::Pending),
            Begin::Due => (Start::Due, Place::Due, State::Pending),
            Begin::Held => (Start::Held(hold("p@1", self.second)), Place::Held, State::Held),
        };
        new.deliveries = WEBHOOKS.iter().map(|name| delivery(name, start.clone())).collect();
        for (webhook, delivery) in new.deliveries.iter().enumerate() {
            let (id, due) = (delivery.id, self.second);
            let row = Row {
                id,
                event: number,
                webhook,
                place,
                state,
                due,
                has_request: false,
                counted: 0,
                attempts: 0,
            };
            self.rows.push(row);
        }
        self.events.push(self.second);
        self.store().accept(submission(vec![new])).await.unwrap();
    }

    /// Gives out what is due of each webhook but one, as many as there are up to the limit.
    async fn claim(&mut self, now: i64, limit: usize, except: Option<usize>) {
        let asked: Vec<_> = (0..WEBHOOKS.len()).filter(|index| Some(*index) != except).collect();
        let ask =
            |index: &usize| Ask { webhook: webhook(WEBHOOKS[*index]), limit, first: Kind::Fresh };
        let asks = asked.iter().map(ask).collect();
        let claimed = self.store().claim(at(now), asks, usize::MAX).await.unwrap();
        assert_eq!(claimed.len(), asked.len());
        for (index, claimed) in asked.into_iter().zip(claimed) {
            let is_due =
                |row: &&Row| row.webhook == index && row.place == Place::Due && row.due <= now;
            let due = self.rows.iter().filter(is_due).count();
            assert_eq!(claimed.deliveries.len(), due.min(limit));
            for (_, delivery) in &claimed.deliveries {
                let row = self.rows.iter_mut().find(|row| row.id == delivery.id).unwrap();
                assert_eq!((row.place, delivery.attempts), (Place::Due, row.counted), "{row:?}");
                assert_eq!((row.webhook, row.due <= now), (index, true), "{row:?}");
                assert_eq!(delivery.request.is_some(), row.has_request, "{row:?}");
                row.place = Place::InHand;
            }
        }
    }

    async fn record(&mut self, pick: usize, end: End) {
        let Some(index) = self.pick(pick) else { return };
        let second = self.second;
        let mut parts = None;
        let row = &mut self.rows[index];
        // Only what has no request goes through plugins, which hold and split.
        if row.has_request && matches!(end, End::Held { .. } | End::Split { .. }) {
            return;
        }
        let attempt = failed(second, FailureKind::Status);
        let (attempt, next, place, state) = match end {
            End::Delivered => (attempt, Next::Delivered, Place::Done, State::Delivered),
            End::Dropped => (None, Next::Dropped("no".to_owned()), Place::Done, State::Dropped),
            End::Dead => (attempt, Next::Dead, Place::Done, State::Dead),
            End::Retry { with_request, seconds } => {
                row.due = second + seconds;
                row.has_request |= with_request;
                let request = with_request.then(|| request("[1]"));
                let next = Next::Retry { at: at(row.due), request };
                (attempt, next, Place::Due, State::Retrying)
            }
            End::Held { with_attempt } => {
                let attempt = attempt.filter(|_| with_attempt);
                (attempt, Next::Held(hold("p@1", second)), Place::Held, State::Held)
            }
            End::Split { in_hand } => {
                row.has_request = true;
                let (start, place) = match in_hand {
                    true => (Start::InHand, Place::InHand),
                    false => (Start::Due, Place::Due),
                };
                let other = delivery(WEBHOOKS[row.webhook], start);
                let state = State::Pending;
                let fresh =
                    Row { id: other.id, place, state, counted: 0, attempts: 0, ..row.clone() };
                parts = Some(fresh);
                let others = vec![(other, request("[2]"))];
                let next = Next::Split { first: request("[1]"), others };
                (None, next, Place::InHand, State::Pending)
            }
        };
        row.attempts += usize::from(attempt.is_some());
        row.counted += u32::from(attempt.is_some() && place != Place::Held);
        (row.place, row.state) = (place, state);
        let update = update(row.id, attempt, next);
        self.rows.extend(parts);
        self.store().record(update.clone()).await.unwrap();
        self.last = Some(update);
    }

    /// Gives out what is held, in order of acceptance.
    async fn take(&mut self, index: usize, trial: bool) {
        let which = if trial { Which::Trial(None) } else { Which::Release(2) };
        let taken = self.store().take_held(webhook(WEBHOOKS[index]), which).await.unwrap();
        let mut held = self.all(Place::Held);
        held.retain(|row| self.rows[*row].webhook == index);
        held.sort_by_key(|row| self.rows[*row].event);
        let (now, left) = held.split_at(held.len().min(if trial { 1 } else { 2 }));
        let ids: Vec<_> = taken.deliveries.iter().map(|(_, delivery)| delivery.id).collect();
        assert_eq!(ids, now.iter().map(|row| self.rows[*row].id).collect::<Vec<_>>());
        assert_eq!(taken.left, u64::try_from(left.len()).unwrap());
        for index in now {
            let accepted = self.events[self.rows[*index].event];
            let row = &mut self.rows[*index];
            (row.place, row.due) = (Place::InHand, accepted);
            row.state = if row.attempts > 0 { State::Retrying } else { State::Pending };
        }
    }

    /// What was in hand is due again, or held where others of its webhook are.
    fn reopen(&mut self) {
        drop(self.store.take());
        self.store = Some(self.fixture.open());
        let holding: BTreeSet<_> =
            self.all(Place::Held).into_iter().map(|row| self.rows[row].webhook).collect();
        for row in self.rows.iter_mut().filter(|row| row.place == Place::InHand) {
            if holding.contains(&row.webhook) && !row.has_request {
                (row.place, row.state) = (Place::Held, State::Held);
            } else {
                row.place = Place::Due;
            }
        }
    }

    /// The store says what the model says.
    async fn check(&self) {
        for number in 0..self.events.len() {
            let record = read(self.store(), &format!("e{number}")).await.unwrap();
            let of_event = self.rows.iter().filter(|row| row.event == number);
            let expected: BTreeMap<_, _> = of_event
                .map(|row| {
                    let is_open = matches!(row.place, Place::Due | Place::InHand);
                    (row.id, (row.state.as_str(), is_open.then(|| at(row.due)), row.attempts))
                })
                .collect();
            let found: BTreeMap<_, _> = record
                .deliveries
                .iter()
                .map(|one| (one.id, (one.state.as_str(), one.due_at, one.attempts.len())))
                .collect();
            assert_eq!(found, expected, "e{number}");
        }
        let found: BTreeMap<_, _> = self
            .store()
            .holds()
            .await
            .unwrap()
            .into_iter()
            .map(|held| (held.webhook, held.deliveries))
            .collect();
        let mut expected = BTreeMap::new();
        for row in self.all(Place::Held) {
            *expected.entry(webhook(WEBHOOKS[self.rows[row].webhook])).or_insert(0) += 1;
        }
        assert_eq!(found, expected);
    }
}

/// Tries random sequences against a store; a failure shows the shortest that fails.
fn obeys_the_model<F: Fixture>() {
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tried = TestRunner::new(config).run(&prop::collection::vec(act(), 1..MAX_ACTS), |acts| {
        runtime.block_on(async {
            let mut model = Model::<F>::new();
            for act in acts {
                model.act(act).await;
                model.check().await;
            }
        });
        Ok(())
    });
    if let Err(failure) = tried {
        panic!("{failure}");
    }
}

#[test]
fn sqlite_obeys_the_model() {
    obeys_the_model::<Sqlite>();
}
