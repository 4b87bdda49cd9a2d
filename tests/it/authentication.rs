//! How webhooks authenticate themselves to receivers, beside the signature.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hookmill_tests::{Gateway, Receiver, Reply, Webhook, eventually};
use serde_json::{Value, json};

#[tokio::test]
async fn tokens_passwords_and_headers_are_sent() {
    let receiver = Receiver::start().await;
    let bearer = json!({ "type": "bearer", "token": "t0ken-t0ken" });
    let basic = json!({ "type": "basic", "username": "Aladdin", "password": "open sesame" });
    let header = json!({ "type": "header", "name": "X-Api-Key", "value": "k3y-k3y-k3y" });
    let gateway = Gateway::new()
        .webhook(receiver.webhook("bearer").set("auth", &bearer))
        .webhook(receiver.webhook("basic").set("auth", &basic))
        .webhook(receiver.webhook("header").set("auth", &header))
        .start()
        .await;
    gateway.send("a", json!(1)).await;
    for request in receiver.wait_for(3).await {
        assert!(request.verified);
        let sent = (request.header("authorization"), request.header("x-api-key"));
        let expected = match request.target.as_str() {
            "/bearer" => ("Bearer t0ken-t0ken", ""),
            "/basic" => ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", ""),
            _ => ("", "k3y-k3y-k3y"),
        };
        assert_eq!(sent, expected);
    }
}

/// A token endpoint that numbers its tokens, and refuses all clients while `down`.
async fn token_endpoint(fetched: &Arc<AtomicUsize>, down: &Arc<AtomicBool>) -> Receiver {
    let (fetched, down) = (Arc::clone(fetched), Arc::clone(down));
    Receiver::answering(move |request, _| {
        let number = fetched.fetch_add(1, Ordering::SeqCst) + 1;
        let form = "grant_type=client_credentials&scope=hooks";
        // `hookmill:cl1ent-s3cret`
        let is_known = request.header("authorization") == "Basic aG9va21pbGw6Y2wxZW50LXMzY3JldA==";
        if down.load(Ordering::SeqCst) || !is_known || request.body != form {
            let body = json!({ "error": "invalid_client" }).to_string();
            return Reply { body, ..Reply::status(401) };
        }
        let token = format!("t0ken-number-{number}");
        let body = json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3600 });
        Reply { body: body.to_string(), ..Reply::status(200) }
    })
    .await
}

fn oauth2(endpoint: &Receiver) -> Value {
    json!({
        "type": "oauth2", "token_url": endpoint.url("/token"), "client_id": "hookmill",
        "client_secret": "cl1ent-s3cret", "scope": "hooks",
    })
}

#[tokio::test]
async fn a_token_is_fetched_once_and_again_when_the_receiver_refuses_it() {
    let fetched = Arc::default();
    let endpoint = token_endpoint(&fetched, &Arc::default()).await;
    let revoked = Arc::new(AtomicBool::new(false));
    let is_revoked = Arc::clone(&revoked);
    let receiver = Receiver::answering(move |request, _| {
        let authorization = request.header("authorization").to_owned();
        let refused = is_revoked.load(Ordering::SeqCst) && authorization == "Bearer t0ken-number-1";
        Reply { body: authorization, ..Reply::status(if refused { 401 } else { 200 }) }
    })
    .await;
    let webhook = receiver.webhook("hook").set("auth", &oauth2(&endpoint));
    let gateway = Gateway::new().webhook(webhook).start().await;
    for n in 0..20 {
        gateway.send("a", json!(n)).await;
    }
    let received = receiver.wait_for(20).await;
    assert!(received.iter().all(|it| it.header("authorization") == "Bearer t0ken-number-1"));
    assert_eq!(fetched.load(Ordering::SeqCst), 1, "one fetch for all of them");

    revoked.store(true, Ordering::SeqCst);
    let id = gateway.send("a", json!(20)).await;
    let deliveries = gateway.settled(&id).await;
    let attempts = deliveries[0]["attempts"].as_array().unwrap();
    let statuses: Vec<_> = attempts.iter().map(|attempt| attempt["status"].clone()).collect();
    assert_eq!(statuses, [401, 200]);
    assert_eq!(fetched.load(Ordering::SeqCst), 2);
    // The receiver repeats the token; it is not on record.
    assert!(!deliveries[0].to_string().contains("t0ken"), "{}", deliveries[0]);
    assert_eq!(attempts[0]["response_excerpt"], "[header authorization]");
}

#[tokio::test]
async fn a_secret_is_read_again_when_its_file_changes() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new();
    let file = gateway.folder().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let auth = json!({ "type": "bearer", "token": { "file": "token" } });
    let gateway = gateway.webhook(receiver.webhook("hook").set("auth", &auth)).start().await;
    let shown = async || {
        let id = gateway.send("a", json!(1)).await;
        gateway.settled(&id).await;
        receiver.received().last().unwrap().header("authorization").to_owned()
    };
    assert_eq!(shown().await, "Bearer first");
    // Without it, nothing changes; once it is there again, it is read.
    std::fs::remove_file(&file).unwrap();
    let why = "token cannot be read";
    eventually(why, || async { gateway.log().contains(why) }).await;
    assert_eq!(shown().await, "Bearer first");
    std::fs::write(&file, "second\n").unwrap();
    eventually("the second token", || async { shown().await == "Bearer second" }).await;
}

#[tokio::test]
async fn a_receiver_that_refuses_every_token_does_not_have_them_fetched_each_time() {
    let fetched = Arc::default();
    let endpoint = token_endpoint(&fetched, &Arc::default()).await;
    let receiver = Receiver::answering(|_, _| Reply::status(401)).await;
    let webhook = receiver.webhook("hook").set("auth", &oauth2(&endpoint));
    let webhook = webhook.set("retry", &json!(vec!["10ms"; 10]));
    let gateway = Gateway::new().webhook(webhook).start().await;
    let id = gateway.send("a", json!(1)).await;
    assert_eq!(gateway.settled(&id).await[0]["state"], "dead");
    assert_eq!(receiver.received().len(), 11);
    assert_eq!(fetched.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let (fetched, down) = (Arc::default(), Arc::new(AtomicBool::new(true)));
    let endpoint = token_endpoint(&fetched, &down).await;
    let receiver = Receiver::start().await;
    let webhook = |name: &str, auth: &Value| -> Webhook {
        receiver.webhook(name).set("auth", auth).set("retry", &json!([]))
    };
    let mut guarded = oauth2(&endpoint);
    guarded["token_url"] = json!(endpoint.url("/").replace("127.0.0.1", "no-such-name.invalid"));
    let gateway = Gateway::new()
        .webhook(webhook("refused", &oauth2(&endpoint)))
        .webhook(webhook("unknown", &guarded))
        .start()
        .await;
    let id = gateway.send("a", json!(1)).await;
    for delivery in gateway.settled(&id).await {
        let failure = &delivery["attempts"][0]["failure"];
        assert_eq!(failure["kind"], "auth", "{delivery}");
        let message = failure["message"].as_str().unwrap();
        let why = match delivery["webhook"]["name"].as_str() {
            Some("refused") => "answered 401 (invalid_client)",
            _ => "did not answer: dns",
        };
        assert!(message.contains(why), "{message}");
    }
    assert!(receiver.received().is_empty());
    down.store(false, Ordering::SeqCst);
    let id = gateway.send("a", json!(2)).await;
    let deliveries = gateway.settled(&id).await;
    let refused = deliveries.iter().find(|it| it["webhook"]["name"] == "refused").unwrap();
    assert_eq!(refused["state"], "delivered");
}
