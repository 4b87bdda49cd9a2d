//! A store that fails, answers late, or does what it then says it could not, in front of a sound one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hookmill::delivery::{DeliveryId, WebhookId};
use hookmill::event::EventId;
use hookmill::kv;
use hookmill::record::{
    Accepted, Ask, Begun, Changed, Claimed, Cursor, Disabled, EventRecord, Filter, Found, Held,
    Job, JobId, NewEvent, NewJob, NewPurge, Operation, Pace, Page, Purge, PurgeBegun, PurgeId,
    Purged, Recorded, Removal, Removed, Search, Size, Skipped, Stepped, Store, StoreError,
    Submission, Taken, Update, Waiting, WebhookState, Which,
};
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::dice::Dice;

/// The longest delay of an answer, in milliseconds.
const MAX_DELAY_MS: u64 = 50;

/// How often something goes wrong, in percent of the operations.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// Refused: nothing is done.
    pub fail: u64,
    /// Torn: it is done, and the answer says that it is not.
    pub tear: u64,
    /// Late, before or after it is done.
    pub delay: u64,
    /// Whether what is given out can be torn too: nobody knows then what is in hand, until the next start.
    pub tear_claims: bool,
}

/// A store with faults.
pub struct Faulty {
    inner: Arc<dyn Store>,
    faults: Faults,
    dice: Dice,
    healed: AtomicBool,
    failed: AtomicUsize,
    torn: AtomicUsize,
}

impl Faulty {
    /// The faults of `dice` in front of a store.
    pub fn new(inner: Arc<dyn Store>, faults: Faults, dice: Dice) -> Self {
        let (failed, torn) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { inner, faults, dice, healed: AtomicBool::new(false), failed, torn }
    }

    /// From here on nothing goes wrong. Gives how many operations had failed, and how many were torn.
    pub fn heal(&self) -> (usize, usize) {
        self.healed.store(true, Ordering::Relaxed);
        (self.failed.load(Ordering::Relaxed), self.torn.load(Ordering::Relaxed))
    }

    /// Does an operation with what goes wrong with it.
    fn with_faults<'a, T: Send + 'a>(
        &'a self,
        can_tear: bool,
        operation: impl FnOnce() -> Operation<'a, T> + Send + 'a,
    ) -> Operation<'a, T> {
        Box::pin(async move {
            if self.healed.load(Ordering::Relaxed) {
                return operation().await;
            }
            self.delay().await;
            if self.dice.chance(self.faults.fail) {
                self.failed.fetch_add(1, Ordering::Relaxed);
                return Err(StoreError::new("a fault: nothing was done"));
            }
            let done = operation().await;
            self.delay().await;
            if can_tear && self.dice.chance(self.faults.tear) {
                self.torn.fetch_add(1, Ordering::Relaxed);
                return Err(StoreError::new("a fault: the answer is lost"));
            }
            done
        })
    }

    async fn delay(&self) {
        if self.dice.chance(self.faults.delay) {
            tokio::time::sleep(Duration::from_millis(self.dice.below(MAX_DELAY_MS))).await;
        }
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("faults", &self.faults).finish_non_exhaustive()
    }
}

