//! Ends what is owed of an event, because it was owed for too long or because the event goes, and hands its queues on.

use std::collections::BTreeSet;

use rusqlite::{Connection, Row, params};

use super::super::{Removed, Start};
use super::retention::{FINISHED, owed};
use super::{hold, queue};
use crate::delivery::{DeliveryId, WebhookId};

/// The reason on record for deliveries that were given up.
const GIVEN_UP: &str = "it was not delivered for as long as `retention.undelivered` allows";

/// A delivery of an event.
struct Delivery {
    id: DeliveryId,
    webhook: WebhookId,
    queue: Option<String>,
    is_in_hand: bool,
    is_held: bool,
    is_owed: bool,
}

impl Delivery {
    /// Those of an event that are like this.
    fn all(connection: &Connection, event: i64, like: &str) -> rusqlite::Result<Vec<Self>> {
        let query = format!(
            "SELECT id, webhook, queue, claimed AND due_at IS NOT NULL, state = 'held',
                 state NOT IN {FINISHED}
             FROM deliveries WHERE event = ?1 AND {like}"
        );
        connection.prepare_cached(&query)?.query_map([event], Self::of_row)?.collect()
    }

    fn of_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: DeliveryId::from_bytes(row.get(0)?),
            webhook: WebhookId(row.get(1)?),
            queue: row.get(2)?,
            is_in_hand: row.get(3)?,
            is_held: row.get(4)?,
            is_owed: row.get(5)?,
        })
    }

    /// Lets the next one of its queue follow, if it is the head of one. True when there is a next one.
    fn hand_on(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let Some(key) = &self.queue else { return Ok(false) };
        Ok(queue::follow(connection, &self.webhook, key, self.id, &Start::Due)?.is_some())
    }
}

/// Makes dead what is owed of an event, but for what is in hand. What waits in a queue behind one that is dead, now
/// or since long, follows.
pub(super) fn give_up(connection: &Connection, event: i64) -> rusqlite::Result<Removed> {
    let mut removed = Removed::default();
    for delivery in Delivery::all(connection, event, &format!("claimed = 0 AND {}", owed()))? {
        if delivery.is_owed {
            make_dead(connection, &delivery)?;
            removed.given_up += 1;
        }
        if delivery.hand_on(connection)? {
            removed.moved.push(delivery.webhook);
        }
    }
    Ok(removed)
}

fn make_dead(connection: &Connection, delivery: &Delivery) -> rusqlite::Result<()> {
    let id = delivery.id.as_bytes();
    connection
        .prepare_cached(
            "UPDATE deliveries SET state = 'dead', due_at = NULL, reason = ?2 WHERE id = ?1",
        )?
        .execute(params![id, GIVEN_UP])?;
    if delivery.is_held {
        hold::one_less(connection, &delivery.webhook)?;
    }
    for table in ["requests", "kv_journal"] {
        connection
            .prepare_cached(&format!("DELETE FROM {table} WHERE delivery = ?1"))?
            .execute([id])?;
    }
    Ok(())
}

/// What was cancelled.
#[derive(Default)]
pub(super) struct Cancelled {
    pub(super) in_hand: Vec<DeliveryId>,
    /// How many were owed and not in hand.
    pub(super) given_up: u64,
    /// Webhooks with queues whose next delivery is due now.
    pub(super) moved: BTreeSet<WebhookId>,
}

/// Cancels what is owed of an event, so that nothing waits for it once it is gone.
pub(super) fn cancel(
    connection: &Connection,
    event: i64,
    whole_tenant: bool,
    cancelled: &mut Cancelled,
) -> rusqlite::Result<()> {
    let deliveries = Delivery::all(connection, event, "TRUE")?;
    // All of them first: what follows the head of a queue must not be of the same event.
    connection
        .prepare_cached(
            "UPDATE deliveries SET state = 'cancelled', due_at = NULL, claimed = 0 WHERE event = ?1",
        )?
        .execute([event])?;
    for delivery in deliveries {
        match delivery.is_in_hand {
            true => cancelled.in_hand.push(delivery.id),
            false => cancelled.given_up += u64::from(delivery.is_owed),
        }
        // A plugin's message on this event may tell of it.
        connection
            .prepare_cached(
                "UPDATE holds SET held = max(0, held - ?3),
                     message = iif(?4 OR message IN (SELECT message FROM attempts WHERE delivery = ?2),
                                   'its message is purged', message)
                 WHERE webhook = ?1",
            )?
            .execute(params![
                delivery.webhook.0,
                delivery.id.as_bytes(),
                delivery.is_held,
                whole_tenant
            ])?;
        if delivery.hand_on(connection)? {
            cancelled.moved.insert(delivery.webhook);
        }
    }
    Ok(())
}
