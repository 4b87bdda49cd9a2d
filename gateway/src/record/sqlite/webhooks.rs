//! The states of webhooks: since when they fail, and whether they are disabled.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::{Changed, Disabled, Job, NewEvent, NewJob, WebhookState};
use super::retention::Usage;
use super::{accept, jobs, rows};
use crate::delivery::WebhookId;

pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<WebhookState>> {
    connection
        .prepare_cached("SELECT webhook, failing_since, disabled_at, reason FROM webhook_states")?
        .query_map([], |row| {
            let since = row.get::<_, Option<i64>>(2)?.map(rows::timestamp);
            let reason = row.get::<_, Option<String>>(3)?.unwrap_or_default();
            Ok(WebhookState {
                webhook: WebhookId(row.get(0)?),
                failing_since: row.get::<_, Option<i64>>(1)?.map(rows::timestamp),
                disabled: since.map(|since| Disabled { since, reason }),
            })
        })?
        .collect()
}

pub(super) fn note_failing(
    connection: &Connection,
    webhook: &WebhookId,
    since: Option<Timestamp>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO webhook_states (webhook, failing_since) VALUES (?1, ?2)
             ON CONFLICT (webhook) DO UPDATE SET failing_since = excluded.failing_since",
        )?
        .execute(params![webhook.0, since.map(rows::micros)])?;
    forget_idle(connection, webhook)
}

/// Disables a webhook and keeps what tells of it: both, or neither, and nothing if it is disabled already.
pub(super) fn disable(
    connection: &Connection,
    usage: &mut Usage,
    webhook: &WebhookId,
    disabled: &Disabled,
    told: Option<&NewEvent>,
) -> rusqlite::Result<Changed<()>> {
    let changed = connection
        .prepare_cached(
            "INSERT INTO webhook_states (webhook, disabled_at, reason) VALUES (?1, ?2, ?3)
             ON CONFLICT (webhook) DO UPDATE SET
                 disabled_at = excluded.disabled_at, reason = excluded.reason
             WHERE disabled_at IS NULL",
        )?
        .execute(params![webhook.0, rows::micros(disabled.since), disabled.reason])?;
    if changed == 0 {
        return Ok(Changed { made: (), is_new: false, told: 0 });
    }
    // What an earlier enabling has not come to yet waits for the next one.
    connection
        .prepare_cached(
            "UPDATE jobs SET state = 'cancelled', ended_at = ?2, failure = ?3
             WHERE webhook = ?1 AND action IN ('resume', 'discard') AND ended_at IS NULL",
        )?
        .execute(params![
            webhook.0,
            rows::micros(disabled.since),
            "the webhook was disabled again"
        ])?;
    let told = told.map_or(Ok(0), |told| accept::tell(connection, usage, told))?;
    Ok(Changed { made: (), is_new: true, told })
}

/// Enables a webhook, with a job for what has waited, and what tells of it if it was disabled: all, or nothing.
pub(super) fn enable(
    connection: &Connection,
    usage: &mut Usage,
    webhook: &WebhookId,
    job: &NewJob,
    told: Option<&NewEvent>,
) -> rusqlite::Result<Changed<Job>> {
    let is_new = reason(connection, webhook)?.is_some();
    connection
        .prepare_cached("DELETE FROM webhook_states WHERE webhook = ?1")?
        .execute([&webhook.0])?;
    jobs::insert(connection, job)?;
    let told = told.filter(|_| is_new);
    let told = told.map_or(Ok(0), |told| accept::tell(connection, usage, told))?;
    let made = jobs::get(connection, &job.tenant, job.id)?;
    Ok(Changed { made: made.ok_or(rusqlite::Error::QueryReturnedNoRows)?, is_new, told })
}

/// Why what a webhook is owed is paused, if it is disabled.
pub(super) fn reason(
    connection: &Connection,
    webhook: &WebhookId,
) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached(
            "SELECT reason FROM webhook_states WHERE webhook = ?1 AND disabled_at IS NOT NULL",
        )?
        .query_row([&webhook.0], |row| {
            Ok(format!("its webhook is disabled: {}", row.get_ref(0)?.as_str()?))
        })
        .optional()
}

/// How many deliveries of each of these webhooks are paused, or wait behind one that is.
pub(super) fn paused(
    connection: &Connection,
    webhooks: &[WebhookId],
) -> rusqlite::Result<Vec<u64>> {
    let mut statement = connection.prepare_cached(
        "SELECT
             (SELECT count(*) FROM deliveries INDEXED BY deliveries_by_webhook_and_state
              WHERE webhook = ?1 AND state = 'paused' AND state NOT IN ('pending', 'delivered'))
             + (SELECT count(*) FROM deliveries INDEXED BY deliveries_queued
                WHERE webhook = ?1 AND queue IS NOT NULL AND due_at IS NULL AND state = 'pending'
                    AND EXISTS (SELECT 1 FROM queues JOIN deliveries AS heads ON heads.id = head
                                WHERE queues.webhook = ?1 AND key = deliveries.queue
                                    AND heads.state = 'paused'))",
    )?;
    let count = |webhook: &WebhookId| {
        statement.query_row([&webhook.0], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
    };
    webhooks.iter().map(count).collect()
}

fn forget_idle(connection: &Connection, webhook: &WebhookId) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM webhook_states
             WHERE webhook = ?1 AND failing_since IS NULL AND disabled_at IS NULL",
        )?
        .execute([&webhook.0])
        .map(drop)
}
