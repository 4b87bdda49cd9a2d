//! A step of a job: the next deliveries, what is done to them, and how far the job is then, in one transaction.

use std::ops::ControlFlow;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::{Action, Filter, Job, JobId, JobState, Pace, Selection, Start, Stepped};
use super::retention::NO_DATA;
use super::walk::{Found, Walk, found};
use super::{discard, hold, jobs, queue, replay, rows};
use crate::delivery::{DeliveryId, State};
use crate::failpoint::{self, Point};

/// A job with what only its steps need.
struct Open {
    job: Job,
    tenant: Arc<str>,
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
    let mut stepped = Stepped { tenant: Arc::clone(&open.tenant), ..Stepped::default() };
    let is_through = match open.job.action {
        Action::Discard => discard(connection, &mut open, batch, &mut stepped)?,
        _ => go_on(connection, &mut open, batch, pace.looks, now, &mut stepped)?,
    };
    open.job.started_at.get_or_insert(now);
    open.job.state = JobState::Running;
    if is_through {
        open.job.state = JobState::Completed;
        open.job.ended_at = Some(now);
    }
    keep(connection, &open.job, open.place)?;
    failpoint::hit(Point::JobStepWritten);
    stepped.ended = is_through.then_some(open.job);
    Ok(stepped)
}

/// Acts on the next deliveries from the job's place on. True when there are no more.
fn go_on(
    connection: &Connection,
    open: &mut Open,
    batch: usize,
    looks: usize,
    now: Timestamp,
    stepped: &mut Stepped,
) -> rusqlite::Result<bool> {
    let (found, place) = next(connection, open, batch, looks)?;
    for found in found {
        open.job.matched += 1;
        match act(connection, open, &found, now, stepped)? {
            Fate::Done => open.job.done += 1,
            Fate::Failed(why) => {
                open.job.failed += 1;
                open.job.failure = Some(why);
            }
        }
    }
    open.place = place.unwrap_or(open.place);
    Ok(place.is_none())
}

/// Cancels the next ones of a phase. It needs no place in it: what it has been through is not found again. True when there
/// are no more phases.
fn discard(
    connection: &Connection,
    open: &mut Open,
    batch: usize,
    stepped: &mut Stepped,
) -> rusqlite::Result<bool> {
    let (Selection::Filter(Filter { webhook: Some(webhook), .. }), [phase, ..]) =
        (&open.job.selection, &mut open.place)
    else {
        return Ok(true);
    };
    let before = (open.until, open.job.created_at);
    let Some(found) = discard::find(connection, *phase, webhook, before, batch)? else {
        return Ok(true);
    };
    if found.is_empty() {
        *phase += 1;
    }
    for found in found {
        open.job.matched += 1;
        open.job.done += 1;
        if cancel(connection, &open.job, &found, stepped)?.is_some() {
            stepped.due.insert(found.webhook);
        }
    }
    Ok(false)
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

/// How many of the latest deliveries of a job are due without an attempt. What waits in a queue is in nobody's way.
fn pending(connection: &Connection, id: JobId, latest: usize) -> rusqlite::Result<usize> {
    let pending: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM (SELECT delivery FROM replays WHERE job = ?1
                                   ORDER BY delivery DESC LIMIT ?2)
             JOIN deliveries ON id = delivery WHERE state = 'pending' AND due_at IS NOT NULL",
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
    let (after, before) = match open.job.action {
        // Whenever it came to be paused: it must not stay so.
        Action::Resume => (open.place, [0xff; 16]),
        _ => (open.place, open.until),
    };
    let tenant = &*open.tenant;
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
    if matches!(open.job.action, Action::Cancel | Action::Resume | Action::Discard) {
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
                "SELECT id, webhook, state, event, part, claimed, queue FROM deliveries WHERE id = ?1",
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
    open: &Open,
    found: &Found,
    now: Timestamp,
    stepped: &mut Stepped,
) -> rusqlite::Result<Fate> {
    let job = &open.job;
    if let Some(why) = refusal(connection, job, found)? {
        return Ok(Fate::Failed(why));
    }
    match job.action {
        Action::Cancel | Action::Discard => {
            if cancel(connection, job, found, stepped)?.is_some() {
                stepped.due.insert(found.webhook.clone());
            }
        }
        Action::Resume => {
            resume(connection, found, now)?;
            stepped.due.insert(found.webhook.clone());
        }
        Action::Replay | Action::ReplaySameBytes => {
            replay::make(connection, job, found, now)?;
            stepped.made += 1;
            stepped.due.insert(found.webhook.clone());
        }
    }
    Ok(Fate::Done)
}

/// Why the action cannot be done to a delivery, if it cannot.
fn refusal(connection: &Connection, job: &Job, found: &Found) -> rusqlite::Result<Option<String>> {
    let id = DeliveryId::from_bytes(found.id);
    if !job.action.takes(found.state) {
        let state = found.state.as_str();
        return Ok(Some(match job.action {
            Action::Cancel | Action::Discard => {
                format!("{id} is {state}: there is nothing to cancel")
            }
            Action::Resume => format!("{id} is {state}, not paused"),
            Action::Replay | Action::ReplaySameBytes => {
                format!("{id} is {state}; it can be replayed once it is finished, or cancelled")
            }
        }));
    }
    if !matches!(job.action, Action::Replay | Action::ReplaySameBytes) {
        return Ok(None);
    }
    let has_data = connection
        .prepare_cached("SELECT 1 FROM events WHERE seq = ?1 AND removed & ?2 = 0")?
        .exists(params![found.event, NO_DATA])?;
    if !has_data {
        return Ok(Some(format!(
            "{id} cannot be replayed: the data of its event is removed, as the retention says"
        )));
    }
    if job.action == Action::ReplaySameBytes && !replay::has_request(connection, found)? {
        return Ok(Some(format!(
            "the request of {id} is not kept; replay it without `same_bytes`"
        )));
    }
    Ok(None)
}

/// Cancels a delivery. Gives the next one of its queue if it was the head of one and is not in hand: that is due then.
fn cancel(
    connection: &Connection,
    job: &Job,
    found: &Found,
    stepped: &mut Stepped,
) -> rusqlite::Result<Option<[u8; 16]>> {
    connection
        .prepare_cached(
            "UPDATE deliveries SET state = 'cancelled', due_at = NULL, claimed = 0, reason = ?2
             WHERE id = ?1",
        )?
        .execute(params![found.id, format!("cancelled by {}", job.id)])?;
    // No run follows that would have to get the same answers.
    connection.prepare_cached("DELETE FROM kv_journal WHERE delivery = ?1")?.execute([found.id])?;
    if found.state == State::Held {
        hold::one_less(connection, &found.webhook)?;
    }
    stepped.cancelled += 1;
    let id = DeliveryId::from_bytes(found.id);
    if found.claimed {
        stepped.in_hand.push((found.webhook.clone(), id));
    }
    match &found.queue {
        // It may be on its way to the receiver, and the next one must not overtake it.
        Some(key) if found.claimed => {
            queue::leave(connection, &found.webhook, key, id).map(|()| None)
        }
        Some(key) => queue::follow(connection, &found.webhook, key, id, &Start::Due),
        None => Ok(None),
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
