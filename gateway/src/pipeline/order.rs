//! Order: what follows a delivery in its queue, and what lets it follow a dead one.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Pipeline;
use crate::delivery::{Delivery, WebhookId};
use crate::event::EventId;
use crate::record::{Next, Skipped, StoreError, Update};
use crate::shutdown::Drain;

/// How long to leave a store alone that failed.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// Lets what was blocked follow when its webhook does not say so any more, until the drain begins.
pub(super) async fn run(pipeline: Pipeline, drain: Drain) {
    let mut replacements = pipeline.0.current.replacements();
    loop {
        replacements.mark_unchanged();
        let unblocked = tokio::select! {
            unblocked = unblock(&pipeline) => unblocked,
            () = drain.begun() => return,
        };
        if let Err(error) = unblocked {
            tracing::error!(%error, "blocked deliveries cannot be read; trying again");
            tokio::time::sleep(AFTER_ERROR).await;
            continue;
        }
        tokio::select! {
            () = drain.begun() => return,
            replaced = replacements.changed() => {
                if replaced.is_err() {
                    return;
                }
            }
        }
    }
}

async fn unblock(pipeline: &Pipeline) -> Result<(), StoreError> {
    for webhook in pipeline.0.store.blocked().await? {
        if !is_to_follow(pipeline, &webhook) {
            continue;
        }
        let dead = pipeline.0.store.unblock(webhook.clone()).await?;
        tracing::info!(%webhook, dead, "what waited behind dead deliveries follows, as the webhook says now");
        pipeline.0.alarm.due(&webhook, Timestamp::now());
    }
    Ok(())
}

/// Whether what is behind a dead delivery follows now. For a webhook that is gone it waits until that is declared again.
fn is_to_follow(pipeline: &Pipeline, webhook: &WebhookId) -> bool {
    pipeline.0.current.load().webhook(webhook).is_some_and(|webhook| !webhook.blocks())
}

/// Makes a dead delivery block its queue if its webhook says so.
pub(super) fn block(pipeline: &Pipeline, delivery: &Delivery, update: &mut Update) {
    if delivery.queue.is_some()
        && matches!(update.next, Next::Dead)
        && !is_to_follow(pipeline, &delivery.webhook)
    {
        update.next = Next::Blocks;
    }
}

impl Pipeline {
    /// Lets what waits behind the dead deliveries of a tenant's event follow. Gives those; none when there is no such
    /// event.
    ///
    /// # Errors
    /// When the store cannot do it.
    pub async fn skip(
        &self,
        tenant: Arc<str>,
        event: EventId,
    ) -> Result<Option<Vec<Skipped>>, StoreError> {
        let skipped = self.0.store.skip(tenant, event).await?;
        for Skipped { webhook, delivery } in skipped.iter().flatten() {
            tracing::info!(%webhook, %delivery, "skipped; what waited behind it follows");
            self.0.alarm.due(webhook, Timestamp::now());
        }
        Ok(skipped)
    }
}
