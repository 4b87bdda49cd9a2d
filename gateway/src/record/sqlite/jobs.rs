//! The rows of jobs: begun, read, stopped.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::super::{
    Action, Begun, Filter, Idempotency, Job, JobId, JobState, MAX_OPEN_JOBS, NewJob, Selection,
};
use super::rows;
use crate::delivery::{DeliveryId, State, WebhookId};
use crate::event::{EventId, EventType};

/// What `of_row` reads.
pub(super) const COLUMNS: &str =
    "id, action, same_bytes, listed, event, webhook, event_type, delivery_state,
    accepted_after, accepted_before, failed_since, state, matched, done, failed, failure,
    created_at, started_at, ended_at";

pub(super) fn begin(connection: &Connection, new: &NewJob) -> rusqlite::Result<Begun> {
    if let Some(idempotency) = &new.idempotency
        && let Some(earlier) = repeated(connection, new, idempotency)?
    {
        return Ok(earlier);
    }
    let open: i64 = connection
        .prepare_cached("SELECT count(*) FROM jobs WHERE tenant = ?1 AND ended_at IS NULL")?
        .query_row([&new.tenant], |row| row.get(0))?;
    if usize::try_from(open).is_ok_and(|open| open >= MAX_OPEN_JOBS) {
        return Ok(Begun::TooMany);
    }
    if let Some(missing) = missing(connection, new)? {
        return Ok(missing);
    }
    insert(connection, new)?;
    let job = get(connection, &new.tenant, new.id)?;
    job.map(Begun::New).ok_or(rusqlite::Error::QueryReturnedNoRows)
}

fn repeated(
    connection: &Connection,
    new: &NewJob,
    idempotency: &Idempotency,
) -> rusqlite::Result<Option<Begun>> {
    let kept = i64::try_from(idempotency.kept.as_micros()).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "UPDATE jobs SET idempotency_key = NULL
             WHERE tenant = ?1 AND idempotency_key = ?2 AND created_at <= ?3",
        )?
        .execute(params![new.tenant, idempotency.key, rows::micros(new.created_at) - kept])?;
    let earlier = connection
        .prepare_cached(
            "SELECT id, fingerprint FROM jobs WHERE tenant = ?1 AND idempotency_key = ?2",
        )?
        .query_row(params![new.tenant, idempotency.key], |row| {
            Ok((JobId::from_bytes(row.get(0)?), row.get::<_, [u8; 32]>(1)?))
        })
        .optional()?;
    match earlier {
        None => Ok(None),
        Some((_, fingerprint)) if fingerprint != *idempotency.fingerprint.as_bytes() => {
            Ok(Some(Begun::KeyReused))
        }
        Some((id, _)) => Ok(get(connection, &new.tenant, id)?.map(Begun::Repeated)),
    }
}

/// What is named and is not there, or is another tenant's.
fn missing(connection: &Connection, new: &NewJob) -> rusqlite::Result<Option<Begun>> {
    match &new.selection {
        Selection::Filter(_) => Ok(None),
        Selection::Event(event) => {
            let known = self::event(connection, &new.tenant, event)?.is_some();
            Ok((!known).then(|| Begun::NoEvent(event.clone())))
        }
        Selection::Deliveries(ids) => {
            let mut statement = connection
                .prepare_cached("SELECT 1 FROM deliveries WHERE id = ?1 AND tenant = ?2")?;
            for id in ids {
                if !statement.exists(params![id.as_bytes(), new.tenant])? {
                    return Ok(Some(Begun::NoDelivery(*id)));
                }
            }
            Ok(None)
        }
    }
}

/// The row of a tenant's event.
pub(super) fn event(
    connection: &Connection,
    tenant: &str,
    id: &EventId,
) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT seq FROM events WHERE tenant = ?1 AND id = ?2")?
        .query_row(params![tenant, id.as_str()], |row| row.get(0))
        .optional()
}

pub(super) fn insert(connection: &Connection, new: &NewJob) -> rusqlite::Result<()> {
    let none = Filter::default();
    let (listed, event, filter) = match &new.selection {
        Selection::Deliveries(ids) => {
            let mut ids = ids.clone();
            ids.sort_unstable();
            ids.dedup();
            (Some(ids.iter().flat_map(|id| *id.as_bytes()).collect::<Vec<u8>>()), None, &none)
        }
        Selection::Event(event) => (None, Some(event.as_str()), &none),
        Selection::Filter(filter) => (None, None, filter),
    };
    let idempotency = new.idempotency.as_ref();
    connection
        .prepare_cached(
            "INSERT INTO jobs (id, tenant, action, same_bytes, listed, event, webhook, event_type,
                 delivery_state, accepted_after, accepted_before, failed_since, state, place, until,
                 matched, done, failed, created_at, idempotency_key, fingerprint)
             VALUES (:id, :tenant, :action, :same_bytes, :listed, :event, :webhook, :event_type,
                 :delivery_state, :accepted_after, :accepted_before, :failed_since, 'waiting',
                 zeroblob(16), :until, 0, 0, 0, :created_at, :key, :fingerprint)",
        )?
        .execute(named_params! {
            ":id": new.id.as_bytes(),
            ":tenant": new.tenant,
            ":action": match new.action {
                Action::Cancel => "cancel",
                Action::Resume => "resume",
                Action::Discard => "discard",
                Action::Replay | Action::ReplaySameBytes => "replay",
            },
            ":same_bytes": new.action == Action::ReplaySameBytes,
            ":listed": listed,
            ":event": event,
            ":webhook": filter.webhook.as_ref().map(|webhook| &*webhook.0),
            ":event_type": filter.event_type.as_ref().map(EventType::as_str),
            ":delivery_state": filter.state.map(State::as_str),
            ":accepted_after": filter.accepted_after.map(rows::micros),
            ":accepted_before": filter.accepted_before.map(rows::micros),
            ":failed_since": filter.failed_since.map(rows::micros),
            ":until": new.until.as_bytes(),
            ":created_at": rows::micros(new.created_at),
            ":key": idempotency.map(|idempotency| &idempotency.key),
            ":fingerprint": idempotency.map(|idempotency| idempotency.fingerprint.as_bytes()),
        })
        .map(drop)
}

