//! The record stage: the store that makes an event durable before it is acknowledged, and that
//! remembers what became of it.
//!
//! [`Store`] is the seam: everything above speaks of events and deliveries, everything below of SQL.
//! `contract.rs` holds the tests that every store has to pass.

#[cfg(test)]
mod contract;
mod error;
mod purge;
mod retention;
mod hand;
mod sqlite;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::delivery::{Attempt, Delivery, DeliveryId, Failure, Request, State, WebhookId};
use crate::digest::Digest;
use crate::event::{Event, EventId};
use crate::kv;

pub use self::error::{Fault, StoreError};
pub use self::hand::{Ask, Claimed, Kind, Recorded, Skipped, Waiting};
pub use self::purge::{MAX_OPEN_PURGES, NewPurge, Purge, PurgeBegun, PurgeId, Purged, Target};
pub use self::retention::{Cursor, Cutoffs, Found, Removal, Removed, Search, Size};
pub use self::sqlite::{SqliteStore, check, exists};

/// Where and how events are kept.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder of the database; created when missing.
    pub data_dir: PathBuf,
    /// How long something new may wait until it is written.
    pub max_wait: Duration,
    /// Free space, in bytes, that is left for what becomes of events: with less, none are taken.
    pub min_free_bytes: u64,
}

impl Config {
    /// A store in this folder, with the defaults.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self { data_dir, max_wait: Duration::from_secs(5), min_free_bytes: 64 << 20 }
    }
}

/// What a store's operation returns: a future of its result.
pub type Operation<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Keeps events, deliveries and attempts. What a method reports as done is durable.
pub trait Store: Send + Sync + 'static {
    /// Keeps all events of a submission with their deliveries, or, on a conflict, none.
    fn accept(&self, submission: Submission) -> Operation<'_, Accepted>;

    /// Takes deliveries in hand that are due, longest due first, and answers each of `asks` in turn. Once
    /// they come to `max_bytes`, by their events and requests, no more are taken. A delivery in hand is not
    /// given out again until it is recorded or released.
    fn claim(
        &self,
        now: Timestamp,
        asks: Vec<Ask>,
        max_bytes: usize,
    ) -> Operation<'_, Vec<Claimed>>;

    /// The webhooks that have deliveries which are due, or will be, and are not in hand; in no
    /// particular order.
    fn waiting(&self) -> Operation<'_, Vec<Waiting>>;

    /// Records what became of a delivery in hand. If it was the head of a queue and is finished, the next one
    /// of the queue is in hand then. Nothing is kept of a delivery that was purged meanwhile.
    fn record(&self, update: Update) -> Operation<'_, Recorded>;

    /// The webhooks that have queues with a dead head behind which the others wait.
    fn blocked(&self) -> Operation<'_, Vec<WebhookId>>;

    /// Lets what waits behind the dead heads of a webhook's queues follow: it is due. Says how many heads
    /// there were.
    fn unblock(&self, webhook: WebhookId) -> Operation<'_, usize>;

    /// Lets what waits behind the dead deliveries of an event follow, and gives those; none when the tenant has
    /// no such event.
    fn skip(&self, tenant: Arc<str>, event: EventId) -> Operation<'_, Option<Vec<Skipped>>>;

    /// Takes in hand held deliveries of a webhook, in order of acceptance.
    fn take_held(&self, webhook: WebhookId, which: Which) -> Operation<'_, Taken>;

    /// Forgets why a webhook's deliveries are held, unless some still are.
    fn lift(&self, webhook: WebhookId) -> Operation<'_, ()>;

    /// The webhooks that have held deliveries, in no particular order.
    fn holds(&self) -> Operation<'_, Vec<Held>>;

    /// How many deliveries of each webhook are owed, all at one moment; `began` is told when that is over.
    fn owed(&self, began: oneshot::Sender<()>) -> Operation<'_, Vec<(WebhookId, u64)>>;

    /// Gives back deliveries in hand: they are due as before.
    fn release(&self, deliveries: Vec<DeliveryId>) -> Operation<'_, ()>;

    /// An event of a tenant, with all that became of it.
    fn event(&self, tenant: Arc<str>, id: EventId) -> Operation<'_, Option<EventRecord>>;

    /// Does an operation on the keys of a plugin, or answers as it did in an earlier run of the same
    /// delivery. A change and its answer are kept together; [`Store::record`] forgets the answers once
    /// the run has an outcome.
    fn kv(&self, request: kv::Request) -> Operation<'_, kv::Outcome>;

    /// Removes keys of plugins that have expired, up to `limit`, and says how many there were.
    fn sweep_keys(&self, now: Timestamp, limit: usize) -> Operation<'_, usize>;

    /// The tenants that have events, in order of their names.
    fn tenants(&self) -> Operation<'_, Vec<Arc<str>>>;

    /// Looks for what can be removed, among so many events after the cursor.
    fn search(&self, search: Search, after: Option<Cursor>, limit: usize) -> Operation<'_, Found>;

    /// Removes what a search found, as far as it still holds: nothing that is owed goes, but for what was
    /// to be given up and is not in hand.
    fn remove(&self, removals: Vec<Removal>) -> Operation<'_, Removed>;

    /// Removes idempotency keys that were used before this, up to `limit`, and says how many there were.
    fn forget_keys(&self, before: Timestamp, limit: usize) -> Operation<'_, usize>;

    /// Begins a purge of what was accepted before, unless the same one is open.
    fn begin_purge(&self, purge: NewPurge) -> Operation<'_, PurgeBegun>;

    /// A purge of a tenant.
    fn purge(&self, tenant: Arc<str>, id: PurgeId) -> Operation<'_, Option<Purge>>;

    /// The purges that are not through.
    fn open_purges(&self) -> Operation<'_, Vec<PurgeId>>;

    /// Takes a purge a bit further. What is owed is cancelled and goes too; from then on nothing of it is kept.
    fn step_purge(&self, id: PurgeId, now: Timestamp) -> Operation<'_, Purged>;

    /// The bytes of data of a tenant's events.
    fn usage(&self, tenant: Arc<str>) -> Operation<'_, u64>;

    /// How large the store is.
    fn size(&self) -> Operation<'_, Size>;

    /// Gives back up to so many free bytes to the file system; says how many it gave.
    fn shrink(&self, bytes: u64) -> Operation<'_, u64>;

    /// What the random numbers of plugins grow from: made with the store, and the same ever after.
    fn random_seed(&self) -> Operation<'_, [u8; 32]>;

    /// Brings everything into one file before the process ends. The next start can then tell that it ended in
    /// order.
    fn close(&self) -> Operation<'_, ()>;

    /// Checks that the store can answer, and keep what is new.
    fn ping(&self) -> Operation<'_, ()>;
}

