//! What may go out: rate limits, and receivers that are left alone while they fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hookmill_tests::{Gateway, Receiver, Reply, Running, Webhook, eventually};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Sends events in one request; gives their ids.
async fn send(gateway: &Running, count: usize) -> Vec<String> {
    let events: Vec<_> = (0..count).map(|n| json!({ "type": "a", "data": n })).collect();
    let answer = gateway.request(Value::from(events).to_string(), &[]).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    let events = answer.body["events"].as_array().unwrap();
    events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

async fn attempts(gateway: &Running, id: &str) -> usize {
    let deliveries = gateway.settled(id).await;
    deliveries[0]["attempts"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_rate_limit_makes_deliveries_wait_and_uses_no_attempt() {
    let (limited, free) = (Receiver::start().await, Receiver::start().await);
    let webhook = limited
        .webhook("limited")
        .set("rate_limit", &json!({ "per_second": 20, "burst": 5 }))
        .set("retry", &json!([]));
    let gateway = Gateway::new().webhook(webhook).webhook(free.webhook("free")).start().await;
    let began = Instant::now();
    let ids = send(&gateway, 25).await;
    limited.wait_for(25).await;
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    free.wait_for(25).await;
    for id in &ids {
        assert_eq!(attempts(&gateway, id).await, 1);
    }
}

#[tokio::test]
async fn a_tenants_rate_limit_holds_for_all_its_webhooks_together_and_for_no_other_tenant() {
    let (first, second, other) =
        (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let gateway = Gateway::new()
        .tenant_setting("rate_limit = { per_second = 20, burst = 5 }")
        .webhook(first.webhook("first"))
        .webhook(second.webhook("second"))
        .other_webhook(other.webhook("other"))
        .start()
        .await;
    let began = Instant::now();
    send(&gateway, 12).await;
    gateway.send_as_other("a", json!(1)).await;
    other.wait_for(1).await;
    first.wait_for(12).await;
    second.wait_for(12).await;
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
}

/// A receiver that fails as long as it is told to.
async fn failing() -> (Receiver, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&fails);
    let receiver = Receiver::answering(move |_, _| {
        Reply::status(if asked.load(Ordering::SeqCst) { 503 } else { 200 })
    })
    .await;
    (receiver, fails)
}

/// A gateway that leaves a receiver alone after three failures.
fn gateway(probe: &str) -> Gateway {
    Gateway::new()
        .setting("delivery.breaker.failures = 3")
        .setting(&format!("delivery.breaker.probe = \"{probe}\""))
}

#[tokio::test]
async fn deliveries_to_a_receiver_that_fails_wait_without_attempts_and_others_go_on() {
    let (receiver, fails) = failing().await;
    let healthy = Receiver::start().await;
    let webhook = |name| {
        receiver.webhook(name).set("concurrency", &json!(1)).set("retry", &json!(["10ms", "10ms"]))
    };
    let gateway = gateway("1h").webhook(webhook("failing")).webhook(healthy.webhook("healthy"));
    let gateway = gateway.start().await;
    let ids = send(&gateway, 30).await;
    eventually("the breaker", || async { gateway.log().contains("fails again and again") }).await;
    let more = send(&gateway, 30).await;
    healthy.wait_for(60).await;
    assert_eq!(receiver.received().len(), 3);
    let failing = |deliveries: &Value| {
        let mut deliveries = deliveries.as_array().unwrap().iter();
        deliveries.find(|delivery| delivery["webhook"]["name"] == "failing").unwrap().clone()
    };
    for id in ids.iter().skip(3).chain(&more) {
        let answer = gateway.get(&format!("/v1/events/{id}")).await;
        let delivery = failing(&answer.body["deliveries"]);
        assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("pending"), &json!([])));
    }
    // What is known of the receiver is lost with the process, and what waits is not.
    fails.store(false, Ordering::SeqCst);
    let gateway = gateway.kill().await.start().await;
    for id in ids.iter().chain(&more) {
        let deliveries = gateway.settled(id).await;
        assert_eq!(failing(&json!(deliveries))["state"], "delivered", "{id}");
    }
    assert_eq!(receiver.received().len(), 63);
}

#[tokio::test]
async fn a_receiver_that_cannot_be_reached_is_left_alone_too() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let webhook = Webhook::new("gone", &format!("http://{nobody}/"));
    let webhook = webhook.set("concurrency", &json!(1)).set("retry", &json!([]));
    let gateway = gateway("1h").webhook(webhook).start().await;
    let ids = send(&gateway, 10).await;
    eventually("the breaker", || async { gateway.log().contains("fails again and again") }).await;
    // The third outcome is learnt from before it is on record.
    eventually("three that are dead", || async {
        let mut states = Vec::new();
        for id in &ids {
            let answer = gateway.get(&format!("/v1/events/{id}")).await;
            states.push(answer.body["deliveries"][0]["state"].as_str().unwrap().to_owned());
        }
        let count = |state: &str| states.iter().filter(|it| *it == state).count();
        (count("dead"), count("pending")) == (3, 7)
    })
    .await;
}

#[tokio::test]
async fn a_receiver_that_works_again_gets_what_waited() {
    let (receiver, fails) = failing().await;
    let webhook = receiver.webhook("it").set("retry", &json!(vec!["10ms"; 100]));
    let gateway =
        gateway("50ms").setting("delivery.breaker.max_probe = \"200ms\"").webhook(webhook);
    let gateway = gateway.start().await;
    let ids = send(&gateway, 40).await;
    eventually("a probe that fails", || async {
        gateway.log().matches("fails again and again").count() > 2
    })
    .await;
    fails.store(false, Ordering::SeqCst);
    for id in &ids {
        assert_eq!(gateway.settled(id).await[0]["state"], "delivered");
    }
    assert!(gateway.log().contains("the receiver works again"));
}

#[tokio::test]
async fn the_breaker_of_receivers_can_be_turned_off() {
    let (receiver, _) = failing().await;
    let webhook = receiver.webhook("it").set("concurrency", &json!(1)).set("retry", &json!([]));
    let gateway = gateway("1h").setting("delivery.breaker.enabled = false").webhook(webhook);
    let gateway = gateway.start().await;
    for id in send(&gateway, 10).await {
        assert_eq!(gateway.settled(&id).await[0]["state"], "dead");
    }
}