impl Store for Faulty {
    fn accept(&self, submission: Submission) -> Operation<'_, Accepted> {
        self.with_faults(true, || self.inner.accept(submission))
    }

    fn claim(
        &self,
        now: Timestamp,
        asks: Vec<Ask>,
        max_bytes: usize,
    ) -> Operation<'_, Vec<Claimed>> {
        self.with_faults(self.faults.tear_claims, move || self.inner.claim(now, asks, max_bytes))
    }

    fn waiting(&self) -> Operation<'_, Vec<Waiting>> {
        // Without it a gateway does not start.
        self.inner.waiting()
    }

    fn record_and_tell(&self, update: Update, told: Vec<NewEvent>) -> Operation<'_, Recorded> {
        self.with_faults(true, || self.inner.record_and_tell(update, told))
    }

    fn blocked(&self) -> Operation<'_, Vec<WebhookId>> {
        self.with_faults(true, || self.inner.blocked())
    }

    fn unblock(&self, webhook: WebhookId) -> Operation<'_, usize> {
        self.with_faults(true, || self.inner.unblock(webhook))
    }

    fn skip(&self, tenant: Arc<str>, event: EventId) -> Operation<'_, Option<Vec<Skipped>>> {
        self.with_faults(true, || self.inner.skip(tenant, event))
    }

    fn take_held(&self, webhook: WebhookId, which: Which) -> Operation<'_, Taken> {
        self.with_faults(self.faults.tear_claims, move || self.inner.take_held(webhook, which))
    }

    fn lift(&self, webhook: WebhookId) -> Operation<'_, ()> {
        self.with_faults(true, || self.inner.lift(webhook))
    }

    fn holds(&self) -> Operation<'_, Vec<Held>> {
        // Without it a gateway does not start.
        self.inner.holds()
    }

    fn release(&self, deliveries: Vec<DeliveryId>) -> Operation<'_, ()> {
        self.with_faults(true, || self.inner.release(deliveries))
    }

    fn event(&self, tenant: Arc<str>, id: EventId) -> Operation<'_, Option<EventRecord>> {
        self.with_faults(true, || self.inner.event(tenant, id))
    }

    fn deliveries(
        &self,
        tenant: Arc<str>,
        filter: Filter,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> Operation<'_, Page> {
        self.with_faults(true, move || self.inner.deliveries(tenant, filter, after, limit))
    }

    fn begin_job(&self, job: NewJob) -> Operation<'_, Begun> {
        self.with_faults(true, || self.inner.begin_job(job))
    }

    fn step_job(&self, id: JobId, now: Timestamp, pace: Pace) -> Operation<'_, Stepped> {
        self.with_faults(true, move || self.inner.step_job(id, now, pace))
    }

    fn stop_job(&self, tenant: Arc<str>, id: JobId, now: Timestamp) -> Operation<'_, Option<Job>> {
        self.with_faults(true, move || self.inner.stop_job(tenant, id, now))
    }

    fn job(&self, tenant: Arc<str>, id: JobId) -> Operation<'_, Option<Job>> {
        self.with_faults(true, move || self.inner.job(tenant, id))
    }

    fn jobs(
        &self,
        tenant: Arc<str>,
        after: Option<JobId>,
        limit: usize,
    ) -> Operation<'_, Vec<Job>> {
        self.with_faults(true, move || self.inner.jobs(tenant, after, limit))
    }

    fn open_jobs(&self) -> Operation<'_, Vec<JobId>> {
        self.with_faults(true, || self.inner.open_jobs())
    }

    fn webhook_states(&self) -> Operation<'_, Vec<WebhookState>> {
        // Without it a gateway does not start.
        self.inner.webhook_states()
    }

    fn note_failing(&self, webhook: WebhookId, since: Option<Timestamp>) -> Operation<'_, ()> {
        self.with_faults(true, move || self.inner.note_failing(webhook, since))
    }

    fn disable_webhook(
        &self,
        webhook: WebhookId,
        disabled: Disabled,
        told: Option<NewEvent>,
    ) -> Operation<'_, Changed<()>> {
        self.with_faults(true, || self.inner.disable_webhook(webhook, disabled, told))
    }

    fn enable_webhook(
        &self,
        webhook: WebhookId,
        job: NewJob,
        told: Option<NewEvent>,
    ) -> Operation<'_, Changed<Job>> {
        self.with_faults(true, || self.inner.enable_webhook(webhook, job, told))
    }

    fn paused(&self, webhooks: Vec<WebhookId>) -> Operation<'_, Vec<u64>> {
        self.with_faults(true, || self.inner.paused(webhooks))
    }

    fn forget_jobs(&self, before: Timestamp, limit: usize) -> Operation<'_, usize> {
        self.with_faults(true, move || self.inner.forget_jobs(before, limit))
    }

    fn kv(&self, request: kv::Request) -> Operation<'_, kv::Outcome> {
        self.with_faults(true, || self.inner.kv(request))
    }

    fn sweep_keys(&self, now: Timestamp, limit: usize) -> Operation<'_, usize> {
        self.with_faults(true, move || self.inner.sweep_keys(now, limit))
    }

    fn owed(&self, began: oneshot::Sender<()>) -> Operation<'_, Vec<(WebhookId, u64)>> {
        // The same.
        self.inner.owed(began)
    }

    fn tenants(&self) -> Operation<'_, Vec<Arc<str>>> {
        self.with_faults(true, || self.inner.tenants())
    }

    fn search(&self, search: Search, after: Option<Cursor>, limit: usize) -> Operation<'_, Found> {
        self.with_faults(true, move || self.inner.search(search, after, limit))
    }

    fn remove(&self, removals: Vec<Removal>) -> Operation<'_, Removed> {
        self.with_faults(true, || self.inner.remove(removals))
    }

    fn forget_keys(&self, before: Timestamp, limit: usize) -> Operation<'_, usize> {
        self.with_faults(true, move || self.inner.forget_keys(before, limit))
    }

    fn begin_purge(&self, purge: NewPurge) -> Operation<'_, PurgeBegun> {
        self.with_faults(true, || self.inner.begin_purge(purge))
    }

    fn purge(&self, tenant: Arc<str>, id: PurgeId) -> Operation<'_, Option<Purge>> {
        self.with_faults(true, move || self.inner.purge(tenant, id))
    }

    fn open_purges(&self) -> Operation<'_, Vec<PurgeId>> {
        self.with_faults(true, || self.inner.open_purges())
    }

    fn step_purge(&self, id: PurgeId, now: Timestamp) -> Operation<'_, Purged> {
        self.with_faults(true, move || self.inner.step_purge(id, now))
    }

    fn usage(&self, tenant: Arc<str>) -> Operation<'_, u64> {
        self.with_faults(true, || self.inner.usage(tenant))
    }

    fn size(&self) -> Operation<'_, Size> {
        self.with_faults(true, || self.inner.size())
    }

    fn shrink(&self, bytes: u64) -> Operation<'_, u64> {
        self.with_faults(true, move || self.inner.shrink(bytes))
    }

    fn random_seed(&self) -> Operation<'_, [u8; 32]> {
        // The same: it is asked for at the start.
        self.inner.random_seed()
    }

    fn close(&self) -> Operation<'_, ()> {
        self.inner.close()
    }

    fn ping(&self) -> Operation<'_, ()> {
        self.with_faults(true, || self.inner.ping())
    }
}
