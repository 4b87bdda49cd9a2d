//! Webhooks that are disabled: by their receiver, by lasting failure, or by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use hookmill_tests::{Gateway, Receiver, Reply, Running, eventually};
use serde_json::{Value, json};

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
    gateway.delivery_in("dead", &first).await;
    let second = gateway.send("a", json!(2)).await;
    let paused = gateway.delivery_in("paused", &second).await;
    assert!(paused["reason"].as_str().unwrap().contains("410"), "{paused}");

    // It stays so over a crash.
    let gateway = gateway.kill().await.start().await;
    let third = gateway.send("a", json!(3)).await;
    gateway.delivery_in("paused", &third).await;
    let state = gateway.get("/v1/webhooks/it").await.body;
    assert_eq!((&state["state"], &state["waiting"]), (&json!("disabled"), &json!(2)), "{state}");
    assert_eq!(receiver.received().len(), 1, "nothing more was sent");

    status.store(200, Ordering::SeqCst);
    let answer = gateway.ask("/v1/webhooks/it/enable", &json!({ "waiting": "deliver" }), "").await;
    assert_eq!((answer.status, &answer.body["webhook"]["state"]), (200, &json!("active")));
    for id in [&second, &third] {
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
    assert_eq!(answer.body["job"]["action"], "discard", "{}", answer.body);
    gateway.delivery_in("cancelled", &id).await;
    let next = gateway.send("a", json!(2)).await;
    gateway.delivery_in("delivered", &next).await;
}

#[tokio::test]
async fn enabling_tells_the_breaker_and_finds_what_that_kept_back() {
    for (waiting, state) in [("deliver", "delivered"), ("discard", "cancelled")] {
        let (receiver, status) = changeable(500).await;
        let webhook = receiver.webhook("it").set("retry", &json!(vec!["10ms"; 100]));
        let gateway = Gateway::new()
            .setting("delivery.breaker.failures = 3")
            .setting("delivery.breaker.probe = \"1h\"")
            .webhook(webhook);
        let gateway = gateway.start().await;
        let id = gateway.send("a", json!(1)).await;
        let is_open = async || gateway.log().contains("the receiver fails again and again");
        eventually("the breaker to open", is_open).await;
        gateway.command("/v1/webhooks/it/disable").await;
        status.store(200, Ordering::SeqCst);
        gateway.ask("/v1/webhooks/it/enable", &json!({ "waiting": waiting }), "").await;
        gateway.delivery_in(state, &id).await;
        let next = gateway.send("a", json!(2)).await;
        gateway.delivery_in("delivered", &next).await;
    }
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

#[tokio::test]
async fn an_order_holds_while_its_webhook_is_disabled() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook("it").set("ordering", &json!("fifo"));
    let gateway = Gateway::new().webhook(webhook).start().await;
    gateway.command("/v1/webhooks/it/disable").await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(gateway.send("a", json!(n)).await);
    }
    gateway.delivery_in("paused", &ids[0]).await;
    let state = gateway.get("/v1/webhooks/it").await.body;
    assert_eq!(state["waiting"], 5, "what waits behind it waits, too: {state}");
    gateway.ask("/v1/webhooks/it/enable", &json!({ "waiting": "deliver" }), "").await;
    ids.push(gateway.send("a", json!(5)).await);
    gateway.delivery_in("delivered", &ids[5]).await;
    let arrived: Vec<_> =
        receiver.received().iter().map(|request| request.id().to_owned()).collect();
    assert_eq!(arrived, ids);
}

#[tokio::test]
async fn what_waits_in_order_is_discarded_and_what_comes_after_follows() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook("it").set("ordering", &json!("key"));
    let gateway = Gateway::new().webhook(webhook).start().await;
    gateway.command("/v1/webhooks/it/disable").await;
    let send = async |key: &str| {
        let event = json!({ "type": "a", "data": 1, "ordering_key": key });
        gateway.post(&event).await
    };
    let mut old = Vec::new();
    for _ in 0..150 {
        old.push(send("one").await);
    }
    old.push(send("two").await);
    for first in [&old[0], &old[150]] {
        gateway.delivery_in("paused", first).await;
    }
    gateway.ask("/v1/webhooks/it/enable", &json!({ "waiting": "discard" }), "").await;
    let new = [send("one").await, send("two").await];
    for id in &new {
        gateway.delivery_in("delivered", id).await;
    }
    for id in &old {
        gateway.delivery_in("cancelled", id).await;
    }
    let mut arrived: Vec<_> =
        receiver.received().iter().map(|request| request.id().to_owned()).collect();
    arrived.sort_unstable();
    let mut expected = new.to_vec();
    expected.sort_unstable();
    assert_eq!(arrived, expected);
}

#[tokio::test]
async fn destinations_of_events_say_nothing_of_each_other() {
    let (gone, _) = changeable(410).await;
    let receiver = Receiver::start().await;
    let gateway = Gateway::new().tenant_setting("ad_hoc = { retry = [] }").start().await;
    let to = async |url: &str| {
        let event = json!({ "type": "a", "data": 1, "webhook_url": url });
        gateway.post(&event).await
    };
    let lost = to(&gone.url("/it")).await;
    gateway.delivery_in("dead", &lost).await;
    let fine = to(&receiver.url("/it")).await;
    gateway.delivery_in("delivered", &fine).await;
}

