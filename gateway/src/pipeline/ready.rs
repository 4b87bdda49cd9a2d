//! What is held in memory: deliveries that wait for their turn, and the count of those under way.
//!
//! Each webhook has a lane of its own and the lanes take turns, so that a webhook with much to do, or a slow
//! receiver, leaves the others their share. Everything is bounded: what finds no room waits in the store.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Config;
use super::breaker::Turn;
use super::claim::Alarm;
use crate::delivery::{Delivery, WebhookId};
use crate::event::Event;

/// A lane may hold at most this share of all that is held.
const LANE_SHARE: usize = 4;

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
    max_lane: Held,
    max_running: usize,
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

    fn remove(&mut self, bytes: usize) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Whether nothing more may be held. What is held may be one delivery over the limit of bytes.
    fn is_full(self, max: Self) -> bool {
        self.count >= max.count || self.bytes >= max.bytes
    }

    /// Room counts only once half is free, so that a full lane does not ask the store for each delivery.
    fn has_room(self, max: Self) -> bool {
        self.count <= max.count / 2 && self.bytes <= max.bytes / 2
    }

    fn share(self) -> Self {
        Self { count: (self.count / LANE_SHARE).max(1), bytes: (self.bytes / LANE_SHARE).max(1) }
    }
}

#[derive(Default)]
struct Lanes {
    by_webhook: HashMap<WebhookId, Lane>,
    /// Lanes that have something waiting and may run it, in turn.
    turns: VecDeque<WebhookId>,
    held: Held,
    running: usize,
    /// Something found no room; whoever makes room says so.
    full: bool,
    /// Nothing is started any more.
    closed: bool,
}

struct Lane {
    waiting: VecDeque<Job>,
    held: Held,
    running: usize,
    max_running: usize,
    /// It stands in `turns`.
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
            max_lane: max_held.share(),
            max_running: config.concurrency.max(1),
        }))
    }

    /// A slot for a delivery of so many bytes to this webhook, if there is room.
    pub(super) fn reserve(
        &self,
        webhook: &WebhookId,
        bytes: usize,
        max_running: usize,
    ) -> Option<Slot> {
        let mut lanes = self.lanes();
        if lanes.held.is_full(self.0.max_held) || lanes.closed {
            lanes.full = true;
            return None;
        }
        let lane = lanes.lane(webhook, max_running);
        if lane.held.is_full(self.0.max_lane) {
            lane.full = true;
            return None;
        }
        lane.held.add(bytes);
        lanes.held.add(bytes);
        Some(self.slot(webhook, bytes))
    }

    /// A slot for a delivery that is in hand already, room or not: claims are small.
    pub(super) fn admit(&self, webhook: &WebhookId, bytes: usize, max_running: usize) -> Slot {
        let mut lanes = self.lanes();
        lanes.lane(webhook, max_running).held.add(bytes);
        lanes.held.add(bytes);
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
        for (webhook, lane) in &mut lanes.by_webhook {
            lane.full = lane.held.is_full(self.0.max_lane);
            if lane.full {
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
            lanes.queue(&webhook);
        }
    }

    /// The next job to start, if any may run; its slot counts as running from now on.
    pub(super) fn next(&self) -> Option<Job> {
        let mut lanes = self.lanes();
        if lanes.closed || lanes.running >= self.0.max_running {
            return None;
        }
        let webhook = lanes.turns.pop_front()?;
        let lane = lanes.by_webhook.get_mut(&webhook)?;
        lane.queued = false;
        let mut job = lane.waiting.pop_front()?;
        lane.running += 1;
        job.slot.running = true;
        lanes.running += 1;
        lanes.queue(&webhook);
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
    fn lane(&mut self, webhook: &WebhookId, max_running: usize) -> &mut Lane {
        let lane = self.by_webhook.entry(webhook.clone()).or_insert_with(|| Lane {
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

    /// Gives a lane a turn if it has something waiting and may run it.
    fn queue(&mut self, webhook: &WebhookId) {
        if let Some(lane) = self.by_webhook.get_mut(webhook)
            && !lane.queued
            && !lane.waiting.is_empty()
            && lane.running < lane.max_running
        {
            lane.queued = true;
            self.turns.push_back(webhook.clone());
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let shared = &self.ready.0;
        let mut lanes = self.ready.lanes();
        lanes.held.remove(self.bytes);
        if self.running {
            lanes.running = lanes.running.saturating_sub(1);
        }
        let mut room = false;
        if lanes.full && lanes.held.has_room(shared.max_held) {
            lanes.full = false;
            room = true;
        }
        if let Some(lane) = lanes.by_webhook.get_mut(&self.webhook) {
            lane.held.remove(self.bytes);
            if self.running {
                lane.running = lane.running.saturating_sub(1);
            }
            if lane.full && lane.held.has_room(shared.max_lane) {
                lane.full = false;
                room = true;
            }
            if lane.held.count == 0 {
                lanes.by_webhook.remove(&self.webhook);
            } else {
                lanes.queue(&self.webhook);
            }
        }
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
        let config = Config {
            max_ready,
            concurrency,
            max_ready_bytes: 800,
            webhook_concurrency: 1,
            ..Config::default()
        };
        Ready::new(&config, Arc::default())
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
        };
        let slot = ready.reserve(&webhook(name), 10, limit)?;
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
        let large = ready.reserve(&webhook("c"), 800, 10).unwrap();
        assert_eq!(ready.room_of(&webhook("a")), 0, "the bytes of all are full");
        drop((held, large));
        ready.close();
        assert_eq!(ready.room_of(&webhook("a")), 0);
    }

    #[tokio::test]
    async fn large_events_fill_it_by_their_bytes() {
        let ready = ready(100, 100);
        let slot = |name: &str, bytes| ready.reserve(&webhook(name), bytes, 10);
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
