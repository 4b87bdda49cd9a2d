//! What the writer does to deliveries inside a transaction: record, release, recover.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::{NewDelivery, Next, Recorded, Start, Update};
use super::{hold, overtaken, queue, rows, webhooks};
use crate::delivery::{Attempt, Delivery, DeliveryId, Request, State, WebhookId};
use crate::event::Event;
use crate::failpoint::{self, Point};

/// Makes due again what an earlier process had in hand, or holds it again.
pub(super) fn recover(connection: &Connection) -> rusqlite::Result<()> {
    hold::recover(connection)?;
    queue::recover(connection)?;
    connection
        .execute("UPDATE deliveries SET claimed = 0 WHERE claimed = 1 AND due_at IS NOT NULL", [])
        .map(drop)
}

pub(super) fn release(connection: &Connection, deliveries: &[DeliveryId]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE deliveries SET claimed = 0 WHERE id = ?1 AND state <> 'cancelled'",
    )?;
    for id in deliveries {
        if statement.execute([id.as_bytes()])? == 0 {
            overtaken::release(connection, *id)?;
        }
    }
    Ok(())
}

/// The plugin chains whose rows are known.
#[derive(Debug, Default)]
pub(super) struct Chains {
    known: HashMap<String, i64>,
}

impl Chains {
    /// More than a gateway has in use at once; past that, the table answers.
    const MAX_KNOWN: usize = 4_096;

    fn seq(&mut self, connection: &Connection, plugins: &str) -> rusqlite::Result<Option<i64>> {
        if plugins.is_empty() {
            return Ok(None);
        }
        if let Some(seq) = self.known.get(plugins) {
            return Ok(Some(*seq));
        }
        connection
            .prepare_cached("INSERT OR IGNORE INTO chains (plugins) VALUES (?1)")?
            .execute([plugins])?;
        let seq = connection
            .prepare_cached("SELECT seq FROM chains WHERE plugins = ?1")?
            .query_row([plugins], |row| row.get(0))?;
        if self.known.len() >= Self::MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(plugins.to_owned(), seq);
        Ok(Some(seq))
    }

    /// These rows are gone.
    pub(super) fn forget(&mut self, orphans: &[i64]) {
        if !orphans.is_empty() {
            self.known.retain(|_, seq| !orphans.contains(seq));
        }
    }
}

pub(super) fn record(
    connection: &Connection,
    chains: &mut Chains,
    update: &Update,
) -> rusqlite::Result<Recorded> {
    let Some(found) = Found::of(connection, update)? else {
        // What is in hand goes only with its event.
        return Ok(Recorded { purged: true, ..Recorded::default() });
    };
    let cancelled = found.state == State::Cancelled;
    if is_recorded(connection, update, &found)? {
        let follower = follower_again(connection, update, &found)?;
        return Ok(Recorded { follower, cancelled, ..Recorded::default() });
    }
    let chain = chains.seq(connection, &update.chain)?;
    if cancelled {
        return overtaken::record(connection, update, chain, &found);
    }
    let id = update.delivery;
    let set = |state: State, due_at: Option<i64>, claimed: bool, reason: Option<&str>| {
        set(connection, update, chain, state, due_at, claimed, reason)
    };
    let mut follower = None;
    match &update.next {
        Next::Delivered | Next::Dropped(_) | Next::Dead | Next::Blocks => {
            let (state, reason) = match &update.next {
                Next::Delivered => (State::Delivered, None),
                Next::Dropped(reason) => (State::Dropped, Some(&**reason)),
                _ => (State::Dead, None),
            };
            set(state, None, false, reason)?;
            follower = match (&found.queue, &update.next) {
                (None, _) => None,
                (Some(key), Next::Blocks) => {
                    queue::block(connection, &found.webhook, key, id)?;
                    None
                }
                (Some(key), _) => queue::hand_over(connection, &found.webhook, key, id)?,
            };
            // What is dead may be replayed with the same bytes.
            if matches!(update.next, Next::Delivered | Next::Dropped(_)) {
                forget_request(connection, id)?;
            }
        }
        Next::Retry { at, request } => {
            set(State::Retrying, Some(rows::micros(*at)), false, None)?;
            if let Some(request) = request {
                insert_request(connection, id, request)?;
            }
        }
        Next::Held(why) => {
            set(State::Held, None, false, None)?;
            hold::add(connection, &found.webhook, why, update.attempt.is_some())?;
        }
        Next::Paused(request) => {
            overtaken::pause(connection, update, chain, &found)?;
            if let Some(request) = request {
                insert_request(connection, id, request)?;
            }
        }
        Next::Split { first, others } => {
            let due_at = found.due_at.unwrap_or_default();
            set(State::Pending, Some(due_at), true, None)?;
            insert_request(connection, id, first)?;
            for ((delivery, request), part) in others.iter().zip(2..) {
                let (event, place) = (found.event, found.place);
                insert_delivery(connection, event, delivery, part, due_at, chain, place)?;
                insert_request(connection, delivery.id, request)?;
            }
            failpoint::hit(Point::PartsWritten);
        }
    }
    if let Some(attempt) = &update.attempt {
        insert_attempt(connection, id, attempt)?;
    }
    Ok(Recorded { follower, cancelled, ..Recorded::default() })
}

