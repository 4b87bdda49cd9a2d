//! The embedded store: SQLite in WAL mode, one writer thread that commits in groups, a few readers.

mod accept;
mod check;
mod discard;
mod folder;
mod erase;
mod guard;
mod claim;
mod connect;
mod hold;
mod jobs;
mod kv;
mod owed;
mod purge;
mod queue;
mod read;
mod replay;
mod retention;
mod rows;
mod overtaken;
mod step;
mod wal;
mod walk;
mod webhooks;
mod write;
mod writer;

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

pub use self::check::{check, exists};
use super::{
    Accepted, Ask, Begun, Changed, Claimed, Config, Cursor, Disabled, EventRecord, Filter, Found,
    Held, Job, JobId, NewEvent, NewJob, NewPurge, Operation, Pace, Page, Purge, PurgeBegun,
    PurgeId, Purged, Recorded, Removal, Removed, Search, Size, Skipped, Stepped, Store, StoreError,
    Submission, Taken, Update, Waiting, WebhookState, Which,
};
use crate::delivery::{DeliveryId, WebhookId};
use crate::event::EventId;
use crate::kv::{Operation as KeyOperation, Outcome, Request};
use check::Check;
use connect::{configure, migrate, reader};
use guard::Guard;
use writer::{Command, Writer};

/// The database's file in the data folder.
const DATABASE: &str = "hookmill.db";

/// Connections that answer queries beside the writer.
const READERS: usize = 4;

/// A store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    _check: Option<Check>,
    writer: Writer,
    guard: Arc<Guard>,
    path: PathBuf,
    readers: Arc<Readers>,
    random_seed: [u8; 32],
    /// Locked as long as the store is open: claims are only right with one gateway on the file.
    _lock: File,
}

#[derive(Debug)]
struct Readers {
    free: Mutex<Vec<Connection>>,
    turns: Semaphore,
}

impl SqliteStore {
    /// Opens the database in the data folder, creating both when missing, and makes due again what
    /// an earlier process had in hand.
    ///
    /// # Errors
    /// When the folder cannot be written, another gateway uses it, the file is damaged, or it was
    /// written by a newer version.
    pub fn open(config: &Config) -> Result<Self, StoreError> {
        let folder = &config.data_dir;
        folder::create(folder).map_err(|error| {
            StoreError::new(format!("cannot create the data folder {}: {error}", folder.display()))
        })?;
        let lock = folder::lock(folder)?;
        let path = folder.join(DATABASE);
        let unclean = check::ended_uncleanly(&path);
        let open = || -> Result<(Connection, [u8; 32]), StoreError> {
            let mut connection = Connection::open(&path)?;
            configure(&connection)?;
            migrate(&mut connection)?;
            write::recover(&connection)?;
            let random_seed = kv::seed(&connection, folder::fresh_seed()?)?;
            Ok((connection, random_seed))
        };
        let (connection, random_seed) = open().map_err(|error| check::explained(&path, &error))?;
        let readers = (0..READERS).map(|_| reader(&path)).collect::<Result<Vec<_>, _>>()?;
        let guard = Guard::new(config);
        let check = match unclean {
            true => Some(Check::start(&path, Arc::clone(&guard))?),
            false => None,
        };
        Ok(Self {
            _check: check,
            writer: Writer::start(connection, Arc::clone(&guard))?,
            guard,
            path,
            readers: Arc::new(Readers {
                free: Mutex::new(readers),
                turns: Semaphore::new(READERS),
            }),
            random_seed,
            _lock: lock,
        })
    }

    /// Writes the whole database anew, so that the file holds nothing but what is kept. Takes as much free space as
    /// the database has, and nothing else can be written meanwhile.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn rewrite(&self) -> Result<(), StoreError> {
        let path = self.path.clone();
        let rewriting = move || {
            let connection = Connection::open(path)?;
            // Databases of before this was possible can give free pages back from here on.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            connection.execute_batch("VACUUM")?;
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            Ok(())
        };
        tokio::task::spawn_blocking(rewriting).await.map_err(StoreError::new)?
    }

    /// Runs a query on a reader, on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = Arc::clone(&self.readers);
        let _turn = readers.turns.acquire().await.map_err(StoreError::new)?;
        let taken = readers.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(connection) = taken else {
            return Err(StoreError::new("no reader is left"));
        };
        let (connection, result) = tokio::task::spawn_blocking(move || {
            let result = query(&connection);
            (connection, result)
        })
        .await
        .map_err(StoreError::new)?;
        readers.free.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result.map_err(|error| {
            let error = StoreError::from(error);
            self.guard.note(&error);
            error
        })
    }
}

