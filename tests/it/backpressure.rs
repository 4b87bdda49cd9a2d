//! A store that cannot keep up, a disk that is full, and a backlog over its limit: what is refused, that
//! nothing acknowledged is lost, and that it goes on by itself afterwards.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hookmill_tests::{Gateway, Receiver, Reply, binary, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_and_is_got_over_without_a_restart() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new().webhook(receiver.webhook("all")).start().await;
    let body = json!({ "type": "load", "data": "x".repeat(20_000) }).to_string();
    let mut acknowledged = BTreeSet::new();
    let send = async || gateway.request(body.clone(), &[]).await.unwrap();
    let id = |answer: &hookmill_tests::Answer| {
        answer.body["events"][0]["id"].as_str().unwrap().to_owned()
    };
    gateway.limit_files(Some(1 << 20));
    let refused = loop {
        let answer = send().await;
        if answer.status != 202 {
            break answer;
        }
        acknowledged.insert(id(&answer));
        assert!(acknowledged.len() < 1_000, "no limit");
    };
    assert!(!acknowledged.is_empty());
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(refused.body["code"], "store_unavailable");
    assert_eq!(refused.headers["retry-after"], "10");
    for _ in 0..20 {
        let answer = send().await;
        if answer.status == 202 {
            acknowledged.insert(id(&answer));
        }
    }
    gateway.limit_files(None);
    for _ in 0..20 {
        let answer = send().await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        acknowledged.insert(id(&answer));
    }
    eventually("all to arrive", || async { receiver.ids().len() >= acknowledged.len() }).await;
    for id in &acknowledged {
        assert_eq!(gateway.settled(id).await[0]["state"], "delivered");
    }
    // What was refused was not kept, and nothing came twice.
    let received = receiver.received();
    let ids: BTreeSet<_> = received.iter().map(|request| request.id().to_owned()).collect();
    assert_eq!(ids, acknowledged);
    assert_eq!(received.len(), acknowledged.len());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_little_free_space_events_are_refused() {
    let gateway = Gateway::new().setting("store.min_free_bytes = \"900000 GiB\"").start().await;
    let answer = gateway.request(json!({ "type": "t", "data": 1 }).to_string(), &[]).await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.headers["retry-after"], "10");
    assert_eq!(gateway.get("/readyz").await.status, 503);
    assert!(gateway.log().contains("store.min_free_bytes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_with_too_much_owed_is_refused_until_it_is_delivered() {
    let up = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&up);
    let receiver = Receiver::answering(move |_, _| {
        Reply::status(if is_up.load(Ordering::Relaxed) { 200 } else { 500 })
    })
    .await;
    let retry = vec!["1s"; 100];
    let gateway = Gateway::new()
        .tenant_setting("max_backlog = 3")
        .webhook(receiver.webhook("all").set("retry", &json!(retry)))
        .other_webhook(receiver.webhook("other").set("retry", &json!(retry)))
        .start()
        .await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(gateway.send("n", json!(n)).await);
    }
    let body = json!({ "type": "n", "data": 3 }).to_string();
    let refused = gateway.request(body.clone(), &[]).await.unwrap();
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert_eq!(refused.body["code"], "backlog_full");
    assert_eq!(refused.headers["retry-after"], "5");
    gateway.send_as_other("n", json!(0)).await;

    // The next process knows what is owed.
    let gateway = gateway.kill().await.start().await;
    eventually("what is owed to be counted", || async {
        gateway.request(body.clone(), &[("idempotency-key", "k")]).await.unwrap().status == 429
    })
    .await;
    up.store(true, Ordering::Relaxed);
    eventually("it to take events again", || async {
        gateway.request(body.clone(), &[]).await.unwrap().status == 202
    })
    .await;
    for id in ids {
        assert_eq!(gateway.settled(&id).await[0]["state"], "delivered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_refused_with_the_way_out() {
    let gateway = Gateway::new().start().await;
    gateway.send("t", json!(1)).await;
    let gateway = gateway.stop().await;
    let check = |args: &[&str]| {
        Command::new(binary())
            .args(args)
            .arg("--config")
            .arg(gateway.configuration_file())
            .output()
            .unwrap()
    };
    let sound = check(&["check", "--store"]);
    assert!(sound.status.success(), "{sound:?}");
    let path = gateway.folder().join("data/hookmill.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let log = gateway.folder().join("data/hookmill.db-wal");
    assert_eq!(log.metadata().map_or(0, |file| file.len()), 0, "it was stopped in order");
    // The schema is in the first page.
    bytes[100..4096].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    for args in [&["serve"][..], &["check", "--store"]] {
        let refused = check(args);
        assert!(!refused.status.success());
        let message = String::from_utf8(refused.stderr).unwrap();
        assert!(message.contains("the database is damaged"), "{message}");
        assert!(message.contains("sqlite3 hookmill.db .recover"), "{message}");
    }
}
