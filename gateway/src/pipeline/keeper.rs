//! The keeper: looks after what is held. Tries it when it is time, when what would run has changed, or when
//! told to, and releases it step by step. Nothing polls: it sleeps until the next of these.

use std::time::Duration;

use tokio::time::Instant;

use super::Pipeline;
use super::breaker::{Progress, Turn};
use crate::delivery::WebhookId;
use crate::failpoint::{self, Point};
use crate::record::{Hold, StoreError, Which};
use crate::shutdown::Drain;

/// How long to leave a store alone that failed.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// Keeps until the drain begins.
pub(super) async fn run(pipeline: Pipeline, drain: Drain) {
    let mut replacements = pipeline.0.current.replacements();
    loop {
        let replaced = *replacements.borrow_and_update();
        compare(&pipeline, replaced);
        let steps = pipeline.0.breakers.steps(|webhook| pipeline.0.ready.room_of(webhook));
        for (webhook, which) in steps {
            // In tasks of their own, as in claiming: what is taken from the store has to be taken in hand
            // even when the drain begins now, and one webhook does not wait for the others.
            tokio::spawn(step(pipeline.clone(), webhook, which));
        }
        tokio::select! {
            () = drain.begun() => return,
            () = pipeline.0.breakers.rung() => {}
            () = until(pipeline.0.breakers.due()) => {}
            replaced = replacements.changed() => {
                if replaced.is_err() {
                    return;
                }
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Tries what is held for what would not run any more.
fn compare(pipeline: &Pipeline, replaced: u64) {
    let holds = pipeline.0.breakers.to_compare(replaced);
    if holds.is_empty() {
        return;
    }
    let snapshot = pipeline.0.current.load();
    for (id, hold) in holds {
        // What is held for a webhook that is gone waits until it is declared again.
        let Some(webhook) = snapshot.webhook(&id) else {
            continue;
        };
        let is_same = snapshot.chain_digest(webhook) == hold.setup;
        if !is_same && pipeline.0.breakers.try_now(&id, true) {
            let (tenant, webhook) = (&webhook.tenant, &webhook.definition.name);
            tracing::info!(
                %tenant, webhook, plugin = %hold.cause, since = %hold.since,
                "the webhook's plugins have changed; a held delivery is tried"
            );
        }
    }
}

/// One step of a webhook: a trial, or a batch of what is released.
async fn step(pipeline: Pipeline, id: WebhookId, which: Which) {
    if pipeline.0.current.load().webhook(&id).is_none() {
        pipeline.0.breakers.put_off(&id, None);
        return;
    }
    match take(&pipeline, &id, which).await {
        Ok(Progress::Continues) => {}
        Ok(Progress::Closed(hold, released)) => closed(&pipeline, &id, &hold, released).await,
        Err(error) => {
            tracing::error!(%error, webhook = %id, "held deliveries cannot be read; trying again");
            pipeline.0.breakers.put_off(&id, Some(AFTER_ERROR));
        }
    }
}

/// Takes deliveries from the held ones, and begins with them.
async fn take(
    pipeline: &Pipeline,
    webhook: &WebhookId,
    which: Which,
) -> Result<Progress, StoreError> {
    let taken = pipeline.0.store.take_held(webhook.clone(), which).await?;
    failpoint::hit(Point::HeldTaken);
    let turn = match which {
        Which::Trial(_) => Turn::Trial,
        Which::Release(_) => Turn::Released,
    };
    let count = taken.deliveries.len();
    tracing::debug!(%webhook, ?which, count, left = taken.left, "held deliveries are taken in hand");
    let deliveries = taken.deliveries.into_iter();
    pipeline.begin(deliveries.map(|(event, delivery)| pipeline.job(event, delivery, turn)));
    Ok(pipeline.0.breakers.took(webhook, which, count))
}

/// Nothing is held any more.
async fn closed(pipeline: &Pipeline, id: &WebhookId, hold: &Hold, released: u64) {
    let snapshot = pipeline.0.current.load();
    let webhook = snapshot.webhook(id);
    let tenant = webhook.map(|webhook| &*webhook.tenant);
    let webhook = webhook.map_or(&*id.0, |webhook| &webhook.definition.name);
    let (plugin, since) = (&hold.cause, hold.since);
    tracing::info!(
        tenant, webhook, %plugin, %since, released,
        "nothing is held any more; the webhook's deliveries run as they come"
    );
    // A row that is left counts nothing and is forgotten at the next start.
    if let Err(error) = pipeline.0.store.lift(id.clone()).await {
        tracing::warn!(%error, webhook, "that nothing is held any more is not on record");
    }
}
