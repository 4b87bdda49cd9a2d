//! What the writer does to deliveries inside a transaction: record, release, recover.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::{NewDelivery, Next, Recorded, Start, Update};
use super::{hold, queue, rows};
use crate::delivery::{Attempt, DeliveryId, Request, State, WebhookId};
use crate::failpoint::{self, Point};

/// Makes due again what an earlier process had in hand, or holds it again.
pub(super) fn recover(connection: &Connection) -> rusqlite::Result<()> {
    hold::recover(connection)?;
    connection
        .execute("UPDATE deliveries SET claimed = 0 WHERE claimed = 1 AND due_at IS NOT NULL", [])
        .map(drop)
}

pub(super) fn release(connection: &Connection, deliveries: &[DeliveryId]) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("UPDATE deliveries SET claimed = 0 WHERE id = ?1")?;
    deliveries.iter().try_for_each(|id| statement.execute([id.as_bytes()]).map(drop))
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
    if is_recorded(connection, update)? {
        // Whatever followed is in hand already, and nobody was told.
        let follower = match &update.next {
            Next::Delivered | Next::Dropped(_) | Next::Dead => {
                queue::hand_over_again(connection, update.delivery)?
            }
            _ => None,
        };
        return Ok(Recorded { follower, purged: false });
    }
    let purged = || Recorded { follower: None, purged: true };
    let chain = chains.seq(connection, &update.chain)?;
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
            let Some((webhook, queue)) = set(state, None, false, reason)? else {
                return Ok(purged());
            };
            follower = match (queue, &update.next) {
                (None, _) => None,
                (Some((key, _)), Next::Blocks) => {
                    queue::block(connection, &webhook, &key, id)?;
                    None
                }
                (Some((key, _)), _) => queue::hand_over(connection, &webhook, &key, id)?,
            };
            forget_request(connection, update)?;
        }
        Next::Retry { at, request } => {
            if set(State::Retrying, Some(rows::micros(*at)), false, None)?.is_none() {
                return Ok(purged());
            }
            if let Some(request) = request {
                insert_request(connection, id, request)?;
            }
        }
        Next::Held(why) => {
            let Some((webhook, _)) = set(State::Held, None, false, None)? else {
                return Ok(purged());
            };
            hold::add(connection, &webhook, why, update.attempt.is_some())?;
        }
        Next::Split { first, others } => {
            let found = connection
                .prepare_cached("SELECT event, due_at FROM deliveries WHERE id = ?1")?
                .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((event, due_at)) = found else { return Ok(purged()) };
            let queue = set(State::Pending, Some(due_at), true, None)?.and_then(|(_, queue)| queue);
            insert_request(connection, id, first)?;
            let place = queue.map(|(_, place)| place);
            for ((delivery, request), part) in others.iter().zip(2..) {
                insert_delivery(connection, event, delivery, part, due_at, chain, place)?;
                insert_request(connection, delivery.id, request)?;
            }
            failpoint::hit(Point::PartsWritten);
        }
    }
    if let Some(attempt) = &update.attempt {
        insert_attempt(connection, id, attempt)?;
    }
    Ok(Recorded { follower, purged: false })
}

/// The key of a delivery's queue, and its place there.
type InQueue = Option<(String, i64)>;

/// Writes where a delivery stands; none when there is no such delivery any more.
fn set(
    connection: &Connection,
    update: &Update,
    chain: Option<i64>,
    state: State,
    due_at: Option<i64>,
    claimed: bool,
    reason: Option<&str>,
) -> rusqlite::Result<Option<(WebhookId, InQueue)>> {
    let counted = update.attempt.is_some() && !matches!(update.next, Next::Held(_));
    connection
        .prepare_cached(
            "UPDATE deliveries
             SET state = ?2, due_at = ?3, claimed = ?4, reason = ?5, attempts = attempts + ?6,
                 chain = coalesce(?7, chain)
             WHERE id = ?1 RETURNING webhook, queue, place",
        )?
        .query_row(
            params![
                update.delivery.as_bytes(),
                state.as_str(),
                due_at,
                claimed,
                reason,
                counted,
                chain
            ],
            |row| {
                let queue: Option<String> = row.get(1)?;
                let place: Option<i64> = row.get(2)?;
                Ok((WebhookId(row.get(0)?), queue.zip(place)))
            },
        )
        .optional()
}

/// Whether this update was recorded before, where recording it twice would count or add something twice.
fn is_recorded(connection: &Connection, update: &Update) -> rusqlite::Result<bool> {
    let delivery = update.delivery.as_bytes();
    match (&update.attempt, &update.next) {
        (Some(attempt), _) => connection
            .prepare_cached("SELECT 1 FROM attempts WHERE delivery = ?1 AND started_at = ?2")?
            .exists(params![delivery, rows::micros(attempt.started_at)]),
        (None, Next::Split { others, .. }) => match others.first() {
            Some((other, _)) => connection
                .prepare_cached("SELECT 1 FROM deliveries WHERE id = ?1")?
                .exists([other.id.as_bytes()]),
            None => Ok(false),
        },
        (None, Next::Held(_)) => connection
            .prepare_cached("SELECT 1 FROM deliveries WHERE id = ?1 AND state = 'held'")?
            .exists([delivery]),
        (None, _) => Ok(false),
    }
}

/// A finished delivery sends nothing again.
fn forget_request(connection: &Connection, update: &Update) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM requests WHERE delivery = ?1")?
        .execute([update.delivery.as_bytes()])
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

fn insert_attempt(
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
    let (state, due_at) = match &delivery.start {
        Start::InHand | Start::Due => (State::Pending, Some(due_at)),
        Start::Held(why) => {
            hold::add(connection, &delivery.webhook, why, false)?;
            (State::Held, None)
        }
        Start::Queued(key) => {
            queue = Some(key);
            let is_head = queue::join(connection, &delivery.webhook, key, delivery.id)?;
            (State::Pending, is_head.then_some(due_at))
        }
    };
    connection
        .prepare_cached(
            "INSERT INTO deliveries
                 (id, event, webhook, part, state, attempts, due_at, claimed, chain, queue, place)
             VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, ?8, ?9, ?10)",
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
        ])
        .map(drop)
}
