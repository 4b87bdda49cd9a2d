//! What a delivery waits for, as the API tells it: each reason, made to last until it is looked at.

use std::time::Duration;

use hookmill_tests::{Gateway, Receiver, Reply, Running, eventually};
use jiff::Timestamp;
use serde_json::{Value, json};

/// A delay that no test waits for.
const LONG: Duration = Duration::from_secs(600);

/// The only delivery of an event.
async fn delivery(gateway: &Running, id: &str) -> Value {
    gateway.get(&format!("/v1/events/{id}")).await.body["deliveries"][0].clone()
}

/// Waits until an event's delivery waits for this, and gives the time before which it does not go out.
async fn waits_for(gateway: &Running, id: &str, what: &str) -> Value {
    let waits = || async { delivery(gateway, id).await["waiting_for"] == what };
    eventually(&format!("{id} to wait for {what}"), waits).await;
    delivery(gateway, id).await["not_before"].clone()
}

/// Whether a time is some minutes ahead.
fn is_ahead(time: &Value) -> bool {
    let time: Timestamp = time.as_str().unwrap().parse().unwrap();
    time > Timestamp::now() + Duration::from_secs(60)
}

async fn send(gateway: &Running, data: i32) -> String {
    gateway.send("a", json!(data)).await
}

#[tokio::test]
async fn a_retry_waits_for_its_time_and_what_is_finished_for_nothing() {
    let receiver = Receiver::answering(|request, _| {
        Reply::status(if request.json()["data"] == 1 { 500 } else { 200 })
    })
    .await;
    let webhook = receiver.webhook("it").set("retry", &json!(["10m"]));
    let gateway = Gateway::new().webhook(webhook).start().await;
    let retried = send(&gateway, 1).await;
    let not_before = waits_for(&gateway, &retried, "schedule").await;
    assert!(is_ahead(&not_before));
    assert_eq!(not_before, delivery(&gateway, &retried).await["next_attempt_at"]);
    let delivered = send(&gateway, 2).await;
    gateway.settled(&delivered).await;
    let delivered = delivery(&gateway, &delivered).await;
    assert_eq!((&delivered["waiting_for"], &delivered["not_before"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn what_a_receiver_keeps_waiting_says_so() {
    let fails = Receiver::answering(|_, _| Reply::status(500)).await;
    let gateway = Gateway::new()
        .setting("delivery.breaker = { failures = 1, probe = \"1h\" }")
        .webhook(fails.webhook("it").set("retry", &json!(["10ms"])))
        .start()
        .await;
    let first = send(&gateway, 1).await;
    // Long before its breaker lets it, the retry would be due.
    assert!(is_ahead(&waits_for(&gateway, &first, "receiver").await));
    let second = send(&gateway, 2).await;
    assert!(is_ahead(&waits_for(&gateway, &second, "receiver").await));
    assert_eq!(delivery(&gateway, &second).await["state"], "pending");
}

#[tokio::test]
async fn a_pause_that_the_receiver_asked_for_keeps_the_others_waiting() {
    let busy = Receiver::answering(|_, _| Reply {
        header: Some(("retry-after", "600".to_owned())),
        ..Reply::status(429)
    })
    .await;
    let gateway = Gateway::new().webhook(busy.webhook("it")).start().await;
    let first = send(&gateway, 1).await;
    gateway.delivery_in("retrying", &first).await;
    let second = send(&gateway, 2).await;
    assert!(is_ahead(&waits_for(&gateway, &second, "receiver").await));
    assert_eq!(delivery(&gateway, &second).await["attempts"], json!([]));
}

#[tokio::test]
async fn what_waits_for_its_turn_or_the_rate_says_which() {
    let slow = Receiver::answering(|_, _| Reply::after(LONG)).await;
    let limited = Receiver::start().await;
    let rate = json!({ "per_second": 1, "burst": 1 });
    let webhook = slow.webhook("slow").set("concurrency", &json!(1)).set("timeout", &json!("10m"));
    let gateway = Gateway::new()
        .webhook(webhook.events(&["slow"]))
        .webhook(limited.webhook("limited").set("rate_limit", &rate).events(&["limited"]))
        .start()
        .await;
    let under_way = gateway.send("slow", json!(1)).await;
    slow.wait_for(1).await;
    let next = gateway.send("slow", json!(2)).await;
    waits_for(&gateway, &next, "slot").await;
    let under_way = delivery(&gateway, &under_way).await;
    assert_eq!((&under_way["state"], &under_way["waiting_for"]), (&json!("pending"), &Value::Null));

    // More than go out while anybody looks.
    let mut last = String::new();
    for n in 0..60 {
        last = gateway.send("limited", json!(n)).await;
    }
    waits_for(&gateway, &last, "rate_limit").await;
}

#[tokio::test]
async fn what_stands_behind_others_waits_for_them() {
    let slow = Receiver::answering(|_, _| Reply::after(LONG)).await;
    let webhook = slow.webhook("it").set("ordering", &json!("fifo")).set("timeout", &json!("10m"));
    let gateway = Gateway::new().webhook(webhook).start().await;
    send(&gateway, 1).await;
    slow.wait_for(1).await;
    let second = send(&gateway, 2).await;
    assert_eq!(waits_for(&gateway, &second, "order").await, Value::Null);
    assert!(delivery(&gateway, &second).await["reason"].is_string());
}

#[tokio::test]
async fn what_is_held_waits_for_its_plugin() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook("it").plugins(&[("misbehave", json!({}))]);
    let gateway = Gateway::new()
        .plugin("misbehave")
        .setting("plugins.breaker = { failures = 1, probe = \"1h\" }")
        .webhook(webhook)
        .start()
        .await;
    gateway.send("a", json!({ "do": "panic" })).await;
    eventually("the breaker", || async { gateway.log().contains("held") }).await;
    let held = gateway.send("a", json!({ "do": "panic" })).await;
    waits_for(&gateway, &held, "plugin").await;
    assert_eq!(delivery(&gateway, &held).await["state"], "held");
}

#[tokio::test]
async fn what_is_paused_waits_for_its_webhook() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new().webhook(receiver.webhook("it")).start().await;
    gateway.command("/v1/webhooks/it/disable").await;
    let paused = send(&gateway, 1).await;
    assert_eq!(waits_for(&gateway, &paused, "webhook").await, Value::Null);
    assert_eq!(delivery(&gateway, &paused).await["state"], "paused");
}
