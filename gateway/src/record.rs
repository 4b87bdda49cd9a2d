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
mod held;
mod history;
mod jobs;
mod sqlite;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::delivery::{Attempt, DeliveryId, Request, WebhookId};
use crate::digest::Digest;
use crate::event::{Event, EventId};
use crate::kv;

pub use self::error::{Fault, StoreError};
pub use self::hand::{Ask, Claimed, Kind, Recorded, Skipped, Waiting};
pub use self::held::{Held, Hold, Taken, Which};
pub use self::history::{DeliveryRecord, EventRecord};
pub use self::jobs::{
    Action, Begun, Changed, Disabled, Filter, Job, JobId, JobState, Listed, MAX_OPEN_JOBS, NewJob,
    Pace, Page, Selection, Stepped, WebhookState,
};
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
    /// of the queue is in hand then. One that was cancelled meanwhile stays so, unless the receiver took it; of
    /// one that was purged meanwhile nothing is kept.
    fn record(&self, update: Update) -> Operation<'_, Recorded> {
        self.record_and_tell(update, Vec::new())
    }

    /// The same, and keeps events that tell of it, with their deliveries: all of it or nothing. An event whose id is
    /// taken is kept already. What was cancelled is told of only if the receiver took it, and what was purged is not.
    fn record_and_tell(&self, update: Update, told: Vec<NewEvent>) -> Operation<'_, Recorded>;

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

    /// A page of up to `limit` deliveries of a tenant, newest first, from before the delivery `after` on.
    fn deliveries(
        &self,
        tenant: Arc<str>,
        filter: Filter,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> Operation<'_, Page>;

    /// Keeps a job, to be done in steps, or, when something is wrong with it, does not.
    fn begin_job(&self, job: NewJob) -> Operation<'_, Begun>;

    /// Does the next step of a job. What it did to deliveries and how far the job is are kept together, so
    /// that each delivery is acted on once, whenever the process ends.
    fn step_job(&self, id: JobId, now: Timestamp, pace: Pace) -> Operation<'_, Stepped>;

    /// Ends a job of a tenant before it is through, and gives it as it is then; one that has ended is left
    /// as it is.
    fn stop_job(&self, tenant: Arc<str>, id: JobId, now: Timestamp) -> Operation<'_, Option<Job>>;

    /// A job of a tenant.
    fn job(&self, tenant: Arc<str>, id: JobId) -> Operation<'_, Option<Job>>;

    /// Up to `limit` jobs of a tenant, newest first, from before the job `after` on.
    fn jobs(&self, tenant: Arc<str>, after: Option<JobId>, limit: usize)
    -> Operation<'_, Vec<Job>>;

    /// The jobs of all tenants that have not ended.
    fn open_jobs(&self) -> Operation<'_, Vec<JobId>>;

    /// What is known of the webhooks that fail or are disabled.
    fn webhook_states(&self) -> Operation<'_, Vec<WebhookState>>;

    /// Keeps since when a webhook has failed, or that it does not any more.
    fn note_failing(&self, webhook: WebhookId, since: Option<Timestamp>) -> Operation<'_, ()>;

    /// Disables a webhook: from here on, its deliveries can be paused. A job of an earlier enabling ends. One that
    /// is disabled stays as it is. `told` is kept with the change, if there is one.
    fn disable_webhook(
        &self,
        webhook: WebhookId,
        disabled: Disabled,
        told: Option<NewEvent>,
    ) -> Operation<'_, Changed<()>>;

    /// Enables a webhook and keeps a job for what is paused; what comes to be paused later is due instead. `told` is
    /// kept with the change, if it was disabled.
    fn enable_webhook(
        &self,
        webhook: WebhookId,
        job: NewJob,
        told: Option<NewEvent>,
    ) -> Operation<'_, Changed<Job>>;

    /// How many deliveries of each of these webhooks are paused, or wait behind one that is in its queue.
    fn paused(&self, webhooks: Vec<WebhookId>) -> Operation<'_, Vec<u64>>;

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

    /// Removes jobs that ended before this, up to `limit`, and says how many there were.
    fn forget_jobs(&self, before: Timestamp, limit: usize) -> Operation<'_, usize>;

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
    /// Paused if its webhook is disabled, and due otherwise.
    Paused,
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
    /// Nothing until its webhook is enabled, with this request if one was rendered and is not kept yet; it is due
    /// if that has been done meanwhile.
    Paused(Option<Arc<Request>>),
    /// The event became several parts: the delivery in hand is the first; each of the others becomes
    /// a delivery of its own.
    Split {
        /// The first part's request.
        first: Arc<Request>,
        /// The other parts, in order.
        others: Vec<(NewDelivery, Arc<Request>)>,
    },
}
