//! The embedded store: SQLite in WAL mode, one writer thread that commits in groups, a few readers.

mod accept;
mod hold;
mod jobs;
mod kv;
mod read;
mod rows;
mod step;
mod walk;
mod webhooks;
mod write;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::{
    Accepted, Begun, Claimed, Config, Disabled, EventRecord, Filter, Held, Job, JobId, NewJob,
    Operation, Pace, Page, Stepped, Store, StoreError, Submission, Taken, Update, WebhookState,
    Which,
};
use crate::delivery::{DeliveryId, WebhookId};
use crate::event::EventId;
use crate::kv::{Operation as KeyOperation, Outcome, Request};
use writer::{Command, Writer};

/// Connections that answer queries beside the writer.
const READERS: usize = 4;

/// The numbered schema changes, applied in order; `user_version` counts those that were.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_events_and_deliveries.sql"),
    include_str!("../../migrations/sqlite/0002_keys_of_plugins.sql"),
    include_str!("../../migrations/sqlite/0003_held_deliveries.sql"),
    include_str!("../../migrations/sqlite/0006_jobs.sql"),
    include_str!("../../migrations/sqlite/0007_webhook_states.sql"),
];

/// A store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
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
        create(folder).map_err(|error| {
            StoreError::new(format!("cannot create the data folder {}: {error}", folder.display()))
        })?;
        let lock = lock(folder)?;
        let path = folder.join("hookmill.db");
        let open = || -> Result<(Connection, [u8; 32]), StoreError> {
            let mut connection = Connection::open(&path)?;
            configure(&connection)?;
            migrate(&mut connection)?;
            write::recover(&connection)?;
            let random_seed = kv::seed(&connection, fresh_seed()?)?;
            Ok((connection, random_seed))
        };
        let (connection, random_seed) =
            open().map_err(|error| StoreError::new(format!("{}: {error}", path.display())))?;
        let readers = (0..READERS).map(|_| reader(&path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            writer: Writer::start(connection)?,
            readers: Arc::new(Readers {
                free: Mutex::new(readers),
                turns: Semaphore::new(READERS),
            }),
            random_seed,
            _lock: lock,
        })
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
        Ok(result?)
    }
}

impl Store for SqliteStore {
    fn accept(&self, submission: Submission) -> Operation<'_, Accepted> {
        self.writer.ask(|reply| Command::Accept(submission, reply))
    }

    fn claim(
        &self,
        now: Timestamp,
        limit: usize,
        except: Vec<WebhookId>,
    ) -> Operation<'_, Claimed> {
        self.writer.ask(move |reply| Command::Claim { now, limit, except, reply })
    }

    fn record(&self, update: Update) -> Operation<'_, ()> {
        self.writer.ask(|reply| Command::Record(update, reply))
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
        self.writer.ask(|reply| Command::BeginJob(job, reply))
    }

    fn step_job(&self, id: JobId, now: Timestamp, pace: Pace) -> Operation<'_, Stepped> {
        self.writer.ask(move |reply| Command::StepJob { id, now, pace, reply })
    }

    fn stop_job(&self, tenant: Arc<str>, id: JobId, now: Timestamp) -> Operation<'_, Option<Job>> {
        self.writer.ask(move |reply| Command::StopJob { tenant, id, now, reply })
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
        self.writer.ask(move |reply| Command::NoteFailing(webhook, since, reply))
    }

    fn disable_webhook(&self, webhook: WebhookId, disabled: Disabled) -> Operation<'_, ()> {
        self.writer.ask(|reply| Command::Disable(webhook, disabled, reply))
    }

    fn enable_webhook(&self, webhook: WebhookId, job: NewJob) -> Operation<'_, Job> {
        self.writer.ask(|reply| Command::Enable(webhook, job, reply))
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

    fn random_seed(&self) -> Operation<'_, [u8; 32]> {
        Box::pin(std::future::ready(Ok(self.random_seed)))
    }

    fn ping(&self) -> Operation<'_, ()> {
        Box::pin(self.read(|connection| connection.query_row("SELECT 1", [], |_| Ok(()))))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::new(error)
    }
}

/// 32 bytes that nobody can guess.
fn fresh_seed() -> Result<[u8; 32], StoreError> {
    let mut seed = [0; 32];
    match SystemRandom::new().fill(&mut seed) {
        Ok(()) => Ok(seed),
        Err(_) => Err(StoreError::new("the system gives no random numbers")),
    }
}

/// Creates the folder for the gateway's user alone: it holds payloads.
fn create(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("hookmill.lock");
    let file = File::create(&path).map_err(|error| {
        StoreError::new(format!("cannot write in the data folder: {}: {error}", path.display()))
    })?;
    file.try_lock().map_err(|_| {
        StoreError::new(format!(
            "another gateway uses the data folder {}; stop it, or set another `data_dir`",
            folder.display()
        ))
    })?;
    Ok(file)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL syncs the log at each commit: an acknowledged event survives a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // In pages of 4 KiB. Larger than the default of 1,000, so that a busy gateway writes a page that
    // changed often back just once.
    connection.pragma_update(None, "wal_autocheckpoint", 8_000)?;
    connection.pragma_update(None, "cache_size", -64_000)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let known = u32::try_from(MIGRATIONS.len()).map_err(StoreError::new)?;
    let applied: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if applied > known {
        return Err(StoreError::new(format!(
            "the database has schema version {applied}, and this version of Hookmill knows {known}; \
             use the version that wrote it, or a newer one"
        )));
    }
    for (version, migration) in (1..=known).zip(MIGRATIONS).filter(|(to, _)| *to > applied) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

fn reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(path, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(&Config { data_dir: folder.to_owned() })
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
        assert!(error.contains("hookmill.db"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), garbage);
    }
}
