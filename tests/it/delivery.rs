//! What receivers get, and what follows when they fail.

use std::time::Duration;

use hookmill_tests::{Gateway, Receiver, Reply, Webhook};
use serde_json::{Value, json};

#[tokio::test]
async fn requests_are_signed_and_carry_the_event_in_the_form_asked_for() {
    let receiver = Receiver::start().await;
    let form = |name: &str| receiver.webhook(name).set("body", &json!(name));
    let gateway = Gateway::new()
        .webhook(form("envelope"))
        .webhook(form("data"))
        .webhook(form("cloudevent"))
        .start()
        .await;
    let event = json!({
        "type": "order.paid", "data": { "n": 1 }, "timestamp": "2026-01-02T03:04:05Z"
    });
    let id = gateway.post(&event).await;
    let received = receiver.wait_for(3).await;
    let body = |name: &str| {
        let request = received.iter().find(|request| request.target == format!("/{name}")).unwrap();
        assert!(request.verified, "{request:?}");
        assert_eq!(request.id(), id);
        (request.header("content-type").to_owned(), request.json())
    };
    let json_type = "application/json".to_owned();
    let envelope = json!({
        "type": "order.paid", "timestamp": "2026-01-02T03:04:05Z", "data": { "n": 1 }
    });
    assert_eq!(body("envelope"), (json_type.clone(), envelope));
    assert_eq!(body("data"), (json_type, json!({ "n": 1 })));
    let cloudevent = json!({
        "specversion": "1.0", "id": id, "source": "/tenants/acme", "type": "order.paid",
        "time": "2026-01-02T03:04:05Z", "datacontenttype": "application/json", "data": { "n": 1 }
    });
    assert_eq!(body("cloudevent"), ("application/cloudevents+json".to_owned(), cloudevent));
}

#[tokio::test]
async fn all_secrets_of_a_rotation_sign_and_none_means_no_signature() {
    let receiver = Receiver::start().await;
    let rotating = json!(["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", hookmill_tests::SECRET]);
    let gateway = Gateway::new()
        .webhook(receiver.webhook("rotating").set("secrets", &rotating))
        .webhook(receiver.webhook("open").set("secrets", &json!([])))
        .start()
        .await;
    gateway.send("a", json!(1)).await;
    for request in receiver.wait_for(2).await {
        let signatures = request.header("webhook-signature");
        match request.target.as_str() {
            "/rotating" => {
                assert!(request.verified, "{request:?}");
                assert_eq!(signatures.split(' ').count(), 2);
            }
            _ => assert_eq!(signatures, ""),
        }
    }
}

#[tokio::test]
async fn event_types_decide_who_gets_what() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new()
        .webhook(receiver.webhook("orders").events(&["order.*"]))
        .webhook(receiver.webhook("all"))
        .webhook(receiver.webhook("paused").set("active", &json!(false)))
        .start()
        .await;
    for (event_type, expected) in
        [("order.paid", 2), ("order.item.added", 2), ("order", 1), ("job.status", 1)]
    {
        let answer = gateway
            .request(json!({ "type": event_type, "data": 1 }).to_string(), &[])
            .await
            .unwrap();
        assert_eq!(answer.body["events"][0]["deliveries"], expected, "{event_type}");
    }
}

