//! Retention: removes what is past its time, and what has to make room, while the gateway serves.
//!
//! A pass looks for work on the store's readers and hands it to the writer in small batches, one at a time,
//! so that what is accepted meanwhile waits for one batch at most. What is owed is never removed.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::backlog::Backlog;
use super::claim::Alarm;
use crate::failpoint::{self, Point};
use crate::record::{Cutoffs, Idempotency, Removal, Removed, Search, Store, StoreError};
use crate::shutdown::Drain;
use crate::snapshot::{Current, Retention};

/// The longest and the shortest time between two passes.
const SELDOM: Duration = Duration::from_secs(60);
const OFTEN: Duration = Duration::from_millis(200);

/// Events that are looked at in one go.
const LOOKED_AT: usize = 500;

/// Events in one batch, and the bytes of their data: with either, the writer is busy for a few milliseconds.
const BATCH: usize = 100;
const BATCH_BYTES: u64 = 1 << 20;

/// Bytes that are given back to the file system in one go.
const SHRINK_STEP: u64 = 1 << 20;

/// Free bytes that stay in the file in any case, for what comes.
const SPARE: u64 = 8 << 20;

/// How long what is finished is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// For tenants that say nothing else, and for those that are no longer declared.
    pub tenants: Retention,
    /// How long idempotency keys are remembered.
    pub idempotency: Duration,
    /// How large the database may become, in bytes, before what is finished makes room.
    pub max_bytes: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self { tenants: Retention::default(), idempotency: Idempotency::KEPT, max_bytes: None }
    }
}

/// What is removed, by when.
pub(super) struct Keeper {
    pub(super) store: Arc<dyn Store>,
    pub(super) current: Current,
    pub(super) config: Config,
    pub(super) backlog: Arc<Backlog>,
    pub(super) alarm: Arc<Alarm>,
}

/// Removes until the drain begins.
pub(super) async fn run(keeper: Keeper, drain: Drain) {
    let passes = async {
        let mut full = false;
        loop {
            tokio::time::sleep(keeper.interval()).await;
            match keeper.pass().await {
                Ok(now_full) => {
                    if now_full && !full {
                        tracing::warn!(
                            "the database is larger than `retention.max_bytes`, and all that is left in it is owed to webhooks"
                        );
                    }
                    full = now_full;
                }
                Err(error) => {
                    tracing::warn!(%error, "what is past its time cannot be removed; trying again");
                }
            }
        }
    };
    tokio::select! {
        () = passes => {}
        () = drain.begun() => {}
    }
}

impl Keeper {
    /// A tenth of the shortest time that anything is kept.
    fn interval(&self) -> Duration {
        let snapshot = self.current.load();
        let shortest = snapshot
            .tenants()
            .map(|tenant| tenant.retention().shortest())
            .chain([self.config.tenants.shortest(), self.config.idempotency])
            .min();
        (shortest.unwrap_or(SELDOM) / 10).clamp(OFTEN, SELDOM)
    }

    /// One pass over everything. True when the database is too large and nothing can go.
    async fn pass(&self) -> Result<bool, StoreError> {
        let mut removed = Removed::default();
        for tenant in self.store.tenants().await? {
            let declared = self.current.load().tenant(&tenant).map(|it| it.retention().clone());
            let retention = declared.unwrap_or_else(|| self.config.tenants.clone());
            let given_up = self.expire(&tenant, &retention).await?;
            if given_up.given_up > 0 {
                let deliveries = given_up.given_up;
                self.backlog.less(&tenant, usize::try_from(deliveries).unwrap_or(usize::MAX));
                tracing::error!(%tenant, deliveries, "deliveries are dead: they were owed for longer than `retention.undelivered`");
            }
            given_up.moved.iter().for_each(|webhook| self.alarm.due(webhook, Timestamp::now()));
            removed += given_up;
            if let Some(max) = retention.max_bytes {
                removed += self.make_room_of(&tenant, max).await?;
            }
        }
        let before = ago(self.config.idempotency);
        while self.store.forget_keys(before, BATCH).await? == BATCH {
            tokio::task::yield_now().await;
        }
        // A job's key is as good as the job is.
        let before = ago(self.config.tenants.events.max(self.config.idempotency));
        while self.store.forget_jobs(before, BATCH).await? == BATCH {
            tokio::task::yield_now().await;
        }
        let full = self.make_room(&mut removed).await?;
        self.shrink().await?;
        let Removed { events, stripped, given_up, .. } = removed;
        if events + stripped + given_up > 0 {
            tracing::debug!(events, stripped, given_up, "removed what is not to be kept");
        }
        Ok(full)
    }

