//! A step of a job: the next deliveries, what is done to them, and how far the job is then, in one transaction.

use std::ops::ControlFlow;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::{
    Action, Filter, Job, JobId, JobState, NewDelivery, Pace, Selection, Start, Stepped,
};
use super::walk::{Found, Walk, found};
use super::write::insert_delivery;
use super::{hold, jobs, rows};
use crate::delivery::{DeliveryId, State};

/// A job with what only its steps need.
struct Open {
    job: Job,
    tenant: String,
    place: [u8; 16],
    until: [u8; 16],
}

/// What came of one delivery.
enum Fate {
    Done,
    Failed(String),
}

pub(super) fn step(
    connection: &Connection,
    id: JobId,
    now: Timestamp,
    pace: Pace,
) -> rusqlite::Result<Stepped> {
    let Some(mut open) = read(connection, id)? else {
        return Ok(Stepped::default());
    };
    let room = pace.pending.saturating_sub(pending(connection, id, pace.pending)?);
    let batch = pace.batch.min(room);
    if batch == 0 {
        return Ok(Stepped { waits: true, ..Stepped::default() });
    }
    let mut stepped = Stepped::default();
    let (found, place) = next(connection, &open, batch, pace.looks)?;
    for found in found {
        open.job.matched += 1;
        match act(connection, &open.job, &found, now, &mut stepped)? {
            Fate::Done => open.job.done += 1,
            Fate::Failed(why) => {
                open.job.failed += 1;
                open.job.failure = Some(why);
            }
        }
    }
    open.job.started_at.get_or_insert(now);
    open.job.state = JobState::Running;
    if place.is_none() {
        open.job.state = JobState::Completed;
        open.job.ended_at = Some(now);
    }
    keep(connection, &open.job, place.unwrap_or(open.place))?;
    stepped.ended = place.is_none().then_some(open.job);
    Ok(stepped)
}

fn read(connection: &Connection, id: JobId) -> rusqlite::Result<Option<Open>> {
    let columns = jobs::COLUMNS;
    connection
        .prepare_cached(&format!(
            "SELECT {columns}, tenant, place, until FROM jobs WHERE id = ?1 AND ended_at IS NULL"
        ))?
        .query_row([id.as_bytes()], |row| {
            let job = jobs::of_row(row)?;
            Ok(Open { job, tenant: row.get(19)?, place: row.get(20)?, until: row.get(21)? })
        })
        .optional()
}

/// How many of the latest deliveries of a job are without an attempt.
fn pending(connection: &Connection, id: JobId, latest: usize) -> rusqlite::Result<usize> {
    let pending: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM (SELECT delivery FROM replays WHERE job = ?1
                                   ORDER BY delivery DESC LIMIT ?2)
             JOIN deliveries ON id = delivery WHERE state = 'pending'",
        )?
        .query_row(params![id.as_bytes(), i64::try_from(latest).unwrap_or(i64::MAX)], |row| {
            row.get(0)
        })?;
    Ok(usize::try_from(pending).unwrap_or(0))
}

