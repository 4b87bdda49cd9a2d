//! Queues: deliveries that keep an order, and what makes the next one of them the head.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::{Skipped, Start};
use super::rows;
use crate::delivery::{Delivery, DeliveryId, WebhookId};
use crate::event::{Event, EventId};

/// The first of those that wait.
const FOLLOWER: &str = "
    SELECT id FROM deliveries
    WHERE queue IS NOT NULL AND due_at IS NULL AND state = 'pending' AND webhook = ?1 AND queue = ?2
    ORDER BY place, event, part LIMIT 1";

/// Makes a delivery the head of its queue if that has none. True when it is.
pub(super) fn join(
    connection: &Connection,
    webhook: &WebhookId,
    key: &str,
    delivery: DeliveryId,
) -> rusqlite::Result<bool> {
    let joined = connection
        .prepare_cached(
            "INSERT INTO queues (webhook, key, head, blocked) VALUES (?1, ?2, ?3, 0)
             ON CONFLICT (webhook, key) DO NOTHING",
        )?
        .execute(params![webhook.0, key, delivery.as_bytes()])?;
    Ok(joined == 1)
}

/// Keeps what waits behind a dead head waiting.
pub(super) fn block(
    connection: &Connection,
    webhook: &WebhookId,
    key: &str,
    dead: DeliveryId,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE queues SET blocked = 1 WHERE webhook = ?1 AND key = ?2 AND head = ?3",
        )?
        .execute(params![webhook.0, key, dead.as_bytes()])
        .map(drop)
}

/// The head was cancelled while it was in hand: what waits follows once it is not.
pub(super) fn leave(
    connection: &Connection,
    webhook: &WebhookId,
    key: &str,
    cancelled: DeliveryId,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE queues SET blocked = 2 WHERE webhook = ?1 AND key = ?2 AND head = ?3",
        )?
        .execute(params![webhook.0, key, cancelled.as_bytes()])
        .map(drop)
}

