//! Finding due deliveries, webhook by webhook, and taking them in hand.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::super::{Ask, Claimed, Kind, Waiting};
use super::rows;
use crate::delivery::{Delivery, State, WebhookId};
use crate::event::Event;

/// The first due delivery of each webhook. The index is skipped through from webhook to webhook, so that it costs
/// three seeks for each of them, however much they have.
const WAITING: &str = "
    WITH RECURSIVE waiting (webhook) AS (
        SELECT (SELECT webhook FROM deliveries
                WHERE due_at IS NOT NULL AND claimed = 0
                ORDER BY webhook LIMIT 1)
        UNION ALL
        SELECT (SELECT webhook FROM deliveries
                WHERE due_at IS NOT NULL AND claimed = 0 AND webhook > waiting.webhook
                ORDER BY webhook LIMIT 1)
        FROM waiting WHERE waiting.webhook IS NOT NULL
    )
    SELECT webhook,
        (SELECT due_at FROM deliveries
         WHERE due_at IS NOT NULL AND claimed = 0 AND webhook = waiting.webhook AND state = 'pending'
         ORDER BY due_at LIMIT 1),
        (SELECT due_at FROM deliveries
         WHERE due_at IS NOT NULL AND claimed = 0 AND webhook = waiting.webhook AND state = 'retrying'
         ORDER BY due_at LIMIT 1)
    FROM waiting WHERE webhook IS NOT NULL";

/// The longest due of a webhook and a state. Ids grow with time, so those that are due at once come in order
/// of acceptance.
const DUE: &str = "
    SELECT id FROM deliveries
    WHERE due_at IS NOT NULL AND claimed = 0 AND webhook = ?1 AND state = ?2 AND due_at <= ?3
    ORDER BY due_at, id LIMIT ?4";

/// When the next one of a webhook and a state is due.
const NEXT: &str = "
    SELECT min(due_at) FROM deliveries
    WHERE due_at IS NOT NULL AND claimed = 0 AND webhook = ?1 AND state = ?2";

pub(super) fn waiting(connection: &Connection) -> rusqlite::Result<Vec<Waiting>> {
    connection
        .prepare_cached(WAITING)?
        .query_map([], |row| {
            let due: [Option<i64>; 2] = [row.get(1)?, row.get(2)?];
            let next_due = due.into_iter().flatten().min().map_or(Timestamp::MIN, rows::timestamp);
            Ok(Waiting { webhook: WebhookId(row.get(0)?), next_due })
        })?
        .collect()
}

pub(super) fn claim(
    connection: &Connection,
    now: Timestamp,
    asks: &[Ask],
    max_bytes: usize,
) -> rusqlite::Result<Vec<Claimed>> {
    let mut claim = Claim { connection, now, room: max_bytes, events: HashMap::new() };
    asks.iter().map(|ask| claim.of_webhook(ask)).collect()
}

struct Claim<'a> {
    connection: &'a Connection,
    now: Timestamp,
    /// How many bytes may still be taken in hand.
    room: usize,
    /// Those that were read: one event often goes to many webhooks.
    events: HashMap<i64, Arc<Event>>,
}

impl Claim<'_> {
    fn of_webhook(&mut self, ask: &Ask) -> rusqlite::Result<Claimed> {
        let Ask { webhook, limit, first } = ask;
        let (first, second) = match first {
            Kind::Fresh => (State::Pending, State::Retrying),
            Kind::Retries => (State::Retrying, State::Pending),
        };
        let mut deliveries = Vec::new();
        self.take(webhook, first, limit.div_ceil(2), &mut deliveries)?;
        self.take(webhook, second, limit - deliveries.len(), &mut deliveries)?;
        self.take(webhook, first, limit - deliveries.len(), &mut deliveries)?;
        let next = |state| self.next_due(webhook, state);
        let next_due = [next(first)?, next(second)?].into_iter().flatten().min();
        Ok(Claimed { deliveries, next_due: next_due.map(rows::timestamp) })
    }

    fn take(
        &mut self,
        webhook: &WebhookId,
        state: State,
        limit: usize,
        taken: &mut Vec<(Arc<Event>, Delivery)>,
    ) -> rusqlite::Result<()> {
        if limit == 0 || self.room == 0 {
            return Ok(());
        }
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let now = rows::micros(self.now);
        let ids = self
            .connection
            .prepare_cached(DUE)?
            .query_map(params![webhook.0, state.as_str(), now, limit], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<[u8; 16]>>>()?;
        for id in ids {
            if self.room == 0 {
                break;
            }
            self.connection
                .prepare_cached("UPDATE deliveries SET claimed = 1 WHERE id = ?1")?
                .execute([id])?;
            let (event, delivery) = rows::delivery(self.connection, &id)?;
            let event = self.event(event)?;
            let request = delivery.request.as_ref().map_or(0, |request| request.body.len());
            self.room = self.room.saturating_sub(event.data.len() + request);
            taken.push((event, delivery));
        }
        Ok(())
    }

    fn event(&mut self, seq: i64) -> rusqlite::Result<Arc<Event>> {
        if let Some(known) = self.events.get(&seq) {
            return Ok(Arc::clone(known));
        }
        let event = Arc::new(rows::event(self.connection, seq)?);
        self.events.insert(seq, Arc::clone(&event));
        Ok(event)
    }

    fn next_due(&self, webhook: &WebhookId, state: State) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached(NEXT)?
            .query_row(params![webhook.0, state.as_str()], |row| row.get(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Config, SqliteStore};

    /// The steps of a query's plan that touch the table.
    fn plan(query: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        drop(SqliteStore::open(&Config::new(folder.path().to_owned())).unwrap());
        let connection = Connection::open(folder.path().join("hookmill.db")).unwrap();
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
        // What is not bound is NULL, which the plan does not depend on.
        let steps = statement.raw_query().mapped(|row| row.get::<_, String>(3));
        steps.map(Result::unwrap).filter(|step| !is_about_cte(step)).collect()
    }

    fn is_about_cte(step: &str) -> bool {
        [
            "CO-ROUTINE",
            "SETUP",
            "RECURSIVE",
            "SCALAR",
            "CORRELATED",
            "SCAN waiting",
            "SCAN CONSTANT",
        ]
        .iter()
        .any(|of_cte| step.starts_with(of_cte))
    }

    #[test]
    fn due_deliveries_are_found_by_an_index_alone() {
        for query in [WAITING, DUE, NEXT] {
            let steps = plan(query);
            assert!(!steps.is_empty());
            for step in steps {
                assert!(step.contains("INDEX deliveries_waiting"), "{query}: {step}");
            }
        }
    }
}
