//! Walks through the deliveries of a tenant in order of their ids, by the narrowest index there is, and never
//! further than it is allowed to: what a step costs does not depend on how much there is.

use std::ops::ControlFlow;

use rusqlite::{Connection, OptionalExtension as _, Row, named_params};

use super::super::{Filter, Listed, Page};
use super::{hold, queue, rows};
use crate::delivery::{DeliveryId, State, WebhookId};
use crate::event::{EventId, EventType};

/// How many deliveries are looked at for one page.
const MAX_LOOKS: usize = 20_000;

/// Where to walk.
pub(super) struct Walk<'a> {
    pub(super) tenant: &'a str,
    pub(super) filter: &'a Filter,
    /// The row of the event, if it is to be one event's deliveries.
    pub(super) event: Option<i64>,
    /// From here on, without it: upwards in ids.
    pub(super) after: [u8; 16],
    /// Up to here, without it.
    pub(super) before: [u8; 16],
    pub(super) newest_first: bool,
    /// How many deliveries to look at.
    pub(super) looks: usize,
}

/// A delivery on the way.
pub(super) struct Found {
    pub(super) id: [u8; 16],
    pub(super) webhook: WebhookId,
    pub(super) state: State,
    pub(super) event: i64,
    pub(super) part: u32,
    pub(super) claimed: bool,
    /// The key of its queue.
    pub(super) queue: Option<String>,
}

/// Whether a delivery fits, so that those that do not are counted too.
const FITS: &str = "deliveries.tenant = :tenant
    AND (:webhook IS NULL OR webhook = :webhook)
    AND (:state IS NULL OR state = :state)
    AND (:event IS NULL OR event = :event)
    AND ((:type IS NULL AND :accepted_after IS NULL AND :accepted_before IS NULL)
        OR EXISTS (SELECT 1 FROM events WHERE seq = deliveries.event
            AND (:type IS NULL OR type = :type)
            AND (:accepted_after IS NULL OR accepted_at >= :accepted_after)
            AND (:accepted_before IS NULL OR accepted_at < :accepted_before)))
    AND (:failed_since IS NULL OR coalesce(
        (SELECT failure IS NOT NULL AND started_at >= :failed_since
         FROM attempts WHERE delivery = deliveries.id ORDER BY number DESC LIMIT 1), 0))";

