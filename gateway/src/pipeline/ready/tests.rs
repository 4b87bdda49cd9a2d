//! What is held, who may run, and who is told of room.

use bytes::Bytes;
use jiff::Timestamp;

use super::*;
use crate::delivery::DeliveryId;
use crate::event::{EventId, EventType};
use crate::snapshot::{Current, PluginSet, Snapshot};

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
    let current = Current::new(Snapshot::new(Vec::new(), PluginSet::default()));
    let flows = Flows::new(config.receiver_breaker.clone(), current);
    Ready::new(&config, Arc::default(), Arc::new(flows))
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

/// Says that something of a webhook is due and found no room.
async fn park(ready: &Ready, name: &str) {
    ready.0.alarm.due(&webhook(name), Timestamp::UNIX_EPOCH);
    assert!(rang(ready).await);
    ready.0.alarm.park_next(Timestamp::UNIX_EPOCH);
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
        webhook_url: None,
    };
    let delivery = Delivery {
        id: DeliveryId::generate(),
        webhook: webhook(name),
        part: 1,
        attempts: 0,
        tried: 0,
        request: None,
        queue: None,
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
    let others = started(&ready);
    let mut names = names(&others);
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c"]);
    drop((first, others));
    assert!(ready.lanes().by_webhook.is_empty());
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
    let room_for = |name: &str| ready.room_for(Some(&tenant(name)), &webhook(name), 100);
    assert_eq!((ready.room().0, room_for("a"), room_for("b")), (5, 0, 1));
    park(&ready, "a").await;
    drop(other);
    assert!(!rang(&ready).await);
    held.pop();
    assert!(rang(&ready).await);
    held.pop();
    assert!(!rang(&ready).await);
}

#[test]
fn what_waits_in_the_store_comes_before_what_is_fresh() {
    let ready = ready(16, 100);
    let mut held: Vec<_> = (0..4).map(|_| job(&ready, "a", 10).unwrap()).collect();
    assert!(job(&ready, "a", 10).is_none(), "a lane holds a quarter");
    held.pop();
    assert!(job(&ready, "a", 10).is_none(), "the room is for what found none");
    held.pop();
    assert_eq!(ready.room_for(None, &webhook("a"), 100), 2);
    assert!(job(&ready, "a", 10).is_some(), "there is room for both");
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
