//! What is held in memory: deliveries that wait for their turn, and the count of those under way.
//!
//! Each webhook has a lane of its own. Tenants take turns, and so do the lanes of a tenant; each has its share,
//! so that a webhook with much to do, a slow receiver, or a tenant with many of them leaves the others
//! theirs. Everything is bounded: what finds no room waits in the store.

mod held;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Config;
use super::breaker::Turn;
use super::claim::Alarm;
use crate::delivery::{Delivery, WebhookId};
use crate::event::Event;
use held::Held;

/// A delivery in hand.
pub(super) struct Job {
    pub(super) event: Arc<Event>,
    pub(super) delivery: Delivery,
    pub(super) slot: Slot,
    pub(super) turn: Turn,
}

/// The lanes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Ready(Arc<Shared>);

struct Shared {
    lanes: Mutex<Lanes>,
    idle: Notify,
    /// Rings when there is room again for what found none.
    alarm: Arc<Alarm>,
    max_held: Held,
    max_tenant: Held,
    max_lane: Held,
    max_running: usize,
    max_tenant_running: usize,
}

#[derive(Default)]
struct Lanes {
    by_webhook: HashMap<WebhookId, Lane>,
    by_tenant: HashMap<Arc<str>, Tenant>,
    /// Tenants that have something waiting and may run it, in turn.
    turns: VecDeque<Arc<str>>,
    held: Held,
    running: usize,
    /// Something found no room; whoever makes room says so.
    full: bool,
    /// Nothing is started any more.
    closed: bool,
}

#[derive(Default)]
struct Tenant {
    /// Lanes that have something waiting and may run it, in turn.
    turns: VecDeque<WebhookId>,
    held: Held,
    running: usize,
    /// It stands in `turns` of all.
    queued: bool,
    full: bool,
}

struct Lane {
    tenant: Arc<str>,
    waiting: VecDeque<Job>,
    held: Held,
    running: usize,
    max_running: usize,
    /// It stands in its tenant's `turns`.
    queued: bool,
    full: bool,
}

/// Room for one delivery, from before it is accepted until it is recorded; given back on drop.
pub(super) struct Slot {
    ready: Ready,
    webhook: WebhookId,
    bytes: usize,
    running: bool,
}

impl Ready {
    pub(super) fn new(config: &Config, alarm: Arc<Alarm>) -> Self {
        let max_held =
            Held { count: config.max_ready.max(1), bytes: config.max_ready_bytes.max(1) };
        Self(Arc::new(Shared {
            lanes: Mutex::default(),
            idle: Notify::new(),
            alarm,
            max_held,
            max_tenant: max_held.of_tenant(),
            max_lane: max_held.of_lane(),
            max_running: config.concurrency.max(1),
            max_tenant_running: config.tenant_concurrency.max(1),
        }))
    }

    /// A slot for a delivery of so many bytes to this webhook, if there is room.
    pub(super) fn reserve(
        &self,
        tenant: &Arc<str>,
        webhook: &WebhookId,
        bytes: usize,
        max_running: usize,
    ) -> Option<Slot> {
        let mut guard = self.lanes();
        let lanes = &mut *guard;
        if lanes.closed || lanes.held.refuses(&mut lanes.full, self.0.max_held) {
            return None;
        }
        if let Some(tenant) = lanes.by_tenant.get_mut(tenant)
            && tenant.held.refuses(&mut tenant.full, self.0.max_tenant)
        {
            return None;
        }
        let lane = lanes.lane(tenant, webhook, max_running);
        if lane.held.refuses(&mut lane.full, self.0.max_lane) {
            return None;
        }
        lanes.hold(tenant, webhook, bytes);
        Some(self.slot(webhook, bytes))
    }

    /// A slot for a delivery that is in hand already, room or not: claims are small.
    pub(super) fn admit(
        &self,
        tenant: &Arc<str>,
        webhook: &WebhookId,
        bytes: usize,
        max_running: usize,
    ) -> Slot {
        let mut lanes = self.lanes();
        lanes.lane(tenant, webhook, max_running);
        lanes.hold(tenant, webhook, bytes);
        self.slot(webhook, bytes)
    }

    fn slot(&self, webhook: &WebhookId, bytes: usize) -> Slot {
        Slot { ready: self.clone(), webhook: webhook.clone(), bytes, running: false }
    }

    /// How many more deliveries of a webhook there is room for.
    pub(super) fn room_of(&self, webhook: &WebhookId) -> usize {
        let lanes = self.lanes();
        let room = |held: Held, max: Held| match held.is_full(max) {
            true => 0,
            false => max.count.saturating_sub(held.count),
        };
        if lanes.closed {
            return 0;
        }
        let lane = lanes.by_webhook.get(webhook).map_or_else(Held::default, |lane| lane.held);
        room(lanes.held, self.0.max_held).min(room(lane, self.0.max_lane))
    }

