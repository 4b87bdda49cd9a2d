//! Parts: what the plugins have made of an event, as requests, and which of them a delivery sends.

use std::sync::Arc;

use super::breaker::Turn;
use super::ready::Job;
use super::{Pipeline, dispatch, render, size};
use crate::delivery::{Delivery, DeliveryId, Request};
use crate::event::Event;
use crate::record::{NewDelivery, Next, Start, Update};
use crate::snapshot::Webhook;

/// What a delivery sends of these parts; the others are on their way by then.
///
/// # Errors
/// Why it sends nothing.
pub(super) async fn to_send(
    pipeline: &Pipeline,
    webhook: &Webhook,
    event: &Arc<Event>,
    delivery: &Delivery,
    parts: Vec<Request>,
    chain: &Arc<str>,
) -> Result<Arc<Request>, String> {
    if !delivery.only_part {
        let first = split(pipeline, webhook, event, delivery, parts, chain).await;
        return first.ok_or_else(|| "it was cancelled".to_owned());
    }
    let made = parts.len();
    let index = usize::try_from(delivery.part).unwrap_or(usize::MAX).saturating_sub(1);
    match parts.into_iter().nth(index) {
        Some(part) => Ok(Arc::new(part)),
        None => Err(format!(
            "of this event, the plugins now make {made} parts; this is part {}",
            delivery.part
        )),
    }
}

/// Makes the parts of a split durable, each a delivery of its own, and gives the first one's request.
/// A single part needs nothing of the kind. None when the delivery was cancelled or purged
/// meanwhile: nothing is split then.
async fn split(
    pipeline: &Pipeline,
    webhook: &Webhook,
    event: &Arc<Event>,
    delivery: &Delivery,
    parts: Vec<Request>,
    chain: &Arc<str>,
) -> Option<Arc<Request>> {
    let mut parts = parts.into_iter().map(Arc::new);
    let Some(first) = parts.next() else {
        // The transform stage promises at least one.
        return Some(Arc::new(render::plain(event, webhook.definition.body)));
    };
    let mut jobs = Vec::new();
    let mut all_in_hand = true;
    let others: Vec<_> = parts
        .zip(2..)
        .map(|(request, part)| {
            let id = DeliveryId::generate();
            if let Some(key) = &delivery.queue {
                // They follow the first one, each in its turn.
                let start = Start::Queued(Arc::clone(key));
                return (NewDelivery { id, webhook: webhook.id.clone(), start }, request);
            }
            let bytes = size(event, Some(&request));
            let concurrency = webhook.definition.concurrency;
            let slot = pipeline.0.ready.reserve(&event.tenant, &webhook.id, bytes, concurrency);
            let start = if slot.is_some() { Start::InHand } else { Start::Due };
            all_in_hand &= slot.is_some();
            if let Some(slot) = slot {
                let request = Some(Arc::clone(&request));
                let webhook = webhook.id.clone();
                let delivery = Delivery { part, request, ..Delivery::first_part(id, webhook) };
                jobs.push(Job { event: Arc::clone(event), delivery, slot, turn: Turn::Own });
            }
            (NewDelivery { id, webhook: webhook.id.clone(), start }, request)
        })
        .collect();
    if others.is_empty() {
        return Some(first);
    }
    let made = others.len();
    pipeline.0.backlog.more(&event.tenant, made);
    let next = Next::Split { first: Arc::clone(&first), others };
    let update = Update { delivery: delivery.id, attempt: None, chain: Arc::clone(chain), next };
    let recorded = dispatch::record(pipeline, &webhook.id, update, &[]).await;
    if recorded.cancelled || recorded.purged {
        pipeline.0.backlog.less(&event.tenant, made);
        pipeline.give_back(jobs, Vec::new());
        return None;
    }
    pipeline.begin(jobs.into_iter());
    if !all_in_hand {
        pipeline.0.alarm.due(&webhook.id, event.accepted_at);
    }
    Some(first)
}
