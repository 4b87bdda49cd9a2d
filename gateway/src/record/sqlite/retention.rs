//! Finding what can be removed, on a reader, and removing it, on the writer, a little at a time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::super::retention::What;
use super::super::{Cursor, Cutoffs, Found, Removal, Removed, Search, Size};
use super::{owed, purge, rows};
use crate::failpoint::{self, Point};

/// Nothing more comes of these. Whatever else there is counts as owed.
pub(super) const FINISHED: &str = "('delivered', 'dropped', 'dead', 'cancelled')";

/// What is owed, and the dead heads of queues: what follows one waits for it.
pub(super) fn owed() -> String {
    format!(
        "(state NOT IN {FINISHED} OR queue IS NOT NULL AND EXISTS (
              SELECT 1 FROM queues
              WHERE queues.webhook = deliveries.webhook AND key = queue AND head = deliveries.id))"
    )
}

/// The data of an event is gone.
pub(super) const NO_DATA: i64 = 1;

/// The attempts of an event are gone.
pub(super) const NO_ATTEMPTS: i64 = 2;

pub(super) fn tenants(connection: &Connection) -> rusqlite::Result<Vec<Arc<str>>> {
    let mut tenants: Vec<Arc<str>> = Vec::new();
    let mut next = connection
        .prepare_cached("SELECT tenant FROM events WHERE tenant > ?1 ORDER BY tenant LIMIT 1")?;
    // A seek for each, however many events it has.
    while let Some(tenant) =
        next.query_row([tenants.last().map_or("", |last| &**last)], |row| row.get(0)).optional()?
    {
        tenants.push(tenant);
    }
    Ok(tenants)
}

/// Looks at up to `limit` events after the cursor.
pub(super) fn search(
    connection: &Connection,
    search: &Search,
    after: Option<Cursor>,
    limit: usize,
) -> rusqlite::Result<Found> {
    // What has the least left is the oldest, as a rule.
    let first = match search {
        Search::Finished(None) => Cursor { removed: 0, accepted_at: i64::MIN, row: i64::MIN },
        _ => Cursor::start_of(NO_DATA | NO_ATTEMPTS),
    };
    let at = after.unwrap_or(first);
    let limit_parameter = i64::try_from(limit).unwrap_or(i64::MAX);
    let candidates: rusqlite::Result<Vec<Candidate>> = match search {
        Search::Finished(None) => {
            let query = format!("{} WHERE seq > ?1 ORDER BY seq LIMIT ?2", select(""));
            let mut statement = connection.prepare_cached(&query)?;
            statement.query_map([at.row, limit_parameter], Candidate::of_row)?.collect()
        }
        Search::Expired(tenant, _) | Search::Finished(Some(tenant)) => {
            let mut statement = connection.prepare_cached(&of_tenant())?;
            let parameters = named_params! {
                ":tenant": tenant,
                ":removed": at.removed,
                ":until": until(search, at.removed),
                ":accepted_at": at.accepted_at,
                ":row": at.row,
                ":limit": limit_parameter,
            };
            statement.query_map(parameters, Candidate::of_row)?.collect()
        }
    };
    let candidates = candidates?;
    let next = match candidates.last() {
        Some(last) if candidates.len() >= limit => Some(last.cursor()),
        _ if matches!(search, Search::Finished(None)) || at.removed == 0 => None,
        _ => Some(Cursor::start_of(at.removed - 1)),
    };
    let removals = candidates.iter().filter_map(|candidate| candidate.removal(search)).collect();
    Ok(Found { removals, next })
}

fn select(index: &str) -> String {
    let owed = owed();
    format!(
        "SELECT seq, accepted_at, removed, octet_length(data),
             EXISTS (SELECT 1 FROM deliveries WHERE event = seq AND {owed}),
             (SELECT max(started_at) FROM deliveries JOIN attempts ON delivery = deliveries.id
              WHERE event = seq)
         FROM events {index}"
    )
}

/// The events of a tenant in order of age, of those of which as much is removed already.
fn of_tenant() -> String {
    format!(
        "{} WHERE tenant = :tenant AND removed = :removed AND accepted_at <= :until
             AND (accepted_at, seq) > (:accepted_at, :row)
         ORDER BY accepted_at, seq LIMIT :limit",
        select("INDEXED BY events_by_age")
    )
}

/// The latest time of acceptance at which there can be something to remove.
fn until(search: &Search, removed: i64) -> i64 {
    let Search::Expired(_, cutoffs) = search else { return i64::MAX };
    let Cutoffs { events, payloads, attempts, undelivered } = *cutoffs;
    let payloads = (removed & NO_DATA == 0).then_some(payloads);
    let attempts = (removed & NO_ATTEMPTS == 0).then_some(attempts);
    let latest =
        [payloads, attempts, undelivered].into_iter().flatten().fold(events, Timestamp::max);
    rows::micros(latest)
}

impl Cursor {
    fn start_of(removed: i64) -> Self {
        Self { removed, accepted_at: i64::MIN, row: i64::MIN }
    }
}