impl Walk<'_> {
    /// Which index to go by, and what has to hold for it.
    fn source(&self) -> &'static str {
        let by_state = !matches!(self.filter.state, None | Some(State::Pending | State::Delivered));
        match (self.event, &self.filter.webhook) {
            (Some(_), _) => "INDEXED BY deliveries_of_event WHERE event = :event",
            (None, Some(_)) if by_state => {
                "INDEXED BY deliveries_by_webhook_and_state
                 WHERE webhook = :webhook AND state = :state
                     AND state NOT IN ('pending', 'delivered')"
            }
            (None, None) if by_state => {
                "INDEXED BY deliveries_by_state
                 WHERE tenant = :tenant AND state = :state
                     AND state NOT IN ('pending', 'delivered')"
            }
            (None, _) => "INDEXED BY deliveries_of_tenant WHERE tenant = :tenant",
        }
    }

    pub(super) fn sql(&self) -> String {
        let direction = if self.newest_first { "DESC" } else { "ASC" };
        format!(
            "SELECT id, webhook, state, event, part, claimed, queue, {FITS} FROM deliveries {}
                 AND id > :after AND id < :before ORDER BY id {direction}",
            self.source()
        )
    }

    /// A delivery is not made before its event is accepted. A minute allows for a clock that was set.
    fn after(&self) -> [u8; 16] {
        let earliest = self.filter.accepted_after.map_or([0; 16], |time| {
            let minute = jiff::SignedDuration::from_mins(1);
            let time = time.checked_sub(minute).unwrap_or(jiff::Timestamp::MIN);
            *DeliveryId::before(time).as_bytes()
        });
        earliest.max(self.after)
    }

    /// Shows `visit` what fits, in order, until it breaks off or enough was looked at; gives the last one
    /// that was looked at, if there may be more.
    pub(super) fn go(
        &self,
        connection: &Connection,
        mut visit: impl FnMut(Found) -> rusqlite::Result<ControlFlow<()>>,
    ) -> rusqlite::Result<Option<[u8; 16]>> {
        let Filter { webhook, event_type, state, accepted_after, accepted_before, failed_since } =
            self.filter;
        let mut statement = connection.prepare_cached(&self.sql())?;
        let mut rows = statement.query(named_params! {
            ":tenant": self.tenant,
            ":webhook": webhook.as_ref().map(|webhook| &*webhook.0),
            ":type": event_type.as_ref().map(EventType::as_str),
            ":state": state.map(State::as_str),
            ":event": self.event,
            ":accepted_after": accepted_after.map(rows::micros),
            ":accepted_before": accepted_before.map(rows::micros),
            ":failed_since": failed_since.map(rows::micros),
            ":after": self.after(),
            ":before": self.before,
        })?;
        let mut looks = 0;
        while let Some(row) = rows.next()? {
            looks += 1;
            let id = row.get(0)?;
            if row.get(7)? && visit(found(row)?)?.is_break() {
                return Ok(Some(id));
            }
            if looks >= self.looks {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

/// The delivery in `id, webhook, state, event, part, claimed, queue`.
pub(super) fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    Ok(Found {
        id: row.get(0)?,
        webhook: WebhookId(row.get(1)?),
        state: rows::state(row, 2)?,
        event: row.get(3)?,
        part: row.get(4)?,
        claimed: row.get(5)?,
        queue: row.get(6)?,
    })
}

/// A page of deliveries, newest first.
pub(super) fn page(
    connection: &Connection,
    tenant: &str,
    filter: &Filter,
    after: Option<DeliveryId>,
    limit: usize,
) -> rusqlite::Result<Page> {
    // One transaction: what is found and what is said of it are of the same moment.
    let snapshot = connection.unchecked_transaction()?;
    let walk = Walk {
        tenant,
        filter,
        event: None,
        after: [0; 16],
        before: after.map_or([0xff; 16], |after| *after.as_bytes()),
        newest_first: true,
        looks: MAX_LOOKS,
    };
    let mut deliveries = Vec::new();
    let next = walk.go(&snapshot, |found| {
        deliveries.push(listed(&snapshot, &found.id)?);
        Ok(if deliveries.len() < limit {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        })
    })?;
    Ok(Page { deliveries, next: next.map(DeliveryId::from_bytes) })
}

fn listed(connection: &Connection, id: &[u8; 16]) -> rusqlite::Result<Listed> {
    let last_attempt = connection
        .prepare_cached(
            "SELECT started_at, duration_us, status, failure, message, excerpt, retry_after_us,
                 dns_us, connect_us, first_byte_us, number
             FROM attempts WHERE delivery = ?1 ORDER BY number DESC LIMIT 1",
        )?
        .query_row([id], |row| Ok((rows::attempt(row)?, row.get(10)?)))
        .optional()?;
    let (last_attempt, attempts) = last_attempt.map_or((None, 0), |(last, all)| (Some(last), all));
    connection
        .prepare_cached(
            "SELECT deliveries.webhook, part, state, reason, due_at, replay_of,
                 events.id, type, accepted_at, cause, setup, failure, message, since,
                 queue, head, blocked = 1,
                 (SELECT events.id FROM deliveries AS heads JOIN events ON seq = heads.event
                  WHERE heads.id = head)
             FROM deliveries JOIN events ON events.seq = event
                 LEFT JOIN replays ON replays.delivery = deliveries.id
                 LEFT JOIN holds ON state = 'held' AND holds.webhook = deliveries.webhook
                 LEFT JOIN queues ON state = 'pending' AND due_at IS NULL
                     AND queues.webhook = deliveries.webhook AND key = queue
             WHERE deliveries.id = ?1",
        )?
        .query_row([id], |row| {
            let held = row.get_ref(9)?.as_str_or_null()?.is_some();
            let queued = row.get_ref(15)?.as_blob_or_null()?.is_some();
            let reason = match (held, queued) {
                (true, _) => Some(hold::of_row(row, 9)?.to_string()),
                (_, true) => Some(queue::reason(row, 14)?),
                _ => row.get(3)?,
            };
            Ok(Listed {
                id: DeliveryId::from_bytes(*id),
                event: EventId::parse(row.get_ref(6)?.as_str()?)
                    .map_err(|error| rows::unreadable(6, error))?,
                event_type: EventType::parse(row.get_ref(7)?.as_str()?)
                    .map_err(|error| rows::unreadable(7, error))?,
                accepted_at: rows::timestamp(row.get(8)?),
                webhook: WebhookId(row.get(0)?),
                part: row.get(1)?,
                state: rows::state(row, 2)?,
                reason,
                due_at: row.get::<_, Option<i64>>(4)?.map(rows::timestamp),
                replay_of: row.get::<_, Option<_>>(5)?.map(DeliveryId::from_bytes),
                attempts,
                last_attempt,
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Config, SqliteStore};

    #[test]
    fn every_walk_goes_by_an_index_alone() {
        let folder = tempfile::tempdir().unwrap();
        drop(SqliteStore::open(&Config::new(folder.path().to_owned())).unwrap());
        let connection = Connection::open(folder.path().join("hookmill.db")).unwrap();
        let webhook = Some(WebhookId("wh_a".into()));
        let of = |webhook: &Option<WebhookId>, state| Filter {
            webhook: webhook.clone(),
            state,
            ..Filter::default()
        };
        for (filter, event, index) in [
            (of(&None, None), None, "deliveries_of_tenant (tenant=? AND id>? AND id<?)"),
            (of(&webhook, None), None, "deliveries_of_tenant (tenant=? AND id>? AND id<?)"),
            (of(&None, Some(State::Delivered)), None, "deliveries_of_tenant (tenant=? AND"),
            (
                of(&None, Some(State::Dead)),
                None,
                "deliveries_by_state (tenant=? AND state=? AND id>?",
            ),
            (
                of(&webhook, Some(State::Dead)),
                None,
                "by_webhook_and_state (webhook=? AND state=? AND id",
            ),
            (of(&None, None), Some(1), "deliveries_of_event (event=? AND id>? AND id<?)"),
        ] {
            for newest_first in [false, true] {
                let (after, before, looks) = ([0; 16], [0xff; 16], 1);
                let filter = &filter;
                let walk =
                    Walk { tenant: "acme", filter, event, after, before, newest_first, looks };
                let sql = format!("EXPLAIN QUERY PLAN {}", walk.sql());
                let mut statement = connection.prepare(&sql).unwrap();
                let mut steps = statement.raw_query();
                let mut plan = Vec::<String>::new();
                while let Some(step) = steps.next().unwrap() {
                    plan.push(step.get(3).unwrap());
                }
                assert!(plan[0].contains(index), "{plan:?}");
                let sorts = plan.iter().filter(|step| step.contains("TEMP B-TREE")).count();
                assert_eq!(sorts, 0, "{plan:?}");
            }
        }
    }
}