    /// Removes what is past its time.
    async fn expire(
        &self,
        tenant: &Arc<str>,
        retention: &Retention,
    ) -> Result<Removed, StoreError> {
        let cutoffs = Cutoffs {
            events: ago(retention.events),
            payloads: ago(retention.payloads),
            attempts: ago(retention.attempts),
            undelivered: retention.undelivered.map(ago),
        };
        self.remove(Search::Expired(Arc::clone(tenant), cutoffs), u64::MAX).await
    }

    /// Removes the oldest finished events of a tenant that has more data than it may.
    async fn make_room_of(&self, tenant: &Arc<str>, max: u64) -> Result<Removed, StoreError> {
        let usage = self.store.usage(Arc::clone(tenant)).await?;
        match usage.checked_sub(max) {
            None | Some(0) => Ok(Removed::default()),
            Some(over) => self.remove(Search::Finished(Some(Arc::clone(tenant))), over).await,
        }
    }

    /// Removes the oldest finished events of all while the database is too large; true when that does not
    /// help.
    async fn make_room(&self, removed: &mut Removed) -> Result<bool, StoreError> {
        let Some(max) = self.config.max_bytes else { return Ok(false) };
        loop {
            let over = self.store.size().await?.used.saturating_sub(max);
            if over == 0 {
                return Ok(false);
            }
            let gone = self.remove(Search::Finished(None), over).await?;
            let helps = gone.events > 0;
            *removed += gone;
            if !helps {
                return Ok(true);
            }
        }
    }

    /// Removes what a search finds, until at least so many bytes of data are gone.
    async fn remove(&self, search: Search, bytes: u64) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        let mut gone = 0_u64;
        let mut cursor = None;
        loop {
            let found = self.store.search(search.clone(), cursor, LOOKED_AT).await?;
            let mut removals = found.removals.into_iter().peekable();
            while removals.peek().is_some() && gone < bytes {
                let weight = |removal: &Removal| weight(&search, removal);
                let batch = batch(&mut removals, bytes - gone, weight);
                gone = gone.saturating_add(batch.iter().map(weight).sum());
                removed += self.store.remove(batch).await?;
                failpoint::hit(Point::RemovalCommitted);
                tokio::task::yield_now().await;
            }
            cursor = found.next;
            if cursor.is_none() || gone >= bytes {
                return Ok(removed);
            }
        }
    }

    /// Gives free space back to the file system, but for a reserve.
    async fn shrink(&self) -> Result<(), StoreError> {
        loop {
            let size = self.store.size().await?;
            let spare = SPARE.max(size.used / 4);
            if size.free < spare.saturating_add(SHRINK_STEP) {
                return Ok(());
            }
            if self.store.shrink(SHRINK_STEP).await? == 0 {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }
}

/// What an event counts for when room is made. In the file, its rows take room beside its data: a guess that
/// is rather too high removes too little in one round, and then there is another.
fn weight(search: &Search, removal: &Removal) -> u64 {
    match search {
        Search::Finished(None) => removal.bytes.saturating_add(1 << 10),
        _ => removal.bytes,
    }
}

/// The next removals that together are small enough, and no more than it takes.
fn batch(
    removals: &mut std::iter::Peekable<impl Iterator<Item = Removal>>,
    wanted: u64,
    weight: impl Fn(&Removal) -> u64,
) -> Vec<Removal> {
    let mut batch = Vec::new();
    let mut bytes = 0_u64;
    while batch.len() < BATCH
        && bytes < wanted
        && let Some(next) = removals
            .next_if(|next| batch.is_empty() || bytes.saturating_add(next.bytes) <= BATCH_BYTES)
    {
        bytes = bytes.saturating_add(weight(&next));
        batch.push(next);
    }
    batch
}

/// This long before now.
fn ago(age: Duration) -> Timestamp {
    Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN)
}
