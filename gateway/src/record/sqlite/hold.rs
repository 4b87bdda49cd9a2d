//! What the writer does to held deliveries inside a transaction, and what keeps count of them.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::super::{Held, Hold, Taken, Which};
use super::rows;
use crate::delivery::{DeliveryId, WebhookId};

/// Counts a delivery that is held from now on. `latest` says that the hold tells of a newer failure than
/// the one that is on record.
pub(super) fn add(
    connection: &Connection,
    webhook: &WebhookId,
    hold: &Hold,
    latest: bool,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO holds (webhook, cause, setup, failure, message, since, releasing, held)
             VALUES (:webhook, :cause, :setup, :failure, :message, :since, 0, 1)
             ON CONFLICT (webhook) DO UPDATE SET
                 held = held + 1,
                 cause = iif(:latest, excluded.cause, cause),
                 setup = iif(:latest, excluded.setup, setup),
                 failure = iif(:latest, excluded.failure, failure),
                 message = iif(:latest, excluded.message, message),
                 since = iif(:latest, excluded.since, since),
                 releasing = iif(:latest, 0, releasing)",
        )?
        .execute(named_params! {
            ":webhook": webhook.0,
            ":cause": hold.cause,
            ":setup": hold.setup.as_bytes(),
            ":failure": hold.failure.kind.as_str(),
            ":message": hold.failure.message,
            ":since": rows::micros(hold.since),
            ":latest": latest,
        })
        .map(drop)
}

pub(super) fn take(
    connection: &Connection,
    webhook: &WebhookId,
    which: Which,
) -> rusqlite::Result<Taken> {
    let ids = match which {
        Which::Trial(after) => trial(connection, webhook, after)?.into_iter().collect(),
        Which::Release(limit) => first(connection, webhook, limit)?,
    };
    let mut deliveries = Vec::with_capacity(ids.len());
    for id in &ids {
        // Due since its event was accepted: should the process end now, it is in its place again.
        connection
            .prepare_cached(
                "UPDATE deliveries SET claimed = 1,
                     state = iif(EXISTS (SELECT 1 FROM attempts WHERE delivery = id),
                                 'retrying', 'pending'),
                     due_at = (SELECT accepted_at FROM events WHERE seq = event)
                 WHERE id = ?1",
            )?
            .execute([id])?;
        let (event, delivery) = rows::delivery(connection, id)?;
        deliveries.push((Arc::new(rows::event(connection, event)?), delivery));
    }
    let releasing = matches!(which, Which::Release(_));
    let taken = i64::try_from(ids.len()).unwrap_or(i64::MAX);
    let left = connection
        .prepare_cached(
            "UPDATE holds SET held = max(0, held - ?2), releasing = max(releasing, ?3)
             WHERE webhook = ?1 RETURNING held",
        )?
        .query_row(params![webhook.0, taken, releasing], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(Taken { deliveries, left: left.unwrap_or(0).unsigned_abs() })
}

fn first(
    connection: &Connection,
    webhook: &WebhookId,
    limit: usize,
) -> rusqlite::Result<Vec<[u8; 16]>> {
    connection
        .prepare_cached(
            "SELECT id FROM deliveries WHERE state = 'held' AND webhook = ?1
             ORDER BY event LIMIT ?2",
        )?
        .query_map(params![webhook.0, i64::try_from(limit).unwrap_or(i64::MAX)], |row| row.get(0))?
        .collect()
}

fn trial(
    connection: &Connection,
    webhook: &WebhookId,
    after: Option<DeliveryId>,
) -> rusqlite::Result<Option<[u8; 16]>> {
    if let Some(after) = after {
        let next = connection
            .prepare_cached(
                "SELECT id FROM deliveries WHERE state = 'held' AND webhook = ?1
                     AND event > (SELECT event FROM deliveries WHERE id = ?2)
                 ORDER BY event LIMIT 1",
            )?
            .query_row(params![webhook.0, after.as_bytes()], |row| row.get(0))
            .optional()?;
        if next.is_some() {
            return Ok(next);
        }
    }
    Ok(first(connection, webhook, 1)?.pop())
}

/// A held delivery was put an end to.
pub(super) fn one_less(connection: &Connection, webhook: &WebhookId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE holds SET held = max(0, held - 1) WHERE webhook = ?1")?
        .execute([&webhook.0])
        .map(drop)
}

pub(super) fn lift(connection: &Connection, webhook: &WebhookId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM holds WHERE webhook = ?1 AND held = 0")?
        .execute([&webhook.0])
        .map(drop)
}

/// Holds again what an earlier process had in hand for webhooks whose deliveries are held: it keeps its
/// place before those that were accepted later. What has a request needs no plugin, and is due.
pub(super) fn recover(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute("DELETE FROM holds WHERE held = 0", [])?;
    transaction.execute(
        "UPDATE holds SET held = held + number
         FROM (SELECT webhook AS of, count(*) AS number FROM deliveries
               WHERE claimed = 1 AND due_at IS NOT NULL
                   AND NOT EXISTS (SELECT 1 FROM requests WHERE delivery = id)
               GROUP BY webhook)
         WHERE of = webhook",
        [],
    )?;
    transaction.execute(
        "UPDATE deliveries SET state = 'held', due_at = NULL, claimed = 0
         WHERE claimed = 1 AND due_at IS NOT NULL AND webhook IN (SELECT webhook FROM holds)
             AND NOT EXISTS (SELECT 1 FROM requests WHERE delivery = id)",
        [],
    )?;
    transaction.commit()
}

pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<Held>> {
    connection
        .prepare_cached(
            "SELECT cause, setup, failure, message, since, webhook, releasing, held
             FROM holds WHERE held > 0",
        )?
        .query_map([], |row| {
            Ok(Held {
                hold: of_row(row, 0)?,
                webhook: WebhookId(row.get(5)?),
                releasing: row.get(6)?,
                deliveries: row.get::<_, i64>(7)?.unsigned_abs(),
            })
        })?
        .collect()
}

/// A hold from `cause, setup, failure, message, since`, from this column on.
pub(super) fn of_row(row: &Row<'_>, column: usize) -> rusqlite::Result<Hold> {
    Ok(Hold {
        cause: row.get(column)?,
        setup: crate::digest::Digest::from_bytes(row.get(column + 1)?),
        failure: rows::failure(row, column + 2)?,
        since: rows::timestamp(row.get(column + 4)?),
    })
}
