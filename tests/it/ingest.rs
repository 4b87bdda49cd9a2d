//! What is accepted, what is refused, and in which words.

use hookmill_tests::{Gateway, Receiver, Running};
use serde_json::{Value, json};

async fn gateway() -> Running {
    Gateway::new()
        .setting("ingest.max_body_bytes = \"4 KiB\"")
        .setting("ingest.max_depth = 8")
        .setting("ingest.max_events = 3")
        .start()
        .await
}

#[tokio::test]
async fn every_refusal_is_a_problem_that_names_the_field() {
    let gateway = gateway().await;
    let deep = format!("{{\"type\":\"a\",\"data\":{}{}}}", "[".repeat(9), "]".repeat(9));
    let large = json!({ "type": "a", "data": "x".repeat(5000) }).to_string();
    let event = r#"{"type":"a","data":1}"#;
    let many = format!("[{event},{event},{event},{event}]");
    for (body, status, code, field, detail) in [
        ("", 400, "invalid_json", "", "the body is empty"),
        ("{\"type\":", 400, "invalid_json", "", "line 1 column 8"),
        ("{\"data\":1}", 422, "invalid_event", "type", "is missing"),
        ("{\"type\":\"a\"}", 422, "invalid_event", "data", "is missing"),
        (r#"{"typ":"a","type":"a","data":1}"#, 422, "invalid_event", "typ", "did you mean `type`?"),
        (r#"{"type":7,"data":1}"#, 422, "invalid_event", "type", "is a number"),
        (r#"{"type":"a b","data":1}"#, 422, "invalid_event", "type", "has the name"),
        (r#"[{"type":"a","data":1,"id":"a.b"}]"#, 422, "invalid_event", "[0].id", "'.'"),
        (&deep, 422, "invalid_event", "data", "nested deeper than 8"),
        (&large, 413, "body_too_large", "", "4096 bytes"),
        (&many, 413, "body_too_large", "", "4 events"),
    ] {
        let answer = gateway.request(body.to_owned(), &[]).await.unwrap();
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert_eq!(answer.body["code"], code, "{body}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let said = answer.body["detail"].as_str().unwrap();
        assert!(said.contains(detail), "{body}: {said}");
        if !field.is_empty() {
            assert_eq!(answer.body["errors"][0]["field"], field, "{body}");
        }
    }
}

#[tokio::test]
async fn without_a_key_nothing_is_taken() {
    let gateway = gateway().await;
    let body = json!({ "type": "a", "data": 1 }).to_string();
    for (value, code) in [
        ("", "missing_key"),
        ("Basic YTpi", "missing_key"),
        ("Bearer nobody-knows-this-key-at-all", "unknown_key"),
    ] {
        let answer = gateway.request(body.clone(), &[("authorization", value)]).await.unwrap();
        assert_eq!((answer.status, &answer.body["code"]), (401, &json!(code)), "{value:?}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let typed = [("content-type", "application/x-www-form-urlencoded")];
    let answer = gateway.request(body, &typed).await.unwrap();
    assert_eq!((answer.status, &answer.body["code"]), (415, &json!("unsupported_media_type")));
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let gateway = gateway().await;
    for (path, status, code) in [
        ("/v1/events/evt_none", 404, "not_found"),
        ("/v1/events/a.b", 404, "not_found"),
        ("/v1/nothing", 404, "not_found"),
        ("/v1/events", 405, "method_not_allowed"),
    ] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{path}");
    }
    assert_eq!(gateway.get("/healthz").await.status, 200);
    assert_eq!(gateway.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_list_is_accepted_whole() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new().webhook(receiver.webhook("all")).start().await;
    let events: Vec<_> = (0..5).map(|n| json!({ "type": "n", "data": n })).collect();
    let answer = gateway.request(Value::from(events).to_string(), &[]).await.unwrap();
    assert_eq!(answer.status, 202);
    let answered = answer.body["events"].as_array().unwrap();
    assert_eq!(answered.len(), 5);
    assert!(answered.iter().all(|event| event["deliveries"] == 1));
    assert_eq!(receiver.wait_for(5).await.len(), 5);
}

#[tokio::test]
async fn a_repeated_request_is_accepted_once() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new().webhook(receiver.webhook("all")).start().await;
    let body = json!({ "type": "a", "data": { "n": 1 } }).to_string();
    let key = [("idempotency-key", "k-1")];
    let first = gateway.request(body.clone(), &key).await.unwrap();
    let again = gateway.request(body, &key).await.unwrap();
    assert_eq!(first.body, again.body);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let other = json!({ "type": "a", "data": { "n": 2 } }).to_string();
    let other = gateway.request(other, &key).await.unwrap();
    assert_eq!((other.status, &other.body["code"]), (422, &json!("idempotency_key_reused")));

    let id = first.body["events"][0]["id"].as_str().unwrap();
    gateway.settled(id).await;
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn a_producers_id_is_kept_and_taken_once() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new().webhook(receiver.webhook("all")).start().await;
    let event = json!({ "id": "order-1042", "type": "a", "data": 1 });
    assert_eq!(gateway.post(&event).await, "order-1042");
    let again = gateway.request(event.to_string(), &[]).await.unwrap();
    assert_eq!(again.body["events"][0]["status"], "duplicate");
    let changed = json!({ "id": "order-1042", "type": "a", "data": 2 });
    let changed = gateway.request(changed.to_string(), &[]).await.unwrap();
    assert_eq!((changed.status, &changed.body["code"]), (409, &json!("event_id_taken")));

    gateway.settled("order-1042").await;
    let received = receiver.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].id(), "order-1042");
}

#[tokio::test]
async fn a_tenant_sees_its_own_events_and_nothing_else() {
    let gateway = gateway().await;
    let data = json!({ "text": "as it was sent", "n": 1.5 });
    let id = gateway.send("a.b", data.clone()).await;
    let path = format!("/v1/events/{id}");
    let own = gateway.get(&path).await;
    assert_eq!((own.status, &own.body["data"]), (200, &data));
    assert_eq!(gateway.get_as_other(&path).await.status, 404);
}
