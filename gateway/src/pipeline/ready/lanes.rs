//! The lanes of webhooks, and whose turn it is.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::super::flow::Wait;
use super::held::Held;
use super::{Job, Shared, Slot};
use crate::delivery::WebhookId;

#[derive(Default)]
pub(super) struct Lanes {
    pub(super) by_webhook: HashMap<WebhookId, Lane>,
    pub(super) by_tenant: HashMap<Arc<str>, Tenant>,
    /// Tenants that have something waiting and may run it, in turn.
    pub(super) turns: VecDeque<Arc<str>>,
    /// Those that may go on at a time.
    pub(super) delayed: BTreeSet<(Instant, Who)>,
    pub(super) held: Held,
    pub(super) running: usize,
    /// Something found no room; whoever makes room says so.
    pub(super) full: bool,
    /// Nothing is started any more.
    pub(super) closed: bool,
}

/// Who has to wait for a time.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Tenant(Arc<str>),
    Webhook(WebhookId),
}

#[derive(Default)]
pub(super) struct Tenant {
    /// Lanes that have something waiting and may run it, in turn.
    pub(super) turns: VecDeque<WebhookId>,
    pub(super) held: Held,
    pub(super) running: usize,
    /// It stands in `turns` of all.
    pub(super) queued: bool,
    /// It may start nothing for now.
    pub(super) delayed: bool,
    pub(super) full: bool,
}

pub(super) struct Lane {
    pub(super) tenant: Arc<str>,
    pub(super) waiting: VecDeque<Job>,
    pub(super) held: Held,
    pub(super) running: usize,
    pub(super) max_running: usize,
    /// It stands in its tenant's `turns`.
    pub(super) queued: bool,
    /// It may start nothing for now.
    pub(super) delayed: bool,
    pub(super) full: bool,
}

impl Lanes {
    pub(super) fn lane(
        &mut self,
        tenant: &Arc<str>,
        webhook: &WebhookId,
        max_running: usize,
    ) -> &mut Lane {
        let lane = self.by_webhook.entry(webhook.clone()).or_insert_with(|| Lane {
            tenant: Arc::clone(tenant),
            waiting: VecDeque::new(),
            held: Held::default(),
            running: 0,
            max_running: 1,
            queued: false,
            delayed: false,
            full: false,
        });
        lane.max_running = max_running.max(1);
        lane
    }

    pub(super) fn hold(&mut self, tenant: &Arc<str>, webhook: &WebhookId, bytes: usize) {
        self.held.add(bytes);
        self.by_tenant.entry(Arc::clone(tenant)).or_default().held.add(bytes);
        if let Some(lane) = self.by_webhook.get_mut(webhook) {
            lane.held.add(bytes);
        }
    }

    /// The next job of a tenant whose turn it is, unless that or the lane has to wait for its time.
    pub(super) fn next_of(
        &mut self,
        name: &Arc<str>,
        now: Instant,
        shared: &Shared,
    ) -> Option<Job> {
        let tenant = self.by_tenant.get_mut(name)?;
        tenant.queued = false;
        let webhook = tenant.turns.pop_front()?;
        let lane = self.by_webhook.get_mut(&webhook);
        let next = lane.and_then(|lane| {
            lane.queued = false;
            Some((lane.waiting.front()?.delivery.id, lane))
        });
        let Some((delivery, lane)) = next else {
            // What waited there was taken out.
            self.queue_tenant(name, shared);
            return None;
        };
        match shared.flows.start(name, &webhook, delivery, now) {
            Ok(()) => {
                let mut job = lane.waiting.pop_front()?;
                job.slot.running = true;
                lane.running += 1;
                tenant.running += 1;
                self.running += 1;
                self.queue(&webhook, shared);
                self.queue_tenant(name, shared);
                return Some(job);
            }
            Err(Wait::Tenant(until)) => {
                lane.queued = true;
                tenant.turns.push_front(webhook);
                tenant.delayed = true;
                self.delayed.insert((until, Who::Tenant(Arc::clone(name))));
            }
            Err(Wait::Webhook(until)) => {
                lane.delayed = true;
                self.delayed.extend(until.map(|until| (until, Who::Webhook(webhook))));
                self.queue_tenant(name, shared);
            }
        }
        shared.delayed.notify_one();
        None
    }

    pub(super) fn resume(&mut self, webhook: &WebhookId, shared: &Shared) {
        if let Some(lane) = self.by_webhook.get_mut(webhook) {
            lane.delayed = false;
            self.queue(webhook, shared);
        }
    }

    pub(super) fn resume_tenant(&mut self, name: &Arc<str>, shared: &Shared) {
        if let Some(tenant) = self.by_tenant.get_mut(name) {
            tenant.delayed = false;
            self.queue_tenant(name, shared);
        }
    }

    /// Gives a lane a turn if it has something waiting and may run it.
    pub(super) fn queue(&mut self, webhook: &WebhookId, shared: &Shared) {
        if let Some(lane) = self.by_webhook.get_mut(webhook)
            && !lane.queued
            && !lane.delayed
            && !lane.waiting.is_empty()
            && lane.running < lane.max_running
        {
            lane.queued = true;
            let name = Arc::clone(&lane.tenant);
            self.by_tenant.entry(Arc::clone(&name)).or_default().turns.push_back(webhook.clone());
            self.queue_tenant(&name, shared);
        }
    }

    /// Gives a tenant a turn if one of its lanes has one and the tenant may run more.
    fn queue_tenant(&mut self, name: &Arc<str>, shared: &Shared) {
        if let Some(tenant) = self.by_tenant.get_mut(name)
            && !tenant.queued
            && !tenant.delayed
            && !tenant.turns.is_empty()
            && tenant.running < shared.max_tenant_running
        {
            tenant.queued = true;
            self.turns.push_back(Arc::clone(name));
        }
    }

    /// Gives back what a lane held, and says whether its tenant and the lane itself were asked to say so.
    pub(super) fn give_back(&mut self, slot: &Slot, shared: &Shared) -> (bool, bool) {
        let Some(lane) = self.by_webhook.get_mut(&slot.webhook) else {
            return (false, false);
        };
        let name = Arc::clone(&lane.tenant);
        let room_in_lane = lane.held.give_back(slot.bytes, &mut lane.full, shared.max_lane);
        lane.running = lane.running.saturating_sub(usize::from(slot.running));
        if lane.held.count == 0 {
            self.by_webhook.remove(&slot.webhook);
        } else {
            self.queue(&slot.webhook, shared);
        }
        let mut room_in_tenant = false;
        if let Some(tenant) = self.by_tenant.get_mut(&name) {
            room_in_tenant = tenant.held.give_back(slot.bytes, &mut tenant.full, shared.max_tenant);
            tenant.running = tenant.running.saturating_sub(usize::from(slot.running));
            if tenant.held.count == 0 {
                self.by_tenant.remove(&name);
            } else {
                self.queue_tenant(&name, shared);
            }
        }
        (room_in_tenant, room_in_lane)
    }
}
