//! Deliveries about which something was decided while they were in hand: they were cancelled, or their webhook is
//! disabled.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::{Next, Recorded, Start, Update};
use super::{queue, webhooks, write};
use crate::delivery::{DeliveryId, WebhookId};

pub(super) fn is_cancelled(
    connection: &Connection,
    delivery: DeliveryId,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM deliveries WHERE id = ?1 AND state = 'cancelled'")?
        .exists([delivery.as_bytes()])
}

/// Records what came of a delivery that was cancelled in hand. That changes nothing any more, unless the receiver
/// took it; the next one of its queue is in hand then.
pub(super) fn record(
    connection: &Connection,
    update: &Update,
    chain: Option<i64>,
) -> rusqlite::Result<Recorded> {
    let id = update.delivery;
    let (follower, cancelled) = (None, true);
    // A split that is not made is no outcome yet. What is finished may have been removed meanwhile.
    if matches!(update.next, Next::Split { .. }) || !is_cancelled(connection, id)? {
        return Ok(Recorded { follower, cancelled });
    }
    if matches!(update.next, Next::Delivered) {
        connection
            .prepare_cached(
                "UPDATE deliveries SET state = 'delivered', reason = NULL, attempts = attempts + 1,
                     chain = coalesce(?2, chain)
                 WHERE id = ?1",
            )?
            .execute(params![id.as_bytes(), chain])?;
        write::forget_request(connection, id)?;
    }
    if let Some(attempt) = &update.attempt {
        write::insert_attempt(connection, id, attempt)?;
    }
    let follower = match queue_of(connection, id)? {
        Some((webhook, key)) => queue::hand_over(connection, &webhook, &key, id)?,
        None => None,
    };
    Ok(Recorded { follower, cancelled })
}

/// Gives back a delivery that was cancelled in hand: what waits behind it follows, and is due.
pub(super) fn release(connection: &Connection, id: DeliveryId) -> rusqlite::Result<()> {
    if let Some((webhook, key)) = queue_of(connection, id)? {
        queue::follow(connection, &webhook, &key, id, &Start::Due)?;
    }
    Ok(())
}

fn queue_of(
    connection: &Connection,
    id: DeliveryId,
) -> rusqlite::Result<Option<(WebhookId, String)>> {
    connection
        .prepare_cached(
            "SELECT webhook, queue FROM deliveries WHERE id = ?1 AND queue IS NOT NULL",
        )?
        .query_row([id.as_bytes()], |row| Ok((WebhookId(row.get(0)?), row.get(1)?)))
        .optional()
}

/// Pauses a delivery in hand, or, if its webhook was enabled meanwhile, makes it due as before. False when it was
/// cancelled meanwhile.
pub(super) fn pause(
    connection: &Connection,
    update: &Update,
    chain: Option<i64>,
) -> rusqlite::Result<bool> {
    let id = update.delivery.as_bytes();
    let webhook = connection
        .prepare_cached("SELECT webhook FROM deliveries WHERE id = ?1 AND state <> 'cancelled'")?
        .query_row([id], |row| Ok(WebhookId(row.get(0)?)))
        .optional()?;
    let Some(webhook) = webhook else { return Ok(false) };
    let why = webhooks::reason(connection, &webhook)?;
    connection
        .prepare_cached(
            "UPDATE deliveries
             SET state = CASE WHEN ?2 IS NOT NULL THEN 'paused' WHEN ?3 THEN 'retrying' ELSE state END,
                 due_at = iif(?2 IS NULL, due_at, NULL), claimed = 0, reason = ?2,
                 attempts = attempts + ?3, chain = coalesce(?4, chain)
             WHERE id = ?1",
        )?
        .execute(params![id, why, update.attempt.is_some(), chain])?;
    Ok(true)
}