/// An event that may have something to remove.
struct Candidate {
    row: i64,
    accepted_at: i64,
    removed: i64,
    bytes: u64,
    owed: bool,
    last_attempt: Option<i64>,
}

impl Candidate {
    fn of_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            row: row.get(0)?,
            accepted_at: row.get(1)?,
            removed: row.get(2)?,
            bytes: row.get::<_, i64>(3)?.unsigned_abs(),
            owed: row.get(4)?,
            last_attempt: row.get(5)?,
        })
    }

    fn cursor(&self) -> Cursor {
        Cursor { removed: self.removed, accepted_at: self.accepted_at, row: self.row }
    }

    fn removal(&self, search: &Search) -> Option<Removal> {
        let what = match search {
            Search::Finished(_) => (!self.owed).then_some(What::Event),
            Search::Expired(_, cutoffs) => self.expired(cutoffs),
        }?;
        Some(Removal { row: self.row, what, bytes: self.bytes })
    }

    fn expired(&self, cutoffs: &Cutoffs) -> Option<What> {
        if self.owed {
            let cutoff = cutoffs.undelivered.map(rows::micros);
            return cutoff.is_some_and(|cutoff| self.accepted_at <= cutoff).then_some(What::Debt);
        }
        let ended = self.accepted_at.max(self.last_attempt.unwrap_or(self.accepted_at));
        let is_past = |cutoff| ended <= rows::micros(cutoff);
        if is_past(cutoffs.events) {
            return Some(What::Event);
        }
        let data = self.removed & NO_DATA == 0 && is_past(cutoffs.payloads);
        let attempts = self.removed & NO_ATTEMPTS == 0 && is_past(cutoffs.attempts);
        (data || attempts).then_some(What::Parts { data, attempts })
    }
}

/// The bytes of data that come and go in a transaction, by tenant, written in one go before it is committed.
#[derive(Debug, Default)]
pub(super) struct Usage {
    changed: HashMap<Arc<str>, i64>,
}

impl Usage {
    /// Counts data that was added.
    pub(super) fn more(&mut self, tenant: &Arc<str>, bytes: usize) {
        self.change(tenant, i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn change(&mut self, tenant: &Arc<str>, bytes: i64) {
        *self.changed.entry(Arc::clone(tenant)).or_default() += bytes;
    }

    pub(super) fn write(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for (tenant, bytes) in self.changed.drain().filter(|(_, bytes)| *bytes != 0) {
            connection
                .prepare_cached(
                    "INSERT INTO usage (tenant, bytes) VALUES (?1, max(0, ?2))
                     ON CONFLICT (tenant) DO UPDATE SET bytes = max(0, bytes + ?2)",
                )?
                .execute(params![tenant, bytes])?;
        }
        Ok(())
    }
}

pub(super) fn usage(connection: &Connection, tenant: &str) -> rusqlite::Result<u64> {
    let bytes: Option<i64> = connection
        .prepare_cached("SELECT bytes FROM usage WHERE tenant = ?1")?
        .query_row([tenant], |row| row.get(0))
        .optional()?;
    Ok(bytes.unwrap_or(0).unsigned_abs())
}

/// Removes what a search found. Gives the chains that may be orphaned to whoever remembers them.
pub(super) fn remove(
    connection: &Connection,
    usage: &mut Usage,
    removals: &[Removal],
) -> rusqlite::Result<(Removed, Vec<i64>)> {
    let mut removed = Removed::default();
    let mut chains = BTreeSet::new();
    for removal in removals {
        let row = removal.row;
        if removal.what == What::Debt {
            removed += owed::give_up(connection, row)?;
            continue;
        }
        if is_owed(connection, row)? {
            continue;
        }
        match removal.what {
            What::Event => {
                chains.append(&mut remove_deliveries(connection, row)?);
                removed.events += u64::from(remove_event(connection, usage, row)?);
            }
            What::Parts { data, attempts } => {
                strip(connection, usage, row, data, attempts)?;
                removed.stripped += 1;
            }
            What::Debt => {}
        }
    }
    if removed.events > 0 {
        purge::lower(connection)?;
    }
    failpoint::hit(Point::RemovalWritten);
    Ok((removed, orphans(connection, chains)?))
}

fn is_owed(connection: &Connection, event: i64) -> rusqlite::Result<bool> {
    let query = format!("SELECT EXISTS (SELECT 1 FROM deliveries WHERE event = ?1 AND {})", owed());
    connection.prepare_cached(&query)?.query_row([event], |row| row.get(0))
}

/// Removes the deliveries of an event with all that hangs on them; gives the chains that they named.
pub(super) fn remove_deliveries(
    connection: &Connection,
    event: i64,
) -> rusqlite::Result<BTreeSet<i64>> {
    for table in ["attempts", "requests", "kv_journal", "replays"] {
        connection
            .prepare_cached(&format!(
                "DELETE FROM {table} WHERE delivery IN (SELECT id FROM deliveries WHERE event = ?1)"
            ))?
            .execute([event])?;
    }
    let mut statement =
        connection.prepare_cached("DELETE FROM deliveries WHERE event = ?1 RETURNING chain")?;
    let chains = statement.query_map([event], |row| row.get::<_, Option<i64>>(0))?;
    chains.filter_map(Result::transpose).collect()
}

pub(super) fn remove_event(
    connection: &Connection,
    usage: &mut Usage,
    event: i64,
) -> rusqlite::Result<bool> {
    let gone = connection
        .prepare_cached("DELETE FROM events WHERE seq = ?1 RETURNING tenant, octet_length(data)")?
        .query_row([event], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))
        .optional()?;
    if let Some((tenant, bytes)) = &gone {
        usage.change(tenant, -bytes);
    }
    Ok(gone.is_some())
}

/// Removes parts of an event.
fn strip(
    connection: &Connection,
    usage: &mut Usage,
    event: i64,
    data: bool,
    attempts: bool,
) -> rusqlite::Result<()> {
    // What is dead has kept what it sent.
    for (table, is_to_go) in [("attempts", attempts), ("requests", data)] {
        if is_to_go {
            let of_event = "(SELECT id FROM deliveries WHERE event = ?1)";
            let query = format!("DELETE FROM {table} WHERE delivery IN {of_event}");
            connection.prepare_cached(&query)?.execute([event])?;
        }
    }
    if attempts {
        connection
            .prepare_cached("UPDATE events SET removed = removed | ?2 WHERE seq = ?1")?
            .execute([event, NO_ATTEMPTS])?;
    }
    if !data {
        return Ok(());
    }
    let before = connection
        .prepare_cached("SELECT tenant, octet_length(data) FROM events WHERE seq = ?1")?
        .query_row([event], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))
        .optional()?;
    if let Some((tenant, bytes)) = &before {
        usage.change(tenant, -bytes);
    }
    connection
        .prepare_cached("UPDATE events SET removed = removed | ?2, data = x'' WHERE seq = ?1")?
        .execute([event, NO_DATA])
        .map(drop)
}