#[tokio::test]
async fn a_retry_sends_the_same_bytes_with_the_same_id_and_a_fresh_signature() {
    let receiver =
        Receiver::answering(|_, before| Reply::status(if before < 2 { 500 } else { 204 })).await;
    let webhook = receiver
        .webhook("flaky")
        .plugins(&[("order-summary", json!({}))])
        .set("retry", &json!(["1s", "1s"]));
    let gateway = Gateway::new().plugin("order-summary").webhook(webhook).start().await;
    let id = gateway.send("order.paid", order()).await;
    let received = receiver.wait_for(3).await;
    assert!(received.iter().all(|request| request.verified && request.id() == id));
    assert!(received.iter().all(|request| request.body == received[0].body));
    let times: std::collections::BTreeSet<_> =
        received.iter().map(|request| request.header("webhook-timestamp").to_owned()).collect();
    assert!(times.len() > 1, "the timestamp is the attempt's: {times:?}");

    let deliveries = gateway.settled(&id).await;
    assert_eq!(deliveries[0]["state"], "delivered");
    let statuses: Vec<_> = attempts(&deliveries[0], |attempt| attempt["status"].clone());
    assert_eq!(statuses, [500, 500, 204]);
    let plugin = &deliveries[0]["plugins"][0];
    assert_eq!(plugin["name"], "order-summary");
    assert_eq!(plugin["version"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn a_receiver_that_never_succeeds_makes_the_delivery_dead_with_every_attempt_on_record() {
    let receiver = Receiver::answering(|_, _| Reply {
        body: "no such hook".repeat(1000),
        ..Reply::status(404)
    })
    .await;
    let webhook = receiver.webhook("dead").set("retry", &json!(["50ms", "50ms"]));
    let gateway = Gateway::new().webhook(webhook).start().await;
    let id = gateway.send("a", json!(1)).await;
    let deliveries = gateway.settled(&id).await;
    assert_eq!(deliveries[0]["state"], "dead");
    let kinds: Vec<_> = attempts(&deliveries[0], |attempt| attempt["failure"]["kind"].clone());
    assert_eq!(kinds, ["status", "status", "status"]);
    let attempt = &deliveries[0]["attempts"][0];
    assert_eq!(attempt["failure"]["fault"], "receiver");
    assert_eq!(attempt["response_excerpt"].as_str().unwrap().len(), 4096);
    assert_eq!(receiver.received().len(), 3);
}

#[tokio::test]
async fn redirects_are_failures() {
    let elsewhere = Receiver::start().await;
    let target = elsewhere.url("/stolen");
    let receiver = Receiver::answering(move |_, _| Reply {
        header: Some(("location", target.clone())),
        ..Reply::status(307)
    })
    .await;
    let gateway = Gateway::new().webhook(receiver.webhook("moved")).start().await;
    let id = gateway.send("a", json!(1)).await;
    let deliveries = gateway.settled(&id).await;
    assert_eq!(deliveries[0]["state"], "dead");
    let message = deliveries[0]["attempts"][0]["failure"]["message"].as_str().unwrap();
    assert!(message.contains("redirects are not followed"), "{message}");
    assert!(elsewhere.received().is_empty());
}

#[tokio::test]
async fn failures_of_the_network_are_typed() {
    let slow = Receiver::answering(|_, _| Reply::after(Duration::from_secs(5))).await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let receiver = Receiver::start().await;
    let tls = receiver.url("/").replace("http:", "https:");
    let once = |name: &str, url: &str| Webhook::new(name, url).set("retry", &json!([]));
    let gateway = Gateway::new()
        .webhook(once("timeout", &slow.url("/")).set("timeout", &json!("200ms")))
        .webhook(once("connect", &format!("http://{nobody}/")))
        .webhook(once("tls", &tls))
        .webhook(once("dns", "http://no-such-name.invalid/"))
        .start()
        .await;
    let id = gateway.send("a", json!(1)).await;
    for delivery in gateway.settled(&id).await {
        let failure = &delivery["attempts"][0]["failure"];
        assert_eq!(failure["kind"], delivery["webhook"]["name"], "{failure}");
    }
}

#[tokio::test]
async fn addresses_inside_the_network_are_refused_unless_allowed() {
    // A name, so that it shows only when it is resolved.
    let receiver = Receiver::start().await;
    let url = receiver.url("/").replace("127.0.0.1", "localhost");
    let gateway = Gateway::new()
        .setting("delivery.allow_networks = [\"192.0.2.0/24\"]")
        .webhook(Webhook::new("inside", &url).set("retry", &json!([])));
    let gateway = gateway.start().await;
    let id = gateway.send("a", json!(1)).await;
    let deliveries = gateway.settled(&id).await;
    let failure = &deliveries[0]["attempts"][0]["failure"];
    assert_eq!(failure["kind"], "blocked_address", "{failure}");
    assert_eq!(failure["fault"], "configuration");
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn a_chain_runs_in_order_the_tenants_plugins_first() {
    let receiver = Receiver::start().await;
    let webhook =
        receiver.webhook("chain").plugins(&[("order-summary", json!({})), ("stamp", json!({}))]);
    let filter = "plugins = [{ name = \"tenant-filter\", config = { default = { field = \"type\", equals = \"order.paid\" } } }]";
    let gateway = Gateway::new()
        .plugin("tenant-filter")
        .plugin("order-summary")
        .plugin("stamp")
        .tenant_setting(filter)
        .webhook(webhook)
        .start()
        .await;
    let kept = gateway.send("order.paid", order()).await;
    let dropped = gateway.send("order.cancelled", order()).await;
    let received = receiver.wait_for(1).await;
    assert_eq!(received[0].id(), kept);
    assert_eq!(received[0].json()["version"], "0000000000");
    assert_eq!(received[0].json()["data"]["order_id"], "ord_1");

    let deliveries = gateway.settled(&kept).await;
    let plugins = deliveries[0]["plugins"].as_array().unwrap();
    let names: Vec<_> = plugins.iter().map(|plugin| &plugin["name"]).collect();
    assert_eq!(names, ["tenant-filter", "order-summary", "stamp"]);
    let deliveries = gateway.settled(&dropped).await;
    assert_eq!(deliveries[0]["state"], "dropped");
    let reason = deliveries[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("tenant-filter: "), "{reason}");
    assert_eq!(deliveries[0]["attempts"], json!([]));
}

#[tokio::test]
async fn each_part_of_a_split_is_delivered_and_retried_on_its_own() {
    let receiver = Receiver::answering(|request, before| {
        let second = request.id().ends_with("-2");
        Reply::status(if second && before == 0 { 503 } else { 200 })
    })
    .await;
    let webhook = receiver.webhook("parts").plugins(&[("line-items", json!({}))]);
    let gateway = Gateway::new().plugin("line-items").webhook(webhook).start().await;
    let id = gateway.send("order.paid", order()).await;
    let received = receiver.wait_for(3).await;
    assert!(received.iter().all(|request| request.verified));
    let deliveries = gateway.settled(&id).await;
    let parts: Vec<_> = deliveries
        .iter()
        .map(|delivery| (delivery["message_id"].clone(), attempts(delivery, Clone::clone).len()))
        .collect();
    assert_eq!(parts, [(json!(id), 1), (json!(format!("{id}-2")), 2)]);
    assert!(deliveries.iter().all(|delivery| delivery["state"] == "delivered"));
}

#[tokio::test]
async fn headers_of_the_webhook_are_sent() {
    let receiver = Receiver::start().await;
    let headers = json!({ "Authorization": "Bearer abc", "X-Team": "blue" });
    let gateway =
        Gateway::new().webhook(receiver.webhook("h").set("headers", &headers)).start().await;
    gateway.send("a", json!(1)).await;
    let received = receiver.wait_for(1).await;
    assert_eq!(received[0].header("authorization"), "Bearer abc");
    assert_eq!(received[0].header("x-team"), "blue");
}

#[tokio::test]
async fn a_slow_receiver_does_not_delay_another_webhook() {
    let slow = Receiver::answering(|_, _| Reply::after(Duration::from_secs(20))).await;
    let healthy = Receiver::start().await;
    let gateway = Gateway::new()
        .setting("delivery.concurrency = 8")
        .webhook(slow.webhook("slow").set("concurrency", &json!(4)))
        .webhook(healthy.webhook("healthy"))
        .start()
        .await;
    for n in 0..100 {
        gateway.send("a", json!(n)).await;
    }
    // The slow one holds all that it may; were that all there is, this would take minutes.
    assert_eq!(healthy.wait_for(100).await.len(), 100);
    assert!(slow.received().len() <= 4);
}

#[tokio::test]
async fn what_finds_no_room_in_memory_is_delivered_from_the_store() {
    let receiver = Receiver::answering(|_, _| Reply::after(Duration::from_millis(2))).await;
    let gateway = Gateway::new()
        .setting("delivery.max_ready = 16")
        .setting("delivery.max_ready_bytes = \"1 MiB\"")
        .webhook(receiver.webhook("a"))
        .webhook(receiver.webhook("b"))
        .start()
        .await;
    for batch in 0..6 {
        // Every other batch fills the memory by its bytes.
        let text = "x".repeat(if batch % 2 == 0 { 10 } else { 15_000 });
        let events: Vec<_> =
            (0..50).map(|n| json!({ "type": "n", "data": { "n": n, "text": text } })).collect();
        let answer = gateway.request(Value::from(events).to_string(), &[]).await.unwrap();
        assert_eq!(answer.status, 202);
    }
    let received = receiver.wait_for(600).await;
    assert_eq!(received.len(), 600);
    assert_eq!(receiver.ids().len(), 300);
}

fn attempts<T>(delivery: &Value, of: impl Fn(&Value) -> T) -> Vec<T> {
    delivery["attempts"].as_array().unwrap().iter().map(of).collect()
}

fn order() -> Value {
    json!({
        "id": "ord_1", "customer": { "name": "Ada" }, "currency": "EUR",
        "items": [
            { "sku": "TEA", "name": "Tea", "quantity": 3, "unit_price_cents": 450 },
            { "sku": "CUP", "name": "Cup", "quantity": 2, "unit_price_cents": 1250 },
        ],
    })
}
