//! What a webhook is owed from before it was enabled, when that is not wanted any more, in phases.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::rows;
use super::walk::{Found, found};
use crate::delivery::WebhookId;

/// Where to look, one after the other. What waits behind others goes before the heads do, so that none becomes a head and
/// gets away. What is paused goes whatever its id: it must not stay so.
const PHASES: [&str; 6] = [
    "INDEXED BY deliveries_queued
     WHERE webhook = ?1 AND queue IS NOT NULL AND due_at IS NULL AND state = 'pending' AND id < ?2",
    "INDEXED BY deliveries_by_webhook_and_state
     WHERE webhook = ?1 AND state = 'paused' AND state NOT IN ('pending', 'delivered')",
    "INDEXED BY deliveries_waiting
     WHERE webhook = ?1 AND due_at IS NOT NULL AND claimed = 0 AND state = 'pending'
         AND due_at <= ?3 AND id < ?2",
    "INDEXED BY deliveries_waiting
     WHERE webhook = ?1 AND due_at IS NOT NULL AND claimed = 0 AND state = 'retrying' AND id < ?2",
    "INDEXED BY deliveries_held WHERE webhook = ?1 AND state = 'held' AND id < ?2",
    "INDEXED BY deliveries_in_hand
     WHERE webhook = ?1 AND due_at IS NOT NULL AND claimed = 1 AND id < ?2",
];

/// Some of what is to be cancelled in a phase; none when there is no such phase. `before` is the first id that is newer,
/// and the time of the enabling.
pub(super) fn find(
    connection: &Connection,
    phase: u8,
    webhook: &WebhookId,
    before: ([u8; 16], Timestamp),
    limit: usize,
) -> rusqlite::Result<Option<Vec<Found>>> {
    let Some(source) = PHASES.get(usize::from(phase)) else { return Ok(None) };
    let (until, at) = before;
    connection
        .prepare_cached(&query(source))?
        .query_map(
            params![webhook.0, until, rows::micros(at), i64::try_from(limit).unwrap_or(i64::MAX)],
            found,
        )?
        .collect::<rusqlite::Result<_>>()
        .map(Some)
}

fn query(source: &str) -> String {
    format!(
        "SELECT id, webhook, state, event, part, claimed, queue FROM deliveries {source} LIMIT ?4"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Config, SqliteStore};

    #[test]
    fn each_phase_seeks_in_its_index() {
        let folder = tempfile::tempdir().unwrap();
        drop(SqliteStore::open(&Config::new(folder.path().to_owned())).unwrap());
        let connection = Connection::open(folder.path().join("hookmill.db")).unwrap();
        for source in PHASES {
            let query = format!("EXPLAIN QUERY PLAN {}", query(source));
            let mut statement = connection.prepare(&query).unwrap();
            let plan = statement.raw_query().mapped(|row| row.get::<_, String>(3));
            let plan: Vec<_> = plan.map(Result::unwrap).collect();
            let [step] = &plan[..] else { panic!("{plan:?}") };
            assert!(step.starts_with("SEARCH deliveries") && step.contains("(webhook=?"), "{step}");
        }
    }
}
