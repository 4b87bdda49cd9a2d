//! Webhooks that are disabled: by their receiver, by lasting failure, or by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use hookmill_tests::{Gateway, Receiver, Reply, eventually};
use serde_json::json;

/// A receiver that answers with a status that can be changed.
async fn changeable(status: u16) -> (Receiver, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(status));
    let answered = Arc::clone(&status);
    let receiver =
        Receiver::answering(move |_, _| Reply::status(answered.load(Ordering::SeqCst))).await;
    (receiver, status)
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_left_alone_until_its_webhook_is_enabled() {
    let (receiver, status) = changeable(410).await;
    let gateway = Gateway::new().webhook(receiver.webhook("it")).start().await;
    let first = gateway.send("a", json!(1)).await;
    let paused = gateway.delivery_in("paused", &first).await;
    assert!(paused["reason"].as_str().unwrap().contains("410"), "{paused}");
    let second = gateway.send("a", json!(2)).await;
    gateway.delivery_in("paused", &second).await;

    // It stays so over a crash.
    let gateway = gateway.kill().await.start().await;
    let third = gateway.send("a", json!(3)).await;
    gateway.delivery_in("paused", &third).await;
    let state = gateway.get("/v1/webhooks/it").await.body;
    assert_eq!((&state["state"], &state["waiting"]), (&json!("disabled"), &json!(3)), "{state}");
    assert_eq!(receiver.received().len(), 1, "nothing more was sent");

    status.store(200, Ordering::SeqCst);
    let answer = gateway.ask("/v1/webhooks/it/enable", &json!({ "waiting": "deliver" }), "").await;
    assert_eq!((answer.status, &answer.body["webhook"]["state"]), (200, &json!("active")));
    for id in [&first, &second, &third] {
        gateway.delivery_in("delivered", id).await;
    }
    assert_eq!(gateway.get("/v1/webhooks").await.body["webhooks"][0]["waiting"], 0);
}

#[tokio::test]
async fn lasting_failure_disables_a_webhook_and_what_waits_can_be_discarded() {
    let (receiver, status) = changeable(500).await;
    let webhook = receiver.webhook("it").set("retry", &json!(vec!["100ms"; 100]));
    let gateway = Gateway::new().setting("delivery.disable_after = \"1s\"").webhook(webhook);
    let gateway = gateway.start().await;
    let id = gateway.send("a", json!(1)).await;
    let paused = gateway.delivery_in("paused", &id).await;
    assert!(paused["reason"].as_str().unwrap().contains("nothing has got through since"));
    assert!(paused["attempts"].as_array().unwrap().len() > 1);
    status.store(200, Ordering::SeqCst);
    let answer = gateway.ask("/v1/webhooks/it/enable", &json!({ "waiting": "discard" }), "").await;
    assert_eq!(answer.body["job"]["action"], "cancel", "{}", answer.body);
    gateway.delivery_in("cancelled", &id).await;
    let next = gateway.send("a", json!(2)).await;
    gateway.delivery_in("delivered", &next).await;
}

#[tokio::test]
async fn a_webhook_is_disabled_and_enabled_by_its_tenant_alone() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new().webhook(receiver.webhook("it")).start().await;
    for path in ["/v1/webhooks/it/disable", "/v1/webhooks/it/enable"] {
        let answer = gateway.ask_as_other(path, &json!({ "waiting": "deliver" })).await;
        assert_eq!(answer.status, 404, "{path}");
    }
    let state = gateway.command("/v1/webhooks/it/disable").await.body;
    assert_eq!(state["state"], "disabled", "{state}");
    let id = gateway.send("a", json!(1)).await;
    gateway.delivery_in("paused", &id).await;
    let answer = gateway.ask("/v1/webhooks/it/enable", &json!({ "waiting": "maybe" }), "").await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    gateway.ask("/v1/webhooks/it/enable", &json!({ "waiting": "deliver" }), "").await;
    eventually("it to arrive", || async { receiver.ids().contains(&id) }).await;
}
