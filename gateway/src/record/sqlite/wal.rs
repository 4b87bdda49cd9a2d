//! Bounds the write-ahead log.
//!
//! SQLite begins the log anew once all of it is in the database and no reader needs it. Under constant load there
//! may always be one that does; then the log is emptied by waiting for the readers, for a moment.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

/// A log larger than this is emptied: some times what SQLite lets it become where readers pause.
const MAX_BYTES: u64 = 256 << 20;

/// How many groups are committed before it is looked at again.
const GROUPS: u32 = 64;

/// How long the writer waits for readers to end.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the writer waits for locks otherwise, as the crate sets it.
const USUAL_PATIENCE: Duration = Duration::from_secs(5);

/// Looks after the log.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    groups: u32,
    max_bytes: u64,
}

impl Log {
    pub(super) fn of(connection: &Connection) -> Self {
        let path = format!("{}-wal", connection.path().unwrap_or_default()).into();
        Self { path, groups: 0, max_bytes: MAX_BYTES }
    }

    /// A group was committed.
    pub(super) fn grown(&mut self, connection: &Connection) {
        self.groups += 1;
        if self.groups < GROUPS {
            return;
        }
        self.groups = 0;
        let bytes = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        if bytes > self.max_bytes
            && let Err(error) = empty(connection)
        {
            tracing::warn!(%error, bytes, "the database's log is large and cannot be emptied; trying again");
        }
    }
}

fn empty(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    // What it answers, whether readers were in the way, shows when it is looked at again.
    let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    connection.busy_timeout(USUAL_PATIENCE)?;
    emptied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_too_large_is_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("a.db")).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        connection.execute_batch("CREATE TABLE t (data)").unwrap();
        let mut log = Log { max_bytes: 100_000, ..Log::of(&connection) };
        let mut largest = 0;
        for _ in 0..1_000 {
            connection.execute("INSERT INTO t VALUES (zeroblob(3000))", []).unwrap();
            log.grown(&connection);
            largest = largest.max(log.path.metadata().unwrap().len());
        }
        assert!((100_000..1_500_000).contains(&largest), "{largest}");
    }
}
