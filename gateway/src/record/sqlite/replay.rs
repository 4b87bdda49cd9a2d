//! Replays: deliveries that repeat others.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::super::{Action, Job, NewDelivery, Start};
use super::retention::NO_ATTEMPTS;
use super::rows;
use super::walk::Found;
use super::write::insert_delivery;
use crate::delivery::DeliveryId;

/// Makes a delivery that repeats this one.
pub(super) fn make(
    connection: &Connection,
    job: &Job,
    found: &Found,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let id = DeliveryId::generate();
    // A split was made of the event already: the others are deliveries of their own.
    let only_part = connection
        .prepare_cached("SELECT 1 FROM deliveries WHERE event = ?1 AND webhook = ?2 AND part > 1")?
        .exists(params![found.event, found.webhook.0])?;
    connection
        .prepare_cached(
            "INSERT INTO replays (delivery, replay_of, job, only_part) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![id.as_bytes(), found.id, job.id.as_bytes(), only_part])?;
    let (start, place) = match &found.queue {
        Some(key) => (Start::Queued(key.as_str().into()), Some(last_place(connection)?)),
        None => (Start::Due, None),
    };
    let delivery = NewDelivery { id, webhook: found.webhook.clone(), start };
    let (event, due_at) = (found.event, rows::micros(now));
    insert_delivery(connection, event, &delivery, found.part, due_at, None, place)?;
    // There will be attempts to remove again.
    connection
        .prepare_cached(
            "UPDATE events SET removed = removed & ~?2 WHERE seq = ?1 AND removed & ?2 <> 0",
        )?
        .execute([event, NO_ATTEMPTS])?;
    if job.action == Action::ReplaySameBytes {
        connection
            .prepare_cached(
                "UPDATE deliveries SET chain = (SELECT chain FROM deliveries WHERE id = ?2)
                 WHERE id = ?1",
            )?
            .execute(params![id.as_bytes(), found.id])?;
        connection
            .prepare_cached(
                "INSERT INTO requests (delivery, method, path_suffix, query, content_type, headers,
                     removed_headers, body)
                 SELECT ?1, method, path_suffix, query, content_type, headers, removed_headers, body
                 FROM requests WHERE delivery = ?2",
            )?
            .execute(params![id.as_bytes(), found.id])?;
    }
    Ok(())
}

/// The place behind all that was accepted so far.
fn last_place(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT 2 * max(seq) + 1 FROM events")?
        .query_row([], |row| row.get(0))
}

/// Whether the request of a delivery is still stored.
pub(super) fn has_request(connection: &Connection, found: &Found) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM requests WHERE delivery = ?1")?.exists([found.id])
}
