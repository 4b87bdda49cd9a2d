//! Purges: what is removed because somebody asked for it is gone, from the files too, and everything else goes on.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hookmill_tests::{Answer, Gateway, Receiver, Reply, Running, binary, eventually};
use serde_json::{Value, json};

const SECRET: &str = "erase.me-5512@example.com";
const OTHER: &str = "somebody.else@example.com";

fn about(who: &str, n: usize) -> Value {
    json!({
        "type": "order.paid",
        "id": format!("evt-{n}"),
        "attributes": { "who": who },
        "data": { "customer": { "email": who }, "filler": "x".repeat(n * 37 % 9_000) },
    })
}

/// Begins a purge and waits until it is through.
async fn purge(gateway: &Running, body: &Value) -> Value {
    let begun = gateway.ask("/v1/purges", body, "").await;
    assert_eq!(begun.status, 202, "{}", begun.body);
    let path = begun.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(path, format!("/v1/purges/{}", begun.body["id"].as_str().unwrap()));
    eventually("the purge to be through", || async {
        gateway.get(&path).await.body["state"] == "completed"
    })
    .await;
    assert_eq!(gateway.get_as_other(&path).await.status, 404, "it is another tenant's");
    gateway.get(&path).await.body
}

/// The files in the data folder that have this text.
fn traces(gateway: &std::path::Path, text: &str) -> Vec<String> {
    let files = std::fs::read_dir(gateway.join("data")).unwrap().map(|entry| entry.unwrap().path());
    let has = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let with = files.filter(|path| path.is_file() && has(&std::fs::read(path).unwrap()));
    with.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

/// A receiver that repeats what it is sent, and takes it or not.
async fn echoing(takes: Arc<AtomicBool>) -> Receiver {
    Receiver::answering(move |request, _| {
        let status = if takes.load(Ordering::Relaxed) { 200 } else { 500 };
        Reply { body: String::from_utf8_lossy(&request.body).into_owned(), ..Reply::status(status) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_a_value_is_purged_while_the_gateway_serves() {
    let takes = Arc::new(AtomicBool::new(true));
    let (sound, failing) = (Receiver::start().await, echoing(Arc::clone(&takes)).await);
    takes.store(false, Ordering::Relaxed);
    let gateway = Gateway::new()
        .setting("delivery.breaker.enabled = false")
        .webhook(sound.webhook("sound"))
        .webhook(failing.webhook("failing").set("retry", &json!(vec!["2s"; 30])))
        .start()
        .await;
    for n in 0..60_usize {
        gateway
            .ask("/v1/events", &about(if n.is_multiple_of(3) { SECRET } else { OTHER }, n), "")
            .await;
    }
    sound.wait_for(60).await;
    eventually("every attempt to be on record", || async {
        gateway.get("/v1/events/evt-57").await.body["deliveries"]
            .as_array()
            .unwrap()
            .iter()
            .all(|delivery| !delivery["attempts"].as_array().unwrap().is_empty())
    })
    .await;
    let body = json!({ "pointer": "/customer/email", "value": SECRET });
    let done = purge(&gateway, &body).await;
    assert_eq!((&done["matched"], &done["done"]), (&json!(20), &json!(20)));
    assert_eq!(done["target"], json!({ "pointer": "/customer/email" }), "without the value");
    for time in ["created_at", "started_at", "ended_at"] {
        assert!(done[time].is_string(), "{done}");
    }
    assert_eq!(gateway.get("/v1/events/evt-57").await.status, 404);
    let before = failing.received().len();
    takes.store(true, Ordering::Relaxed);
    for n in (0..60).filter(|n: &usize| !n.is_multiple_of(3)) {
        for delivery in gateway.settled(&format!("evt-{n}")).await {
            assert_eq!(delivery["state"], "delivered");
        }
    }
    let after = &failing.received()[before..];
    assert!(!after.iter().any(|request| String::from_utf8_lossy(&request.body).contains(SECRET)));
    let gateway = gateway.stop().await;
    assert_eq!(traces(gateway.folder(), SECRET), Vec::<String>::new());
    assert_eq!(traces(gateway.folder(), OTHER), ["hookmill.db"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_is_not_begun_any_more() {
    let receiver = Receiver::answering(|_, _| Reply::after(Duration::from_millis(500))).await;
    let gateway = Gateway::new()
        .webhook(receiver.webhook("slow").set("concurrency", &json!(1)))
        .webhook(receiver.webhook("fifo").set("ordering", &json!("fifo")))
        .start()
        .await;
    for n in 0..30 {
        gateway.ask("/v1/events", &about(SECRET, n), "").await;
    }
    receiver.wait_for(2).await;
    purge(&gateway, &json!({ "tenant": "acme" })).await;
    let last = gateway.send("order.paid", json!({ "last": true })).await;
    for delivery in gateway.settled(&last).await {
        assert_eq!(delivery["state"], "delivered");
    }
    // What was under way has come, and perhaps what began meanwhile; of sixty, that is a few.
    assert!(receiver.received().len() < 40, "{}", receiver.received().len());
    // Nothing is owed any more, by the gateway's own count as well.
    let gateway = gateway.stop().await;
    assert_eq!(traces(gateway.folder(), SECRET), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_is_not_understood_takes_nothing() {
    let gateway = Gateway::new().start().await;
    gateway.ask("/v1/events", &about(SECRET, 1), "").await;
    let attribute = |attribute: Value| json!({ "attribute": attribute });
    for (body, field) in [
        (json!({}), "tenant"),
        (json!({ "tenant": "globex" }), "tenant"),
        (json!({ "tenant": "acme", "value": "x" }), "value"),
        (json!({ "tenant": "acme", "attribute": {} }), "attribute"),
        (attribute(json!("who")), "attribute"),
        (attribute(json!({ "name": "who" })), "attribute.value"),
        (attribute(json!({ "name": "who", "value": 1 })), "attribute.value"),
        (attribute(json!({ "value": "x" })), "attribute.name"),
        (attribute(json!({ "name": "who", "value": SECRET, "vale": 1 })), "attribute.vale"),
        (json!({ "pointer": "customer", "value": "x" }), "pointer"),
        (json!({ "pointer": "/a~2", "value": "x" }), "pointer"),
        (json!({ "pointer": "/customer" }), "value"),
        (json!({ "pointer": "/customer", "value": [] }), "value"),
    ] {
        let Answer { status, body: problem, .. } = gateway.ask("/v1/purges", &body, "").await;
        assert_eq!(status, 422, "{body}: {problem}");
        assert_eq!(problem["code"], "invalid_purge");
        assert_eq!(problem["errors"][0]["field"], field, "{body}: {problem}");
    }
    assert_eq!(gateway.ask("/v1/purges", &json!([]), "").await.status, 422);
    assert_eq!(gateway.get("/v1/events/evt-1").await.status, 200);
    assert_eq!(gateway.get("/v1/purges/purge_1").await.status, 404);
    // Another tenant's purge is about its own events.
    let body = json!({ "pointer": "/customer/email", "value": SECRET });
    assert_eq!(gateway.ask_as_other("/v1/purges", &body).await.status, 202);
    assert_eq!(
        purge(&gateway, &attribute(json!({ "name": "who", "value": OTHER }))).await["done"],
        0
    );
    assert_eq!(gateway.get("/v1/events/evt-1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_a_gateway_that_is_stopped_is_purged_by_a_command() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new().webhook(receiver.webhook("all")).start().await;
    for n in 0..20 {
        gateway.ask("/v1/events", &about(if n < 5 { SECRET } else { OTHER }, n), "").await;
    }
    receiver.wait_for(20).await;
    let data = gateway.folder().join("data");
    let run = |args: &[&str]| {
        let output =
            Command::new(binary()).arg("purge").arg("--data").arg(&data).args(args).output();
        let output = output.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let pointer = format!("/customer/email={SECRET}");
    let (code, _, message) = run(&["--pointer", &pointer]);
    assert_eq!(code, Some(1));
    assert!(message.contains("POST /v1/purges"), "{message}");

    let gateway = gateway.stop().await;
    for wrong in [&[][..], &["--pointer", "customer=1"], &["--attribute", "who"]] {
        assert_eq!(run(wrong).0, Some(2), "{wrong:?}");
    }
    let (code, said, message) = run(&["--pointer", &pointer]);
    assert_eq!((code, &*said), (Some(0), "acme: 5 events are gone\n"), "{message}");
    assert_eq!(traces(gateway.folder(), SECRET), Vec::<String>::new());
    assert_eq!(traces(gateway.folder(), OTHER), ["hookmill.db"]);
    let (code, said, _) = run(&["--tenant", "acme", "--attribute", &format!("who={OTHER}")]);
    assert_eq!((code, &*said), (Some(0), "acme: 15 events are gone\n"));
    let (code, said, _) = run(&["--tenant", "acme"]);
    assert_eq!((code, &*said), (Some(0), "acme: 0 events are gone\n"));
    assert_eq!(traces(gateway.folder(), OTHER), Vec::<String>::new());
    let gateway = gateway.start().await;
    let id = gateway.send("order.paid", json!(1)).await;
    assert_eq!(gateway.settled(&id).await[0]["state"], "delivered");

    let nowhere = data.join("nowhere");
    let mut command = Command::new(binary());
    let output =
        command.args(["purge", "--tenant", "acme", "--data"]).arg(&nowhere).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("there is no database in"), "{message}");
    assert!(!nowhere.exists());
}
