//! That purged bytes are gone from the files.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::delivery::{Attempt, DeliveryId, Failure, FailureKind, Request, Timings, WebhookId};
use crate::event::{Event, EventId, EventType};
use crate::kv;
use crate::record::{
    Config, Idempotency, NewDelivery, NewEvent, Next, Start, Store, Submission, Update,
};

const SECRET: &str = "erase.me-8731@example.com";

/// An event about somebody, in every place that there is; padded so that some lie on pages of their own.
fn event(n: usize, who: &str, padding: usize) -> NewEvent {
    let now = Timestamp::from_second(1_700_000_000).unwrap();
    let id = EventId::parse(&format!("evt_{n}")).unwrap();
    let data =
        json!({ "customer": { "email": who }, "filler": format!("{who} {}", "x".repeat(padding)) });
    let delivery = NewDelivery {
        id: DeliveryId::generate(),
        webhook: WebhookId("wh_a".into()),
        start: Start::InHand,
    };
    let event = Event {
        tenant: "acme".into(),
        id,
        event_type: EventType::parse("order.paid").unwrap(),
        timestamp: now,
        accepted_at: now,
        data: Bytes::from(data.to_string()),
        attributes: vec![("email".to_owned(), who.to_owned())],
        ordering_key: Some(who.to_owned()),
        webhook_url: format!("https://example.com/{who}").parse().ok(),
    };
    NewEvent { event: Arc::new(event), given_id: true, deliveries: vec![delivery] }
}

fn failed(who: &str, next: Next, delivery: DeliveryId) -> Update {
    let attempt = Attempt {
        started_at: Timestamp::from_second(1_700_000_001).unwrap(),
        duration_us: 1,
        status: Some(500),
        failure: Some(Failure::new(FailureKind::Status, format!("{who} is not known"))),
        excerpt: format!("no such customer: {who} {}", "y".repeat(900)),
        retry_after: None,
        timings: Timings::default(),
    };
    Update { delivery, attempt: Some(attempt), chain: Arc::default(), next }
}

/// Which files of a folder have this text.
fn traces(folder: &std::path::Path, text: &str) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let has = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    files
        .filter(|path| has(&fs::read(path).unwrap()))
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect()
}

/// Keeps many events, every third of them about somebody to be forgotten, in all states.
async fn fill(store: &SqliteStore) {
    for batch in 0..40 {
        let who = |n: usize| if n.is_multiple_of(3) { SECRET } else { "someone.else@example.com" };
        let numbers = (batch * 25)..(batch * 25 + 25);
        let events: Vec<_> =
            numbers.clone().map(|n| event(n, who(n), [10, 700, 9_000][n % 7 % 3])).collect();
        let ids: Vec<_> = events.iter().map(|new| new.deliveries[0].id).collect();
        let key = format!("key of {SECRET} {batch}");
        let fingerprint = crate::digest::Digest::of(key.as_bytes());
        let idempotency = Some(Idempotency { key, fingerprint, kept: Idempotency::KEPT });
        let accepted_at = Timestamp::from_second(1_700_000_000).unwrap();
        let submission = Submission { tenant: "acme".into(), accepted_at, idempotency, events };
        store.accept(submission).await.unwrap();
        for (n, id) in numbers.zip(ids) {
            let body =
                Bytes::from(format!("{{\"to\":\"{}\",\"{}\":1}}", who(n), "z".repeat(n % 5_000)));
            let request = Some(Arc::new(Request::json(body)));
            let at = Timestamp::from_second(1_900_000_000).unwrap();
            let retry = failed(who(n), Next::Retry { at, request }, id);
            store.record(retry.clone()).await.unwrap();
            if n.is_multiple_of(2) {
                // Its request is deleted long before the purge.
                let done = Update { attempt: None, next: Next::Delivered, ..retry };
                store.record(done).await.unwrap();
            }
            if n.is_multiple_of(9) {
                let run = kv::Run { delivery: id, step: 0, part: 0 };
                let entry = kv::Entry { value: who(n).to_owned(), ttl_seconds: None };
                store.kv(request_of(run, entry)).await.unwrap().unwrap();
            }
        }
    }
}

fn request_of(run: kv::Run, entry: kv::Entry) -> kv::Request {
    kv::Request {
        scope: kv::Scope { tenant: "acme".into(), plugin: "seen".into() },
        run,
        operation: kv::Operation::Set(entry),
        key: "last".to_owned(),
        occurrence: 0,
        observed: Vec::new(),
        quota: kv::Quota { keys: 10, bytes: 10_000 },
        now: Timestamp::from_second(1_700_000_000).unwrap(),
    }
}

async fn purge(store: &SqliteStore, target: Target, value: Value) -> u64 {
    let (id, created_at) = (PurgeId::generate(), Timestamp::now());
    let new = NewPurge { id, tenant: "acme".into(), target, value, created_at };
    store.begin_purge(new).await.unwrap();
    loop {
        let stepped = store.step_purge(id, Timestamp::now()).await.unwrap();
        if stepped.purge.ended_at.is_some() {
            return stepped.purge.done;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_has_a_trace_of_a_tenant_that_was_purged() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&Config::new(folder.path().to_owned())).unwrap();
    fill(&store).await;
    assert!(!traces(folder.path(), SECRET).is_empty());
    assert_eq!(purge(&store, Target::Tenant, Value::Null).await, 1_000);
    for text in [SECRET, "someone.else@example.com", "order.paid"] {
        assert_eq!(traces(folder.path(), text), Vec::<String>::new(), "{text}");
    }
    // And the gateway can go on.
    fill(&store).await;
    assert_eq!(store.tenants().await.unwrap(), ["acme".into()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_has_a_trace_of_a_value_that_was_purged() {
    for target in [Target::Attribute("email".to_owned()), Target::Pointer("/customer/email".into())]
    {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&Config::new(folder.path().to_owned())).unwrap();
        fill(&store).await;
        assert_eq!(purge(&store, target, json!(SECRET)).await, 334);
        // What plugins keep is not looked into.
        let scope = kv::Scope { tenant: "acme".into(), plugin: "seen".into() };
        let run = kv::Run { delivery: DeliveryId::generate(), step: 0, part: 0 };
        let operation = kv::Operation::Delete;
        let entry = kv::Entry { value: String::new(), ttl_seconds: None };
        store
            .kv(kv::Request { scope, operation, ..request_of(run, entry) })
            .await
            .unwrap()
            .unwrap();
        empty_log(store.path.clone()).await.unwrap();
        assert_eq!(traces(folder.path(), SECRET), Vec::<String>::new());
        assert_eq!(traces(folder.path(), "someone.else@example.com"), ["hookmill.db"]);
    }
}
