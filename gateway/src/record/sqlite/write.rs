//! What the writer does inside a transaction.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};

use super::super::{
    Accepted, AcceptedEvent, AcceptedStatus, Claimed, Idempotency, NewDelivery, NewEvent, Next,
    Submission, Update,
};
use super::rows;
use crate::delivery::{Attempt, DeliveryId, Request, State, WebhookId};
use crate::event::Event;

/// Makes due again what an earlier process had in hand.
pub(super) fn recover(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .execute(
            "UPDATE deliveries SET claimed = 0 WHERE claimed = 1 AND due_at IS NOT NULL",
            [],
        )
        .map(drop)
}

/// Everything is checked before anything is written, so that a conflict leaves no trace even when
/// other submissions share the transaction.
pub(super) fn accept(
    connection: &Connection,
    submission: &Submission,
) -> rusqlite::Result<Accepted> {
    if let Some(idempotency) = &submission.idempotency
        && let Some(earlier) = repeated(connection, submission, idempotency)?
    {
        return Ok(earlier);
    }
    let mut fresh = Vec::with_capacity(submission.events.len());
    for (index, new) in submission.events.iter().enumerate() {
        match earlier_version(connection, &submission.events, index, new)? {
            None => fresh.push(true),
            Some(true) => fresh.push(false),
            Some(false) => return Ok(Accepted::IdTaken(index)),
        }
    }
    let mut answers = Vec::with_capacity(submission.events.len());
    for (new, fresh) in submission.events.iter().zip(fresh) {
        if fresh {
            insert_event(connection, new)?;
        }
        answers.push(AcceptedEvent {
            id: new.event.id.to_string(),
            status: if fresh {
                AcceptedStatus::Accepted
            } else {
                AcceptedStatus::Duplicate
            },
            deliveries: if fresh { new.deliveries.len() } else { 0 },
        });
    }
    if let Some(idempotency) = &submission.idempotency {
        remember(connection, submission, idempotency, &answers)?;
    }
    Ok(Accepted::Stored(answers))
}

fn repeated(
    connection: &Connection,
    submission: &Submission,
    idempotency: &Idempotency,
) -> rusqlite::Result<Option<Accepted>> {
    let earliest = rows::micros(submission.accepted_at)
        - i64::try_from(Idempotency::KEPT.as_micros()).unwrap_or(i64::MAX);
    let earlier = connection
        .prepare_cached(
            "SELECT fingerprint, events FROM idempotency
             WHERE tenant = ?1 AND key = ?2 AND accepted_at > ?3",
        )?
        .query_row(
            params![submission.tenant, idempotency.key, earliest],
            |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, String>(1)?)),
        )
        .optional()?;
    match earlier {
        None => Ok(None),
        Some((fingerprint, _)) if fingerprint != *idempotency.fingerprint.as_bytes() => {
            Ok(Some(Accepted::KeyReused))
        }
        Some((_, events)) => Ok(Some(Accepted::Repeated(rows::from_json(&events)?))),
    }
}

fn remember(
    connection: &Connection,
    submission: &Submission,
    idempotency: &Idempotency,
    answers: &[AcceptedEvent],
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO idempotency (tenant, key, fingerprint, accepted_at, events)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            submission.tenant,
            idempotency.key,
            idempotency.fingerprint.as_bytes(),
            rows::micros(submission.accepted_at),
            rows::to_json(&answers)?,
        ])
        .map(drop)
}

/// Whether an event with this id exists, in the store or earlier in the submission, and if so, whether
/// it is the same one.
fn earlier_version(
    connection: &Connection,
    events: &[NewEvent],
    index: usize,
    new: &NewEvent,
) -> rusqlite::Result<Option<bool>> {
    // The gateway's own ids are unique by construction, and the table's constraint stands behind.
    if !new.given_id {
        return Ok(None);
    }
    let same = |event_type: &str, data: &[u8]| {
        event_type == new.event.event_type.as_str() && data == new.event.data
    };
    let mut earlier = events.iter().take(index).map(|other| &other.event);
    if let Some(other) = earlier.find(|other| other.id == new.event.id) {
        return Ok(Some(same(other.event_type.as_str(), &other.data)));
    }
    connection
        .prepare_cached("SELECT type, data FROM events WHERE tenant = ?1 AND id = ?2")?
        .query_row(params![new.event.tenant, new.event.id.as_str()], |row| {
            Ok(same(row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_blob()?))
        })
        .optional()
}