/// The events of one request of a producer.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The tenant that they belong to.
    pub tenant: Arc<str>,
    /// When they arrived.
    pub accepted_at: Timestamp,
    /// Makes repeating the request harmless.
    pub idempotency: Option<Idempotency>,
    /// The events.
    pub events: Vec<NewEvent>,
}

/// A key that makes repeating a request harmless.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// The producer's key, unique in its tenant.
    pub key: String,
    /// Tells whether a repeated request is the same.
    pub fingerprint: Digest,
    /// How long an earlier use counts.
    pub kept: Duration,
}

impl Idempotency {
    /// How long a key is remembered by default.
    pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
}

/// An event to keep.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event.
    pub event: Arc<Event>,
    /// The producer chose its id, so it may have been sent before.
    pub given_id: bool,
    /// What webhooks are owed of it.
    pub deliveries: Vec<NewDelivery>,
}

/// A delivery to keep.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// The webhook that it goes to.
    pub webhook: WebhookId,
    /// What it begins as.
    pub start: Start,
}

/// What a new delivery begins as.
#[derive(Debug, Clone)]
pub enum Start {
    /// In hand: the gateway that accepts it begins with it at once.
    InHand,
    /// Due, to be claimed.
    Due,
    /// Held, for this reason.
    Held(Arc<Hold>),
    /// In the queue with this key, of the webhook's own: due if it is the first there, else waiting until those
    /// before it are finished.
    Queued(Arc<str>),
}

/// Why the deliveries of a webhook are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What keeps failing: a plugin, as `name@sha256`, or by its name alone when it is not loaded.
    pub cause: Arc<str>,
    /// The hash of everything that decides whether it fails again.
    pub setup: Digest,
    /// How it failed last.
    pub failure: Failure,
    /// Since when deliveries have been held.
    pub since: Timestamp,
}

