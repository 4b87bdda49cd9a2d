//! Replays, cancellations, and lists of deliveries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hookmill_tests::{Answer, Gateway, Receiver, Reply, Running, Webhook, eventually, stamped};
use serde_json::{Value, json};

/// A receiver that fails until told otherwise, and what tells it.
pub(crate) async fn failing() -> (Receiver, Arc<AtomicBool>) {
    let works = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&works);
    let receiver = Receiver::answering(move |_, _| {
        Reply::status(if told.load(Ordering::SeqCst) { 200 } else { 500 })
    })
    .await;
    (receiver, works)
}

/// A webhook whose deliveries are dead at their first failure.
pub(crate) fn once(receiver: &Receiver, name: &str) -> Webhook {
    receiver.webhook(name).set("retry", &json!([]))
}

/// A gateway that does not leave receivers alone when they fail.
pub(crate) fn tireless() -> Gateway {
    Gateway::new().setting("delivery.breaker.enabled = false")
}

/// Posts a job and waits until it has ended; gives it as it is then.
pub(crate) async fn done(gateway: &Running, path: &str, body: &Value) -> Value {
    let answer = gateway.ask(path, body, "").await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    ended(gateway, location(&answer)).await
}

fn location(answer: &Answer) -> &str {
    answer.headers["location"].to_str().unwrap()
}

/// A job, once it has ended.
pub(crate) async fn ended(gateway: &Running, path: &str) -> Value {
    let get = async || gateway.get(path).await.body;
    eventually("the job", || async { !get().await["ended_at"].is_null() }).await;
    get().await
}

/// All deliveries that a query finds, page by page.
pub(crate) async fn list(gateway: &Running, query: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = gateway.get(&format!("/v1/deliveries?{query}{after}")).await;
        assert_eq!(page.status, 200, "{}", page.body);
        all.extend(page.body["deliveries"].as_array().unwrap().iter().cloned());
        let Some(next) = page.body["next"].as_str() else { return all };
        after = format!("&after={next}");
    }
}

pub(crate) async fn dead(gateway: &Running, count: usize) {
    eventually("all to be dead", || async {
        list(gateway, "state=dead&limit=1000").await.len() == count
    })
    .await;
}

/// Sends so many events.
pub(crate) async fn send(gateway: &Running, count: usize) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    while ids.len() < count {
        let left = (count - ids.len()).min(1_000);
        let events = vec![json!({ "type": "a", "data": 1 }); left];
        let answer = gateway.request(Value::from(events).to_string(), &[]).await.unwrap();
        let events = answer.body["events"].as_array().unwrap();
        ids.extend(events.iter().map(|event| event["id"].as_str().unwrap().to_owned()));
    }
    ids
}

