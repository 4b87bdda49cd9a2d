//! What a purge finds next: idempotency keys and events that are what it is about. Runs on a reader, since it may
//! have to read all that a tenant has.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, named_params, params};
use serde_json::Value;

use super::super::{AcceptedEvent, Target};
use super::purge::{Place, Stored};
use super::rows;

/// Events that are looked at in one go, and the bytes of those that are read.
const LOOKED_AT: i64 = 500;
const READ_BYTES: usize = 8 << 20;

/// Events in one step, and the bytes of their data: with either, the writer is busy for a few milliseconds.
const BATCH: usize = 100;
const BATCH_BYTES: i64 = 1 << 20;

/// Idempotency keys that are looked at in one go.
const KEYS: i64 = 200;

/// Something is left of an event with every number up to this one.
const MOST_REMOVED: i64 = 3;

/// What to remove.
#[derive(Default)]
pub(super) struct Found {
    /// Idempotency keys, and when they were used.
    pub(super) keys: Vec<(String, i64)>,
    /// Events, by their rows and ids.
    pub(super) events: Vec<(i64, String)>,
}

/// Looks at the next idempotency keys: one goes with the first of its events that does.
pub(super) fn keys(
    connection: &Connection,
    stored: &Stored,
    after: &str,
) -> rusqlite::Result<(Place, Found)> {
    let mut statement = connection.prepare_cached(
        "SELECT key, accepted_at, events FROM idempotency
         WHERE tenant = ?1 AND key > ?2 ORDER BY key LIMIT ?3",
    )?;
    let mut rows = statement.query(params![stored.purge.tenant, after, KEYS])?;
    let mut found = Found::default();
    let mut last = None;
    let (mut keys, mut looked) = (0, 0);
    while let Some(row) = rows.next()? {
        let (key, accepted_at) = (row.get::<_, String>(0)?, row.get(1)?);
        let events: Vec<AcceptedEvent> = rows::from_json(row.get_ref(2)?.as_str()?)?;
        looked += i64::try_from(events.len()).unwrap_or(i64::MAX);
        keys += 1;
        if goes_with(connection, stored, &events)? {
            found.keys.push((key.clone(), accepted_at));
        }
        last = Some(key);
        if looked >= LOOKED_AT {
            break;
        }
    }
    let next = match last {
        Some(after) if keys == KEYS || looked >= LOOKED_AT => Place::Keys { after },
        _ => Place::first_event(),
    };
    Ok((next, found))
}

/// Whether an idempotency key with these events goes.
fn goes_with(
    connection: &Connection,
    stored: &Stored,
    events: &[AcceptedEvent],
) -> rusqlite::Result<bool> {
    let column = column(&stored.purge.target);
    let query = format!("SELECT seq, {column} FROM events WHERE tenant = ?1 AND id = ?2");
    let mut any_matches = false;
    for event in events {
        let matches = connection
            .prepare_cached(&query)?
            .query_row(params![stored.purge.tenant, event.id], |row| {
                Ok((row.get::<_, i64>(0)?, matches(stored, row.get_ref(1)?)?))
            })
            .optional()?;
        match matches {
            // The tenant goes on, and a request with a newer event may be repeated.
            Some((row, _)) if row > stored.until && stored.purge.target == Target::Tenant => {
                return Ok(false);
            }
            Some((row, matches)) => any_matches |= matches && row <= stored.until,
            None => {}
        }
    }
    Ok(any_matches || stored.purge.target == Target::Tenant)
}