/// What followed a delivery whose end is on record already: it is in hand, and nobody was told.
fn follower_again(
    connection: &Connection,
    update: &Update,
    found: &Found,
) -> rusqlite::Result<Option<(Arc<Event>, Delivery)>> {
    match (&update.next, &found.queue) {
        (Next::Delivered | Next::Dropped(_) | Next::Dead, Some(key)) => {
            queue::hand_over(connection, &found.webhook, key, update.delivery)
        }
        _ => Ok(None),
    }
}

/// What the store knows of a delivery that is recorded.
pub(super) struct Found {
    event: i64,
    pub(super) webhook: WebhookId,
    state: State,
    due_at: Option<i64>,
    pub(super) queue: Option<String>,
    place: Option<i64>,
    /// The attempt is known already.
    attempted: bool,
}

impl Found {
    /// One query for all, since this runs for each attempt of each delivery. `RETURNING` of the update would make
    /// a temporary table each time, at many times its cost.
    fn of(connection: &Connection, update: &Update) -> rusqlite::Result<Option<Self>> {
        let started_at = update.attempt.as_ref().map(|attempt| rows::micros(attempt.started_at));
        connection
            .prepare_cached(
                "SELECT event, webhook, state, due_at, queue, place,
                     EXISTS (SELECT 1 FROM attempts WHERE delivery = ?1 AND started_at = ?2)
                 FROM deliveries WHERE id = ?1",
            )?
            .query_row(params![update.delivery.as_bytes(), started_at], |row| {
                Ok(Self {
                    event: row.get(0)?,
                    webhook: WebhookId(row.get(1)?),
                    state: rows::state(row, 2)?,
                    due_at: row.get(3)?,
                    queue: row.get(4)?,
                    place: row.get(5)?,
                    attempted: row.get(6)?,
                })
            })
            .optional()
    }
}

fn set(
    connection: &Connection,
    update: &Update,
    chain: Option<i64>,
    state: State,
    due_at: Option<i64>,
    claimed: bool,
    reason: Option<&str>,
) -> rusqlite::Result<()> {
    let counted = update.attempt.is_some() && !matches!(update.next, Next::Held(_));
    connection
        .prepare_cached(
            "UPDATE deliveries
             SET state = ?2, due_at = ?3, claimed = ?4, reason = ?5, attempts = attempts + ?6,
                 chain = coalesce(?7, chain)
             WHERE id = ?1",
        )?
        .execute(params![
            update.delivery.as_bytes(),
            state.as_str(),
            due_at,
            claimed,
            reason,
            counted,
            chain
        ])
        .map(drop)
}

