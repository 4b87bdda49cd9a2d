//! Queries that the readers answer.

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::oneshot;

use super::super::{DeliveryRecord, EventRecord};
use super::{hold, queue, rows};
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
                 cause, setup, failure, message, since, queue, head, blocked = 1,
                 (SELECT events.id FROM deliveries AS heads JOIN events ON seq = heads.event
                  WHERE heads.id = head),
                 claimed, replay_of
             FROM deliveries LEFT JOIN chains ON chains.seq = deliveries.chain
                 LEFT JOIN replays ON replays.delivery = deliveries.id
                 LEFT JOIN holds ON state = 'held' AND holds.webhook = deliveries.webhook
                 LEFT JOIN queues ON state = 'pending' AND due_at IS NULL
                     AND queues.webhook = deliveries.webhook AND key = queue
             WHERE event = ?1 ORDER BY deliveries.webhook, part, deliveries.id",
        )?
        .query_map([seq], |row| {
            // One reason stands for all that a webhook has held.
            let held = row.get_ref(7)?.as_str_or_null()?.is_some();
            let queued = row.get_ref(13)?.as_blob_or_null()?.is_some();
            let reason = match (held, queued) {
                (true, _) => Some(hold::of_row(row, 7)?.to_string()),
                (_, true) => Some(queue::reason(row, 12)?),
                _ => row.get(4)?,
            };
            Ok(DeliveryRecord {
                id: DeliveryId::from_bytes(row.get(0)?),
                webhook: WebhookId(row.get(1)?),
                part: row.get(2)?,
                state: rows::state(row, 3)?,
                reason,
                due_at: row.get::<_, Option<i64>>(5)?.map(rows::timestamp),
                in_hand: row.get(16)?,
                replay_of: row.get::<_, Option<_>>(17)?.map(DeliveryId::from_bytes),
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
            "SELECT started_at, duration_us, status, failure, message, excerpt, retry_after_us,
                 dns_us, connect_us, first_byte_us
             FROM attempts WHERE delivery = ?1 ORDER BY number",
        )?
        .query_map([delivery.as_bytes()], rows::attempt)?
        .collect()
}

/// How many deliveries of each webhook are due, in hand, held, paused or wait for others. Tells `began` when the moment is fixed.
pub(super) fn owed(
    connection: &Connection,
    began: oneshot::Sender<()>,
) -> rusqlite::Result<Vec<(WebhookId, u64)>> {
    let snapshot = connection.unchecked_transaction()?;
    // The first read fixes it.
    let held: Vec<_> =
        hold::all(&snapshot)?.into_iter().map(|held| (held.webhook, held.deliveries)).collect();
    // Nobody may be waiting.
    began.send(()).ok();
    let mut owed = held;
    for (index, condition) in [
        ("deliveries_waiting", "due_at IS NOT NULL AND claimed = 0"),
        ("deliveries_in_hand", "due_at IS NOT NULL AND claimed = 1"),
        ("deliveries_queued", "queue IS NOT NULL AND due_at IS NULL AND state = 'pending'"),
        (
            "deliveries_by_webhook_and_state",
            "state = 'paused' AND state NOT IN ('pending', 'delivered')",
        ),
    ] {
        let count = format!(
            "SELECT webhook, count(*) FROM deliveries INDEXED BY {index} WHERE {condition} GROUP BY webhook"
        );
        let mut statement = snapshot.prepare(&count)?;
        let rows = statement.query_map([], |row| {
            Ok((WebhookId(row.get(0)?), row.get::<_, i64>(1)?.unsigned_abs()))
        })?;
        owed.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    Ok(owed)
}