/// Looks at the next events. One that loses its data meanwhile comes later in this order, never earlier.
pub(super) fn events(
    connection: &Connection,
    stored: &Stored,
    (removed, accepted_at, row): (i64, i64, i64),
) -> rusqlite::Result<(Place, Found)> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT seq, accepted_at, id, octet_length(data), {}
         FROM events INDEXED BY events_by_age
         WHERE tenant = :tenant AND removed = :removed AND (accepted_at, seq) > (:accepted_at, :row)
             AND seq <= :until
         ORDER BY accepted_at, seq LIMIT :limit",
        column(&stored.purge.target)
    ))?;
    let mut rows = statement.query(named_params! {
        ":tenant": stored.purge.tenant,
        ":removed": removed,
        ":accepted_at": accepted_at,
        ":row": row,
        ":until": stored.until,
        ":limit": LOOKED_AT,
    })?;
    let mut found = Found::default();
    let (mut looked, mut read, mut bytes) = (0, 0, 0);
    while let Some(row) = rows.next()? {
        let (seq, accepted_at) = (row.get(0)?, row.get(1)?);
        let column = row.get_ref(4)?;
        looked += 1;
        read += column.as_bytes_or_null()?.map_or(0, <[u8]>::len);
        if matches(stored, column)? {
            found.events.push((seq, row.get(2)?));
            bytes += row.get::<_, i64>(3)?;
        }
        let is_enough = found.events.len() >= BATCH || bytes >= BATCH_BYTES;
        if is_enough || looked >= LOOKED_AT || read >= READ_BYTES {
            return Ok((Place::Events { removed, accepted_at, row: seq }, found));
        }
    }
    let next = match removed {
        MOST_REMOVED => Place::PluginKeys,
        _ => Place::Events { removed: removed + 1, accepted_at: i64::MIN, row: i64::MIN },
    };
    Ok((next, found))
}

/// What has to be read of an event.
fn column(target: &Target) -> &'static str {
    match target {
        Target::Tenant => "NULL",
        Target::Attribute(_) => "attributes",
        Target::Pointer(_) => "data",
    }
}

/// Whether an event is what a purge is about, by the column that has to be read.
fn matches(stored: &Stored, column: ValueRef<'_>) -> rusqlite::Result<bool> {
    let value = &stored.value;
    match &stored.purge.target {
        Target::Tenant => Ok(true),
        Target::Attribute(name) => {
            let Some(text) = column.as_str_or_null()? else { return Ok(false) };
            let attributes: Vec<(String, String)> = rows::from_json(text)?;
            Ok(attributes.iter().any(|(own, its)| own == name && value.as_str() == Some(its)))
        }
        Target::Pointer(pointer) => Ok(has(column.as_bytes()?, pointer, value)),
    }
}

/// Whether data has this value where the pointer leads to.
fn has(data: &[u8], pointer: &str, value: &Value) -> bool {
    // Most events do not have it anywhere, and are not parsed. A backslash may stand for what it looks for.
    if let (Value::String(wanted), Ok(text)) = (value, std::str::from_utf8(data))
        && !text.contains('\\')
        && !text.contains(wanted.as_str())
    {
        return false;
    }
    serde_json::from_slice::<Value>(data).is_ok_and(|data| data.pointer(pointer) == Some(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_found_where_the_pointer_leads_to_and_nowhere_else() {
        let data = br#"{"customer":{"id":"c_1","n":7,"ok":true},"list":["c_2"],"note":"c_3 \u0063_4","a/b":"x","odd":"\u0063_5"}"#;
        for (pointer, value) in [
            ("/customer/id", json!("c_1")),
            ("/customer/n", json!(7)),
            ("/customer/ok", json!(true)),
            ("/list/0", json!("c_2")),
            ("/note", json!("c_3 c_4")),
            ("/a~1b", json!("x")),
            ("/odd", json!("c_5")),
        ] {
            assert!(has(data, pointer, &value), "{pointer} {value}");
        }
        for (pointer, value) in [
            ("/customer/id", json!("c_")),
            ("/customer/id", json!("c_2")),
            ("/customer", json!("c_1")),
            ("/customer/n", json!("7")),
            ("/list", json!("c_2")),
            ("/nowhere", json!("c_1")),
        ] {
            assert!(!has(data, pointer, &value), "{pointer} {value}");
        }
        assert!(!has(b"", "", &json!("c_1")), "what is removed has nothing");
        assert!(has(b"\"c_1\"", "", &json!("c_1")));
    }
}