/// Whether this update was recorded before, where recording it twice would count or add something twice.
fn is_recorded(connection: &Connection, update: &Update, found: &Found) -> rusqlite::Result<bool> {
    match (&update.attempt, &update.next) {
        (Some(_), _) => Ok(found.attempted),
        (None, Next::Split { others, .. }) => match others.first() {
            Some((other, _)) => connection
                .prepare_cached("SELECT 1 FROM deliveries WHERE id = ?1")?
                .exists([other.id.as_bytes()]),
            None => Ok(false),
        },
        (None, Next::Held(_)) => Ok(found.state == State::Held),
        (None, _) => Ok(false),
    }
}

/// What the receiver took, or nobody is to get, is not sent again.
pub(super) fn forget_request(
    connection: &Connection,
    delivery: DeliveryId,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM requests WHERE delivery = ?1")?
        .execute([delivery.as_bytes()])
        .map(drop)
}

fn insert_request(
    connection: &Connection,
    delivery: DeliveryId,
    request: &Request,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO requests
                 (delivery, method, path_suffix, query, content_type, headers, removed_headers, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            delivery.as_bytes(),
            request.method.as_str(),
            request.path_suffix,
            rows::to_json(&request.query)?,
            request.content_type,
            rows::to_json(&request.headers)?,
            rows::to_json(&request.removed_headers)?,
            &request.body[..],
        ])
        .map(drop)
}

pub(super) fn insert_attempt(
    connection: &Connection,
    delivery: DeliveryId,
    attempt: &Attempt,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO attempts
                 (delivery, number, started_at, duration_us, status, failure, message, excerpt,
                  retry_after_us, dns_us, connect_us, first_byte_us)
             VALUES (?1, 1 + (SELECT coalesce(max(number), 0) FROM attempts WHERE delivery = ?1),
                     ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            delivery.as_bytes(),
            rows::micros(attempt.started_at),
            i64::try_from(attempt.duration_us).unwrap_or(i64::MAX),
            attempt.status,
            attempt.failure.as_ref().map(|failure| failure.kind.as_str()),
            attempt.failure.as_ref().map(|failure| failure.message.as_str()),
            attempt.excerpt,
            attempt.retry_after.map(rows::span),
            attempt.timings.dns.map(rows::span),
            attempt.timings.connect.map(rows::span),
            attempt.timings.first_byte.map(rows::span),
        ])
        .map(drop)
}

/// A new delivery of an event's row. `place` is where it stands in a queue; by its event when none is said.
pub(super) fn insert_delivery(
    connection: &Connection,
    event: i64,
    delivery: &NewDelivery,
    part: u32,
    due_at: i64,
    chain: Option<i64>,
    place: Option<i64>,
) -> rusqlite::Result<()> {
    let mut queue = None;
    let mut reason = None;
    let (state, due_at) = match &delivery.start {
        Start::InHand | Start::Due => (State::Pending, Some(due_at)),
        Start::Held(why) => {
            hold::add(connection, &delivery.webhook, why, false)?;
            (State::Held, None)
        }
        Start::Paused => match webhooks::reason(connection, &delivery.webhook)? {
            Some(why) => {
                reason = Some(why);
                (State::Paused, None)
            }
            None => (State::Pending, Some(due_at)),
        },
        Start::Queued(key) => {
            queue = Some(key);
            let is_head = queue::join(connection, &delivery.webhook, key, delivery.id)?;
            (State::Pending, is_head.then_some(due_at))
        }
    };
    connection
        .prepare_cached(
            "INSERT INTO deliveries
                 (id, event, webhook, part, state, attempts, due_at, claimed, chain, queue, place,
                  tenant, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, ?8, ?9, ?10,
                 (SELECT tenant FROM events WHERE seq = ?2), ?11)",
        )?
        .execute(params![
            delivery.id.as_bytes(),
            event,
            delivery.webhook.0,
            part,
            state.as_str(),
            due_at,
            matches!(delivery.start, Start::InHand),
            chain,
            queue,
            queue.map(|_| place.unwrap_or(2 * event)),
            reason,
        ])
        .map(drop)
}
