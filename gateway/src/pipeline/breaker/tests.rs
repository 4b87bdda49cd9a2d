//! What a breaker does in single cases, and what holds whatever happens.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::delivery::FailureKind;

const PROBE: Duration = Duration::from_secs(300);

fn config() -> Config {
    Config { failures: 3, probe: PROBE, release_per_second: 20 }
}

fn delivery(number: u8) -> DeliveryId {
    DeliveryId::from_bytes([number; 16])
}

fn finding(turn: Turn, number: u8) -> Finding {
    Finding {
        turn,
        delivery: delivery(number),
        cause: "p@1".into(),
        setup: Digest::of(b"1"),
        outdated: false,
        failure: Failure::new(FailureKind::PluginTrap, "p: trapped"),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A breaker that a delivery failed in, on record if it is held.
fn fails(breaker: &mut Breaker, finding: Finding, now: Instant) -> Verdict {
    let verdict = breaker.failed(finding, &config(), now, at(0));
    if verdict != Verdict::Retry {
        breaker.has_joined();
    }
    verdict
}

fn tripped(now: Instant) -> Breaker {
    let mut breaker = Breaker::new();
    for number in 1..3 {
        assert_eq!(fails(&mut breaker, finding(Turn::Own, number), now), Verdict::Retry);
    }
    assert!(matches!(fails(&mut breaker, finding(Turn::Own, 3), now), Verdict::Trip(_)));
    breaker
}

/// A breaker whose trial passed.
fn releasing(now: Instant) -> Breaker {
    let mut breaker = tripped(now);
    let which = breaker.step(now + PROBE, 100, &config()).unwrap();
    assert_eq!(breaker.took(which, 1, now + PROBE, &config()), Progress::Continues);
    assert!(breaker.passed(Turn::Trial, now + PROBE));
    breaker
}

#[test]
fn it_trips_at_failures_of_distinct_deliveries_in_a_row() {
    let now = Instant::now();
    let mut breaker = Breaker::new();
    for _ in 0..5 {
        assert_eq!(fails(&mut breaker, finding(Turn::Own, 1), now), Verdict::Retry);
    }
    assert_eq!(fails(&mut breaker, finding(Turn::Own, 2), now), Verdict::Retry);
    breaker.passed(Turn::Own, now);
    assert!(breaker.is_idle());
    for number in [1, 2] {
        assert_eq!(fails(&mut breaker, finding(Turn::Own, number), now), Verdict::Retry);
    }
    let Verdict::Trip(hold) = fails(&mut breaker, finding(Turn::Own, 3), now) else {
        panic!("{breaker:?}")
    };
    assert_eq!((hold.name(), hold.since), ("p", at(0)));
    assert_eq!(breaker.admit(Turn::Own), Err(hold));
}

#[test]
fn another_setup_counts_from_the_start_and_an_outdated_one_not_at_all() {
    let now = Instant::now();
    let mut breaker = Breaker::new();
    for number in 1..3 {
        fails(&mut breaker, finding(Turn::Own, number), now);
    }
    let outdated = Finding { outdated: true, ..finding(Turn::Own, 3) };
    assert_eq!(fails(&mut breaker, outdated, now), Verdict::Retry);
    let other = |number| Finding { setup: Digest::of(b"2"), ..finding(Turn::Own, number) };
    assert_eq!(fails(&mut breaker, other(3), now), Verdict::Retry);
    assert_eq!(fails(&mut breaker, other(4), now), Verdict::Retry);
    assert!(matches!(fails(&mut breaker, other(5), now), Verdict::Trip(_)));
}

#[test]
fn a_trial_is_due_after_the_probe_time_and_the_next_is_of_another_delivery() {
    let now = Instant::now();
    let mut breaker = tripped(now);
    assert_eq!(breaker.step(now, 100, &config()), None);
    assert_eq!(breaker.due(), Some(now + PROBE));
    let later = now + PROBE;
    assert_eq!(breaker.step(later, 0, &config()), Some(Which::Trial(None)));
    assert_eq!(breaker.step(later, 100, &config()), None, "one at a time");
    assert!(breaker.admit(Turn::Trial).is_ok());
    assert!(breaker.admit(Turn::Own).is_err());
    breaker.has_joined();
    assert!(!breaker.try_now(true, later), "one is under way");
    let Verdict::Hold(hold) = fails(&mut breaker, finding(Turn::Trial, 7), later) else {
        panic!("{breaker:?}")
    };
    assert_eq!(hold.since, at(0), "it has been held all the time");
    assert_eq!(breaker.due(), Some(later + PROBE));
    assert!(breaker.try_now(false, later));
    let which = breaker.step(later, 100, &config());
    assert_eq!(which, Some(Which::Trial(Some(delivery(7)))));
}

#[test]
fn a_trial_that_shows_nothing_is_followed_by_another_at_the_rate_of_releases() {
    let now = Instant::now();
    let mut breaker = tripped(now);
    breaker.step(now + PROBE, 100, &config());
    breaker.tried(delivery(3), now + PROBE, &config());
    let soon = now + PROBE + config().interval();
    assert_eq!(breaker.step(soon, 100, &config()), Some(Which::Trial(Some(delivery(3)))));
    assert_eq!(breaker.took(Which::Trial(None), 1, soon, &config()), Progress::Continues);
    assert!(breaker.passed(Turn::Trial, soon));
    breaker.tried(delivery(4), soon, &config());
    assert!(breaker.admit(Turn::Released).is_ok(), "what was shown stays");
}

#[test]
fn an_outdated_trial_is_made_again_at_once_from_the_first() {
    let now = Instant::now();
    let mut breaker = tripped(now);
    breaker.step(now + PROBE, 100, &config());
    let outdated = Finding { outdated: true, ..finding(Turn::Trial, 3) };
    assert!(matches!(fails(&mut breaker, outdated, now + PROBE), Verdict::Hold(_)));
    assert_eq!(breaker.step(now + PROBE, 100, &config()), Some(Which::Trial(None)));
}

#[test]
fn a_release_makes_up_for_what_joins_and_waits_for_room() {
    let now = Instant::now() + PROBE;
    let mut breaker = releasing(now - PROBE);
    let (batch, interval) = (2, config().interval());
    assert_eq!(breaker.step(now, 100, &config()), Some(Which::Release(batch)));
    breaker.took(Which::Release(batch), batch, now, &config());
    for _ in 0..7 {
        breaker.admit(Turn::Own).unwrap_err();
        breaker.has_joined();
    }
    assert_eq!(breaker.step(now, 100, &config()), None, "not yet");
    assert_eq!(breaker.step(now + interval, 0, &config()), None, "no room");
    let now = now + interval * 2;
    assert_eq!(breaker.step(now, 5, &config()), Some(Which::Release(5)));
    breaker.took(Which::Release(5), 5, now, &config());
    assert_eq!(breaker.step(now + interval, 100, &config()), Some(Which::Release(batch + 2)));
}

#[test]
fn it_closes_once_nothing_is_held_nor_about_to_be() {
    let now = Instant::now() + PROBE;
    let interval = config().interval();
    let mut breaker = releasing(now - PROBE);
    let which = breaker.step(now, 100, &config()).unwrap();
    breaker.admit(Turn::Own).unwrap_err();
    assert_eq!(breaker.took(which, 0, now, &config()), Progress::Continues, "one is joining");
    let which = breaker.step(now + interval, 100, &config()).unwrap();
    breaker.has_joined();
    let progress = breaker.took(which, 0, now + interval, &config());
    assert_eq!(progress, Progress::Continues, "it may have joined too late to be found");
    let which = breaker.step(now + interval * 2, 100, &config()).unwrap();
    let progress = breaker.took(which, 1, now + interval * 2, &config());
    assert!(matches!(progress, Progress::Closed(_, 2)), "{progress:?}");
    assert!(breaker.is_idle() && breaker.admit(Turn::Own).is_ok());
}

#[test]
fn what_fails_in_a_row_amid_a_release_trips_it_again() {
    let now = Instant::now() + PROBE;
    let mut breaker = releasing(now - PROBE);
    let which = breaker.step(now, 100, &config()).unwrap();
    breaker.took(which, 2, now, &config());
    for number in [4, 5] {
        assert_eq!(fails(&mut breaker, finding(Turn::Released, number), now), Verdict::Retry);
    }
    assert!(!breaker.passed(Turn::Released, now));
    for number in [6, 7] {
        assert_eq!(fails(&mut breaker, finding(Turn::Released, number), now), Verdict::Retry);
    }
    assert!(matches!(fails(&mut breaker, finding(Turn::Released, 8), now), Verdict::Trip(_)));
    assert!(
        breaker.admit(Turn::Released).is_err(),
        "those that wait for their turn are held again"
    );
    assert_eq!(breaker.due(), Some(now + PROBE));
}

#[test]
fn a_release_that_was_under_way_at_a_start_begins_again_with_a_trial() {
    let now = Instant::now();
    let hold = Hold {
        cause: "p@1".into(),
        setup: Digest::of(b"1"),
        failure: Failure::new(FailureKind::PluginTrap, "p: trapped"),
        since: at(0),
    };
    let mut breaker = Breaker::restored(hold.clone(), true, now, &config());
    assert_eq!(breaker.step(now, 100, &config()), Some(Which::Trial(None)));
    let breaker = Breaker::restored(hold, false, now, &config());
    assert_eq!(breaker.due(), Some(now + PROBE));
}

/// A webhook in small: what is held, what is under way, and a plugin that fails now and then.
struct Model {
    breaker: Breaker,
    now: Instant,
    held: BTreeSet<u8>,
    /// In hand, in order of their start, by which right, and whether they were admitted.
    in_hand: VecDeque<(u8, Turn)>,
    done: Vec<u8>,
    /// Distinct failures since the last success.
    in_a_row: BTreeSet<u8>,
    works: bool,
    next: u8,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Arrive,
    Finish,
    Tick(u8),
    Break,
    Mend,
}

impl Model {
    fn act(&mut self, act: Act) {
        match act {
            Act::Arrive if self.next < u8::MAX => {
                self.next += 1;
                self.start(self.next, Turn::Own);
            }
            Act::Arrive => {}
            Act::Finish => self.finish(),
            Act::Tick(tenths) => {
                self.now += Duration::from_millis(100) * u32::from(tenths);
                self.step();
            }
            Act::Break => self.works = false,
            Act::Mend => {
                self.works = true;
                self.breaker.try_now(true, self.now);
            }
        }
    }

    fn start(&mut self, number: u8, turn: Turn) {
        match self.breaker.admit(turn) {
            Ok(()) => self.in_hand.push_back((number, turn)),
            Err(_) => self.hold(number),
        }
    }

    fn hold(&mut self, number: u8) {
        assert!(self.held.insert(number), "{number} is held already");
        self.breaker.has_joined();
    }

    /// The delivery that was begun first ends; one that is to be tried again is begun at once.
    fn finish(&mut self) {
        let Some((number, turn)) = self.in_hand.pop_front() else { return };
        if self.works {
            self.in_a_row.clear();
            self.breaker.passed(turn, self.now);
            self.done.push(number);
            return;
        }
        self.in_a_row.insert(number);
        match self.breaker.failed(finding(turn, number), &config(), self.now, at(0)) {
            Verdict::Retry => self.start(number, Turn::Own),
            Verdict::Hold(_) => self.hold(number),
            Verdict::Trip(_) => {
                assert!(self.in_a_row.len() >= config().failures, "{:?}", self.in_a_row);
                self.hold(number);
            }
        }
    }

    fn step(&mut self) {
        let Some(which) = self.breaker.step(self.now, 4, &config()) else { return };
        let (limit, turn) = match which {
            Which::Trial(_) => (1, Turn::Trial),
            Which::Release(limit) => (limit, Turn::Released),
        };
        let taken: Vec<_> = self.held.iter().copied().take(limit).collect();
        for number in &taken {
            self.held.remove(number);
            self.start(*number, turn);
        }
        if let Progress::Closed(..) = self.breaker.took(which, taken.len(), self.now, &config()) {
            assert!(self.held.is_empty(), "closed on {:?}", self.held);
        }
    }

    fn check(&self) {
        let trials = self.in_hand.iter().filter(|(_, turn)| *turn == Turn::Trial).count();
        assert!(trials <= 1, "{:?}", self.in_hand);
        if self.breaker.hold().is_none() {
            assert!(self.held.is_empty(), "held without a reason: {:?}", self.held);
        }
        let all = self.done.len() + self.held.len() + self.in_hand.len();
        assert_eq!(all, usize::from(self.next), "lost or doubled");
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Arrive),
        4 => Just(Act::Finish),
        3 => (1u8..30).prop_map(Act::Tick),
        1 => Just(Act::Break),
        1 => Just(Act::Mend),
    ]
}

proptest! {
    #[test]
    fn nothing_is_lost_doubled_or_stranded(acts in prop::collection::vec(act(), 0..200)) {
        let mut model = Model {
            breaker: Breaker::new(),
            now: Instant::now(),
            held: BTreeSet::new(),
            in_hand: VecDeque::new(),
            done: Vec::new(),
            in_a_row: BTreeSet::new(),
            works: false,
            next: 0,
        };
        for act in acts {
            model.act(act);
            model.check();
        }
        // A plugin that works from now on, and time, bring everything through.
        model.works = true;
        for _ in 0..2_000 {
            model.act(Act::Finish);
            model.act(Act::Tick(200));
            model.check();
        }
        prop_assert!(model.held.is_empty() && model.in_hand.is_empty());
        prop_assert!(model.breaker.is_idle(), "{:?}", model.breaker);
    }

    #[test]
    fn no_more_is_released_than_the_rate_allows(
        rate in 1u32..5_000, steps in 1u32..200, room in 1usize..10_000,
    ) {
        let config = Config { release_per_second: rate, ..config() };
        let now = Instant::now();
        let mut breaker = releasing(now);
        let began = now + PROBE;
        let mut released = 0;
        let mut time = began;
        for _ in 0..steps {
            if let Some(which) = breaker.step(time, room, &config) {
                let Which::Release(limit) = which else { panic!("{which:?}") };
                released += limit;
                breaker.took(which, limit, time, &config);
            }
            time += Duration::from_millis(17);
        }
        let allowed = f64::from(rate) * (time - began).as_secs_f64() + f64::from(config.batch());
        prop_assert!(released as f64 <= allowed + 1.0, "{released} of {allowed}");
    }
}
