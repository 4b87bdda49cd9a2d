//! The keys and values of plugins, and the journal that lets a repeated run change nothing twice.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::{Next, Update};
use super::rows;
use crate::delivery::DeliveryId;
use crate::kv::{Answer, Decision, Held, Kept, Operation, Outcome, Request, Scope};

/// Expired keys that a scope at its quota gets rid of at once.
const SWEPT_FOR_ROOM: usize = 100;

/// The deliveries that have a journal, so that recording the others costs nothing. One too many does no harm.
#[derive(Debug, Default)]
pub(super) struct Journals {
    deliveries: HashSet<DeliveryId>,
    /// Deliveries that were purged while they were in hand: what their runs still do is not kept.
    purged: HashSet<DeliveryId>,
}

impl Journals {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let deliveries = connection
            .prepare("SELECT DISTINCT delivery FROM kv_journal")?
            .query_map([], |row| Ok(DeliveryId::from_bytes(row.get(0)?)))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self { deliveries, purged: HashSet::new() })
    }

    /// Loads them again, but for what no table tells.
    pub(super) fn reload(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.deliveries = Self::load(connection)?.deliveries;
        Ok(())
    }

    /// These were in hand and are gone.
    pub(super) fn purge(&mut self, deliveries: &[DeliveryId]) {
        self.purged.extend(deliveries);
    }

    /// These are in hand no more.
    pub(super) fn ended(&mut self, deliveries: &[DeliveryId]) {
        self.purged.retain(|delivery| !deliveries.contains(delivery));
    }

    /// Whether a delivery is gone that was in hand.
    fn is_purged(&self, connection: &Connection, delivery: DeliveryId) -> rusqlite::Result<bool> {
        // What it was noted in may have been rolled back.
        Ok(self.purged.contains(&delivery)
            && !connection
                .prepare_cached("SELECT 1 FROM deliveries WHERE id = ?1")?
                .exists([delivery.as_bytes()])?)
    }

    /// Forgets what a run's operations answered once the run has an outcome, which is never made again.
    pub(super) fn settle(
        &mut self,
        connection: &Connection,
        update: &Update,
    ) -> rusqlite::Result<()> {
        let has_outcome = match &update.next {
            Next::Delivered | Next::Dropped(_) | Next::Dead | Next::Blocks | Next::Split { .. } => {
                true
            }
            Next::Retry { request, .. } | Next::Paused(request) => request.is_some(),
            // Only what has no request yet is held.
            Next::Held(_) => false,
        };
        if has_outcome && self.deliveries.remove(&update.delivery) {
            connection
                .prepare_cached("DELETE FROM kv_journal WHERE delivery = ?1")?
                .execute([update.delivery.as_bytes()])?;
        }
        Ok(())
    }
}

/// Answers an operation that changes nothing.
pub(super) fn read(connection: &Connection, request: &Request) -> rusqlite::Result<Outcome> {
    // One transaction: the journal and the value are those of the same moment.
    let snapshot = connection.unchecked_transaction()?;
    if let Some(outcome) = remembered(&snapshot, request)? {
        return Ok(outcome);
    }
    let value = match scope(&snapshot, &request.scope)? {
        Some(room) => stored(&snapshot, room.scope, request)?,
        None => None,
    };
    let value = value.as_ref().and_then(Stored::live).map(|kept| kept.value.clone());
    Ok(Ok(Answer::Value(value)))
}

/// Does an operation, unless it was done in an earlier run of the same delivery.
pub(super) fn change(
    connection: &Connection,
    journals: &mut Journals,
    request: &Request,
) -> rusqlite::Result<Outcome> {
    if journals.is_purged(connection, request.run.delivery)? {
        return pretend(connection, request);
    }
    journals.deliveries.insert(request.run.delivery);
    for read in &request.observed {
        let outcome = Ok(Answer::Value(read.value.clone()));
        remember(connection, request, &Operation::Get, (&read.key, read.occurrence), &outcome)?;
    }
    if let Some(outcome) = remembered(connection, request)? {
        return Ok(outcome);
    }
    let outcome = apply(connection, request)?;
    let which = (request.key.as_str(), request.occurrence);
    remember(connection, request, &request.operation, which, &outcome)?;
    Ok(outcome)
}

