//! What is held in memory: deliveries that wait for their turn, and the count of those under way.
//!
//! Each webhook has a lane of its own. Tenants take turns, and so do the lanes of a tenant; each has its share,
//! so that a webhook with much to do, a slow receiver, or a tenant with many of them leaves the others
//! theirs. Everything is bounded: what finds no room waits in the store.

mod take_out;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Config;
use super::breaker::Turn;
use super::claim::Alarm;
use crate::delivery::{Delivery, WebhookId};
use crate::event::Event;

/// Of all that is held, a lane may hold a quarter, and a tenant three.
const PARTS: usize = 4;

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

/// What is held: deliveries, and the bytes of their events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    count: usize,
    bytes: usize,
}

impl Held {
    fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }

    /// Gives back the room of one delivery. True when something found no room here and now there is some:
    /// `full` says so until then.
    fn give_back(&mut self, bytes: usize, full: &mut bool, max: Self) -> bool {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        let room = *full && self.has_room(max);
        *full &= !room;
        room
    }

    /// Whether nothing more may be held. What is held may be one delivery over the limit of bytes.
    fn is_full(self, max: Self) -> bool {
        self.count >= max.count || self.bytes >= max.bytes
    }

    /// Room counts only once half is free, so that a full lane does not ask the store for each delivery.
    fn has_room(self, max: Self) -> bool {
        self.count <= max.count / 2 && self.bytes <= max.bytes / 2
    }

    /// The share of a lane.
    fn of_lane(self) -> Self {
        Self { count: (self.count / PARTS).max(1), bytes: (self.bytes / PARTS).max(1) }
    }

    /// The share of a tenant: all but one of the parts.
    fn of_tenant(self) -> Self {
        let but_one = |all: usize| (all - all / PARTS).max(1);
        Self { count: but_one(self.count), bytes: but_one(self.bytes) }
    }
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
        let mut lanes = self.lanes();
        if lanes.held.is_full(self.0.max_held) || lanes.closed {
            lanes.full = true;
            return None;
        }
        if let Some(tenant) = lanes.by_tenant.get_mut(tenant)
            && tenant.held.is_full(self.0.max_tenant)
        {
            tenant.full = true;
            return None;
        }
        let lane = lanes.lane(tenant, webhook, max_running);
        if lane.held.is_full(self.0.max_lane) {
            lane.full = true;
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

    /// How many more deliveries there is room for, and the webhooks for which there is none.
    pub(super) fn room(&self) -> (usize, Vec<WebhookId>) {
        let mut lanes = self.lanes();
        lanes.full = lanes.held.is_full(self.0.max_held);
        let room = match lanes.full {
            true => 0,
            false => self.0.max_held.count.saturating_sub(lanes.held.count),
        };
        let mut full = Vec::new();
        let Lanes { by_webhook, by_tenant, .. } = &mut *lanes;
        for tenant in by_tenant.values_mut() {
            tenant.full = tenant.held.is_full(self.0.max_tenant);
        }
        for (webhook, lane) in by_webhook {
            lane.full = lane.held.is_full(self.0.max_lane);
            if lane.full || by_tenant.get(&lane.tenant).is_some_and(|tenant| tenant.full) {
                full.push(webhook.clone());
            }
        }
        (room, full)
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

    /// Gives back what a lane held, and says whether it was asked to say so.
    fn give_back(&mut self, slot: &Slot, shared: &Shared) -> bool {
        let Some(lane) = self.by_webhook.get_mut(&slot.webhook) else {
            return false;
        };
        let name = Arc::clone(&lane.tenant);
        let mut room = lane.held.give_back(slot.bytes, &mut lane.full, shared.max_lane);
        lane.running = lane.running.saturating_sub(usize::from(slot.running));
        if lane.held.count == 0 {
            self.by_webhook.remove(&slot.webhook);
        } else {
            self.queue(&slot.webhook, shared);
        }
        if let Some(tenant) = self.by_tenant.get_mut(&name) {
            room |= tenant.held.give_back(slot.bytes, &mut tenant.full, shared.max_tenant);
            tenant.running = tenant.running.saturating_sub(usize::from(slot.running));
            if tenant.held.count == 0 {
                self.by_tenant.remove(&name);
            } else {
                self.queue_tenant(&name, shared);
            }
        }
        room
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let shared = &self.ready.0;
        let mut lanes = self.ready.lanes();
        let Lanes { held, full, running, .. } = &mut *lanes;
        *running = running.saturating_sub(usize::from(self.running));
        let room_in_all = held.give_back(self.bytes, full, shared.max_held);
        let room = lanes.give_back(self, shared) || room_in_all;
        if lanes.running == 0 {
            shared.idle.notify_waiters();
        }
        if room {
            shared.alarm.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;
    use crate::delivery::DeliveryId;
    use crate::event::{EventId, EventType};

    fn ready(max_ready: usize, concurrency: usize) -> Ready {
        of_tenants(max_ready, concurrency, concurrency)
    }

    fn of_tenants(max_ready: usize, concurrency: usize, tenant_concurrency: usize) -> Ready {
        let config = Config {
            max_ready,
            concurrency,
            tenant_concurrency,
            max_ready_bytes: 800,
            webhook_concurrency: 1,
            ..Config::default()
        };
        Ready::new(&config, Arc::default())
    }

    /// The tenant of a webhook of a test: what stands before the slash.
    fn tenant(webhook: &str) -> Arc<str> {
        webhook.split('/').next().unwrap().into()
    }

    /// Whether it has rung since it was last asked.
    async fn rang(ready: &Ready) -> bool {
        let rung = ready.0.alarm.rung();
        tokio::time::timeout(std::time::Duration::from_millis(1), rung).await.is_ok()
    }

    fn webhook(name: &str) -> WebhookId {
        WebhookId(name.into())
    }

    fn job(ready: &Ready, name: &str, limit: usize) -> Option<Job> {
        let event = Event {
            tenant: "acme".into(),
            id: EventId::generate(),
            event_type: EventType::parse("a").unwrap(),
            timestamp: Timestamp::UNIX_EPOCH,
            accepted_at: Timestamp::UNIX_EPOCH,
            data: Bytes::new(),
            attributes: Vec::new(),
            ordering_key: None,
        };
        let delivery = Delivery {
            id: DeliveryId::generate(),
            webhook: webhook(name),
            part: 1,
            attempts: 0,
            request: None,
            only_part: false,
        };
        let slot = ready.reserve(&tenant(name), &webhook(name), 10, limit)?;
        Some(Job { event: Arc::new(event), delivery, slot, turn: Turn::Own })
    }

    fn started(ready: &Ready) -> Vec<Job> {
        std::iter::from_fn(|| ready.next()).collect()
    }

    fn names(jobs: &[Job]) -> Vec<&str> {
        jobs.iter().map(|job| &*job.delivery.webhook.0).collect()
    }

    #[test]
    fn lanes_take_turns() {
        let ready = ready(100, 100);
        for name in ["a", "a", "a", "b", "c", "b"] {
            ready.push(job(&ready, name, 10).unwrap());
        }
        assert_eq!(names(&started(&ready)), ["a", "b", "c", "a", "b", "a"]);
    }

    #[test]
    fn what_is_taken_out_gives_its_room_back_and_leaves_the_others_their_turns() {
        let ready = ready(100, 100);
        for name in ["a", "b", "a"] {
            ready.push(job(&ready, name, 10).unwrap());
        }
        let gone = job(&ready, "c", 10).unwrap();
        let trial = Job { turn: Turn::Trial, ..job(&ready, "c", 10).unwrap() };
        let out = [&gone, &trial].map(|job| (webhook("c"), job.delivery.id));
        ready.push(gone);
        assert_eq!(names(&ready.take_out(&out)), ["c"]);
        ready.push(trial);
        assert!(ready.take_out(&out).is_empty(), "its breaker waits for it");
        let first = ready.next().unwrap();
        let under_way = [(webhook("a"), first.delivery.id), (webhook("z"), first.delivery.id)];
        assert!(ready.take_out(&under_way).is_empty());
        assert_eq!(names(&started(&ready)), ["b", "c", "a"]);
        drop(first);
        assert_eq!(ready.room(), (100, Vec::new()));
    }

    #[test]
    fn tenants_take_turns_before_their_lanes_do() {
        let ready = ready(100, 100);
        for name in ["a/1", "a/2", "a/3", "a/1", "b/1", "b/1"] {
            ready.push(job(&ready, name, 10).unwrap());
        }
        let order = ["a/1", "b/1", "a/2", "b/1", "a/3", "a/1"];
        assert_eq!(names(&started(&ready)), order);
    }

    #[test]
    fn a_tenant_runs_and_holds_no_more_than_its_share() {
        let ready = of_tenants(16, 8, 2);
        for name in ["a/1", "a/2", "a/3", "b/1"] {
            ready.push(job(&ready, name, 10).unwrap());
        }
        let running = started(&ready);
        assert_eq!(names(&running), ["a/1", "b/1", "a/2"]);
        for name in ["a/3", "a/4", "a/4", "a/4", "a/4", "a/5", "a/5", "a/5", "a/5"] {
            ready.push(job(&ready, name, 10).unwrap());
        }
        assert!(job(&ready, "a/6", 10).is_none(), "a tenant holds three quarters");
        assert!(job(&ready, "b/2", 10).is_some());
        drop(running);
        assert_eq!(names(&started(&ready)), ["a/3", "a/4"]);
        drop(ready.close());
        assert!(ready.lanes().by_tenant.is_empty(), "those that are done take no memory");
    }

    #[test]
    fn a_lane_runs_no_more_than_its_limit_and_goes_on_when_one_ends() {
        let ready = ready(100, 100);
        for name in ["a", "a", "a", "b"] {
            ready.push(job(&ready, name, 1).unwrap());
        }
        let running = started(&ready);
        assert_eq!(names(&running), ["a", "b"]);
        drop(running);
        let running = started(&ready);
        assert_eq!(names(&running), ["a"]);
        drop(running);
        assert_eq!(names(&started(&ready)), ["a"]);
        assert!(ready.lanes().by_webhook.is_empty(), "empty lanes take no memory");
    }

    #[tokio::test]
    async fn what_finds_no_room_is_told_once_half_is_free() {
        let ready = ready(8, 100);
        let mut held: Vec<_> = (0..2).filter_map(|_| job(&ready, "a", 10)).collect();
        assert!(job(&ready, "a", 10).is_none(), "a lane holds a quarter");
        let other = job(&ready, "b", 10).unwrap();
        assert_eq!(ready.room(), (5, vec![webhook("a")]));
        drop(other);
        assert!(!rang(&ready).await);
        held.pop();
        assert!(rang(&ready).await);
        held.pop();
        assert!(!rang(&ready).await);
    }

    #[test]
    fn the_room_of_a_webhook_is_its_lanes_share_of_what_is_free() {
        let ready = ready(8, 100);
        assert_eq!(ready.room_of(&webhook("a")), 2);
        let held: Vec<_> = ["a", "b", "b"].map(|name| job(&ready, name, 10).unwrap()).into();
        assert_eq!((ready.room_of(&webhook("a")), ready.room_of(&webhook("b"))), (1, 0));
        let large = ready.reserve(&tenant("c"), &webhook("c"), 800, 10).unwrap();
        assert_eq!(ready.room_of(&webhook("a")), 0, "the bytes of all are full");
        drop((held, large));
        ready.close();
        assert_eq!(ready.room_of(&webhook("a")), 0);
    }

    #[tokio::test]
    async fn large_events_fill_it_by_their_bytes() {
        let ready = ready(100, 100);
        let slot = |name: &str, bytes| ready.reserve(&tenant(name), &webhook(name), bytes, 10);
        let large = slot("a", 500).unwrap();
        assert!(slot("a", 1).is_none(), "over a quarter of 800 bytes");
        let other = slot("b", 300).unwrap();
        assert!(slot("c", 1).is_none());
        assert_eq!(ready.room().0, 0);
        drop((large, other));
        assert!(rang(&ready).await);
        assert!(slot("a", 1).is_some());
    }

    #[tokio::test]
    async fn closing_starts_nothing_and_gives_out_what_waited() {
        let ready = ready(100, 1);
        for _ in 0..3 {
            ready.push(job(&ready, "a", 10).unwrap());
        }
        let running = ready.next().unwrap();
        assert_eq!(ready.close().len(), 2);
        assert!(ready.next().is_none());
        assert!(job(&ready, "a", 10).is_none());
        drop(running);
        ready.idle().await;
    }
}