#[tokio::test]
async fn what_is_dead_is_found_and_replayed_under_the_same_id() {
    let (receiver, works) = failing().await;
    let gateway = Gateway::new().webhook(once(&receiver, "it")).start().await;
    let id = gateway.send("a", json!({ "n": 1 })).await;
    dead(&gateway, 1).await;
    let listed = &list(&gateway, "webhook=it&state=dead").await[0];
    assert_eq!(listed["event"]["id"], id.as_str());
    assert_eq!(listed["webhook"]["name"], "it");
    assert_eq!(listed["last_attempt"]["status"], 500);

    works.store(true, Ordering::SeqCst);
    let since = listed["event"]["accepted_at"].as_str().unwrap();
    let job =
        done(&gateway, "/v1/replays", &json!({ "webhook": "it", "failed_since": since })).await;
    assert_eq!((&job["state"], &job["done"]), (&json!("completed"), &json!(1)), "{job}");
    let deliveries = gateway.settled(&id).await;
    assert_eq!(deliveries[0]["state"], "dead");
    assert_eq!(deliveries[1]["state"], "delivered");
    assert_eq!(deliveries[1]["replay_of"], deliveries[0]["id"]);
    let received = receiver.received();
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|request| request.verified && request.id() == id));
    assert_eq!(received[0].body, received[1].body);

    let again = done(&gateway, "/v1/replays", &json!({ "state": "dead" })).await;
    assert_eq!(again["matched"], 0, "the latest of it is delivered: {again}");
    let jobs = gateway.get("/v1/jobs").await.body;
    assert_eq!(jobs["jobs"][1]["id"], job["id"], "newest first: {jobs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_repeats_each_once_and_leaves_none_out() {
    const COUNT: usize = 3_000;
    let works = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&works);
    // At most 2,000 a second, so that the job is under way when its process is killed.
    let receiver = Receiver::answering(move |_, _| match told.load(Ordering::SeqCst) {
        true => Reply::after(Duration::from_millis(10)),
        false => Reply::status(500),
    })
    .await;
    let webhook = once(&receiver, "it").set("concurrency", &json!(20));
    let mut gateway = tireless().webhook(webhook).start().await;
    let ids = send(&gateway, COUNT).await;
    dead(&gateway, COUNT).await;
    works.store(true, Ordering::SeqCst);
    let body = json!({ "state": "dead" });
    let job = gateway.ask("/v1/replays", &body, "recovery").await.body;
    let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    for least in [1, 800, 1_600] {
        let done = async || gateway.get(&path).await.body["done"].as_u64().unwrap();
        eventually("some to be replayed", || async { done().await >= least }).await;
        let seen = done().await;
        gateway = gateway.kill().await.start().await;
        let now = gateway.get(&path).await.body["done"].as_u64().unwrap();
        assert!(now >= seen, "{now} after {seen}");
    }
    let again = gateway.ask("/v1/replays", &body, "recovery").await;
    assert_eq!(again.body["id"], job["id"], "{}", again.body);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let job = ended(&gateway, location(&again)).await;
    assert_eq!((&job["matched"], &job["done"]), (&json!(COUNT), &json!(COUNT)), "{job}");

    eventually("all to be delivered", || async {
        list(&gateway, "state=delivered&limit=1000").await.len() == COUNT
    })
    .await;
    let mut replays = BTreeMap::<_, usize>::new();
    for replay in list(&gateway, "limit=1000").await {
        if let Some(of) = replay["replay_of"].as_str() {
            *replays.entry(of.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(replays.len(), COUNT, "none is left out");
    assert!(replays.values().all(|times| *times == 1), "none is repeated twice");
    assert_eq!(receiver.ids(), ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_is_not_sent_any_more() {
    let receiver = Receiver::answering(|_, _| Reply::after(Duration::from_secs(1))).await;
    let webhook = receiver.webhook("it").set("concurrency", &json!(1));
    let gateway = Gateway::new().webhook(webhook).start().await;
    let ids = send(&gateway, 20).await;
    receiver.wait_for(1).await;
    let job = done(&gateway, "/v1/cancellations", &json!({ "webhook": "it" })).await;
    let count = usize::try_from(job["done"].as_u64().unwrap()).unwrap();
    // The first one had been sent.
    assert!((19..=20).contains(&count), "{job}");
    let last = gateway.send("a", json!(1)).await;
    gateway.delivery_in("delivered", &last).await;
    let arrived = receiver.ids();
    assert!(arrived.len() <= 3, "{arrived:?}");
    let cancelled = list(&gateway, "state=cancelled").await;
    assert!(cancelled.len() >= 18, "{cancelled:?}");
    assert!(cancelled[0]["reason"].as_str().unwrap().contains(job["id"].as_str().unwrap()));

    let replay = done(&gateway, "/v1/replays", &json!({ "state": "cancelled" })).await;
    assert_eq!(replay["done"], cancelled.len());
    let one = gateway.get("/v1/jobs?limit=1").await.body;
    assert_eq!(one["next"], replay["id"], "{one}");
    done(&gateway, "/v1/cancellations", &json!({ "state": "pending" })).await;
    drop(ids);
}

#[tokio::test]
async fn a_replay_runs_the_plugins_as_they_are_now_or_sends_the_same_bytes() {
    let (receiver, works) = failing().await;
    let webhook = once(&receiver, "it").plugins(&[("stamp", json!({}))]);
    let webhook = webhook.set("retry", &json!(["10ms"]));
    let gateway = Gateway::new().plugin("stamp").webhook(webhook).start().await;
    let id = gateway.send("a", json!({})).await;
    dead(&gateway, 1).await;
    let first = receiver.received()[0].body.clone();
    gateway.plugins().replace("stamp", &stamped("version-01"));
    let version = async || gateway.get("/v1/plugins/stamp").await.body["version"].clone();
    let before = gateway.get(&format!("/v1/events/{id}")).await.body["deliveries"][0]["plugins"][0]
        ["version"]
        .clone();
    eventually("the new version", || async { version().await != before }).await;
    works.store(true, Ordering::SeqCst);
    done(&gateway, "/v1/replays", &json!({ "event": id })).await;
    let received = receiver.wait_for(3).await;
    assert_ne!(received[2].body, first);

    let delivery = gateway.settled(&id).await[0]["id"].clone();
    let body = json!({ "deliveries": [delivery], "same_bytes": true });
    let job = done(&gateway, "/v1/replays", &body).await;
    assert_eq!(job["done"], 1, "{job}");
    let received = receiver.wait_for(4).await;
    assert_eq!(received[3].body, first);
    assert_eq!(received[3].id(), id);
    let deliveries = gateway.settled(&id).await;
    assert_eq!(deliveries[2]["plugins"], deliveries[0]["plugins"]);
}

#[tokio::test]
async fn a_part_of_a_split_is_replayed_alone() {
    let receiver = Receiver::answering(|request, before| {
        let unlucky = request.id().ends_with("-2") && before == 0;
        Reply::status(if unlucky { 500 } else { 200 })
    })
    .await;
    let three = json!({ "do": "many_parts", "count": 3 });
    let webhook = once(&receiver, "it").plugins(&[("misbehave", three)]);
    let gateway = Gateway::new().plugin("misbehave").webhook(webhook).start().await;
    let id = gateway.send("a", json!({})).await;
    dead(&gateway, 1).await;
    done(&gateway, "/v1/replays", &json!({ "state": "dead" })).await;
    receiver.wait_for(4).await;
    let deliveries = gateway.settled(&id).await;
    let parts: Vec<_> = deliveries.iter().map(|one| (&one["part"], &one["state"])).collect();
    let expected = [(1, "delivered"), (2, "dead"), (2, "delivered"), (3, "delivered")];
    let expected = expected.map(|(part, state)| (json!(part), json!(state)));
    assert_eq!(parts, expected.each_ref().map(|(part, state)| (part, state)));
    let received = receiver.received();
    assert_eq!(received[3].id(), format!("{id}-2"));
    assert_eq!(received.len(), 4);
}

#[tokio::test]
async fn another_tenants_deliveries_and_jobs_are_missing() {
    let (receiver, _) = failing().await;
    let webhook = once(&receiver, "theirs");
    let gateway =
        Gateway::new().webhook(once(&receiver, "it")).other_webhook(webhook).start().await;
    let id = gateway.send("a", json!(1)).await;
    dead(&gateway, 1).await;
    let delivery = &list(&gateway, "state=dead").await[0];
    for (path, body) in [
        ("/v1/replays", json!({ "deliveries": [delivery["id"]] })),
        ("/v1/replays", json!({ "event": id })),
        ("/v1/cancellations", json!({ "deliveries": [delivery["id"]] })),
    ] {
        let answer = gateway.ask_as_other(path, &body).await;
        assert_eq!((answer.status, &answer.body["code"]), (404, &json!("not_found")), "{body}");
    }
    let webhook = delivery["webhook"]["id"].as_str().unwrap();
    let theirs = gateway.get_as_other(&format!("/v1/deliveries?webhook={webhook}")).await;
    assert_eq!(theirs.body["deliveries"], json!([]));
    let job = done(&gateway, "/v1/replays", &json!({ "event": id })).await;
    let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    assert_eq!(gateway.get_as_other(&path).await.status, 404);
    assert_eq!(gateway.command_as_other(&format!("{path}/cancel")).await.status, 404);
    assert_eq!(gateway.get_as_other("/v1/jobs").await.body["jobs"], json!([]));
}

#[tokio::test]
async fn what_selects_nothing_sensible_is_refused_by_field() {
    let gateway = Gateway::new().start().await;
    for (path, body, field) in [
        ("/v1/replays", json!({}), "deliveries"),
        ("/v1/replays", json!({ "state": "held" }), "state"),
        ("/v1/replays", json!({ "webhook": "nobody" }), "webhook"),
        ("/v1/cancellations", json!({ "state": "dead" }), "state"),
    ] {
        let answer = gateway.ask(path, &body, "").await;
        assert_eq!((answer.status, &answer.body["code"]), (422, &json!("invalid_selection")));
        assert_eq!(answer.body["errors"][0]["field"], field, "{}", answer.body);
    }
    let answer = gateway.get("/v1/deliveries?state=broken&since=1").await;
    assert_eq!((answer.status, &answer.body["code"]), (400, &json!("invalid_parameter")));
    assert_eq!(answer.body["errors"][0]["field"], "since", "{}", answer.body);
    assert_eq!(gateway.get("/v1/jobs/job_1").await.status, 404);
}
