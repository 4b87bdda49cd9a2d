//! What is removed from the store: which events are past their time, or have to make room.

use std::sync::Arc;

use jiff::Timestamp;

use crate::delivery::WebhookId;

/// What is looked for.
#[derive(Debug, Clone)]
pub enum Search {
    /// What is past its time, of a tenant.
    Expired(Arc<str>, Cutoffs),
    /// Everything that is finished, oldest first, of a tenant or of all.
    Finished(Option<Arc<str>>),
}

/// What is older than this goes. The age of what is finished counts from the last attempt, or from
/// acceptance where there is none.
#[derive(Debug, Clone, Copy)]
pub struct Cutoffs {
    /// Finished events, with everything of them.
    pub events: Timestamp,
    /// The data of finished events.
    pub payloads: Timestamp,
    /// The attempts of finished events.
    pub attempts: Timestamp,
    /// Events that are still owed, by when they were accepted: their deliveries are given up, and what is dead
    /// keeps nothing waiting any more.
    pub undelivered: Option<Timestamp>,
}

/// Where a search goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Which of the lists of events: those of which this much is removed already.
    pub(super) removed: i64,
    pub(super) accepted_at: i64,
    pub(super) row: i64,
}

/// A part of what a search found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// What to remove.
    pub removals: Vec<Removal>,
    /// Where to go on; none at the end.
    pub next: Option<Cursor>,
}

/// Something to remove of an event. It is looked at again when it is removed, so it may be out of date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    pub(super) row: i64,
    pub(super) what: What,
    /// How much data the event has, in bytes.
    pub bytes: u64,
}

/// What goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// The finished event, with everything of it.
    Event,
    /// These parts of the finished event.
    Parts { data: bool, attempts: bool },
    /// The deliveries that are not finished, which become dead.
    Debt,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Events, with everything of them.
    pub events: u64,
    /// Events that lost their data or attempts.
    pub stripped: u64,
    /// Deliveries that were given up.
    pub given_up: u64,
    /// Webhooks with queues whose next delivery is due now.
    pub moved: Vec<WebhookId>,
}

impl std::ops::AddAssign for Removed {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.stripped += other.stripped;
        self.given_up += other.given_up;
        self.moved.extend(other.moved);
    }
}

/// How large a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes that hold something.
    pub used: u64,
    /// Bytes that are kept for what comes.
    pub free: u64,
}
