//! The guard: whether the store can keep what is new, so that nothing is taken in that it cannot.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::super::{Config, Fault, StoreError};

/// How often free space is looked at, at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What to do about a database that is damaged.
pub(super) const SALVAGE: &str = "stop the gateway, copy the data folder, and put a backup of hookmill.db in its place \
     without the files hookmill.db-wal and hookmill.db-shm; without a backup, \
     `sqlite3 hookmill.db .recover | sqlite3 recovered.db` saves what can be read, and recovered.db takes its place";

/// What the writer and those who ask it know of the store's health.
#[derive(Debug)]
pub(super) struct Guard {
    folder: PathBuf,
    min_free_bytes: u64,
    max_wait: Duration,
    /// What the times below count from.
    start: Instant,
    /// When the writer began with what it has in hand, in milliseconds; 0 when it has nothing.
    busy_since: AtomicU64,
    /// There is too little free space.
    low: AtomicBool,
    damage: OnceLock<StoreError>,
}

impl Guard {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            folder: config.data_dir.clone(),
            min_free_bytes: config.min_free_bytes,
            max_wait: config.max_wait,
            start: Instant::now(),
            busy_since: AtomicU64::new(0),
            low: AtomicBool::new(false),
            damage: OnceLock::new(),
        })
    }

    /// How long something new may wait for the writer.
    pub(super) fn max_wait(&self) -> Duration {
        self.max_wait
    }

    /// Whether there is a reason not to ask for anything new.
    ///
    /// # Errors
    /// The database is damaged, or the writer does not get on.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if let Some(damage) = self.damage.get() {
            return Err(damage.clone());
        }
        let busy_since = self.busy_since.load(Ordering::Relaxed);
        let waited = self.now().saturating_sub(busy_since);
        if busy_since > 0 && u128::from(waited) > self.max_wait.as_millis() {
            return Err(self.behind());
        }
        Ok(())
    }

    /// The same, and whether there was too little free space when it was last looked at.
    pub(super) fn check_all(&self) -> Result<(), StoreError> {
        self.check()?;
        if self.low.load(Ordering::Relaxed) { self.room() } else { Ok(()) }
    }

    pub(super) fn behind(&self) -> StoreError {
        let wait = self.max_wait;
        StoreError::of(Fault::Behind, format!("the disk does not keep up: over {wait:?} in vain"))
    }

    /// The writer begins with a group.
    pub(super) fn begins(&self) {
        self.busy_since.store(self.now().max(1), Ordering::Relaxed);
    }

    /// The writer is done with a group.
    pub(super) fn ends(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    /// Remembers for good that the database is damaged.
    pub(super) fn note(&self, error: &StoreError) {
        if error.fault() == Fault::Damaged && self.damage.set(error.clone()).is_ok() {
            let folder = self.folder.display();
            tracing::error!(
                %error,
                "the database in {folder} is damaged; no events are taken any more. {SALVAGE}"
            );
        }
    }

    /// Whether there is room for something new beside the reserve.
    ///
    /// # Errors
    /// There is not.
    pub(super) fn room(&self) -> Result<(), StoreError> {
        // What cannot be found out is left to the write itself.
        let Ok(space) = rustix::fs::statvfs(&self.folder) else { return Ok(()) };
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let low = free < self.min_free_bytes;
        let was_low = self.low.swap(low, Ordering::Relaxed);
        let (folder, least) = (self.folder.display(), self.min_free_bytes);
        if low && !was_low {
            tracing::error!(
                free,
                "less than {least} bytes (`store.min_free_bytes`) are free for {folder}; no events are taken until there are more"
            );
        } else if was_low && !low {
            tracing::info!(free, "enough is free for {folder} again; events are taken");
        }
        if low {
            return Err(StoreError::of(
                Fault::Full,
                format!(
                    "{free} bytes are free for {folder}, less than {least} (`store.min_free_bytes`)"
                ),
            ));
        }
        Ok(())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Looks at free space, but not all the time.
#[derive(Debug)]
pub(super) struct Gauge {
    guard: Arc<Guard>,
    looked: Option<(Instant, Result<(), StoreError>)>,
}

impl Gauge {
    pub(super) fn new(guard: Arc<Guard>) -> Self {
        Self { guard, looked: None }
    }

    /// As [`Guard::room`], some milliseconds ago.
    pub(super) fn room(&mut self) -> Result<(), StoreError> {
        if let Some((at, room)) = &self.looked
            && at.elapsed() < LOOK_EVERY
        {
            return room.clone();
        }
        let room = self.guard.room();
        self.looked = Some((Instant::now(), room.clone()));
        room
    }
}

/// Decides between the writer, which takes a command, and the one who asked, who may give up before.
#[derive(Debug, Clone, Default)]
pub(super) struct Ticket(Arc<AtomicBool>);

impl Ticket {
    /// True for the first of the two who asks.
    pub(super) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}