/// Answers as if an operation were done. It is no fault of the plugin that its event is purged.
fn pretend(connection: &Connection, request: &Request) -> rusqlite::Result<Outcome> {
    let stored = match scope(connection, &request.scope)? {
        Some(room) => stored(connection, room.scope, request)?,
        None => None,
    };
    let live = stored.as_ref().and_then(Stored::live);
    Ok(match request.operation.decide(live, request.now) {
        Decision::Leave(outcome) => outcome,
        Decision::Remove(answer) | Decision::Put(_, answer) => Ok(answer),
    })
}

/// Removes keys that have expired, up to a limit, and says how many there were.
pub(super) fn sweep(
    connection: &Connection,
    now: Timestamp,
    limit: usize,
) -> rusqlite::Result<usize> {
    let now = rows::micros(now);
    let scopes: Vec<i64> = connection
        .prepare_cached(
            "SELECT seq FROM kv_scopes WHERE EXISTS
                 (SELECT 1 FROM kv WHERE scope = seq AND expires_at <= ?1)",
        )?
        .query_map([now], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut swept = 0;
    for scope in scopes {
        if swept >= limit {
            break;
        }
        swept += sweep_scope(connection, scope, now, limit - swept)?;
    }
    Ok(swept)
}

fn sweep_scope(
    connection: &Connection,
    scope: i64,
    now: i64,
    limit: usize,
) -> rusqlite::Result<usize> {
    let expired = "SELECT key FROM kv WHERE scope = ?1 AND expires_at <= ?2 LIMIT ?3";
    remove_keys(connection, scope, expired, now, limit)
}

/// Removes the keys of a scope that a query with its row, a time and a limit gives.
fn remove_keys(
    connection: &Connection,
    scope: i64,
    which: &str,
    now: i64,
    limit: usize,
) -> rusqlite::Result<usize> {
    let sizes: Vec<i64> = connection
        .prepare_cached(&format!(
            "DELETE FROM kv WHERE scope = ?1 AND key IN ({which})
             RETURNING octet_length(key) + octet_length(value)"
        ))?
        .query_map(params![scope, now, to_i64(limit)], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let more = Held { keys: -to_i64(sizes.len()), bytes: -sizes.iter().sum::<i64>() };
    count_in(connection, scope, more)?;
    Ok(sizes.len())
}

/// Removes keys of a tenant's plugins, up to a limit, and says how many there were. With the last key go the counts.
pub(super) fn remove_some(
    connection: &Connection,
    tenant: &str,
    limit: usize,
) -> rusqlite::Result<usize> {
    let scopes: Vec<i64> = connection
        .prepare_cached("SELECT seq FROM kv_scopes WHERE tenant = ?1")?
        .query_map([tenant], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut removed = 0;
    for scope in scopes {
        let any = "SELECT key FROM kv WHERE scope = ?1 AND ?2 >= 0 LIMIT ?3";
        removed += remove_keys(connection, scope, any, 0, limit - removed)?;
        if removed >= limit {
            return Ok(removed);
        }
        connection.prepare_cached("DELETE FROM kv_scopes WHERE seq = ?1")?.execute([scope])?;
    }
    Ok(removed)
}

/// What random numbers grow from, made when it is first asked for.
pub(super) fn seed(connection: &Connection, fresh: [u8; 32]) -> rusqlite::Result<[u8; 32]> {
    connection
        .execute("INSERT OR IGNORE INTO seeds (name, bytes) VALUES ('random', ?1)", [fresh])?;
    connection.query_row("SELECT bytes FROM seeds WHERE name = 'random'", [], |row| row.get(0))
}

fn remembered(connection: &Connection, request: &Request) -> rusqlite::Result<Option<Outcome>> {
    let run = &request.run;
    let outcome: Option<String> = connection
        .prepare_cached(
            "SELECT outcome FROM kv_journal
             WHERE delivery = ?1 AND step = ?2 AND part = ?3 AND plugin = ?4 AND operation = ?5
                 AND key = ?6 AND occurrence = ?7",
        )?
        .query_row(
            params![
                run.delivery.as_bytes(),
                run.step,
                run.part,
                request.scope.plugin,
                request.operation.name(),
                request.key,
                request.occurrence,
            ],
            |row| row.get(0),
        )
        .optional()?;
    outcome.map(|text| rows::from_json(&text)).transpose()
}

fn remember(
    connection: &Connection,
    request: &Request,
    operation: &Operation,
    (key, occurrence): (&str, u32),
    outcome: &Outcome,
) -> rusqlite::Result<()> {
    let run = &request.run;
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO kv_journal
                 (delivery, step, part, plugin, operation, key, occurrence, outcome)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            run.delivery.as_bytes(),
            run.step,
            run.part,
            request.scope.plugin,
            operation.name(),
            key,
            occurrence,
            rows::to_json(outcome)?,
        ])
        .map(drop)
}

/// A key as it is in the table.
struct Stored {
    kept: Kept,
    expired: bool,
}

impl Stored {
    /// What is kept, unless it is only there because it was not swept yet.
    fn live(&self) -> Option<&Kept> {
        (!self.expired).then_some(&self.kept)
    }
}

fn stored(
    connection: &Connection,
    scope: i64,
    request: &Request,
) -> rusqlite::Result<Option<Stored>> {
    let now = rows::micros(request.now);
    connection
        .prepare_cached("SELECT value, expires_at FROM kv WHERE scope = ?1 AND key = ?2")?
        .query_row(params![scope, request.key], |row| {
            let expires_at: Option<i64> = row.get(1)?;
            let expired = expires_at.is_some_and(|at| at <= now);
            let expires_at = expires_at.map(rows::timestamp);
            Ok(Stored { kept: Kept { value: row.get(0)?, expires_at }, expired })
        })
        .optional()
}

fn apply(connection: &Connection, request: &Request) -> rusqlite::Result<Outcome> {
    let room = match scope(connection, &request.scope)? {
        Some(room) => room,
        None => new_scope(connection, &request.scope)?,
    };
    let before = stored(connection, room.scope, request)?;
    let live = before.as_ref().and_then(Stored::live);
    match request.operation.decide(live, request.now) {
        Decision::Leave(outcome) => Ok(outcome),
        Decision::Remove(answer) => {
            if let Some(stored) = &before {
                remove(connection, &room, &request.key, stored)?;
            }
            Ok(Ok(answer))
        }
        Decision::Put(kept, answer) => {
            let size = |value: &str| to_i64(request.key.len().saturating_add(value.len()));
            let more = Held {
                keys: i64::from(before.is_none()),
                bytes: size(&kept.value)
                    - before.as_ref().map_or(0, |stored| size(&stored.kept.value)),
            };
            if let Err(refusal) = request.quota.admit(room.held, more) {
                let now = rows::micros(request.now);
                // The key's own row may be among those that are swept, so all is looked at again.
                return match sweep_scope(connection, room.scope, now, SWEPT_FOR_ROOM)? {
                    0 => Ok(Err(refusal)),
                    _ => apply(connection, request),
                };
            }
            count_in(connection, room.scope, more)?;
            let expires_at = kept.expires_at.map(rows::micros);
            connection
                .prepare_cached(
                    "INSERT INTO kv (scope, key, value, expires_at) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (scope, key) DO UPDATE SET value = ?3, expires_at = ?4",
                )?
                .execute(params![room.scope, request.key, kept.value, expires_at])?;
            Ok(Ok(answer))
        }
    }
}

/// A scope's row: how much it holds.
struct Room {
    scope: i64,
    held: Held,
}

fn scope(connection: &Connection, scope: &Scope) -> rusqlite::Result<Option<Room>> {
    connection
        .prepare_cached("SELECT seq, keys, bytes FROM kv_scopes WHERE tenant = ?1 AND plugin = ?2")?
        .query_row(params![scope.tenant, scope.plugin], |row| {
            Ok(Room { scope: row.get(0)?, held: Held { keys: row.get(1)?, bytes: row.get(2)? } })
        })
        .optional()
}

fn new_scope(connection: &Connection, scope: &Scope) -> rusqlite::Result<Room> {
    let scope = connection
        .prepare_cached(
            "INSERT INTO kv_scopes (tenant, plugin, keys, bytes) VALUES (?1, ?2, 0, 0)",
        )?
        .insert(params![scope.tenant, scope.plugin])?;
    Ok(Room { scope, held: Held::default() })
}

fn count_in(connection: &Connection, scope: i64, more: Held) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE kv_scopes SET keys = keys + ?2, bytes = bytes + ?3 WHERE seq = ?1")?
        .execute([scope, more.keys, more.bytes])
        .map(drop)
}

fn remove(
    connection: &Connection,
    room: &Room,
    key: &str,
    stored: &Stored,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM kv WHERE scope = ?1 AND key = ?2")?
        .execute(params![room.scope, key])?;
    let bytes = -to_i64(key.len().saturating_add(stored.kept.value.len()));
    count_in(connection, room.scope, Held { keys: -1, bytes })
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
