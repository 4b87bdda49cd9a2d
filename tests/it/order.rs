//! Webhooks that keep an order: whatever fails, and however often the process is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hookmill_tests::{Gateway, Received, Receiver, Reply, Running, Webhook, eventually};
use serde_json::{Value, json};

fn webhook(receiver: &Receiver, ordering: &str) -> Webhook {
    receiver
        .webhook("it")
        .set("ordering", &json!(ordering))
        .set("retry", &json!(vec!["50ms"; 20]))
        .set("body", &json!("data"))
}

/// A receiver that refuses one request in five at first.
async fn moody() -> Receiver {
    Receiver::answering(|request, before| {
        let unlucky = request.id().bytes().map(usize::from).sum::<usize>() % 5 == 0;
        Reply::status(if unlucky && before == 0 { 500 } else { 200 })
    })
    .await
}

/// The ids of what arrived, in order of their first arrival, by the key in their data.
fn arrived(receiver: &Receiver, expected: &BTreeSet<String>) -> BTreeMap<String, Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut arrived: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let is_new = |request: &Received| seen.insert(request.id().to_owned());
    for request in receiver.received().into_iter().filter(is_new) {
        // One that was accepted as the process was killed, and not acknowledged, may come as well.
        if expected.contains(request.id()) {
            let key = request.json()["key"].as_str().unwrap().to_owned();
            arrived.entry(key).or_default().push(request.id().to_owned());
        }
    }
    arrived
}

/// Sends events with these keys in turn until the gateway is gone; gives the ids of what was acknowledged.
async fn send(gateway: Arc<Running>, keys: &'static [&'static str]) -> Vec<(String, String)> {
    let mut sent = Vec::new();
    for key in keys.iter().cycle() {
        let event = json!({ "type": "a", "ordering_key": key, "data": { "key": key } });
        let Ok(answer) = gateway.request(event.to_string(), &[]).await else { break };
        if answer.status == 202 {
            let id = answer.body["events"][0]["id"].as_str().unwrap().to_owned();
            sent.push(((*key).to_owned(), id));
        }
    }
    sent
}

