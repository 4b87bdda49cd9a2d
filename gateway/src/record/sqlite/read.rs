//! Queries that the readers answer.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::{DeliveryRecord, EventRecord};
use super::{hold, rows};
use crate::delivery::{Attempt, DeliveryId, WebhookId};
use crate::event::EventId;

/// An event of a tenant, with its deliveries and their attempts.
pub(super) fn event(
    connection: &Connection,
    tenant: &str,
    id: &EventId,
) -> rusqlite::Result<Option<EventRecord>> {
    // One transaction: the deliveries and attempts are those of the same moment.
    let snapshot = connection.unchecked_transaction()?;
    let seq = snapshot
        .prepare_cached("SELECT seq FROM events WHERE tenant = ?1 AND id = ?2")?
        .query_row(params![tenant, id.as_str()], |row| row.get::<_, i64>(0))
        .optional()?;
    let Some(seq) = seq else { return Ok(None) };
    let event = rows::event(&snapshot, seq)?;
    let mut deliveries = snapshot
        .prepare_cached(
            "SELECT id, deliveries.webhook, part, state, reason, due_at, coalesce(plugins, ''),
                 cause, setup, failure, message, since, replay_of
             FROM deliveries LEFT JOIN chains ON chains.seq = deliveries.chain
                 LEFT JOIN replays ON replays.delivery = deliveries.id
                 LEFT JOIN holds ON state = 'held' AND holds.webhook = deliveries.webhook
             WHERE event = ?1 ORDER BY deliveries.webhook, part, deliveries.id",
        )?
        .query_map([seq], |row| {
            // One reason stands for all that a webhook has held.
            let reason = match row.get_ref(7)?.as_str_or_null()? {
                Some(_) => Some(hold::of_row(row, 7)?.to_string()),
                None => row.get(4)?,
            };
            Ok(DeliveryRecord {
                id: DeliveryId::from_bytes(row.get(0)?),
                webhook: WebhookId(row.get(1)?),
                part: row.get(2)?,
                state: rows::state(row, 3)?,
                reason,
                due_at: row.get::<_, Option<i64>>(5)?.map(rows::timestamp),
                replay_of: row.get::<_, Option<_>>(12)?.map(DeliveryId::from_bytes),
                chain: row.get(6)?,
                attempts: Vec::new(),
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for delivery in &mut deliveries {
        delivery.attempts = attempts(&snapshot, delivery.id)?;
    }
    Ok(Some(EventRecord { event, deliveries }))
}

fn attempts(connection: &Connection, delivery: DeliveryId) -> rusqlite::Result<Vec<Attempt>> {
    connection
        .prepare_cached(
            "SELECT started_at, duration_us, status, failure, message, excerpt
             FROM attempts WHERE delivery = ?1 ORDER BY number",
        )?
        .query_map([delivery.as_bytes()], rows::attempt)?
        .collect()
}
