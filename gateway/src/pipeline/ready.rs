//! What is held in memory: deliveries that wait for their turn, and the count of those under way.
//!
//! Each webhook has a lane of its own and the lanes take turns, so that a webhook with much to do, or a slow
//! receiver, leaves the others their share. Everything is bounded: what finds no room waits in the store.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Config;
use crate::delivery::{Delivery, WebhookId};
use crate::event::Event;

/// A lane may hold at most this share of all that is held.
const LANE_SHARE: usize = 4;

/// A delivery in hand.
pub(super) struct Job {
    pub(super) event: Arc<Event>,
    pub(super) delivery: Delivery,
    pub(super) slot: Slot,
}

/// The lanes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Ready(Arc<Shared>);

struct Shared {
    lanes: Mutex<Lanes>,
    idle: Notify,
    max_held: usize,
    max_lane: usize,
    max_running: usize,
}

#[derive(Default)]
struct Lanes {
    by_webhook: HashMap<WebhookId, Lane>,
    /// Lanes that have something waiting and may run it, in turn.
    turns: VecDeque<WebhookId>,
    held: usize,
    running: usize,
    /// Something found no room; whoever makes room says so.
    full: bool,
    /// Nothing is started any more.
    closed: bool,
}

struct Lane {
    waiting: VecDeque<Job>,
    held: usize,
    running: usize,
    max_running: usize,
    /// It stands in `turns`.
    queued: bool,
    full: bool,
}

/// Room for one delivery, from before it is accepted until it is recorded.
pub(super) struct Slot {
    ready: Ready,
    webhook: WebhookId,
    running: bool,
    freed: bool,
}

impl Ready {
    pub(super) fn new(config: &Config) -> Self {
        let max_held = config.max_ready.max(1);
        Self(Arc::new(Shared {
            lanes: Mutex::default(),
            idle: Notify::new(),
            max_held,
            max_lane: (max_held / LANE_SHARE).max(1),
            max_running: config.concurrency.max(1),
        }))
    }

    /// A slot for a delivery to this webhook, if there is room.
    pub(super) fn reserve(&self, webhook: &WebhookId, max_running: usize) -> Option<Slot> {
        let mut lanes = self.lanes();
        if lanes.held >= self.0.max_held || lanes.closed {
            lanes.full = true;
            return None;
        }
        let lane = lanes.lane(webhook, max_running);
        if lane.held >= self.0.max_lane {
            lane.full = true;
            return None;
        }
        lane.held += 1;
        lanes.held += 1;
        Some(self.slot(webhook))
    }

    /// A slot for a delivery that is in hand already, room or not: claims are small.
    pub(super) fn admit(&self, webhook: &WebhookId, max_running: usize) -> Slot {
        let mut lanes = self.lanes();
        lanes.lane(webhook, max_running).held += 1;
        lanes.held += 1;
        self.slot(webhook)
    }

    fn slot(&self, webhook: &WebhookId) -> Slot {
        Slot { ready: self.clone(), webhook: webhook.clone(), running: false, freed: false }
    }

    /// How many more deliveries there is room for, and the webhooks for which there is none.
    pub(super) fn room(&self) -> (usize, Vec<WebhookId>) {
        let mut lanes = self.lanes();
        let room = self.0.max_held.saturating_sub(lanes.held);
        lanes.full = room == 0;
        let mut full = Vec::new();
        for (webhook, lane) in &mut lanes.by_webhook {
            lane.full = lane.held >= self.0.max_lane;
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
            held: 0,
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

impl Slot {
    /// Gives the slot back; true when that makes room for something that found none before.
    ///
    /// Room counts only once half is free, so that a full lane does not ask the store for each delivery.
    pub(super) fn free(mut self) -> bool {
        self.give_back()
    }

    fn give_back(&mut self) -> bool {
        if std::mem::replace(&mut self.freed, true) {
            return false;
        }
        let shared = &self.ready.0;
        let mut lanes = self.ready.lanes();
        lanes.held = lanes.held.saturating_sub(1);
        if self.running {
            lanes.running = lanes.running.saturating_sub(1);
        }
        let mut room = false;
        if lanes.full && lanes.held <= shared.max_held / 2 {
            lanes.full = false;
            room = true;
        }
        if let Some(lane) = lanes.by_webhook.get_mut(&self.webhook) {
            lane.held = lane.held.saturating_sub(1);
            if self.running {
                lane.running = lane.running.saturating_sub(1);
            }
            if lane.full && lane.held <= shared.max_lane / 2 {
                lane.full = false;
                room = true;
            }
            if lane.held == 0 {
                lanes.by_webhook.remove(&self.webhook);
            } else {
                lanes.queue(&self.webhook);
            }
        }
        if lanes.running == 0 {
            shared.idle.notify_waiters();
        }
        room
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.give_back();
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
        Ready::new(&Config { max_ready, concurrency, webhook_concurrency: 1 })
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
        let slot = ready.reserve(&webhook(name), limit)?;
        Some(Job { event: Arc::new(event), delivery, slot })
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

    #[test]
    fn what_finds_no_room_is_told_once_half_is_free() {
        let ready = ready(8, 100);
        let held: Vec<_> = (0..2).filter_map(|_| job(&ready, "a", 10)).collect();
        assert!(job(&ready, "a", 10).is_none(), "a lane holds a quarter");
        assert!(job(&ready, "b", 10).is_some());
        assert_eq!(ready.room(), (6, vec![webhook("a")]));
        let freed: Vec<_> = held.into_iter().map(|job| job.slot.free()).collect();
        assert_eq!(freed, [true, false]);
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
