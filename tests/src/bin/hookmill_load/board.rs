//! The board: which events are under way, when each was sent, and how long those took that arrived.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Events that can be under way at once. Numbers are taken modulo this, so memory stays the same
/// however long a measurement runs.
const SLOTS: u64 = 1 << 20;

/// Shared by the producer's connections and the receiver's.
pub(crate) struct Board {
    began: Instant,
    slots: Vec<Slot>,
    /// The next event's number. Numbers begin at 1, and never begin again: a late event of one
    /// measurement is not taken for one of the next.
    next: AtomicU64,
    /// Requests that came for an event under way.
    arrived: AtomicU64,
    /// Requests that came for any other: the event had arrived before, or was never sent.
    repeated: AtomicU64,
    latencies: Mutex<Vec<u64>>,
    /// A permit for each event that may still be sent; given back when one arrives.
    pub(crate) room: Semaphore,
}

#[derive(Default)]
struct Slot {
    /// The number of the event under way here; 0 for none.
    number: AtomicU64,
    /// When it was sent, in microseconds since the board began.
    sent_at: AtomicU64,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            next: AtomicU64::new(1),
            arrived: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            latencies: Mutex::new(Vec::new()),
            room: Semaphore::new(0),
        }
    }
}

impl Board {
    /// Notes that an event is about to be sent, and returns its number.
    pub(crate) fn send(&self) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(slot) = self.slot(number) {
            slot.sent_at.store(self.now(), Ordering::Relaxed);
            slot.number.store(number, Ordering::Release);
        }
        number
    }

    /// Takes an event back that nobody accepted.
    pub(crate) fn withdraw(&self, number: u64) {
        self.take(number);
        self.room.add_permits(1);
    }

    /// Notes that an event has come to the receiver.
    pub(crate) fn arrive(&self, number: u64) {
        let Some(sent_at) = self.take(number) else {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let latency = self.now().saturating_sub(sent_at);
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).push(latency);
        self.arrived.fetch_add(1, Ordering::Relaxed);
        self.room.add_permits(1);
    }

    /// How many events have arrived.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// How many requests came for events that were not under way.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// The latencies since the last call, in microseconds.
    pub(crate) fn take_latencies(&self) -> Vec<u64> {
        std::mem::take(&mut self.latencies.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Empties an event's slot and returns when it was sent; nothing if it is not under way.
    fn take(&self, number: u64) -> Option<u64> {
        let slot = self.slot(number)?;
        slot.number
            .compare_exchange(number, 0, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .filter(|_| number != 0)?;
        Some(slot.sent_at.load(Ordering::Relaxed))
    }

    fn slot(&self, number: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(number % SLOTS).ok()?)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_arrives_once() {
        let board = Board::default();
        let (first, second) = (board.send(), board.send());
        board.arrive(second);
        board.arrive(second);
        board.arrive(0);
        assert_eq!((board.arrived(), board.repeated()), (1, 2));
        board.withdraw(first);
        board.arrive(first);
        assert_eq!((board.arrived(), board.repeated()), (1, 3));
        assert_eq!(board.take_latencies().len(), 1);
        assert_eq!(board.room.available_permits(), 2);
    }
}
