//! The kill matrix of jobs: the process dies in the middle of a replay and of a cancellation, and each delivery is acted
//! on once all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use hookmill::failpoint::Point;
use hookmill_tests::{Gateway, Receiver, Reply, Running, eventually};
use serde_json::{Value, json};

use super::jobs::{ended, failing, list, once, send, tireless};

/// Events, each for two webhooks: more deliveries than a few steps come to.
const COUNT: usize = 250;

/// The step at which it dies: not the first one, and not the last.
const STEP: u32 = 3;

pub(crate) async fn die_at(point: Point) {
    die_replaying(point).await;
    die_cancelling(point).await;
}

async fn die_replaying(point: Point) {
    let (receiver, works) = failing().await;
    let queue = once(&receiver, "queue").set("ordering", &json!("fifo"));
    let gateway = tireless().webhook(once(&receiver, "free")).webhook(queue).start().await;
    let accepted = send(&gateway, COUNT).await;
    all_in(&gateway, "dead", 2 * COUNT).await;
    let dead = list(&gateway, "state=dead&limit=1000").await;
    works.store(true, Ordering::SeqCst);
    let before = receiver.received().len();

    let Ok(gateway) = gateway.stop().await.start_to_die(point, STEP).await else {
        panic!("there is no job yet")
    };
    // It may die before it answers.
    begin(&gateway, "/v1/replays", &json!({ "state": "dead" })).await;
    let gateway = gateway.died().await.start().await;
    let job = finished(&gateway).await;
    assert_eq!((&job["matched"], &job["failed"]), (&json!(2 * COUNT), &json!(0)), "{job}");
    all_in(&gateway, "delivered", 2 * COUNT).await;

    let mut replays = BTreeMap::<_, usize>::new();
    for one in list(&gateway, "limit=1000").await {
        if let Some(of) = one["replay_of"].as_str() {
            *replays.entry(of.to_owned()).or_default() += 1;
        }
    }
    let repeated: BTreeSet<_> = dead.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert!(replays.keys().map(String::as_str).eq(repeated), "each of them, and no other");
    assert!(replays.values().all(|times| *times == 1), "{point}: none is repeated twice");
    let received = receiver.received();
    for name in ["/free", "/queue"] {
        let of_webhook = received.iter().skip(before).filter(|it| it.target == name);
        let mut ids: Vec<_> = of_webhook.map(|it| it.id().to_owned()).collect();
        // One that was under way when the process died comes again.
        ids.dedup();
        if name == "/queue" {
            let mut of_queue: Vec<_> =
                dead.iter().filter(|one| one["webhook"]["name"] == "queue").collect();
            of_queue.sort_by_key(|one| one["id"].as_str().unwrap());
            let order = of_queue.iter().map(|one| one["event"]["id"].as_str().unwrap());
            assert!(ids.iter().map(String::as_str).eq(order), "{point}: in order");
        }
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), accepted, "{point}: {name}");
    }
}

async fn die_cancelling(point: Point) {
    let receiver = Receiver::answering(|_, _| Reply::after(Duration::from_millis(200))).await;
    let slow = |name: &str| receiver.webhook(name).set("concurrency", &json!(1));
    let queue = slow("queue").set("ordering", &json!("fifo"));
    let gateway = Gateway::new().webhook(slow("free")).webhook(queue);
    let Ok(gateway) = gateway.start_to_die(point, STEP).await else {
        panic!("there is no job yet")
    };
    send(&gateway, COUNT).await;
    begin(&gateway, "/v1/cancellations", &json!({ "event_type": "a" })).await;
    let gateway = gateway.died().await.start().await;
    let job = finished(&gateway).await;
    assert_eq!(job["failed"], json!(0), "{job}");

    // What is accepted now follows what is left, in both webhooks.
    let last = gateway.send("b", json!(1)).await;
    eventually("the last one", || async {
        gateway.settled(&last).await.iter().all(|one| one["state"] == "delivered")
    })
    .await;
    let cancelled = list(&gateway, "state=cancelled&limit=1000").await;
    let delivered = list(&gateway, "state=delivered&limit=1000").await;
    assert_eq!(cancelled.len() + delivered.len(), 2 * COUNT + 2, "each has ended, once");
    assert!(job["done"].as_u64().unwrap() >= u64::try_from(cancelled.len()).unwrap(), "{job}");
    let received: BTreeSet<_> =
        receiver.received().iter().map(|it| (it.target.clone(), it.id().to_owned())).collect();
    let sent = cancelled.iter().filter(|one| {
        let target = format!("/{}", one["webhook"]["name"].as_str().unwrap());
        received.contains(&(target, one["event"]["id"].as_str().unwrap().to_owned()))
    });
    let sent = sent.count();
    assert!(sent <= 2, "{point}: {sent} were sent, and one of each webhook was under way");
}

async fn all_in(gateway: &Running, state: &str, count: usize) {
    let query = format!("state={state}&limit=1000");
    eventually(state, || async { list(gateway, &query).await.len() == count }).await;
}

/// Asks for a job of a process that may die of it.
async fn begin(gateway: &Running, path: &str, body: &Value) {
    drop(gateway.try_ask(path, body).await);
}

/// The one job that there is, once it has ended.
async fn finished(gateway: &Running) -> Value {
    let jobs = gateway.get("/v1/jobs").await;
    let id = jobs.body["jobs"][0]["id"].as_str().unwrap();
    ended(gateway, &format!("/v1/jobs/{id}")).await
}
