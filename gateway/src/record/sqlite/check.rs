//! Checks whether a database is sound: in full when asked to, and beside the work after an unclean end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use rusqlite::{Connection, ErrorCode, InterruptHandle};

use super::super::{Config, Fault, StoreError};
use super::DATABASE;
use super::connect::reader;
use super::guard::{Guard, SALVAGE};

/// Problems that are reported at most.
const MAX_PROBLEMS: usize = 20;

/// Whether the process that used this database before did not close it.
pub(super) fn ended_uncleanly(database: &Path) -> bool {
    let log = PathBuf::from(format!("{}-wal", database.display()));
    std::fs::metadata(log).is_ok_and(|file| file.len() > 0)
}

/// The same error with what to do about it when the database is damaged.
pub(super) fn explained(path: &Path, error: &StoreError) -> StoreError {
    let path = path.display();
    match error.fault() {
        Fault::Damaged => {
            let message = format!("{path}: the database is damaged ({error}); {SALVAGE}");
            StoreError::of(Fault::Damaged, message)
        }
        fault => StoreError::of(fault, format!("{path}: {error}")),
    }
}

/// Whether there is a database in a folder.
#[must_use]
pub fn exists(config: &Config) -> bool {
    config.data_dir.join(DATABASE).exists()
}

/// Checks the whole database in a folder, whether a gateway uses it or not: gives its pages and what is wrong; none
/// when there is no database yet. Reads all of it.
///
/// # Errors
/// When it cannot be read as a database at all.
pub fn check(config: &Config) -> Result<Option<(u64, Vec<String>)>, StoreError> {
    let path = config.data_dir.join(DATABASE);
    if !path.exists() {
        return Ok(None);
    }
    let checked = reader(&path).and_then(|connection| {
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let mut problems = sound(&connection, None)?;
        if !problems.is_empty() {
            problems.push(SALVAGE.to_owned());
        }
        Ok(Some((pages.unsigned_abs(), problems)))
    });
    checked.map_err(|error| explained(&path, &error))
}

/// What is wrong with the database, or with one of its tables.
fn sound(connection: &Connection, table: Option<&str>) -> Result<Vec<String>, StoreError> {
    let argument = table.map_or_else(|| MAX_PROBLEMS.to_string(), str::to_owned);
    let mut statement = connection.prepare(&format!("PRAGMA quick_check({argument})"))?;
    let mut lines = statement.query([])?;
    let mut problems = Vec::new();
    loop {
        let line = lines.next().and_then(|row| row.map(|row| row.get::<_, String>(0)).transpose());
        match line {
            Ok(None) => break,
            Ok(Some(line)) if line == "ok" => {}
            Ok(Some(line)) => problems.push(line),
            // Some damage is in the way of the check itself.
            Err(error) if fault(&error) == Fault::Damaged => {
                problems.push(error.to_string());
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    problems.truncate(MAX_PROBLEMS);
    Ok(problems)
}

/// A check beside the work. Ends when it is dropped.
pub(super) struct Check {
    interrupt: InterruptHandle,
    thread: Option<thread::JoinHandle<()>>,
}

impl Check {
    /// Starts it; what it finds is told to the guard.
    pub(super) fn start(path: &Path, guard: Arc<Guard>) -> Result<Self, StoreError> {
        let connection = reader(path)?;
        let interrupt = connection.get_interrupt_handle();
        let thread = thread::Builder::new()
            .name("store-check".to_owned())
            .spawn(move || {
                if let Err(error) = tables(&connection) {
                    guard.note(&error);
                }
            })
            .map_err(StoreError::new)?;
        Ok(Self { interrupt, thread: Some(thread) })
    }
}

/// Table by table: a reader that takes long keeps the log from being cut.
fn tables(connection: &Connection) -> Result<(), StoreError> {
    tracing::info!("the gateway was not stopped in order; the database is checked meanwhile");
    let names = connection
        .prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
        )?
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for name in names {
        if let Some(problem) = sound(connection, Some(&name))?.first() {
            return Err(StoreError::of(Fault::Damaged, format!("in table {name}: {problem}")));
        }
    }
    tracing::info!("the database is sound");
    Ok(())
}

impl Drop for Check {
    fn drop(&mut self) {
        // Between two statements there is nothing to interrupt, so this is said until it is heard.
        while let Some(thread) = &self.thread
            && !thread.is_finished()
        {
            self.interrupt.interrupt();
            thread::yield_now();
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check").finish_non_exhaustive()
    }
}

/// The kind of fault that an error of the database shows.
pub(super) fn fault(error: &rusqlite::Error) -> Fault {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Fault::Full,
        Some(ErrorCode::SystemIoFailure) => Fault::Disk,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Fault::Damaged,
        _ => Fault::Other,
    }
}