/// Sends, and kills the gateway at some moment, again and again; everything arrives in order all the same.
async fn kills_keep_the_order(ordering: &str, keys: &'static [&'static str]) {
    let receiver = moody().await;
    let mut gateway = Gateway::new().webhook(webhook(&receiver, ordering));
    let mut acknowledged: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for round in 0..6 {
        let running = Arc::new(gateway.start().await);
        let load = tokio::spawn(send(Arc::clone(&running), keys));
        tokio::time::sleep(Duration::from_millis(60 + 37 * round)).await;
        running.signal("KILL").await;
        let sent = load.await.unwrap();
        assert!(!sent.is_empty(), "nothing was sent in round {round}");
        for (key, id) in sent {
            let key = if ordering == "key" { key } else { String::new() };
            acknowledged.entry(key).or_default().push(id);
        }
        gateway = Arc::into_inner(running).unwrap().kill().await;
    }
    let _running = gateway.start().await;
    let all: BTreeSet<_> = acknowledged.values().flatten().cloned().collect();
    eventually("everything acknowledged", || async { all.is_subset(&receiver.ids()) }).await;
    let mut arrived = arrived(&receiver, &all);
    if ordering != "key" {
        let in_order = receiver.received().into_iter().map(|request| request.id().to_owned());
        let mut seen = BTreeSet::new();
        let first = in_order.filter(|id| all.contains(id) && seen.insert(id.clone())).collect();
        arrived = BTreeMap::from([(String::new(), first)]);
    }
    assert_eq!(arrived, acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_in_first_out_webhook_keeps_its_order_over_failures_and_kills() {
    kills_keep_the_order("fifo", &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_ordering_key_keeps_its_order_over_failures_and_kills() {
    kills_keep_the_order("key", &["a", "b", "c", "d"]).await;
}

#[tokio::test]
async fn a_key_that_fails_delays_no_other() {
    let receiver = Receiver::answering(|request, _| {
        Reply::status(if request.json()["key"] == "bad" { 500 } else { 200 })
    })
    .await;
    let gateway = Gateway::new().webhook(webhook(&receiver, "key").set("retry", &json!(["1h"])));
    let gateway = gateway.start().await;
    let post = async |key: Option<&str>| {
        let data = json!({ "key": key.unwrap_or("none") });
        gateway.post(&json!({ "type": "a", "ordering_key": key, "data": data })).await
    };
    let head = post(Some("bad")).await;
    let behind = post(Some("bad")).await;
    gateway.delivery_in("retrying", &head).await;
    for key in [Some("good"), None, Some("good"), None] {
        gateway.delivery_in("delivered", &post(key).await).await;
    }
    let waits = gateway.delivery_in("pending", &behind).await;
    let reason = waits["reason"].as_str().unwrap();
    assert!(reason.starts_with("waits behind dlv_"), "{reason}");
    assert!(
        reason.ends_with(&format!("of the event {head} in the order of the key \"bad\"")),
        "{reason}"
    );
    assert_eq!(waits["attempts"], json!([]));
    assert_eq!(receiver.received().iter().filter(|request| request.id() == behind).count(), 0);
}

#[tokio::test]
async fn parts_of_a_split_keep_their_order() {
    let receiver = Receiver::answering(|request, before| {
        let unlucky = request.id().ends_with("-2") && before == 0;
        Reply::status(if unlucky { 500 } else { 200 })
    })
    .await;
    let three = json!({ "do": "many_parts", "count": 3 });
    let webhook = webhook(&receiver, "fifo").plugins(&[("misbehave", three)]);
    let gateway = Gateway::new().plugin("misbehave").webhook(webhook).start().await;
    let events: Vec<_> = (0..4).map(|_| json!({ "type": "a", "data": {} })).collect();
    let answer = gateway.request(Value::from(events).to_string(), &[]).await.unwrap();
    let ids = answer.body["events"].as_array().unwrap().iter();
    let expected: Vec<_> = ids
        .map(|event| event["id"].as_str().unwrap())
        .flat_map(|id| [id.to_owned(), format!("{id}-2"), format!("{id}-2"), format!("{id}-3")])
        .collect();
    let received = receiver.wait_for(expected.len()).await;
    let received: Vec<_> = received.iter().map(|request| request.id().to_owned()).collect();
    assert_eq!(received, expected);
}

#[tokio::test]
async fn what_follows_a_dead_delivery_waits_if_told_to_until_it_is_skipped() {
    let receiver = Receiver::answering(|request, _| {
        Reply::status(if request.json()["bad"] == true { 500 } else { 200 })
    })
    .await;
    let webhook =
        webhook(&receiver, "fifo").set("retry", &json!([])).set("on_dead", &json!("block"));
    let gateway = Gateway::new().webhook(webhook).start().await;
    let dead = gateway.send("a", json!({ "bad": true })).await;
    let behind = gateway.send("a", json!({ "bad": false })).await;
    gateway.delivery_in("dead", &dead).await;
    let gateway = gateway.kill().await.start().await;
    let last = gateway.send("a", json!({ "bad": false })).await;
    let waits = gateway.delivery_in("pending", &last).await;
    let reason = waits["reason"].as_str().unwrap();
    assert!(reason.contains(&dead) && reason.contains("which is dead"), "{reason}");

    let skip = async |id: &str| gateway.command(&format!("/v1/events/{id}/skip")).await;
    assert_eq!(skip("evt_none").await.status, 404);
    assert_eq!(skip(&behind).await.body["skipped"], json!([]));
    let answer = skip(&dead).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["event"], json!(dead));
    assert_eq!(answer.body["skipped"][0]["webhook"]["name"], "it");
    for id in [&behind, &last] {
        gateway.delivery_in("delivered", id).await;
    }
}

#[tokio::test]
async fn a_webhook_that_blocks_no_more_lets_the_others_follow() {
    let receiver = Receiver::answering(|request, _| {
        Reply::status(if request.json()["bad"] == true { 500 } else { 200 })
    })
    .await;
    let blocking =
        webhook(&receiver, "fifo").set("retry", &json!([])).set("on_dead", &json!("block"));
    let gateway = Gateway::new().webhook(blocking).start().await;
    let dead = gateway.send("a", json!({ "bad": true })).await;
    let behind = gateway.send("a", json!({ "bad": false })).await;
    gateway.delivery_in("dead", &dead).await;
    let file = gateway.configuration_file();
    let text = std::fs::read_to_string(&file).unwrap();
    let changed = text.replace("on_dead = \"block\"", "on_dead = \"skip\"");
    assert_ne!(text, changed);
    std::fs::write(&file, changed).unwrap();
    gateway.delivery_in("delivered", &behind).await;
}