    /// How many more deliveries there is room for in all, and how many bytes. Whoever makes room rings when
    /// there is none.
    pub(super) fn room(&self) -> (usize, usize) {
        let mut lanes = self.lanes();
        let max = self.0.max_held;
        lanes.full = lanes.held.is_full(max);
        match lanes.full {
            true => (0, 0),
            false => (max.count - lanes.held.count, max.bytes - lanes.held.bytes),
        }
    }

    /// How many more deliveries of a webhook there is room for, by its own share and its tenant's. Whoever
    /// makes room rings when there is none.
    pub(super) fn room_for(&self, tenant: Option<&Arc<str>>, webhook: &WebhookId) -> usize {
        let mut lanes = self.lanes();
        let Lanes { by_webhook, by_tenant, .. } = &mut *lanes;
        let lane = by_webhook.get_mut(webhook);
        let tenant = tenant.or(lane.as_ref().map(|lane| &lane.tenant)).cloned();
        let of_tenant = match tenant.and_then(|tenant| by_tenant.get_mut(&tenant)) {
            Some(tenant) => tenant.held.room(&mut tenant.full, self.0.max_tenant),
            None => self.0.max_tenant.count,
        };
        let of_lane = match lane {
            Some(lane) => lane.held.room(&mut lane.full, self.0.max_lane),
            None => self.0.max_lane.count,
        };
        of_tenant.min(of_lane)
    }

    /// Queues a job in its webhook's lane.
    pub(super) fn push(&self, job: Job) {
        let mut lanes = self.lanes();
        let webhook = job.delivery.webhook.clone();
        if let Some(lane) = lanes.by_webhook.get_mut(&webhook) {
            lane.waiting.push_back(job);
            lanes.queue(&webhook, &self.0);
        }
    }

    /// The next job to start, if any may run; its slot counts as running from now on.
    pub(super) fn next(&self) -> Option<Job> {
        let mut lanes = self.lanes();
        if lanes.closed || lanes.running >= self.0.max_running {
            return None;
        }
        let name = lanes.turns.pop_front()?;
        let tenant = lanes.by_tenant.get_mut(&name)?;
        tenant.queued = false;
        let webhook = tenant.turns.pop_front()?;
        tenant.running += 1;
        let lane = lanes.by_webhook.get_mut(&webhook)?;
        lane.queued = false;
        let mut job = lane.waiting.pop_front()?;
        lane.running += 1;
        job.slot.running = true;
        lanes.running += 1;
        lanes.queue(&webhook, &self.0);
        lanes.queue_tenant(&name, &self.0);
        Some(job)
    }

    /// Starts nothing any more, and gives out what was waiting.
    pub(super) fn close(&self) -> Vec<Job> {
        let mut lanes = self.lanes();
        lanes.closed = true;
        lanes.turns.clear();
        lanes.by_webhook.values_mut().flat_map(|lane| lane.waiting.drain(..)).collect()
    }

    /// Waits until nothing is under way.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.0.idle.notified();
            if self.lanes().running == 0 {
                return;
            }
            idle.await;
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    fn lane(&mut self, tenant: &Arc<str>, webhook: &WebhookId, max_running: usize) -> &mut Lane {
        let lane = self.by_webhook.entry(webhook.clone()).or_insert_with(|| Lane {
            tenant: Arc::clone(tenant),
            waiting: VecDeque::new(),
            held: Held::default(),
            running: 0,
            max_running: 1,
            queued: false,
            full: false,
        });
        lane.max_running = max_running.max(1);
        lane
    }

    fn hold(&mut self, tenant: &Arc<str>, webhook: &WebhookId, bytes: usize) {
        self.held.add(bytes);
        self.by_tenant.entry(Arc::clone(tenant)).or_default().held.add(bytes);
        if let Some(lane) = self.by_webhook.get_mut(webhook) {
            lane.held.add(bytes);
        }
    }

    /// Gives a lane a turn if it has something waiting and may run it.
    fn queue(&mut self, webhook: &WebhookId, shared: &Shared) {
        if let Some(lane) = self.by_webhook.get_mut(webhook)
            && !lane.queued
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
            && !tenant.turns.is_empty()
            && tenant.running < shared.max_tenant_running
        {
            tenant.queued = true;
            self.turns.push_back(Arc::clone(name));
        }
    }

    /// Gives back what a lane held, and says whether its tenant and the lane itself were asked to say so.
    fn give_back(&mut self, slot: &Slot, shared: &Shared) -> (bool, bool) {
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

impl Drop for Slot {
    fn drop(&mut self) {
        let shared = &self.ready.0;
        let mut lanes = self.ready.lanes();
        let Lanes { held, full, running, .. } = &mut *lanes;
        *running = running.saturating_sub(usize::from(self.running));
        let room_in_all = held.give_back(self.bytes, full, shared.max_held);
        let (room_in_tenant, room_in_lane) = lanes.give_back(self, shared);
        if lanes.running == 0 {
            shared.idle.notify_waiters();
        }
        drop(lanes);
        if room_in_all || room_in_tenant {
            shared.alarm.room_for_all();
        } else if room_in_lane {
            shared.alarm.room_for(&self.webhook);
        }
    }
}

#[cfg(test)]
mod tests;
