//! Purges: what they find, on a reader, and how they remove it, on the writer, a little at a time.
//!
//! A purge goes through idempotency keys, then events, then the keys of plugins, and at last sees to it that the
//! files hold nothing of it any more. How far it has come is kept in the transactions that remove.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{
    MAX_OPEN_PURGES, NewPurge, Purge, PurgeBegun, PurgeId, Purged, StoreError, Target,
};
use super::erase::{self, Found};
use super::owed::Cancelled;
use super::retention::{self, Usage};
use super::writer::Command;
use super::{SqliteStore, kv, owed, rows};
use crate::failpoint::{self, Point};

/// Keys of plugins that are removed in one go.
const PLUGIN_KEYS: usize = 200;

/// Free bytes that are given back in one go.
const SHRINK_STEP: u64 = 1 << 20;

/// How long purges that are through can be asked for.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(90 * 24);

/// How long emptying the log waits for readers. Nothing is written meanwhile.
const PATIENCE: Duration = Duration::from_millis(100);

const COLUMNS: &str = "id, tenant, target, value, place, until, matched, done, created_at,
    started_at, ended_at";

/// How far a purge has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Place {
    /// Behind this idempotency key.
    Keys { after: String },
    /// Behind this event, among those of which as much is removed.
    Events { removed: i64, accepted_at: i64, row: i64 },
    /// At what plugins keep.
    PluginKeys,
    /// Everything is gone; so many free bytes may still hold it.
    Traces { bytes: u64 },
    /// Through.
    End,
}

impl Place {
    fn start() -> Self {
        Self::Keys { after: String::new() }
    }

    pub(super) fn first_event() -> Self {
        Self::Events { removed: 0, accepted_at: i64::MIN, row: i64::MIN }
    }
}

/// A purge as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) purge: Purge,
    pub(super) value: Value,
    pub(super) place: Place,
    pub(super) until: i64,
}

impl Stored {
    fn of_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let value: Option<String> = row.get(3)?;
        let time = |column: usize| -> rusqlite::Result<Option<Timestamp>> {
            Ok(row.get::<_, Option<i64>>(column)?.map(rows::timestamp))
        };
        Ok(Self {
            purge: Purge {
                id: PurgeId::from_bytes(row.get(0)?),
                tenant: row.get(1)?,
                target: rows::from_json(row.get_ref(2)?.as_str()?)?,
                matched: row.get::<_, i64>(6)?.unsigned_abs(),
                done: row.get::<_, i64>(7)?.unsigned_abs(),
                created_at: rows::timestamp(row.get(8)?),
                started_at: time(9)?,
                ended_at: time(10)?,
            },
            value: value.map_or(Ok(Value::Null), |text| rows::from_json(&text))?,
            place: rows::from_json(row.get_ref(4)?.as_str()?)?,
            until: row.get(5)?,
        })
    }
}

/// A purge, whosever it is.
pub(super) fn get(connection: &Connection, id: PurgeId) -> rusqlite::Result<Option<Stored>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM purges WHERE id = ?1"))?
        .query_row([id.as_bytes()], Stored::of_row)
        .optional()
}

/// The ids of those that are not through, in the order in which they were asked for.
pub(super) fn open(connection: &Connection) -> rusqlite::Result<Vec<PurgeId>> {
    connection
        .prepare_cached("SELECT id FROM purges WHERE ended_at IS NULL ORDER BY id")?
        .query_map([], |row| row.get(0).map(PurgeId::from_bytes))?
        .collect()
}