/// The next deliveries for a job, and the last one that was looked at, unless there are no more.
fn next(
    connection: &Connection,
    open: &Open,
    batch: usize,
    looks: usize,
) -> rusqlite::Result<(Vec<Found>, Option<[u8; 16]>)> {
    let none = Filter::default();
    let (filter, event) = match &open.job.selection {
        Selection::Deliveries(ids) => return listed(connection, ids, open.place, batch),
        Selection::Filter(filter) => (filter, None),
        Selection::Event(event) => match jobs::event(connection, &open.tenant, event)? {
            Some(seq) => (&none, Some(seq)),
            // Its time to be kept was over.
            None => return Ok((Vec::new(), None)),
        },
    };
    let (tenant, after, before) = (&*open.tenant, open.place, open.until);
    let walk = Walk { tenant, filter, event, after, before, newest_first: false, looks };
    let mut all = Vec::new();
    let place = walk.go(connection, |found| {
        if open.job.action.takes(found.state) && !is_repeated(connection, open, &found.id)? {
            all.push(found);
        }
        Ok(if all.len() < batch { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok((all, place))
}

/// Whether a filter or an event does not mean this delivery: another one has been made to repeat it, and what
/// is to be replayed is the latest.
fn is_repeated(connection: &Connection, open: &Open, id: &[u8; 16]) -> rusqlite::Result<bool> {
    if matches!(open.job.action, Action::Cancel | Action::Resume) {
        return Ok(false);
    }
    let repeated =
        connection.prepare_cached("SELECT 1 FROM replays WHERE replay_of = ?1")?.exists([id])?;
    // Ids grow with time. Should the clock have been set back, the job must not find what it made itself.
    let own = || {
        connection
            .prepare_cached("SELECT 1 FROM replays WHERE delivery = ?1 AND job = ?2")?
            .exists(params![id, open.job.id.as_bytes()])
    };
    Ok(repeated || own()?)
}

fn listed(
    connection: &Connection,
    ids: &[DeliveryId],
    place: [u8; 16],
    batch: usize,
) -> rusqlite::Result<(Vec<Found>, Option<[u8; 16]>)> {
    let mut left = ids.iter().filter(|id| *id.as_bytes() > place);
    let mut all = Vec::new();
    let mut last = None;
    for id in left.by_ref().take(batch) {
        last = Some(*id.as_bytes());
        let found = connection
            .prepare_cached(
                "SELECT id, webhook, state, event, part, claimed FROM deliveries WHERE id = ?1",
            )?
            .query_row([id.as_bytes()], found)
            .optional()?;
        // One that is missing was there when the job began; its time to be kept was over.
        all.extend(found);
    }
    Ok((all, last.filter(|_| left.next().is_some())))
}

fn keep(connection: &Connection, job: &Job, place: [u8; 16]) -> rusqlite::Result<()> {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "UPDATE jobs SET state = ?2, place = ?3, matched = ?4, done = ?5, failed = ?6,
                 failure = ?7, started_at = ?8, ended_at = ?9
             WHERE id = ?1",
        )?
        .execute(params![
            job.id.as_bytes(),
            job.state.as_str(),
            place,
            count(job.matched),
            count(job.done),
            count(job.failed),
            job.failure,
            job.started_at.map(rows::micros),
            job.ended_at.map(rows::micros),
        ])
        .map(drop)
}

fn act(
    connection: &Connection,
    job: &Job,
    found: &Found,
    now: Timestamp,
    stepped: &mut Stepped,
) -> rusqlite::Result<Fate> {
    let id = DeliveryId::from_bytes(found.id);
    if !job.action.takes(found.state) {
        let state = found.state.as_str();
        return Ok(Fate::Failed(match job.action {
            Action::Cancel => format!("{id} is {state}: there is nothing to cancel"),
            Action::Resume => format!("{id} is {state}, not paused"),
            Action::Replay | Action::ReplaySameBytes => {
                format!("{id} is {state}; it can be replayed once it is finished, or cancelled")
            }
        }));
    }
    match job.action {
        Action::Cancel => {
            cancel(connection, job, found)?;
            if found.claimed {
                stepped.in_hand.push((found.webhook.clone(), id));
            }
        }
        Action::Resume => {
            resume(connection, found, now)?;
            stepped.due += 1;
        }
        Action::ReplaySameBytes if !has_request(connection, found)? => {
            return Ok(Fate::Failed(format!(
                "the request of {id} is not kept; replay it without `same_bytes`"
            )));
        }
        Action::Replay | Action::ReplaySameBytes => {
            replay(connection, job, found, now)?;
            stepped.due += 1;
        }
    }
    Ok(Fate::Done)
}

fn cancel(connection: &Connection, job: &Job, found: &Found) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE deliveries SET state = 'cancelled', due_at = NULL, claimed = 0, reason = ?2
             WHERE id = ?1",
        )?
        .execute(params![found.id, format!("cancelled by {}", job.id)])?;
    // No run follows that would have to get the same answers.
    connection.prepare_cached("DELETE FROM kv_journal WHERE delivery = ?1")?.execute([found.id])?;
    match found.state {
        State::Held => hold::one_less(connection, &found.webhook),
        _ => Ok(()),
    }
}

fn resume(connection: &Connection, found: &Found, now: Timestamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE deliveries SET due_at = ?2, claimed = 0, reason = NULL,
                 state = iif(EXISTS (SELECT 1 FROM attempts WHERE delivery = id),
                             'retrying', 'pending')
             WHERE id = ?1",
        )?
        .execute(params![found.id, rows::micros(now)])
        .map(drop)
}

fn has_request(connection: &Connection, found: &Found) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM requests WHERE delivery = ?1")?.exists([found.id])
}

/// Makes a delivery that repeats this one.
fn replay(
    connection: &Connection,
    job: &Job,
    found: &Found,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let id = DeliveryId::generate();
    // A split was made of the event already: the others are deliveries of their own.
    let only_part = connection
        .prepare_cached("SELECT 1 FROM deliveries WHERE event = ?1 AND webhook = ?2 AND part > 1")?
        .exists(params![found.event, found.webhook.0])?;
    connection
        .prepare_cached(
            "INSERT INTO replays (delivery, replay_of, job, only_part) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![id.as_bytes(), found.id, job.id.as_bytes(), only_part])?;
    let delivery = NewDelivery { id, webhook: found.webhook.clone(), start: Start::Due };
    insert_delivery(connection, found.event, &delivery, found.part, rows::micros(now), None)?;
    if job.action == Action::ReplaySameBytes {
        connection
            .prepare_cached(
                "UPDATE deliveries SET chain = (SELECT chain FROM deliveries WHERE id = ?2)
                 WHERE id = ?1",
            )?
            .execute(params![id.as_bytes(), found.id])?;
        connection
            .prepare_cached(
                "INSERT INTO requests (delivery, method, path_suffix, query, content_type, headers,
                     removed_headers, body)
                 SELECT ?1, method, path_suffix, query, content_type, headers, removed_headers, body
                 FROM requests WHERE delivery = ?2",
            )?
            .execute(params![id.as_bytes(), found.id])?;
    }
    Ok(())
}