/// The deliveries of operational events of webhooks: to which webhook, and in which state.
async fn told(gateway: &Running, what: &str) -> Vec<(String, String)> {
    let path = format!("/v1/deliveries?event_type=hookmill.webhook.{what}");
    let listed = gateway.get(&path).await.body["deliveries"].take();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let one = |one: &Value| (text(&one["webhook"]["name"]), text(&one["state"]));
    let mut told: Vec<_> = listed.as_array().unwrap().iter().map(one).collect();
    told.sort_unstable();
    told
}

/// Waits until these are the deliveries of operational events of webhooks.
async fn are_told(gateway: &Running, what: &str, expected: &[(&str, &str)]) {
    let is_so = || async {
        let told = told(gateway, what).await;
        told.iter().map(|(webhook, state)| (&**webhook, &**state)).eq(expected.iter().copied())
    };
    eventually(&format!("{expected:?} of {what}"), is_so).await;
}

#[tokio::test]
async fn that_a_webhook_is_disabled_and_enabled_is_told_once() {
    let lasting = json!(vec!["100ms"; 100]);
    for (status, retry) in [(410, json!(["100ms"])), (500, lasting)] {
        let (receiver, _) = changeable(status).await;
        let log = Receiver::start().await;
        let gateway = Gateway::new()
            .setting("delivery.disable_after = \"1s\"")
            .webhook(receiver.webhook("it").events(&["a"]).set("retry", &retry))
            .webhook(log.webhook("log").events(&["hookmill.webhook.*"]))
            .start()
            .await;
        gateway.send("a", json!(1)).await;
        log.wait_for(1).await;
        let it = gateway.get("/v1/webhooks/it").await.body;
        let disabled = log.received()[0].json();
        assert_eq!(disabled["type"], "hookmill.webhook.disabled", "{disabled}");
        let webhook = json!({ "id": it["id"], "name": "it" });
        let expected = json!({
            "tenant": "acme", "webhook": webhook, "reason": it["reason"], "since": it["since"],
        });
        assert_eq!(disabled["data"], expected);
        assert_eq!(disabled["timestamp"], it["since"]);

        // Neither who says so again nor a crash makes it news.
        gateway.command("/v1/webhooks/it/disable").await;
        let gateway = gateway.kill().await.start().await;
        let again = gateway.command("/v1/webhooks/it/disable").await.body;
        assert_eq!((&again["since"], &again["reason"]), (&it["since"], &it["reason"]));
        are_told(&gateway, "disabled", &[("log", "delivered")]).await;

        for _ in 0..2 {
            let body = json!({ "waiting": "discard" });
            let answer = gateway.ask("/v1/webhooks/it/enable", &body, "").await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        are_told(&gateway, "enabled", &[("log", "delivered")]).await;
        let received = log.received();
        let enabled = received.iter().map(|request| request.json());
        let enabled = enabled.filter(|told| told["type"] == "hookmill.webhook.enabled");
        let enabled: Vec<_> = enabled.map(|mut told| told["data"].take()).collect();
        let since = &enabled[0]["since"];
        assert_eq!(enabled[0], json!({ "tenant": "acme", "webhook": webhook, "since": since }));
        assert!(since.as_str() > it["since"].as_str(), "{enabled:?}");

        // By hand it is news as well, each time that it is.
        gateway.command("/v1/webhooks/it/disable").await;
        are_told(&gateway, "disabled", &[("log", "delivered"); 2]).await;
        are_told(&gateway, "enabled", &[("log", "delivered")]).await;
    }
}

#[tokio::test]
async fn receivers_of_news_that_are_gone_end_it() {
    let ((first, answers), (second, _)) = (changeable(410).await, changeable(410).await);
    let globs = ["hookmill.webhook.*"];
    let gateway = Gateway::new()
        .webhook(first.webhook("first").events(&["a", globs[0]]))
        .webhook(second.webhook("second").events(&globs))
        .start()
        .await;
    gateway.send("a", json!(1)).await;
    // The second one learns of the first one, and that the second one is gone waits for the first.
    let disabled = [("first", "paused"), ("second", "dead")];
    are_told(&gateway, "disabled", &disabled).await;
    let gateway = gateway.kill().await.start().await;
    are_told(&gateway, "disabled", &disabled).await;
    assert_eq!((first.received().len(), second.received().len()), (1, 1));

    // It is told itself that it is sent to again, after all that waited was discarded.
    answers.store(200, Ordering::SeqCst);
    gateway.ask("/v1/webhooks/first/enable", &json!({ "waiting": "discard" }), "").await;
    are_told(&gateway, "enabled", &[("first", "delivered"), ("second", "paused")]).await;
    are_told(&gateway, "disabled", &[("first", "cancelled"), ("second", "dead")]).await;
    let received = first.received();
    assert_eq!(received.len(), 2, "{received:?}");
    assert_eq!(received[1].json()["data"]["webhook"]["name"], "first");
}
