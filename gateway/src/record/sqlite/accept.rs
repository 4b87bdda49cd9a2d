//! What the writer does to a submission inside a transaction.

use rusqlite::{Connection, OptionalExtension as _, params};
use url::Url;

use super::super::{Accepted, AcceptedEvent, AcceptedStatus, Idempotency, NewEvent, Submission};
use super::retention::Usage;
use super::rows;
use super::write::insert_delivery;

/// Everything is checked before anything is written, so that a conflict leaves no trace even when
/// other submissions share the transaction.
pub(super) fn accept(
    connection: &Connection,
    usage: &mut Usage,
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
            usage.more(&new.event.tenant, new.event.data.len());
        }
        answers.push(AcceptedEvent {
            id: new.event.id.to_string(),
            status: if fresh { AcceptedStatus::Accepted } else { AcceptedStatus::Duplicate },
            deliveries: if fresh { new.deliveries.len() } else { 0 },
        });
    }
    if let Some(idempotency) = &submission.idempotency {
        remember(connection, submission, idempotency, &answers)?;
    }
    Ok(Accepted::Stored(answers))
}

/// Keeps an event that tells of an outcome, unless it is kept already. Gives how many deliveries there are of it.
pub(super) fn tell(
    connection: &Connection,
    usage: &mut Usage,
    new: &NewEvent,
) -> rusqlite::Result<usize> {
    let is_taken = connection
        .prepare_cached("SELECT 1 FROM events WHERE tenant = ?1 AND id = ?2")?
        .exists(params![new.event.tenant, new.event.id.as_str()])?;
    if !is_taken {
        insert_event(connection, new)?;
        usage.more(&new.event.tenant, new.event.data.len());
        return Ok(new.deliveries.len());
    }
    // Kept when the same was recorded before; or a producer has given its own event this id, and then there is none.
    let Some(first) = new.deliveries.first() else { return Ok(0) };
    let is_same = connection
        .prepare_cached("SELECT 1 FROM deliveries WHERE id = ?1")?
        .exists([first.id.as_bytes()])?;
    Ok(if is_same { new.deliveries.len() } else { 0 })
}

fn repeated(
    connection: &Connection,
    submission: &Submission,
    idempotency: &Idempotency,
) -> rusqlite::Result<Option<Accepted>> {
    let earliest = rows::micros(submission.accepted_at)
        - i64::try_from(idempotency.kept.as_micros()).unwrap_or(i64::MAX);
    let earlier = connection
        .prepare_cached(
            "SELECT fingerprint, events FROM idempotency
             WHERE tenant = ?1 AND key = ?2 AND accepted_at > ?3",
        )?
        .query_row(params![submission.tenant, idempotency.key, earliest], |row| {
            Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, String>(1)?))
        })
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
    let same = |event_type: &str, data: &[u8], url: Option<&str>| {
        event_type == new.event.event_type.as_str()
            && data == new.event.data
            && url == new.event.webhook_url.as_ref().map(Url::as_str)
    };
    let mut earlier = events.iter().take(index).map(|other| &other.event);
    if let Some(other) = earlier.find(|other| other.id == new.event.id) {
        let url = other.webhook_url.as_ref().map(Url::as_str);
        return Ok(Some(same(other.event_type.as_str(), &other.data, url)));
    }
    connection
        .prepare_cached("SELECT type, data, webhook_url FROM events WHERE tenant = ?1 AND id = ?2")?
        .query_row(params![new.event.tenant, new.event.id.as_str()], |row| {
            let (event_type, data) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_blob()?);
            // Data that was removed can no longer tell; then the type does.
            let data = if data.is_empty() { &new.event.data } else { data };
            Ok(same(event_type, data, row.get_ref(2)?.as_str_or_null()?))
        })
        .optional()
}

fn insert_event(connection: &Connection, new: &NewEvent) -> rusqlite::Result<()> {
    let event = &new.event;
    let attributes =
        if event.attributes.is_empty() { None } else { Some(rows::to_json(&event.attributes)?) };
    let seq = connection
        .prepare_cached(
            "INSERT INTO events
                 (tenant, id, type, timestamp, accepted_at, ordering_key, attributes, data, webhook_url)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
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
            event.webhook_url.as_ref().map(Url::as_str),
        ])?;
    let due_at = rows::micros(event.accepted_at);
    new.deliveries
        .iter()
        .try_for_each(|delivery| insert_delivery(connection, seq, delivery, 1, due_at, None, None))
}