/// Lets what waits behind heads follow that were cancelled while an earlier process had them in hand.
pub(super) fn recover(connection: &Connection) -> rusqlite::Result<()> {
    let left = connection
        .prepare("SELECT webhook, key, head FROM queues WHERE blocked = 2")?
        .query_map([], |row| Ok((WebhookId(row.get(0)?), row.get::<_, String>(1)?, head(row, 2)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for (webhook, key, head) in &left {
        follow(connection, webhook, key, *head, &Start::Due)?;
    }
    Ok(())
}

/// The head is finished: makes the next one the head, in hand or due. None when nothing waits, or the one that is
/// finished was not the head.
pub(super) fn follow(
    connection: &Connection,
    webhook: &WebhookId,
    key: &str,
    finished: DeliveryId,
    start: &Start,
) -> rusqlite::Result<Option<[u8; 16]>> {
    let is_head = connection
        .prepare_cached("SELECT 1 FROM queues WHERE webhook = ?1 AND key = ?2 AND head = ?3")?
        .exists(params![webhook.0, key, finished.as_bytes()])?;
    if !is_head {
        return Ok(None);
    }
    let follower = connection
        .prepare_cached(FOLLOWER)?
        .query_row(params![webhook.0, key], |row| row.get::<_, [u8; 16]>(0))
        .optional()?;
    let Some(follower) = follower else {
        connection
            .prepare_cached("DELETE FROM queues WHERE webhook = ?1 AND key = ?2")?
            .execute(params![webhook.0, key])?;
        return Ok(None);
    };
    let in_hand = matches!(start, Start::InHand);
    connection
        .prepare_cached(
            "UPDATE queues SET head = ?3, blocked = 0, handed_by = ?4 WHERE webhook = ?1 AND key = ?2",
        )?
        .execute(params![webhook.0, key, follower, in_hand.then_some(finished.as_bytes())])?;
    connection
        .prepare_cached(
            "UPDATE deliveries SET claimed = ?2,
                 due_at = (SELECT accepted_at FROM events WHERE seq = event)
             WHERE id = ?1",
        )?
        .execute(params![follower, in_hand])?;
    Ok(Some(follower))
}

/// The same, with the next one in hand and read.
pub(super) fn hand_over(
    connection: &Connection,
    webhook: &WebhookId,
    key: &str,
    finished: DeliveryId,
) -> rusqlite::Result<Option<(Arc<Event>, Delivery)>> {
    let follower = match follow(connection, webhook, key, finished, &Start::InHand)? {
        Some(follower) => follower,
        None => match handed_by(connection, webhook, key, finished)? {
            Some(head) => head,
            None => return Ok(None),
        },
    };
    let (event, delivery) = rows::delivery(connection, &follower)?;
    Ok(Some((Arc::new(rows::event(connection, event)?), delivery)))
}

/// The head that was given in hand when this one was finished, if it still is: nobody who asks again was told.
fn handed_by(
    connection: &Connection,
    webhook: &WebhookId,
    key: &str,
    finished: DeliveryId,
) -> rusqlite::Result<Option<[u8; 16]>> {
    connection
        .prepare_cached(
            "SELECT head FROM queues JOIN deliveries ON id = head
             WHERE queues.webhook = ?1 AND key = ?2 AND handed_by = ?3
                 AND claimed = 1 AND due_at IS NOT NULL",
        )?
        .query_row(params![webhook.0, key, finished.as_bytes()], |row| row.get(0))
        .optional()
}

/// Lets what waits behind the dead heads of a webhook follow.
pub(super) fn unblock(connection: &Connection, webhook: &WebhookId) -> rusqlite::Result<usize> {
    let blocked = connection
        .prepare_cached("SELECT key, head FROM queues WHERE webhook = ?1 AND blocked = 1")?
        .query_map([&webhook.0], |row| Ok((row.get::<_, String>(0)?, head(row, 1)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for (key, head) in &blocked {
        follow(connection, webhook, key, *head, &Start::Due)?;
    }
    Ok(blocked.len())
}

/// The same for those behind the dead deliveries of an event; none when the tenant has no such event.
pub(super) fn skip(
    connection: &Connection,
    tenant: &str,
    event: &EventId,
) -> rusqlite::Result<Option<Vec<Skipped>>> {
    let seq = connection
        .prepare_cached("SELECT seq FROM events WHERE tenant = ?1 AND id = ?2")?
        .query_row(params![tenant, event.as_str()], |row| row.get::<_, i64>(0))
        .optional()?;
    let Some(seq) = seq else { return Ok(None) };
    let blocking = connection
        .prepare_cached(
            "SELECT deliveries.webhook, key, head FROM deliveries
             JOIN queues ON queues.webhook = deliveries.webhook AND key = queue AND head = id
             WHERE event = ?1 AND blocked = 1 ORDER BY deliveries.webhook, part",
        )?
        .query_map([seq], |row| {
            Ok((WebhookId(row.get(0)?), row.get::<_, String>(1)?, head(row, 2)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut skipped = Vec::with_capacity(blocking.len());
    for (webhook, key, delivery) in blocking {
        follow(connection, &webhook, &key, delivery, &Start::Due)?;
        skipped.push(Skipped { webhook, delivery });
    }
    Ok(Some(skipped))
}

/// The webhooks that have a blocked queue.
pub(super) fn blocked(connection: &Connection) -> rusqlite::Result<Vec<WebhookId>> {
    connection
        .prepare_cached("SELECT DISTINCT webhook FROM queues WHERE blocked = 1")?
        .query_map([], |row| Ok(WebhookId(row.get(0)?)))?
        .collect()
}

/// Why a delivery of a queue waits, from `queue, head, blocked` from this column on and the id of the head's event.
pub(super) fn reason(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    let key: String = row.get(column)?;
    let head = head(row, column + 1)?;
    let blocked: bool = row.get(column + 2)?;
    let event: String = row.get(column + 3)?;
    let order = match &*key {
        "" => String::new(),
        key => format!(" in the order of the key {key:?}"),
    };
    let dead = match blocked {
        true => {
            ", which is dead; the webhook's `on_dead` keeps what follows it waiting until it is skipped"
        }
        false => "",
    };
    Ok(format!("waits behind {head} of the event {event}{order}{dead}"))
}

fn head(row: &Row<'_>, column: usize) -> rusqlite::Result<DeliveryId> {
    row.get(column).map(DeliveryId::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Config, SqliteStore};

    #[test]
    fn the_next_one_of_a_queue_is_found_by_an_index_alone() {
        let folder = tempfile::tempdir().unwrap();
        drop(SqliteStore::open(&Config::new(folder.path().to_owned())).unwrap());
        let connection = Connection::open(folder.path().join("hookmill.db")).unwrap();
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {FOLLOWER}")).unwrap();
        let plan = statement.raw_query().mapped(|row| row.get::<_, String>(3));
        let plan: Vec<_> = plan.map(Result::unwrap).collect();
        let [step] = &plan[..] else { panic!("no sorting: {plan:?}") };
        assert!(step.contains("INDEX deliveries_queued (webhook=? AND queue=?)"), "{step}");
    }
}
