//! Events that name their own destination.

use hookmill_tests::{Gateway, Receiver, SECRET};
use serde_json::{Value, json};

fn event(url: &str) -> Value {
    json!({ "type": "order.paid", "data": { "n": 1 }, "webhook_url": url })
}

/// A tenant that lets events do so.
fn gateway() -> Gateway {
    Gateway::new().tenant_setting(&format!(
        "ad_hoc = {{ secrets = [{SECRET:?}], body = \"data\", retry = [] }}"
    ))
}

#[tokio::test]
async fn such_an_event_is_delivered_there_signed_and_to_the_webhooks_that_match() {
    let receiver = Receiver::start().await;
    let gateway = gateway().webhook(receiver.webhook("orders").events(&["order.*"])).start().await;
    let id = gateway.post(&event(&receiver.url("/of/this/event?token=a"))).await;
    let received = receiver.wait_for(2).await;
    let own = received.iter().find(|it| it.target == "/of/this/event?token=a").unwrap();
    assert!(own.verified, "{own:?}");
    assert_eq!((own.id(), own.json()), (id.as_str(), json!({ "n": 1 })));
    assert!(received.iter().any(|it| it.target == "/orders"));
    let deliveries = gateway.settled(&id).await;
    assert!(deliveries.iter().all(|it| it["state"] == "delivered"), "{deliveries:?}");
    assert!(deliveries.iter().any(|it| it["webhook"]["name"] == "(ad hoc)"), "{deliveries:?}");

    gateway.send("order.paid", json!(2)).await;
    assert!(receiver.wait_for(3).await.iter().filter(|it| it.json() == json!(2)).count() <= 1);
}

#[tokio::test]
async fn it_survives_a_crash_and_its_id_stands_for_its_destination_too() {
    let receiver = Receiver::start().await;
    let gateway = gateway().start().await;
    let url = receiver.url("/later");
    let mut event = event(&url);
    event["id"] = json!("order-1");
    let id = gateway.post(&event).await;
    let gateway = gateway.kill().await.resume().await;
    let deliveries = gateway.settled(&id).await;
    assert_eq!(deliveries[0]["state"], "delivered", "{deliveries:?}");
    assert!(receiver.received().iter().all(|it| it.target == "/later"));
    let shown = gateway.get(&format!("/v1/events/{id}")).await;
    assert_eq!(shown.body["webhook_url"], json!(url));

    let again = gateway.request(event.to_string(), &[]).await.unwrap();
    assert_eq!(again.body["events"][0]["status"], "duplicate");
    event["webhook_url"] = json!(receiver.url("/elsewhere"));
    let other = gateway.request(event.to_string(), &[]).await.unwrap();
    assert_eq!(
        (other.status, &other.body["code"]),
        (409, &json!("event_id_taken")),
        "{}",
        other.body
    );
}

#[tokio::test]
async fn what_no_webhook_may_point_to_no_event_may_either() {
    let gateway = gateway().start().await;
    for (url, why) in [
        ("http://10.0.0.1/", "10.0.0.1"),
        ("http://169.254.169.254/latest", "169.254.169.254"),
        ("ftp://example.com/", "scheme"),
        ("http://user:password@127.0.0.1/", "credentials"),
        ("http://127.0.0.1/#there", "fragment"),
        ("example.com/hook", "is not a URL"),
        (&format!("http://127.0.0.1/{}", "x".repeat(3_000)), "2048"),
    ] {
        let answer = gateway.request(event(url).to_string(), &[]).await.unwrap();
        assert_eq!(answer.status, 422, "{url}: {}", answer.body);
        assert_eq!(answer.body["errors"][0]["field"], "webhook_url", "{}", answer.body);
        let detail = answer.body["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.contains(why), "{url}: {detail}");
    }
}

#[tokio::test]
async fn a_tenant_that_does_not_say_how_takes_none() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new().webhook(receiver.webhook("all")).start().await;
    let answer = gateway.request(event(&receiver.url("/x")).to_string(), &[]).await.unwrap();
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert!(answer.body["detail"].as_str().unwrap().contains("`ad_hoc`"), "{}", answer.body);
    assert!(receiver.received().is_empty());
}
