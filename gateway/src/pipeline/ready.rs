//! What is held in memory: deliveries that wait for their turn, and the count of those under way.
//!
//! Each webhook has a lane of its own. Tenants take turns, and so do the lanes of a tenant; each has its share,
//! so that a webhook with much to do, a slow receiver, or a tenant with many of them leaves the others
//! theirs. Everything is bounded: what finds no room waits in the store.

mod held;
mod lanes;
mod take_out;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Config;
use super::breaker::Turn;
use super::claim::Alarm;
use super::flow::{Flows, Gate};
use crate::delivery::{Delivery, DeliveryId, WebhookId};
use crate::event::Event;
use held::Held;
use lanes::{Lanes, Who};

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
    /// Knows what may go out now.
    flows: Arc<Flows>,
    /// Rings when something has to wait for its time.
    delayed: Notify,
    max_held: Held,
    max_tenant: Held,
    max_lane: Held,
    max_running: usize,
    max_tenant_running: usize,
}

/// Room for one delivery, from before it is accepted until it is recorded; given back on drop.
pub(super) struct Slot {
    ready: Ready,
    webhook: WebhookId,
    bytes: usize,
    running: bool,
}

impl Ready {
    pub(super) fn new(config: &Config, alarm: Arc<Alarm>, flows: Arc<Flows>) -> Self {
        let max_held =
            Held { count: config.max_ready.max(1), bytes: config.max_ready_bytes.max(1) };
        Self(Arc::new(Shared {
            lanes: Mutex::default(),
            idle: Notify::new(),
            alarm,
            flows,
            delayed: Notify::new(),
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
        let most = match self.0.flows.gate(webhook, Instant::now()) {
            Gate::Open => usize::MAX,
            Gate::Narrow(most) => most,
            Gate::Shut(_) => return None,
        };
        let mut guard = self.lanes();
        let lanes = &mut *guard;
        if lanes.by_webhook.get(webhook).is_some_and(|lane| lane.held.count >= most) {
            return None;
        }
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

    /// How many more deliveries of a webhook there is room for, by its own share and its tenant's, when it may hold
    /// no more than `most`. Whoever makes room rings when there is none.
    pub(super) fn room_for(
        &self,
        tenant: Option<&Arc<str>>,
        webhook: &WebhookId,
        most: usize,
    ) -> usize {
        let mut lanes = self.lanes();
        let Lanes { by_webhook, by_tenant, .. } = &mut *lanes;
        let lane = by_webhook.get_mut(webhook);
        let tenant = tenant.or(lane.as_ref().map(|lane| &lane.tenant)).cloned();
        let of_tenant = match tenant.and_then(|tenant| by_tenant.get_mut(&tenant)) {
            Some(tenant) => tenant.held.room(&mut tenant.full, self.0.max_tenant),
            None => self.0.max_tenant.count,
        };
        let max_lane = Held { count: self.0.max_lane.count.min(most), ..self.0.max_lane };
        let of_lane = match lane {
            Some(lane) => lane.held.room(&mut lane.full, max_lane),
            None => max_lane.count,
        };
        of_tenant.min(of_lane)
    }

    /// Queues a job in its webhook's lane.
    pub(super) fn push(&self, job: Job) {
        let mut lanes = self.lanes();
        if lanes.closed {
            // Nothing starts any more. It stays in hand, where the next start finds it; a lane would keep it, and
            // itself, for ever.
            drop(lanes);
            return;
        }
        let webhook = job.delivery.webhook.clone();
        if let Some(lane) = lanes.by_webhook.get_mut(&webhook) {
            lane.waiting.push_back(job);
            lanes.queue(&webhook, &self.0);
        }
    }

    /// The next job to start, if any may run; its slot counts as running from now on.
    pub(super) fn next(&self) -> Option<Job> {
        let mut lanes = self.lanes();
        let now = Instant::now();
        while !lanes.closed && lanes.running < self.0.max_running {
            let name = lanes.turns.pop_front()?;
            if let Some(job) = lanes.next_of(&name, now, &self.0) {
                return Some(job);
            }
        }
        None
    }

    /// Lets those go on whose time has come; gives the next one's.
    pub(super) fn resume(&self, now: Instant) -> Option<Instant> {
        let mut lanes = self.lanes();
        while let Some((at, _)) = lanes.delayed.first() {
            if *at > now {
                return Some(*at);
            }
            match lanes.delayed.pop_first()?.1 {
                Who::Tenant(name) => lanes.resume_tenant(&name, &self.0),
                Who::Webhook(webhook) => lanes.resume(&webhook, &self.0),
            }
        }
        None
    }

    /// Lets a lane go on that had to wait.
    pub(super) fn resume_lane(&self, webhook: &WebhookId) {
        self.lanes().resume(webhook, &self.0);
    }

    /// Waits until something has to wait for its time.
    pub(super) async fn delayed(&self) {
        self.0.delayed.notified().await;
    }

    /// Takes what waits in a lane out of it, but for what was held before.
    pub(super) fn take_waiting(&self, webhook: &WebhookId) -> Vec<Job> {
        let mut lanes = self.lanes();
        let waiting =
            lanes.by_webhook.get_mut(webhook).map(|lane| std::mem::take(&mut lane.waiting));
        let (own, held): (Vec<_>, Vec<_>) =
            waiting.into_iter().flatten().partition(|job| job.turn == Turn::Own);
        if let Some(lane) = lanes.by_webhook.get_mut(webhook) {
            lane.waiting = held.into();
        }
        own
    }

    /// Whether a delivery waits for its turn in its webhook's lane.
    pub(super) fn is_waiting(&self, webhook: &WebhookId, delivery: DeliveryId) -> bool {
        let lanes = self.lanes();
        let lane = lanes.by_webhook.get(webhook);
        lane.is_some_and(|lane| lane.waiting.iter().any(|job| job.delivery.id == delivery))
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
