//! What the writer does to deliveries inside a transaction: claim, record, release.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, params, params_from_iter};

use super::super::{Claimed, NewDelivery, Next, Start, Update};
use super::{hold, rows, webhooks};
use crate::delivery::{Attempt, DeliveryId, Request, State, WebhookId};
use crate::event::Event;

/// Makes due again what an earlier process had in hand, or holds it again.
pub(super) fn recover(connection: &Connection) -> rusqlite::Result<()> {
    hold::recover(connection)?;
    connection
        .execute("UPDATE deliveries SET claimed = 0 WHERE claimed = 1 AND due_at IS NOT NULL", [])
        .map(drop)
}

pub(super) fn claim(
    connection: &Connection,
    now: Timestamp,
    limit: usize,
    except: &[WebhookId],
) -> rusqlite::Result<Claimed> {
    let marks = vec!["?"; except.len()].join(", ");
    let due = format!(
        "SELECT id FROM deliveries
         WHERE claimed = 0 AND due_at IS NOT NULL AND due_at <= ? AND webhook NOT IN ({marks})
         ORDER BY due_at LIMIT ?"
    );
    let webhooks = except.iter().map(|webhook| rusqlite::types::Value::from(webhook.0.to_string()));
    let parameters = std::iter::once(rows::micros(now).into())
        .chain(webhooks.clone())
        .chain([i64::try_from(limit).unwrap_or(i64::MAX).into()]);
    let ids = connection
        .prepare_cached(&due)?
        .query_map(params_from_iter(parameters), |row| row.get::<_, [u8; 16]>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;

    let mut events: HashMap<i64, Arc<Event>> = HashMap::new();
    let mut deliveries = Vec::with_capacity(ids.len());
    for id in ids {
        connection
            .prepare_cached("UPDATE deliveries SET claimed = 1 WHERE id = ?1")?
            .execute([id])?;
        let (event, delivery) = rows::delivery(connection, &id)?;
        let event = match events.get(&event) {
            Some(known) => Arc::clone(known),
            None => {
                let read = Arc::new(rows::event(connection, event)?);
                Arc::clone(events.entry(event).or_insert(read))
            }
        };
        deliveries.push((event, delivery));
    }
    let next = format!(
        "SELECT min(due_at) FROM deliveries
         WHERE claimed = 0 AND due_at IS NOT NULL AND webhook NOT IN ({marks})"
    );
    let next_due: Option<i64> = connection
        .prepare_cached(&next)?
        .query_row(params_from_iter(webhooks), |row| row.get(0))?;
    Ok(Claimed { deliveries, next_due: next_due.map(rows::timestamp) })
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
}

pub(super) fn record(
    connection: &Connection,
    chains: &mut Chains,
    update: &Update,
) -> rusqlite::Result<()> {
    let chain = chains.seq(connection, &update.chain)?;
    let counted = update.attempt.is_some() && !matches!(update.next, Next::Held(_));
    let cancelled = is_cancelled(connection, update.delivery)?;
    let set = |state: State, due_at: Option<i64>, claimed: bool, reason: Option<&str>| {
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
    };
    match &update.next {
        // It was in hand when it was cancelled: what came of it changes nothing any more.
        Next::Dropped(_) | Next::Dead | Next::Retry { .. } | Next::Held(_) | Next::Paused(_)
            if cancelled => {}
        Next::Delivered => set(State::Delivered, None, false, None)?,
        Next::Dropped(reason) => set(State::Dropped, None, false, Some(reason))?,
        Next::Dead => set(State::Dead, None, false, None)?,
        Next::Retry { at, request } => {
            set(State::Retrying, Some(rows::micros(*at)), false, None)?;
            if let Some(request) = request {
                insert_request(connection, update.delivery, request)?;
            }
        }
        Next::Paused(request) => pause(connection, update, request.as_deref(), chain)?,
        Next::Held(why) => {
            set(State::Held, None, false, None)?;
            let webhook = connection
                .prepare_cached("SELECT webhook FROM deliveries WHERE id = ?1")?
                .query_row([update.delivery.as_bytes()], |row| Ok(WebhookId(row.get(0)?)))?;
            hold::add(connection, &webhook, why, update.attempt.is_some())?;
        }
        Next::Split { first, others } => {
            let (event, due_at) = connection
                .prepare_cached("SELECT event, coalesce(due_at, 0) FROM deliveries WHERE id = ?1")?
                .query_row([update.delivery.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            if !cancelled {
                set(State::Pending, Some(due_at), true, None)?;
                insert_request(connection, update.delivery, first)?;
            }
            for ((delivery, request), part) in others.iter().zip(2..) {
                insert_delivery(connection, event, delivery, part, due_at, chain)?;
                insert_request(connection, delivery.id, request)?;
                if cancelled {
                    cancel_with(connection, delivery.id, update.delivery)?;
                }
            }
        }
    }
    // What is dead may be replayed with the same bytes.
    if matches!(update.next, Next::Delivered | Next::Dropped(_)) {
        forget_request(connection, update)?;
    }
    update
        .attempt
        .as_ref()
        .map_or(Ok(()), |attempt| insert_attempt(connection, update.delivery, attempt))
}

/// Pauses a delivery in hand, or, if its webhook was enabled meanwhile, makes it due as before.
fn pause(
    connection: &Connection,
    update: &Update,
    request: Option<&Request>,
    chain: Option<i64>,
) -> rusqlite::Result<()> {
    let webhook: String = connection
        .prepare_cached("SELECT webhook FROM deliveries WHERE id = ?1")?
        .query_row([update.delivery.as_bytes()], |row| row.get(0))?;
    let why = webhooks::reason(connection, &webhook)?.map(|why| disabled(&why));
    connection
        .prepare_cached(
            "UPDATE deliveries
             SET state = CASE WHEN ?2 IS NOT NULL THEN 'paused' WHEN ?3 THEN 'retrying' ELSE state END,
                 due_at = iif(?2 IS NULL, due_at, NULL), claimed = 0, reason = ?2,
                 attempts = attempts + ?3, chain = coalesce(?4, chain)
             WHERE id = ?1",
        )?
        .execute(params![update.delivery.as_bytes(), why, update.attempt.is_some(), chain])?;
    match request {
        Some(request) => insert_request(connection, update.delivery, request),
        None => Ok(()),
    }
}

fn is_cancelled(connection: &Connection, delivery: DeliveryId) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM deliveries WHERE id = ?1 AND state = 'cancelled'")?
        .exists([delivery.as_bytes()])
}

/// A part goes the way of the delivery that it was split from.
fn cancel_with(
    connection: &Connection,
    part: DeliveryId,
    first: DeliveryId,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE deliveries SET state = 'cancelled', due_at = NULL, claimed = 0,
                 reason = (SELECT reason FROM deliveries WHERE id = ?2)
             WHERE id = ?1",
        )?
        .execute([part.as_bytes(), first.as_bytes()])
        .map(drop)
}

/// What the receiver took, or nobody is to get, is not sent again.
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
                 (delivery, number, started_at, duration_us, status, failure, message, excerpt)
             VALUES (?1, 1 + (SELECT coalesce(max(number), 0) FROM attempts WHERE delivery = ?1),
                     ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            delivery.as_bytes(),
            rows::micros(attempt.started_at),
            i64::try_from(attempt.duration_us).unwrap_or(i64::MAX),
            attempt.status,
            attempt.failure.as_ref().map(|failure| failure.kind.as_str()),
            attempt.failure.as_ref().map(|failure| failure.message.as_str()),
            attempt.excerpt,
        ])
        .map(drop)
}

/// A new delivery of an event's row.
pub(super) fn insert_delivery(
    connection: &Connection,
    event: i64,
    delivery: &NewDelivery,
    part: u32,
    due_at: i64,
    chain: Option<i64>,
) -> rusqlite::Result<()> {
    let mut reason = None;
    let (state, due_at) = match &delivery.start {
        Start::InHand | Start::Due => (State::Pending, Some(due_at)),
        Start::Paused => match webhooks::reason(connection, &delivery.webhook.0)? {
            Some(why) => {
                reason = Some(disabled(&why));
                (State::Paused, None)
            }
            None => (State::Pending, Some(due_at)),
        },
        Start::Held(why) => {
            hold::add(connection, &delivery.webhook, why, false)?;
            (State::Held, None)
        }
    };
    connection
        .prepare_cached(
            "INSERT INTO deliveries (id, event, webhook, part, state, attempts, due_at, claimed, chain, tenant,
                 reason)
             VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, ?8, (SELECT tenant FROM events WHERE seq = ?2), ?9)",
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
            reason,
        ])
        .map(drop)
}

/// Why a delivery is paused.
fn disabled(why: &str) -> String {
    format!("its webhook is disabled: {why}")
}