impl Hold {
    /// The name of what keeps failing, without its version.
    #[must_use]
    pub fn name(&self) -> &str {
        self.cause.split_once('@').map_or(&self.cause, |(name, _)| name)
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cause, failure, since, .. } = self;
        write!(f, "held since {since} because {cause} keeps failing, last with {failure}")
    }
}

/// A webhook's hold, and how much it holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// The webhook.
    pub webhook: WebhookId,
    /// Why.
    pub hold: Hold,
    /// It had begun to let go: what is held was on its way out.
    pub releasing: bool,
    /// How many deliveries are held.
    pub deliveries: u64,
}

/// Which held deliveries to take in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// One, to see whether it fails: the first that was accepted after that of this delivery, or, without
    /// one, the first of all.
    Trial(Option<DeliveryId>),
    /// The first so many of all. What is left is on its way out too, even if the process ends.
    Release(usize),
}

/// Held deliveries that were taken in hand.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// The deliveries, each with its event, in order of acceptance.
    pub deliveries: Vec<(Arc<Event>, Delivery)>,
    /// How many are still held.
    pub left: u64,
}

/// The answer to a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// The events are durable, one answer each, in the submission's order.
    Stored(Vec<AcceptedEvent>),
    /// The same request was acknowledged before; this was its answer. Nothing was kept.
    Repeated(Vec<AcceptedEvent>),
    /// The idempotency key was used for another request. Nothing was kept.
    KeyReused,
    /// The event at this index has the id of another event. Nothing was kept.
    IdTaken(usize),
}

/// The answer for one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedEvent {
    /// The event's id.
    pub id: String,
    /// Whether it is new.
    pub status: AcceptedStatus,
    /// How many webhooks it goes to.
    pub deliveries: usize,
}

/// Whether an accepted event is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceptedStatus {
    /// It is kept and will be delivered.
    Accepted,
    /// The same event was accepted before; nothing more will be delivered.
    Duplicate,
}

/// What became of a delivery in hand.
#[derive(Debug, Clone)]
pub struct Update {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The attempt that was made, if one was.
    pub attempt: Option<Attempt>,
    /// The plugin versions that ran, `name@sha256` in chain order, joined by commas; empty when
    /// none ran this time.
    pub chain: Arc<str>,
    /// What comes now.
    pub next: Next,
}

/// What comes after an update.
#[derive(Debug, Clone)]
pub enum Next {
    /// Nothing: the receiver took it.
    Delivered,
    /// Nothing: it was dropped, for this reason.
    Dropped(String),
    /// Nothing: it failed for good. What waits behind it in its queue follows.
    Dead,
    /// Nothing: it failed for good, and what waits behind it in its queue goes on waiting.
    Blocks,
    /// Another attempt at this time, with this request if one was rendered and is not kept yet.
    Retry {
        /// When.
        at: Timestamp,
        /// The request to keep.
        request: Option<Arc<Request>>,
    },
    /// Nothing until it is taken from the held ones. An attempt that comes with it is what the hold
    /// tells of, and does not count for the retry schedule.
    Held(Arc<Hold>),
    /// The event became several parts: the delivery in hand is the first; each of the others becomes
    /// a delivery of its own.
    Split {
        /// The first part's request.
        first: Arc<Request>,
        /// The other parts, in order.
        others: Vec<(NewDelivery, Arc<Request>)>,
    },
}

/// An event with all that became of it.
#[derive(Debug, Clone)]
pub struct EventRecord {
    /// The event; its data is empty once it is removed.
    pub event: Event,
    /// Its deliveries, in order of webhook and part.
    pub deliveries: Vec<DeliveryRecord>,
}

/// A delivery with its attempts.
#[derive(Debug, Clone)]
pub struct DeliveryRecord {
    /// Its id.
    pub id: DeliveryId,
    /// The webhook that it goes to.
    pub webhook: WebhookId,
    /// Which part of the event it is, counted from 1.
    pub part: u32,
    /// Where it stands.
    pub state: State,
    /// Why it was dropped, is held, or waits for others.
    pub reason: Option<String>,
    /// When the next attempt is due, unless it is finished, held, or waits for others.
    pub due_at: Option<Timestamp>,
    /// The plugin versions that made it, as in [`Update::chain`].
    pub chain: String,
    /// Its attempts, in order.
    pub attempts: Vec<Attempt>,
}
