//! The agenda: which webhooks have due deliveries in the store, and when the others will.
//!
//! It remembers one time for each webhook, not the deliveries, so its size does not depend on how many wait. Webhooks
//! whose time has come take turns; those that found no room are parked until there is some.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use jiff::Timestamp;

use crate::delivery::WebhookId;
use crate::record::Kind;

/// The agenda of one gateway.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    entries: HashMap<WebhookId, Entry>,
    timers: BTreeSet<(Timestamp, WebhookId)>,
    /// May name a webhook that does not wait for its turn any more.
    turns: VecDeque<WebhookId>,
    parked: HashSet<WebhookId>,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    /// What the next claim begins with: they alternate.
    first: Kind,
}

#[derive(Debug)]
enum Place {
    /// Its first delivery falls due then.
    Timer(Timestamp),
    /// It waits for its turn to be claimed of.
    Turn,
    /// It has no room to claim for.
    Parked,
    /// The store is asked; this is the earliest time that was heard of meanwhile.
    Asked(Option<Timestamp>),
}

impl Agenda {
    /// A webhook has a delivery in the store that falls due then. True when that was not known.
    pub(super) fn due(&mut self, webhook: &WebhookId, at: Timestamp) -> bool {
        let Some(entry) = self.entries.get_mut(webhook) else {
            let entry = Entry { place: Place::Timer(at), first: Kind::Fresh };
            self.entries.insert(webhook.clone(), entry);
            return self.timers.insert((at, webhook.clone()));
        };
        match &mut entry.place {
            Place::Timer(known) if at < *known => {
                let known = std::mem::replace(known, at);
                self.timers.remove(&(known, webhook.clone()));
                self.timers.insert((at, webhook.clone()))
            }
            Place::Asked(heard) => {
                *heard = Some(heard.map_or(at, |heard| heard.min(at)));
                false
            }
            Place::Timer(_) | Place::Turn | Place::Parked => false,
        }
    }