/// Removes the chains that no delivery names any more; gives them.
pub(super) fn orphans(
    connection: &Connection,
    chains: BTreeSet<i64>,
) -> rusqlite::Result<Vec<i64>> {
    let mut orphans = Vec::new();
    for chain in chains {
        let gone = connection
            .prepare_cached(
                "DELETE FROM chains WHERE seq = ?1
                     AND NOT EXISTS (SELECT 1 FROM deliveries WHERE chain = ?1)",
            )?
            .execute([chain])?;
        if gone > 0 {
            orphans.push(chain);
        }
    }
    Ok(orphans)
}

/// Removes idempotency keys that were used before this time.
pub(super) fn forget_keys(
    connection: &Connection,
    before: Timestamp,
    limit: usize,
) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "DELETE FROM idempotency WHERE (tenant, key) IN
                 (SELECT tenant, key FROM idempotency WHERE accepted_at < ?1
                  ORDER BY accepted_at LIMIT ?2)",
        )?
        .execute(params![rows::micros(before), i64::try_from(limit).unwrap_or(i64::MAX)])
}

pub(super) fn size(connection: &Connection) -> rusqlite::Result<Size> {
    let page = pragma(connection, "page_size")?;
    let free = pragma(connection, "freelist_count")?;
    let used = pragma(connection, "page_count")?.saturating_sub(free);
    Ok(Size { used: used.saturating_mul(page), free: free.saturating_mul(page) })
}

/// Gives free pages back to the file system. Does nothing to databases of before this was possible, which are
/// not in the mode for it; they use their free pages again.
pub(super) fn shrink(connection: &Connection, bytes: u64) -> rusqlite::Result<u64> {
    let page = pragma(connection, "page_size")?.max(1);
    let before = pragma(connection, "freelist_count")?;
    let mut statement =
        connection.prepare(&format!("PRAGMA incremental_vacuum({})", bytes.div_ceil(page)))?;
    let mut steps = statement.query([])?;
    while steps.next()?.is_some() {}
    let after = pragma(connection, "freelist_count")?;
    Ok(before.saturating_sub(after).saturating_mul(page))
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let number: i64 = connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?;
    Ok(number.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::super::connect::MIGRATIONS;
    use super::*;

    #[test]
    fn the_oldest_are_found_by_an_index_in_order() {
        let connection = Connection::open_in_memory().unwrap();
        MIGRATIONS.iter().for_each(|migration| connection.execute_batch(migration).unwrap());
        let plan = |query: &str| -> Vec<String> {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
            let mut steps = statement.raw_query();
            let mut found = Vec::new();
            while let Some(step) = steps.next().unwrap() {
                found.push(step.get(3).unwrap());
            }
            found
        };
        let steps = plan(&of_tenant());
        assert!(
            steps.iter().any(|step| step.contains("INDEX events_by_age (tenant=? AND removed=?")),
            "{steps:?}"
        );
        assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{steps:?}");
        // What hangs on a row that goes is found by an index as well, also by the checks of foreign keys.
        let steps = plan("SELECT 1 FROM deliveries WHERE chain = 1");
        assert!(steps.iter().all(|step| step.contains("deliveries_of_chain")), "{steps:?}");
    }
}
