//! Deliveries about which something was decided while they were in hand: they were cancelled, or their webhook is
//! disabled.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::{Next, Recorded, Start, Update};
use super::write::{self, Found};
use super::{queue, webhooks};
use crate::delivery::{DeliveryId, WebhookId};

/// Records what came of a delivery that was cancelled in hand. That changes nothing any more, unless the receiver
/// took it; the next one of its queue is in hand then.
pub(super) fn record(
    connection: &Connection,
    update: &Update,
    chain: Option<i64>,
    found: &Found,
) -> rusqlite::Result<Recorded> {
    let id = update.delivery;
    // A split that is not made is no outcome yet.
    if matches!(update.next, Next::Split { .. }) {
        return Ok(Recorded { cancelled: true, ..Recorded::default() });
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
    let follower = match &found.queue {
        Some(key) => queue::hand_over(connection, &found.webhook, key, id)?,
        None => None,
    };
    Ok(Recorded { follower, cancelled: true, ..Recorded::default() })
}

/// Gives back a delivery that was cancelled in hand: what waits behind it follows, and is due.
pub(super) fn release(connection: &Connection, id: DeliveryId) -> rusqlite::Result<()> {
    let queue = connection
        .prepare_cached(
            "SELECT webhook, queue FROM deliveries WHERE id = ?1 AND queue IS NOT NULL",
        )?
        .query_row([id.as_bytes()], |row| Ok((WebhookId(row.get(0)?), row.get::<_, String>(1)?)))
        .optional()?;
    if let Some((webhook, key)) = queue {
        queue::follow(connection, &webhook, &key, id, &Start::Due)?;
    }
    Ok(())
}

/// Pauses a delivery in hand, or, if its webhook was enabled meanwhile, makes it due as before.
pub(super) fn pause(
    connection: &Connection,
    update: &Update,
    chain: Option<i64>,
    found: &Found,
) -> rusqlite::Result<()> {
    let id = update.delivery.as_bytes();
    let why = webhooks::reason(connection, &found.webhook)?;
    connection
        .prepare_cached(
            "UPDATE deliveries
             SET state = CASE WHEN ?2 IS NOT NULL THEN 'paused' WHEN ?3 THEN 'retrying' ELSE state END,
                 due_at = iif(?2 IS NULL, due_at, NULL), claimed = 0, reason = ?2,
                 attempts = attempts + ?3, chain = coalesce(?4, chain)
             WHERE id = ?1",
        )?
        .execute(params![id, why, update.attempt.is_some(), chain])
        .map(drop)
}