/// Keeps a new purge. The same one, if it is open, goes over everything again when there is more by now.
pub(super) fn begin(connection: &Connection, new: &NewPurge) -> rusqlite::Result<PurgeBegun> {
    let forgotten = new.created_at.checked_sub(REMEMBERED).unwrap_or(Timestamp::MIN);
    connection
        .prepare_cached("DELETE FROM purges WHERE ended_at < ?1")?
        .execute([rows::micros(forgotten)])?;
    let target = rows::to_json(&new.target)?;
    let value = rows::to_json(&new.value)?;
    let place = rows::to_json(&Place::start())?;
    let until = last_event(connection)?;
    let same = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM purges
             WHERE tenant = ?1 AND ended_at IS NULL AND target = ?2 AND value = ?3"
        ))?
        .query_row(params![new.tenant, target, value], Stored::of_row)
        .optional()?;
    if let Some(same) = same {
        if same.until < until {
            connection
                .prepare_cached("UPDATE purges SET place = ?2, until = ?3 WHERE id = ?1")?
                .execute(params![same.purge.id.as_bytes(), place, until])?;
        }
        return Ok(PurgeBegun::Open(same.purge));
    }
    let open: i64 = connection
        .prepare_cached("SELECT count(*) FROM purges WHERE tenant = ?1 AND ended_at IS NULL")?
        .query_row([&new.tenant], |row| row.get(0))?;
    if usize::try_from(open).is_ok_and(|open| open >= MAX_OPEN_PURGES) {
        return Ok(PurgeBegun::TooMany);
    }
    connection
        .prepare_cached(
            "INSERT INTO purges
                 (id, tenant, target, value, place, until, matched, done, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0, ?7)",
        )?
        .execute(params![
            new.id.as_bytes(),
            new.tenant,
            target,
            value,
            place,
            until,
            rows::micros(new.created_at),
        ])?;
    let NewPurge { id, tenant, target, created_at, .. } = new.clone();
    let (matched, done, started_at, ended_at) = (0, 0, None, None);
    let purge = Purge { id, tenant, target, matched, done, created_at, started_at, ended_at };
    Ok(PurgeBegun::New(purge))
}

fn last_event(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT coalesce(max(seq), 0) FROM events")?
        .query_row([], |row| row.get(0))
}

/// Events went. Should they have been the last ones, new events get their rows, and are none of a purge's concern.
pub(super) fn lower(connection: &Connection) -> rusqlite::Result<()> {
    let last = last_event(connection)?;
    connection
        .prepare_cached("UPDATE purges SET until = ?1 WHERE ended_at IS NULL AND until > ?1")?
        .execute([last])
        .map(drop)
}

/// A step to do, as a reader found it.
pub(super) struct Step {
    id: PurgeId,
    now: i64,
    /// Where the purge stood. It may have gone on if an answer was lost.
    from: Place,
    to: Place,
    found: Found,
}

impl Step {
    fn new(stored: &Stored, now: Timestamp, to: Place, found: Found) -> Self {
        let from = stored.place.clone();
        Self { id: stored.purge.id, now: rows::micros(now), from, to, found }
    }

    /// The next step of a purge.
    fn look(connection: &Connection, stored: &Stored, now: Timestamp) -> rusqlite::Result<Self> {
        let (to, found) = match &stored.place {
            Place::Keys { after } => erase::keys(connection, stored, after)?,
            &Place::Events { removed, accepted_at, row } => {
                erase::events(connection, stored, (removed, accepted_at, row))?
            }
            // What is left when it is done is known then.
            Place::PluginKeys => (Place::PluginKeys, Found::default()),
            Place::Traces { .. } | Place::End => (Place::End, Found::default()),
        };
        Ok(Self::new(stored, now, to, found))
    }
}

/// What a step did, and the chains that it left orphaned.
pub(super) type Stepped = (Purged, Vec<i64>);

/// Does a step.
pub(super) fn step(
    connection: &Connection,
    usage: &mut Usage,
    step: &Step,
) -> rusqlite::Result<Stepped> {
    let Some(stored) = get(connection, step.id)? else {
        return Err(rusqlite::Error::QueryReturnedNoRows);
    };
    let mut gone = Gone::default();
    if stored.place != step.from {
        return Ok((gone.purged(stored.purge), Vec::new()));
    }
    // What goes is overwritten. At other times that is left to pages that are written anyway.
    connection.pragma_update(None, "secure_delete", "ON")?;
    let stepped = apply(connection, usage, &stored, step, &mut gone);
    connection.pragma_update(None, "secure_delete", "FAST")?;
    let to = stepped?;
    let orphans = retention::orphans(connection, std::mem::take(&mut gone.chains))?;
    lower(connection)?;
    let through = matches!(to, Place::Traces { .. } | Place::End);
    connection
        .prepare_cached(
            "UPDATE purges SET place = :place, value = iif(:through, NULL, value),
                 matched = matched + :matched, done = done + :done,
                 started_at = coalesce(started_at, :now), ended_at = iif(:end, :now, NULL)
             WHERE id = :id",
        )?
        .execute(named_params! {
            ":id": step.id.as_bytes(),
            ":place": rows::to_json(&to)?,
            ":through": through,
            ":matched": i64::try_from(step.found.events.len()).unwrap_or(i64::MAX),
            ":done": gone.events,
            ":now": step.now,
            ":end": to == Place::End,
        })?;
    failpoint::hit(Point::PurgeWritten);
    let stored = get(connection, step.id)?.unwrap_or(stored);
    Ok((gone.purged(stored.purge), orphans))
}

