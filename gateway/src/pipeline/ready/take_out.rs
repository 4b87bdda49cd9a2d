//! Taking deliveries out that wait for their turn: they are not to be sent any more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Job, Lanes, Ready};
use crate::delivery::{DeliveryId, WebhookId};
use crate::pipeline::breaker::Turn;

impl Ready {
    /// Takes out those of these deliveries that wait for their turn, and gives them. What tries held ones
    /// stays: its breaker waits for how that ends.
    pub(in crate::pipeline) fn take_out(&self, deliveries: &[(WebhookId, DeliveryId)]) -> Vec<Job> {
        let mut out = Vec::new();
        let mut by_webhook: HashMap<&WebhookId, HashSet<DeliveryId>> = HashMap::new();
        for (webhook, delivery) in deliveries {
            by_webhook.entry(webhook).or_default().insert(*delivery);
        }
        let mut lanes = self.lanes();
        for (webhook, deliveries) in by_webhook {
            lanes.take_out(webhook, &deliveries, &mut out);
        }
        drop(lanes);
        out
    }
}

impl Lanes {
    fn take_out(
        &mut self,
        webhook: &WebhookId,
        deliveries: &HashSet<DeliveryId>,
        out: &mut Vec<Job>,
    ) {
        let Some(lane) = self.by_webhook.get_mut(webhook) else {
            return;
        };
        for job in std::mem::take(&mut lane.waiting) {
            match job.turn != Turn::Trial && deliveries.contains(&job.delivery.id) {
                true => out.push(job),
                false => lane.waiting.push_back(job),
            }
        }
        if !lane.waiting.is_empty() || !lane.queued {
            return;
        }
        // Nobody has a turn without something to run.
        lane.queued = false;
        let name = Arc::clone(&lane.tenant);
        if let Some(tenant) = self.by_tenant.get_mut(&name) {
            tenant.turns.retain(|other| other != webhook);
            if tenant.turns.is_empty() && tenant.queued {
                tenant.queued = false;
                self.turns.retain(|other| *other != name);
            }
        }
    }
}