fn insert_event(connection: &Connection, new: &NewEvent) -> rusqlite::Result<()> {
    let event = &new.event;
    let attributes = if event.attributes.is_empty() {
        None
    } else {
        Some(rows::to_json(&event.attributes)?)
    };
    let seq = connection
        .prepare_cached(
            "INSERT INTO events
                 (tenant, id, type, timestamp, accepted_at, ordering_key, attributes, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .insert(params![
            event.tenant,
            event.id.as_str(),
            event.event_type.as_str(),
            rows::micros(event.timestamp),
            rows::micros(event.accepted_at),
            event.ordering_key,
            attributes,
            &event.data[..],
        ])?;
    let due_at = rows::micros(event.accepted_at);
    new.deliveries
        .iter()
        .try_for_each(|delivery| insert_delivery(connection, seq, delivery, 1, due_at, None))
}

fn insert_delivery(
    connection: &Connection,
    event: i64,
    delivery: &NewDelivery,
    part: u32,
    due_at: i64,
    chain: Option<i64>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO deliveries (id, event, webhook, part, state, attempts, due_at, claimed, chain)
             VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, ?8)",
        )?
        .execute(params![
            delivery.id.as_bytes(),
            event,
            delivery.webhook.0,
            part,
            State::Pending.as_str(),
            due_at,
            delivery.in_hand,
            chain,
        ])
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
    let webhooks = except
        .iter()
        .map(|webhook| rusqlite::types::Value::from(webhook.0.to_string()));
    let parameters = std::iter::once(rows::micros(now).into())
        .chain(webhooks.clone())
        .chain([i64::try_from(limit).unwrap_or(i64::MAX).into()]);
    let ids = connection
        .prepare_cached(&due)?
        .query_map(params_from_iter(parameters), |row| {
            row.get::<_, [u8; 16]>(0)
        })?
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
    Ok(Claimed {
        deliveries,
        next_due: next_due.map(rows::timestamp),
    })
}

pub(super) fn release(connection: &Connection, deliveries: &[DeliveryId]) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("UPDATE deliveries SET claimed = 0 WHERE id = ?1")?;
    deliveries
        .iter()
        .try_for_each(|id| statement.execute([id.as_bytes()]).map(drop))
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
    let made = update.attempt.is_some();
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
                made,
                chain
            ])
            .map(drop)
    };
    match &update.next {
        Next::Delivered => set(State::Delivered, None, false, None)?,
        Next::Dropped(reason) => set(State::Dropped, None, false, Some(reason))?,
        Next::Dead => set(State::Dead, None, false, None)?,
        Next::Retry { at, request } => {
            set(State::Retrying, Some(rows::micros(*at)), false, None)?;
            if let Some(request) = request {
                insert_request(connection, update.delivery, request)?;
            }
        }
        Next::Split { first, others } => {
            let (event, due_at) = connection
                .prepare_cached("SELECT event, due_at FROM deliveries WHERE id = ?1")?
                .query_row([update.delivery.as_bytes()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            set(State::Pending, Some(due_at), true, None)?;
            insert_request(connection, update.delivery, first)?;
            for ((delivery, request), part) in others.iter().zip(2..) {
                insert_delivery(connection, event, delivery, part, due_at, chain)?;
                insert_request(connection, delivery.id, request)?;
            }
        }
    }
    if !matches!(update.next, Next::Retry { .. } | Next::Split { .. }) {
        forget_request(connection, update)?;
    }
    update.attempt.as_ref().map_or(Ok(()), |attempt| {
        insert_attempt(connection, update.delivery, attempt)
    })
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
                 (delivery, number, started_at, duration_us, status, failure, message, excerpt)
             VALUES (?1, (SELECT attempts FROM deliveries WHERE id = ?1), ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            delivery.as_bytes(),
            rows::micros(attempt.started_at),
            i64::try_from(attempt.duration_us).unwrap_or(i64::MAX),
            attempt.status,
            attempt
                .failure
                .as_ref()
                .map(|failure| failure.kind.as_str()),
            attempt
                .failure
                .as_ref()
                .map(|failure| failure.message.as_str()),
            attempt.excerpt,
        ])
        .map(drop)
}