/// What is gone.
#[derive(Default)]
struct Gone {
    events: i64,
    chains: BTreeSet<i64>,
    owed: Cancelled,
}

impl Gone {
    fn purged(self, purge: Purge) -> Purged {
        let Cancelled { in_hand, given_up, moved } = self.owed;
        Purged { purge, in_hand, given_up, moved: moved.into_iter().collect(), waits: false }
    }
}

/// Removes what was found; gives where the purge stands then.
fn apply(
    connection: &Connection,
    usage: &mut Usage,
    stored: &Stored,
    step: &Step,
    gone: &mut Gone,
) -> rusqlite::Result<Place> {
    let tenant = &stored.purge.tenant;
    for (key, accepted_at) in &step.found.keys {
        connection
            .prepare_cached(
                "DELETE FROM idempotency WHERE tenant = ?1 AND key = ?2 AND accepted_at = ?3",
            )?
            .execute(params![tenant, key, accepted_at])?;
    }
    for (row, id) in &step.found.events {
        let is_same = connection
            .prepare_cached("SELECT 1 FROM events WHERE seq = ?1 AND tenant = ?2 AND id = ?3")?
            .exists(params![row, tenant, id])?;
        if is_same && *row <= stored.until {
            let whole_tenant = stored.purge.target == Target::Tenant;
            owed::cancel(connection, *row, whole_tenant, &mut gone.owed)?;
            // A producer's id may tell of a person.
            connection
                .prepare_cached("DELETE FROM jobs WHERE tenant = ?1 AND event = ?2")?
                .execute(params![tenant, id])?;
            gone.chains.append(&mut retention::remove_deliveries(connection, *row)?);
            gone.events += i64::from(retention::remove_event(connection, usage, *row)?);
        }
    }
    if stored.place != Place::PluginKeys {
        return Ok(step.to.clone());
    }
    if stored.purge.target == Target::Tenant {
        if kv::remove_some(connection, tenant, PLUGIN_KEYS)? == PLUGIN_KEYS {
            return Ok(Place::PluginKeys);
        }
        connection
            .prepare_cached("DELETE FROM jobs WHERE tenant = ?1 AND created_at <= ?2")?
            .execute(params![tenant, rows::micros(stored.purge.created_at)])?;
        connection
            .prepare_cached("DELETE FROM usage WHERE tenant = ?1 AND bytes = 0")?
            .execute([tenant])?;
    }
    Ok(Place::Traces { bytes: retention::size(connection)?.free })
}

/// Takes a purge one step further.
pub(super) async fn advance(
    store: &SqliteStore,
    id: PurgeId,
    now: Timestamp,
) -> Result<Purged, StoreError> {
    let (stored, mut step) = store
        .read(move |connection| {
            let stored = get(connection, id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            let step = Step::look(connection, &stored, now)?;
            Ok((stored, step))
        })
        .await?;
    if let Place::Traces { bytes } = stored.place {
        let more = bytes.min(SHRINK_STEP);
        if more > 0 {
            let given = store.writer.ask(|reply| Command::Shrink(more, reply)).await?;
            // Databases of before this was possible keep their free pages.
            let left = if given == 0 { 0 } else { bytes.saturating_sub(given) };
            step.to = Place::Traces { bytes: left };
        } else if !empty_log(store.path.clone()).await? {
            return Ok(Purged { waits: true, ..Gone::default().purged(stored.purge) });
        }
    }
    store.writer.ask(|reply| Command::StepPurge(step, reply)).await
}

/// Empties the write-ahead log. False when a reader is in the way.
async fn empty_log(path: PathBuf) -> Result<bool, StoreError> {
    let emptying = move || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(PATIENCE)?;
        let busy: bool =
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        Ok(!busy)
    };
    tokio::task::spawn_blocking(emptying).await.map_err(StoreError::new)?
}

#[cfg(test)]
mod tests;
