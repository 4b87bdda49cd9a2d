//! Between rows and values.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::delivery::{
    Attempt, Delivery, DeliveryId, Failure, FailureKind, Method, Request, State, Timings, WebhookId,
};
use crate::event::{Event, EventId, EventType};

/// A time as it is stored: microseconds since 1970.
pub(super) fn micros(timestamp: Timestamp) -> i64 {
    timestamp.as_microsecond()
}

/// The time that `micros` gave.
pub(super) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}

/// A length of time as it is stored: microseconds.
pub(super) fn span(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn span_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Duration>> {
    let micros: Option<i64> = row.get(column)?;
    Ok(micros.map(|micros| Duration::from_micros(micros.unsigned_abs())))
}

/// A list as it is stored.
pub(super) fn to_json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// The list that `to_json` gave.
pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| unreadable(0, error))
}

/// The event in this row.
pub(super) fn event(connection: &Connection, seq: i64) -> rusqlite::Result<Event> {
    connection
        .prepare_cached(
            "SELECT tenant, id, type, timestamp, accepted_at, ordering_key, attributes, data, webhook_url
             FROM events WHERE seq = ?1",
        )?
        .query_row([seq], event_of_row)
}

fn event_of_row(row: &Row<'_>) -> rusqlite::Result<Event> {
    let attributes: Option<String> = row.get(6)?;
    let webhook_url: Option<String> = row.get(8)?;
    Ok(Event {
        tenant: row.get::<_, Arc<str>>(0)?,
        id: EventId::parse(row.get_ref(1)?.as_str()?).map_err(|error| unreadable(1, error))?,
        event_type: EventType::parse(row.get_ref(2)?.as_str()?)
            .map_err(|error| unreadable(2, error))?,
        timestamp: timestamp(row.get(3)?),
        accepted_at: timestamp(row.get(4)?),
        ordering_key: row.get(5)?,
        attributes: attributes.map_or(Ok(Vec::new()), |text| from_json(&text))?,
        data: Bytes::from(row.get::<_, Vec<u8>>(7)?),
        webhook_url: webhook_url
            .map(|text| Url::parse(&text))
            .transpose()
            .map_err(|error| unreadable(8, error))?,
    })
}

/// The delivery with this id, and the row of its event.
pub(super) fn delivery(
    connection: &Connection,
    id: &[u8; 16],
) -> rusqlite::Result<(i64, Delivery)> {
    let request = request(connection, id)?;
    connection
        .prepare_cached(
            "SELECT event, webhook, part, attempts, queue, coalesce(only_part, 0),
                 (SELECT coalesce(max(number), 0) FROM attempts WHERE delivery = ?1)
             FROM deliveries LEFT JOIN replays ON delivery = id WHERE id = ?1",
        )?
        .query_row([id], |row| {
            let delivery = Delivery {
                id: DeliveryId::from_bytes(*id),
                webhook: WebhookId(row.get(1)?),
                part: row.get(2)?,
                attempts: row.get(3)?,
                tried: row.get(6)?,
                request: request.map(Arc::new),
                queue: row.get(4)?,
                only_part: row.get(5)?,
            };
            Ok((row.get(0)?, delivery))
        })
}

fn request(connection: &Connection, id: &[u8; 16]) -> rusqlite::Result<Option<Request>> {
    connection
        .prepare_cached(
            "SELECT method, path_suffix, query, content_type, headers, removed_headers, body
             FROM requests WHERE delivery = ?1",
        )?
        .query_row([id], |row| {
            let method = row.get_ref(0)?.as_str()?;
            Ok(Request {
                method: Method::parse(method).ok_or_else(|| unknown(0, "method", method))?,
                path_suffix: row.get(1)?,
                query: from_json(row.get_ref(2)?.as_str()?)?,
                content_type: row.get(3)?,
                headers: from_json(row.get_ref(4)?.as_str()?)?,
                removed_headers: from_json(row.get_ref(5)?.as_str()?)?,
                body: Bytes::from(row.get::<_, Vec<u8>>(6)?),
            })
        })
        .optional()
}

/// A state in a column.
pub(super) fn state(row: &Row<'_>, column: usize) -> rusqlite::Result<State> {
    let name = row.get_ref(column)?.as_str()?;
    State::parse(name).ok_or_else(|| unknown(column, "state", name))
}

/// An attempt from `started_at, duration_us, status, failure, message, excerpt, retry_after_us`,
/// `dns_us, connect_us, first_byte_us`.
pub(super) fn attempt(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    let failure = match row.get_ref(3)?.as_str_or_null()? {
        None => None,
        Some(_) => Some(failure(row, 3)?),
    };
    Ok(Attempt {
        started_at: timestamp(row.get(0)?),
        duration_us: row.get::<_, i64>(1)?.unsigned_abs(),
        status: row.get(2)?,
        failure,
        excerpt: row.get(5)?,
        retry_after: span_of(row, 6)?,
        timings: Timings {
            dns: span_of(row, 7)?,
            connect: span_of(row, 8)?,
            first_byte: span_of(row, 9)?,
        },
    })
}

/// A failure from `failure, message`, from this column on.
pub(super) fn failure(row: &Row<'_>, column: usize) -> rusqlite::Result<Failure> {
    let name = row.get_ref(column)?.as_str()?;
    let kind = FailureKind::parse(name).ok_or_else(|| unknown(column, "failure", name))?;
    Ok(Failure { kind, message: row.get(column + 1)? })
}

/// A value that cannot be read, in a column.
pub(super) fn unreadable(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

/// A name that this version does not know, in a column.
pub(super) fn unknown(column: usize, what: &str, name: &str) -> rusqlite::Error {
    let message = format!("{what} {name:?} is unknown to this version");
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, message.into())
}