    /// The next webhook whose time has come; it is parked unless [`Self::ask`] or [`Self::put_off`]
    /// follows.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<WebhookId> {
        while let Some((at, _)) = self.timers.first()
            && *at <= now
            && let Some((_, webhook)) = self.timers.pop_first()
        {
            self.take_turn(webhook);
        }
        while let Some(webhook) = self.turns.pop_front() {
            if let Some(entry) = self.entries.get_mut(&webhook)
                && matches!(entry.place, Place::Turn)
            {
                entry.place = Place::Parked;
                self.parked.insert(webhook.clone());
                return Some(webhook);
            }
        }
        None
    }

    /// Nothing of a webhook may go out before this time, which it knows only as long as nothing else is due.
    pub(super) fn put_off(&mut self, webhook: &WebhookId, until: Timestamp) {
        self.parked.remove(webhook);
        if let Some(entry) = self.entries.get_mut(webhook) {
            entry.place = Place::Timer(until);
            self.timers.insert((until, webhook.clone()));
        }
    }

    /// The store is about to be asked for a webhook's deliveries; [`Self::answered`] follows. Gives what the
    /// claim begins with.
    pub(super) fn ask(&mut self, webhook: &WebhookId) -> Kind {
        self.parked.remove(webhook);
        let Some(entry) = self.entries.get_mut(webhook) else {
            return Kind::Fresh;
        };
        entry.place = Place::Asked(None);
        let next = match entry.first {
            Kind::Fresh => Kind::Retries,
            Kind::Retries => Kind::Fresh,
        };
        std::mem::replace(&mut entry.first, next)
    }

    /// What is left in the store of a webhook falls due then.
    pub(super) fn answered(&mut self, webhook: &WebhookId, next_due: Option<Timestamp>) {
        let Some(entry) = self.entries.get_mut(webhook) else {
            return;
        };
        let Place::Asked(heard) = entry.place else {
            return;
        };
        match [heard, next_due].into_iter().flatten().min() {
            Some(at) => {
                entry.place = Place::Timer(at);
                self.timers.insert((at, webhook.clone()));
            }
            None => {
                self.entries.remove(webhook);
            }
        }
    }

    /// There is room again for a webhook. True when it had been parked.
    pub(super) fn room_for(&mut self, webhook: &WebhookId) -> bool {
        let parked = self.parked.take(webhook);
        parked.map(|webhook| self.take_turn(webhook)).is_some()
    }

    /// There may be room again for all that found none.
    pub(super) fn room_for_all(&mut self) {
        for webhook in std::mem::take(&mut self.parked) {
            self.take_turn(webhook);
        }
    }

    /// How many webhooks wait for their turn.
    pub(super) fn turns(&self) -> usize {
        self.turns.len()
    }

    /// When the next webhook's time comes, or the past when it has come.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        match self.turns.is_empty() {
            true => self.timers.first().map(|(at, _)| *at),
            false => Some(Timestamp::MIN),
        }
    }

    fn take_turn(&mut self, webhook: WebhookId) {
        if let Some(entry) = self.entries.get_mut(&webhook) {
            entry.place = Place::Turn;
            self.turns.push_back(webhook);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn webhook(name: &str) -> WebhookId {
        WebhookId(name.into())
    }

    fn agenda(due: &[(&str, i64)]) -> Agenda {
        let mut agenda = Agenda::default();
        for (name, second) in due {
            agenda.due(&webhook(name), at(*second));
        }
        agenda
    }

    fn ask_next(agenda: &mut Agenda, now: i64) -> Option<String> {
        let webhook = agenda.next(at(now))?;
        agenda.ask(&webhook);
        Some(webhook.0.to_string())
    }

    #[test]
    fn webhooks_come_when_they_are_due_and_then_take_turns() {
        let mut agenda = agenda(&[("b", 20), ("a", 10), ("c", 30), ("b", 15), ("a", 12)]);
        assert_eq!(agenda.next_due(), Some(at(10)));
        assert_eq!(agenda.next(at(9)), None);
        assert_eq!(ask_next(&mut agenda, 25).as_deref(), Some("a"));
        // It has more that is due, and waits behind the other one all the same.
        agenda.answered(&webhook("a"), Some(at(11)));
        for expected in ["b", "a"] {
            assert_eq!(ask_next(&mut agenda, 25).as_deref(), Some(expected));
        }
        assert_eq!(agenda.next_due(), Some(at(30)));
    }

    #[test]
    fn what_falls_due_while_the_store_is_asked_is_not_forgotten() {
        let mut agenda = agenda(&[("a", 10)]);
        ask_next(&mut agenda, 10).unwrap();
        assert!(!agenda.due(&webhook("a"), at(12)));
        agenda.answered(&webhook("a"), None);
        assert_eq!(agenda.next_due(), Some(at(12)));
        ask_next(&mut agenda, 12).unwrap();
        agenda.answered(&webhook("a"), None);
        assert!(agenda.entries.is_empty() && agenda.timers.is_empty(), "it takes no memory");
    }

    #[test]
    fn what_finds_no_room_waits_for_it() {
        let mut agenda = agenda(&[("a", 1), ("b", 1)]);
        assert_eq!(agenda.next(at(1)), Some(webhook("a")));
        assert_eq!(agenda.next(at(1)), Some(webhook("b")));
        assert_eq!(agenda.next(at(1)), None, "both are parked");
        assert!(!agenda.due(&webhook("a"), at(1)), "that is no news");
        assert!(agenda.room_for(&webhook("b")));
        assert!(!agenda.room_for(&webhook("b")));
        assert_eq!(agenda.next(at(1)), Some(webhook("b")));
        agenda.room_for_all();
        assert_eq!(agenda.turns(), 2);
    }

    #[test]
    fn what_may_not_go_out_is_put_off_until_its_time_or_until_something_new_is_due() {
        let mut agenda = agenda(&[("a", 1)]);
        let a = agenda.next(at(1)).unwrap();
        agenda.put_off(&a, at(9));
        assert_eq!((agenda.next(at(8)), agenda.next_due()), (None, Some(at(9))));
        assert!(agenda.due(&a, at(8)));
        assert_eq!(agenda.next(at(8)), Some(a.clone()));
        agenda.put_off(&a, at(9));
        assert_eq!(agenda.next(at(9)), Some(a));
    }

    #[test]
    fn room_that_is_made_before_it_is_asked_for_is_no_second_turn() {
        let mut agenda = agenda(&[("a", 1)]);
        let a = agenda.next(at(1)).unwrap();
        assert!(agenda.room_for(&a));
        agenda.ask(&a);
        assert_eq!(agenda.next(at(1)), None);
    }

    #[test]
    fn claims_begin_with_first_attempts_and_with_retries_in_turn() {
        let mut agenda = agenda(&[("a", 1)]);
        for expected in [Kind::Fresh, Kind::Retries, Kind::Fresh] {
            let a = agenda.next(at(1)).unwrap();
            assert_eq!(agenda.ask(&a), expected);
            agenda.answered(&a, Some(at(1)));
        }
    }
}