pub(super) fn stop(
    connection: &Connection,
    tenant: &str,
    id: JobId,
    now: Timestamp,
) -> rusqlite::Result<Option<Job>> {
    connection
        .prepare_cached(
            "UPDATE jobs SET state = 'cancelled', ended_at = ?3
             WHERE id = ?1 AND tenant = ?2 AND ended_at IS NULL",
        )?
        .execute(params![id.as_bytes(), tenant, rows::micros(now)])?;
    get(connection, tenant, id)
}

pub(super) fn get(
    connection: &Connection,
    tenant: &str,
    id: JobId,
) -> rusqlite::Result<Option<Job>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1 AND tenant = ?2"))?
        .query_row(params![id.as_bytes(), tenant], of_row)
        .optional()
}

pub(super) fn list(
    connection: &Connection,
    tenant: &str,
    after: Option<JobId>,
    limit: usize,
) -> rusqlite::Result<Vec<Job>> {
    let before = after.map_or([0xff; 16], |after| *after.as_bytes());
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM jobs INDEXED BY jobs_of_tenant
             WHERE tenant = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3"
        ))?
        .query_map(params![tenant, before, i64::try_from(limit).unwrap_or(i64::MAX)], of_row)?
        .collect()
}

pub(super) fn open(connection: &Connection) -> rusqlite::Result<Vec<JobId>> {
    connection
        .prepare_cached("SELECT id FROM jobs WHERE ended_at IS NULL ORDER BY tenant, id")?
        .query_map([], |row| Ok(JobId::from_bytes(row.get(0)?)))?
        .collect()
}

/// Removes jobs that ended before this time.
pub(super) fn forget(
    connection: &Connection,
    before: Timestamp,
    limit: usize,
) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "DELETE FROM jobs WHERE id IN
                 (SELECT id FROM jobs WHERE ended_at < ?1 ORDER BY ended_at LIMIT ?2)",
        )?
        .execute(params![rows::micros(before), i64::try_from(limit).unwrap_or(i64::MAX)])
}

/// The job in `COLUMNS`.
pub(super) fn of_row(row: &Row<'_>) -> rusqlite::Result<Job> {
    let action = match (row.get_ref(1)?.as_str()?, row.get(2)?) {
        ("replay", false) => Action::Replay,
        ("replay", true) => Action::ReplaySameBytes,
        ("cancel", _) => Action::Cancel,
        ("resume", _) => Action::Resume,
        ("discard", _) => Action::Discard,
        (name, _) => return Err(rows::unknown(1, "action", name)),
    };
    let state = row.get_ref(11)?.as_str()?;
    let time = |column: usize| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(column)?.map(rows::timestamp))
    };
    let count = |column: usize| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.unsigned_abs());
    Ok(Job {
        id: JobId::from_bytes(row.get(0)?),
        action,
        selection: selection(row)?,
        state: JobState::parse(state).ok_or_else(|| rows::unknown(11, "state", state))?,
        matched: count(12)?,
        done: count(13)?,
        failed: count(14)?,
        failure: row.get(15)?,
        created_at: rows::timestamp(row.get(16)?),
        started_at: time(17)?,
        ended_at: time(18)?,
    })
}

fn selection(row: &Row<'_>) -> rusqlite::Result<Selection> {
    if let Some(listed) = row.get_ref(3)?.as_blob_or_null()? {
        let (ids, _) = listed.as_chunks::<16>();
        return Ok(Selection::Deliveries(
            ids.iter().map(|id| DeliveryId::from_bytes(*id)).collect(),
        ));
    }
    if let Some(event) = row.get_ref(4)?.as_str_or_null()? {
        let event = EventId::parse(event).map_err(|error| rows::unreadable(4, error))?;
        return Ok(Selection::Event(event));
    }
    let event_type = match row.get_ref(6)?.as_str_or_null()? {
        Some(name) => Some(EventType::parse(name).map_err(|error| rows::unreadable(6, error))?),
        None => None,
    };
    let state = match row.get_ref(7)?.as_str_or_null()? {
        Some(_) => Some(rows::state(row, 7)?),
        None => None,
    };
    let time = |column: usize| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(column)?.map(rows::timestamp))
    };
    Ok(Selection::Filter(Filter {
        webhook: row.get::<_, Option<_>>(5)?.map(WebhookId),
        event_type,
        state,
        accepted_after: time(8)?,
        accepted_before: time(9)?,
        failed_since: time(10)?,
    }))
}
