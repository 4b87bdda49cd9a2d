//! Connections to the database: how they are set up, and how its schema is brought up to date.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::super::StoreError;
use crate::failpoint::{self, Point};

/// The numbered schema changes, applied in order; `user_version` counts those that were.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/sqlite/0001_events_and_deliveries.sql"),
    include_str!("../../../migrations/sqlite/0002_keys_of_plugins.sql"),
    include_str!("../../../migrations/sqlite/0003_held_deliveries.sql"),
    include_str!("../../../migrations/sqlite/0004_details_of_attempts.sql"),
    include_str!("../../../migrations/sqlite/0005_due_by_webhook.sql"),
    include_str!("../../../migrations/sqlite/0006_order.sql"),
    include_str!("../../../migrations/sqlite/0007_retention.sql"),
    include_str!("../../../migrations/sqlite/0008_destinations_of_events.sql"),
    include_str!("../../../migrations/sqlite/0009_jobs.sql"),
    include_str!("../../../migrations/sqlite/0010_webhook_states.sql"),
    include_str!("../../../migrations/sqlite/0011_purges.sql"),
];

pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // Of a new database alone: lets free pages go back to the file system step by step.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL syncs the log at each commit: an acknowledged event survives a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // In pages of 4 KiB. Larger than the default of 1,000, so that a busy gateway writes a page that
    // changed often back just once.
    connection.pragma_update(None, "wal_autocheckpoint", 8_000)?;
    // The log is cut back to this once all of it is in the database.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    // What is deleted is overwritten where that costs no writing more. Pages that become free are left to purges.
    connection.pragma_update(None, "secure_delete", "FAST")?;
    connection.pragma_update(None, "cache_size", -64_000)?;
    prepare(connection)
}

/// What holds for all connections.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(64);
    // Statements are planned once. Else some are planned again for each value bound to them, at several times the
    // cost of running them.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
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
        failpoint::hit(Point::MigrationApplied);
        transaction.commit()?;
    }
    Ok(())
}

pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection)?;
    Ok(connection)
}
