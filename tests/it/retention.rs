//! Retention: what is finished goes after its time, what is owed stays, and the database stops growing.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hookmill_tests::{Gateway, Receiver, Reply, Running, eventually};
use serde_json::json;
use tokio::time::Instant;

/// The bytes of the database and of its log.
fn size(gateway: &Running) -> u64 {
    let data = gateway.folder().join("data");
    let length = |name: &str| Path::metadata(&data.join(name)).map_or(0, |file| file.len());
    length("hookmill.db") + length("hookmill.db-wal")
}

/// Sends events for a while from a few tasks; gives how many were accepted.
async fn load(gateway: &Running, time: Duration) -> usize {
    let until = Instant::now() + time;
    let send = async |task: usize| {
        let mut sent = 0;
        while Instant::now() < until {
            let data = json!({ "task": task, "filler": "x".repeat(20_000) });
            gateway.send("load", data).await;
            sent += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sent
    };
    let (a, b, c, d) = tokio::join!(send(1), send(2), send(3), send(4));
    a + b + c + d
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_windows_under_constant_load_take_the_room_of_a_few() {
    const WINDOW: Duration = Duration::from_secs(1);
    let receiver = Receiver::start().await;
    let gateway = Gateway::new()
        .setting("retention.events = \"1s\"")
        .webhook(receiver.webhook("all"))
        .start()
        .await;
    let mut sizes = Vec::new();
    let mut sent = 0;
    for _ in 0..10 {
        sent += load(&gateway, WINDOW).await;
        sizes.push(size(&gateway));
    }
    // The log, and a few windows' worth: what is sent in one, what waits for the next pass, and spare room.
    let data = sent as u64 * 20_000;
    assert!(data > 10_000_000, "there was no load: {sent} events");
    let early = sizes[..5].iter().max().unwrap();
    let late = sizes[5..].iter().max().unwrap();
    let window = data / 10;
    assert!(*late < early + 2 * window, "it grows: {sizes:?}; {sent} events");

    // Nothing is left once nothing comes any more, and each event arrived.
    receiver.wait_for(sent).await;
    let id = gateway.send("last", json!(1)).await;
    eventually("the last event to go", || async {
        gateway.get(&format!("/v1/events/{id}")).await.status == 404
    })
    .await;
    let gateway = gateway.stop().await;
    let file = gateway.folder().join("data/hookmill.db").metadata().unwrap().len();
    assert!(file < 32 << 20, "{file} bytes for an empty store");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_outlives_its_window_and_is_delivered() {
    let failed = AtomicBool::new(false);
    let receiver = Receiver::answering(move |received, _| {
        let fails = received.target == "/slow" && !failed.swap(true, Ordering::Relaxed);
        Reply::status(if fails { 500 } else { 200 })
    })
    .await;
    let gateway = Gateway::new()
        .setting("retention.events = \"1s\"")
        .webhook(receiver.webhook("slow").set("retry", &json!(["4s"])))
        .webhook(receiver.webhook("quick"))
        .start()
        .await;
    let id = gateway.send("owed", json!({ "n": 1 })).await;
    let requests = receiver.wait_for(3).await;
    let slow: Vec<_> = requests.iter().filter(|request| request.target == "/slow").collect();
    assert_eq!(slow.len(), 2);
    assert_eq!(slow[0].body, slow[1].body);
    eventually("it to go once it is finished", || async {
        gateway.get(&format!("/v1/events/{id}")).await.status == 404
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_an_order_waits_no_longer_than_anything_is_owed() {
    let receiver = Receiver::answering(|received, _| {
        let is_first = received.json()["data"] == json!("first");
        Reply::status(if is_first { 500 } else { 200 })
    })
    .await;
    let gateway = Gateway::new()
        .setting("retention.undelivered = \"3s\"")
        .webhook(
            receiver
                .webhook("fifo")
                .set("ordering", &json!("fifo"))
                .set("on_dead", &json!("block"))
                .set("retry", &json!([])),
        )
        .start()
        .await;
    let first = gateway.send("a", json!("first")).await;
    gateway.delivery_in("dead", &first).await;
    // All that comes waits, until what is dead has kept it waiting for as long as that.
    let mut last = gateway.send("a", json!(0)).await;
    assert_eq!(gateway.delivery_in("pending", &last).await["next_attempt_at"], json!(null));
    while receiver.received().len() < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        last = gateway.send("a", json!("later")).await;
    }
    gateway.delivery_in("delivered", &last).await;
    assert_eq!(gateway.get(&format!("/v1/events/{first}")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_goes_before_the_record_of_it() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new()
        .tenant_setting("retention = { payloads = \"1s\" }")
        .webhook(receiver.webhook("all"))
        .start()
        .await;
    let id = gateway.send("order.paid", json!({ "name": "Ada" })).await;
    let path = format!("/v1/events/{id}");
    eventually("the data to go", || async {
        gateway.get(&path).await.body["data_removed"] == true
    })
    .await;
    let event = gateway.get(&path).await.body;
    assert_eq!(event["data"], json!(null));
    assert_eq!(event["deliveries"][0]["state"], "delivered");
    assert_eq!(event["deliveries"][0]["attempts"][0]["status"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_make_room_when_the_database_is_too_large() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new()
        .setting("retention.max_bytes = \"2 MiB\"")
        // Looked at ten times in this; nothing is that old here.
        .setting("retention.idempotency = \"2s\"")
        .webhook(receiver.webhook("all"))
        .start()
        .await;
    let mut ids = Vec::new();
    for n in 0..200 {
        ids.push(gateway.send("n", json!({ "n": n, "filler": "x".repeat(50_000) })).await);
    }
    receiver.wait_for(200).await;
    eventually("the first to go", || async {
        gateway.get(&format!("/v1/events/{}", ids[150])).await.status == 404
    })
    .await;
    let newest = gateway.get(&format!("/v1/events/{}", ids[199])).await;
    assert_eq!(newest.status, 200, "the newest goes last");
    assert!(size(&gateway) < 100 << 20);
}