impl Store for SqliteStore {
    fn accept(&self, submission: Submission) -> Operation<'_, Accepted> {
        self.writer.accept(submission)
    }

    fn claim(
        &self,
        now: Timestamp,
        asks: Vec<Ask>,
        max_bytes: usize,
    ) -> Operation<'_, Vec<Claimed>> {
        self.writer.ask(move |reply| Command::Claim { now, asks, max_bytes, reply })
    }

    fn waiting(&self) -> Operation<'_, Vec<Waiting>> {
        Box::pin(self.read(claim::waiting))
    }

    fn record_and_tell(&self, update: Update, told: Vec<NewEvent>) -> Operation<'_, Recorded> {
        self.writer.ask(|reply| Command::Record(update, told, reply))
    }

    fn take_held(&self, webhook: WebhookId, which: Which) -> Operation<'_, Taken> {
        self.writer.ask(move |reply| Command::TakeHeld(webhook, which, reply))
    }

    fn lift(&self, webhook: WebhookId) -> Operation<'_, ()> {
        self.writer.ask(move |reply| Command::Lift(webhook, reply))
    }

    fn holds(&self) -> Operation<'_, Vec<Held>> {
        Box::pin(self.read(hold::all))
    }

    fn owed(&self, began: oneshot::Sender<()>) -> Operation<'_, Vec<(WebhookId, u64)>> {
        Box::pin(self.read(|connection| read::owed(connection, began)))
    }

    fn blocked(&self) -> Operation<'_, Vec<WebhookId>> {
        Box::pin(self.read(queue::blocked))
    }

    fn unblock(&self, webhook: WebhookId) -> Operation<'_, usize> {
        self.writer.ask(|reply| Command::Unblock(webhook, reply))
    }

    fn skip(&self, tenant: Arc<str>, event: EventId) -> Operation<'_, Option<Vec<Skipped>>> {
        self.writer.ask(|reply| Command::Skip(tenant, event, reply))
    }

    fn release(&self, deliveries: Vec<DeliveryId>) -> Operation<'_, ()> {
        self.writer.ask(|reply| Command::Release(deliveries, reply))
    }

    fn event(&self, tenant: Arc<str>, id: EventId) -> Operation<'_, Option<EventRecord>> {
        Box::pin(self.read(move |connection| read::event(connection, &tenant, &id)))
    }

    fn deliveries(
        &self,
        tenant: Arc<str>,
        filter: Filter,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> Operation<'_, Page> {
        Box::pin(
            self.read(move |connection| walk::page(connection, &tenant, &filter, after, limit)),
        )
    }

    fn begin_job(&self, job: NewJob) -> Operation<'_, Begun> {
        self.writer.run(move |connection| jobs::begin(connection, &job))
    }

    fn step_job(&self, id: JobId, now: Timestamp, pace: Pace) -> Operation<'_, Stepped> {
        self.writer.run(move |connection| step::step(connection, id, now, pace))
    }

    fn stop_job(&self, tenant: Arc<str>, id: JobId, now: Timestamp) -> Operation<'_, Option<Job>> {
        self.writer.run(move |connection| jobs::stop(connection, &tenant, id, now))
    }

    fn job(&self, tenant: Arc<str>, id: JobId) -> Operation<'_, Option<Job>> {
        Box::pin(self.read(move |connection| jobs::get(connection, &tenant, id)))
    }

    fn jobs(
        &self,
        tenant: Arc<str>,
        after: Option<JobId>,
        limit: usize,
    ) -> Operation<'_, Vec<Job>> {
        Box::pin(self.read(move |connection| jobs::list(connection, &tenant, after, limit)))
    }

    fn open_jobs(&self) -> Operation<'_, Vec<JobId>> {
        Box::pin(self.read(jobs::open))
    }

    fn webhook_states(&self) -> Operation<'_, Vec<WebhookState>> {
        Box::pin(self.read(webhooks::all))
    }

    fn note_failing(&self, webhook: WebhookId, since: Option<Timestamp>) -> Operation<'_, ()> {
        self.writer.run(move |connection| webhooks::note_failing(connection, &webhook, since))
    }

    fn disable_webhook(
        &self,
        webhook: WebhookId,
        disabled: Disabled,
        told: Option<NewEvent>,
    ) -> Operation<'_, Changed<()>> {
        self.writer.run_counting(move |connection, usage| {
            webhooks::disable(connection, usage, &webhook, &disabled, told.as_ref())
        })
    }

    fn enable_webhook(
        &self,
        webhook: WebhookId,
        job: NewJob,
        told: Option<NewEvent>,
    ) -> Operation<'_, Changed<Job>> {
        self.writer.run_counting(move |connection, usage| {
            webhooks::enable(connection, usage, &webhook, &job, told.as_ref())
        })
    }

    fn paused(&self, webhooks: Vec<WebhookId>) -> Operation<'_, Vec<u64>> {
        Box::pin(self.read(move |connection| webhooks::paused(connection, &webhooks)))
    }

    fn kv(&self, request: Request) -> Operation<'_, Outcome> {
        match request.operation {
            // A reader answers sooner: it waits for no commit.
            KeyOperation::Get => {
                Box::pin(self.read(move |connection| kv::read(connection, &request)))
            }
            _ => self.writer.ask(|reply| Command::Kv(request, reply)),
        }
    }

    fn sweep_keys(&self, now: Timestamp, limit: usize) -> Operation<'_, usize> {
        self.writer.ask(move |reply| Command::SweepKeys { now, limit, reply })
    }

    fn tenants(&self) -> Operation<'_, Vec<Arc<str>>> {
        Box::pin(self.read(retention::tenants))
    }

    fn search(&self, search: Search, after: Option<Cursor>, limit: usize) -> Operation<'_, Found> {
        Box::pin(self.read(move |connection| retention::search(connection, &search, after, limit)))
    }

    fn remove(&self, removals: Vec<Removal>) -> Operation<'_, Removed> {
        self.writer.ask(move |reply| Command::Remove(removals, reply))
    }

    fn forget_keys(&self, before: Timestamp, limit: usize) -> Operation<'_, usize> {
        self.writer.ask(move |reply| Command::ForgetKeys { before, limit, reply })
    }

    fn forget_jobs(&self, before: Timestamp, limit: usize) -> Operation<'_, usize> {
        self.writer.run(move |connection| jobs::forget(connection, before, limit))
    }

    fn begin_purge(&self, purge: NewPurge) -> Operation<'_, PurgeBegun> {
        self.writer.ask(|reply| Command::BeginPurge(purge, reply))
    }

    fn purge(&self, tenant: Arc<str>, id: PurgeId) -> Operation<'_, Option<Purge>> {
        Box::pin(self.read(move |connection| {
            let found = purge::get(connection, id)?.map(|stored| stored.purge);
            Ok(found.filter(|purge| purge.tenant == tenant))
        }))
    }

    fn open_purges(&self) -> Operation<'_, Vec<PurgeId>> {
        Box::pin(self.read(purge::open))
    }

    fn step_purge(&self, id: PurgeId, now: Timestamp) -> Operation<'_, Purged> {
        Box::pin(purge::advance(self, id, now))
    }

    fn usage(&self, tenant: Arc<str>) -> Operation<'_, u64> {
        Box::pin(self.read(move |connection| retention::usage(connection, &tenant)))
    }

    fn size(&self) -> Operation<'_, Size> {
        Box::pin(self.read(retention::size))
    }

    fn shrink(&self, bytes: u64) -> Operation<'_, u64> {
        self.writer.ask(move |reply| Command::Shrink(bytes, reply))
    }

    fn random_seed(&self) -> Operation<'_, [u8; 32]> {
        Box::pin(std::future::ready(Ok(self.random_seed)))
    }

    fn close(&self) -> Operation<'_, ()> {
        let path = self.path.clone();
        Box::pin(async move {
            let closing = move || {
                let connection = Connection::open(path)?;
                // Whoever is in the way leaves a log behind, which the next start reads.
                connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
                Ok(())
            };
            tokio::task::spawn_blocking(closing).await.map_err(StoreError::new)?
        })
    }

    fn ping(&self) -> Operation<'_, ()> {
        Box::pin(async {
            self.guard.check_all()?;
            self.read(|connection| connection.query_row("SELECT 1", [], |_| Ok(()))).await
        })
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::of(check::fault(&error), error)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use rusqlite::StatementStatus;

    use super::super::Fault;
    use super::*;

    fn open(folder: &Path) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(&Config::new(folder.to_owned()))
    }

    #[test]
    fn a_second_gateway_on_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path()).unwrap();
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another gateway uses the data folder"), "{error}");
        drop(first);
        open(folder.path()).unwrap();
    }

    #[test]
    fn a_database_of_a_newer_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()).unwrap());
        let connection = Connection::open(folder.path().join("hookmill.db")).unwrap();
        connection.pragma_update(None, "user_version", 999).unwrap();
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("schema version 999"), "{error}");
    }

    #[test]
    fn statements_are_planned_once_for_all_values() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()).unwrap());
        let connection = reader(&folder.path().join(DATABASE)).unwrap();
        // The planner would look at the value, since an index stands ready for one of them.
        let query = "SELECT id FROM deliveries WHERE webhook = ?1 AND state = ?2";
        let mut statement = connection.prepare(query).unwrap();
        for state in ["held", "pending", "dead"] {
            assert!(!statement.exists(["orders", state]).unwrap());
        }
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }

    fn submission() -> Submission {
        let tenant = Arc::from("acme");
        let accepted_at = Timestamp::UNIX_EPOCH;
        Submission { tenant, accepted_at, idempotency: None, events: Vec::new() }
    }

    #[tokio::test]
    async fn what_waits_too_long_is_refused_and_what_is_being_written_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let config =
            Config { max_wait: Duration::from_millis(50), ..Config::new(folder.path().to_owned()) };
        let store = Arc::new(SqliteStore::open(&config).unwrap());
        let other = Connection::open(folder.path().join(DATABASE)).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let accept = || {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.accept(submission()).await })
        };
        // On a busy machine the writer may not get to it in time: then it is refused, as it should be.
        let first = loop {
            let first = accept();
            while store.guard.check().is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(6 * config.max_wait).await;
            if !first.is_finished() {
                break first;
            }
        };
        // The writer is at the first one, so this one is not even sent, and the store says so.
        assert_eq!(accept().await.unwrap().unwrap_err().fault(), Fault::Behind);
        assert_eq!(store.ping().await.unwrap_err().fault(), Fault::Behind);
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(first.await.unwrap().unwrap(), Accepted::Stored(Vec::new()));
        store.ping().await.unwrap();
        assert!(accept().await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn with_too_little_free_space_nothing_new_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let mut config =
            Config { min_free_bytes: u64::MAX, ..Config::new(folder.path().to_owned()) };
        let store = SqliteStore::open(&config).unwrap();
        let error = store.accept(submission()).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Full, "{error}");
        assert_eq!(store.ping().await.unwrap_err().fault(), Fault::Full);
        // The rest goes on.
        store.release(Vec::new()).await.unwrap();
        drop(store);
        config.min_free_bytes = 0;
        SqliteStore::open(&config).unwrap().accept(submission()).await.unwrap();
    }

    /// Fills a database and overwrites pages in the middle of it.
    fn damage(folder: &Path) {
        let path = folder.join(DATABASE);
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
                 INSERT INTO idempotency SELECT 't', printf('%d', i), zeroblob(32), 1, '[]' FROM n",
            )
            .unwrap();
        drop(connection);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 8 * 4096].fill(0x5a);
        std::fs::write(&path, bytes).unwrap();
    }

    #[test]
    fn a_check_says_what_is_wrong_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new(folder.path().to_owned());
        assert!(check(&config).unwrap().is_none());
        drop(open(folder.path()).unwrap());
        let (pages, problems) = check(&config).unwrap().unwrap();
        assert!(pages > 10 && problems.is_empty(), "{problems:?}");
        damage(folder.path());
        let (_, problems) = check(&config).unwrap().unwrap();
        assert!(problems.len() > 1, "{problems:?}");
        assert!(problems.last().unwrap().contains(".recover"), "{problems:?}");
    }

    #[tokio::test]
    async fn damage_is_found_after_an_unclean_end_and_nothing_new_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()).unwrap());
        damage(folder.path());
        let path = folder.path().join(DATABASE);
        // A log that is left over: a reader keeps the writer's connection from removing it.
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch("DELETE FROM seeds WHERE name = 'none'; CREATE TABLE t (a)").unwrap();
        assert!(check::ended_uncleanly(&path));
        let store = open(folder.path()).unwrap();
        while store.guard.check().is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(store.accept(submission()).await.unwrap_err().fault(), Fault::Damaged);
        assert_eq!(store.ping().await.unwrap_err().fault(), Fault::Damaged);
    }

    #[test]
    fn held_deliveries_are_found_by_an_index_alone() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()).unwrap());
        let connection = Connection::open(folder.path().join("hookmill.db")).unwrap();
        let plan: Vec<String> = connection
            .prepare(
                "EXPLAIN QUERY PLAN
                 SELECT id FROM deliveries WHERE state = 'held' AND webhook = ?1
                 ORDER BY event LIMIT ?2",
            )
            .unwrap()
            .query_map([1, 1], |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let [step] = &plan[..] else { panic!("no sorting: {plan:?}") };
        assert!(step.contains("INDEX deliveries_held (webhook=?)"), "{step}");
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hookmill.db");
        let garbage = vec![b'x'; 8192];
        std::fs::write(&path, &garbage).unwrap();
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("hookmill.db: the database is damaged"), "{error}");
        assert!(error.contains("sqlite3 hookmill.db .recover"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), garbage);
    }
}
