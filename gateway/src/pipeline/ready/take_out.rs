//! Taking deliveries out that wait for their turn: they are not to be sent any more.

use std::collections::{HashMap, HashSet};

use super::{Job, Ready};
use crate::delivery::{DeliveryId, WebhookId};
use crate::pipeline::breaker::Turn;

impl Ready {
    /// Takes out those of these deliveries that wait for their turn, and gives them. What tries held ones
    /// stays: its breaker waits for how that ends.
    pub(in crate::pipeline) fn take_out(&self, deliveries: &[(WebhookId, DeliveryId)]) -> Vec<Job> {
        let mut by_webhook: HashMap<&WebhookId, HashSet<DeliveryId>> = HashMap::new();
        for (webhook, delivery) in deliveries {
            by_webhook.entry(webhook).or_default().insert(*delivery);
        }
        let mut out = Vec::new();
        let mut lanes = self.lanes();
        for (webhook, deliveries) in by_webhook {
            // A lane that is empty then may still have a turn, which passes.
            if let Some(lane) = lanes.by_webhook.get_mut(webhook) {
                let waiting = std::mem::take(&mut lane.waiting);
                let (gone, kept): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|job| {
                    job.turn != Turn::Trial && deliveries.contains(&job.delivery.id)
                });
                lane.waiting = kept.into();
                out.extend(gone);
            }
        }
        drop(lanes);
        out
    }
}
