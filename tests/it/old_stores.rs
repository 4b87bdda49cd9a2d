//! Stores that earlier versions wrote: each of them opens, also when the process dies while it is brought up to date, and
//! what was owed in it is delivered.

use std::fs;
use std::path::{Path, PathBuf};

use hookmill::failpoint::Point;
use hookmill_tests::{Gateway, Receiver, Running, eventually};
use rusqlite::{Connection, params};
use serde_json::json;

/// The schema changes, in order.
fn migrations() -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../gateway/migrations/sqlite");
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// The version that queues came with.
const WITH_QUEUES: usize = 6;

/// A time long ago, in microseconds, and another one after each event.
const LONG_AGO: i64 = 1_700_000_000_000_000;

/// The ids of webhooks.
struct Webhooks {
    plain: String,
    fifo: String,
}

impl Webhooks {
    async fn of(gateway: &Running) -> Self {
        let id = gateway.send("a", json!("first")).await;
        let deliveries = gateway.settled(&id).await;
        let named = |name: &str| {
            let its = deliveries.iter().find(|delivery| delivery["webhook"]["name"] == name);
            its.unwrap()["webhook"]["id"].as_str().unwrap().to_owned()
        };
        Self { plain: named("plain"), fifo: named("fifo") }
    }
}

/// Writes a store as the version with so many schema changes did, which died with something in hand.
fn write(path: &Path, migrations: &[String], webhooks: &Webhooks) {
    let store = Connection::open(path).unwrap();
    store.pragma_update(None, "journal_mode", "WAL").unwrap();
    for migration in migrations {
        store.execute_batch(migration).unwrap();
    }
    let version = u32::try_from(migrations.len()).unwrap();
    store.pragma_update(None, "user_version", version).unwrap();
    for n in 1..=5 {
        store
            .execute(
                "INSERT INTO events (seq, tenant, id, type, timestamp, accepted_at, data)
                 VALUES (?1, 'acme', ?2, 'a', ?3, ?3, ?4)",
                params![n, format!("old-{n}"), LONG_AGO + n, format!("{{\"n\":{n}}}").as_bytes()],
            )
            .unwrap();
    }
    let deliver = |n: i64, webhook: &str, state: &str, due: bool, claimed: bool| {
        let id = [n.to_be_bytes(), n.to_be_bytes()].concat();
        store
            .execute(
                "INSERT INTO deliveries (id, event, webhook, part, state, attempts, due_at, claimed)
                 VALUES (?1, ?2, ?3, 1, ?4, 0, ?5, ?6)",
                params![id, n, webhook, state, due.then_some(LONG_AGO + n), claimed],
            )
            .unwrap();
        id
    };
    deliver(1, &webhooks.plain, "delivered", false, false);
    deliver(2, &webhooks.plain, "pending", true, false);
    deliver(3, &webhooks.plain, "pending", true, true);
    let retried = deliver(4, &webhooks.plain, "retrying", true, false);
    store
        .execute(
            "INSERT INTO attempts (delivery, number, started_at, duration_us, status, failure, message, excerpt)
             VALUES (?1, 1, ?2, 1000, 500, 'status', 'answered 500', 'oops')",
            params![retried, LONG_AGO],
        )
        .unwrap();
    store
        .execute(
            "INSERT INTO requests VALUES (?1, 'POST', '', '[]', 'application/json', '[]', '[]', ?2)",
            params![retried, b"{\"rendered\":4}"],
        )
        .unwrap();
    deliver(5, &webhooks.plain, "dead", false, false);
    if migrations.len() < WITH_QUEUES {
        return;
    }
    for (n, event, due) in [(6, 1, true), (7, 2, false), (8, 3, false)] {
        let id = [i64::to_be_bytes(n), i64::to_be_bytes(n)].concat();
        store
            .execute(
                "INSERT INTO deliveries
                     (id, event, webhook, part, state, attempts, due_at, claimed, queue, place)
                 VALUES (?1, ?2, ?3, 1, 'pending', 0, ?4, ?5, '', ?6)",
                params![id, event, webhooks.fifo, due.then_some(LONG_AGO), due, 2 * event],
            )
            .unwrap();
        if due {
            store
                .execute(
                    "INSERT INTO queues (webhook, key, head, blocked) VALUES (?1, '', ?2, 0)",
                    params![webhooks.fifo, id],
                )
                .unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_any_version_opens_and_what_is_owed_in_it_arrives() {
    let migrations = migrations();
    for version in 1..=migrations.len() {
        println!("version {version}");
        brought_up_to_date(&migrations, version).await;
    }
}

/// Writes a store of this version, lets a gateway die while it brings that up to date, and looks what comes of it.
async fn brought_up_to_date(migrations: &[String], version: usize) {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new()
        .webhook(receiver.webhook("plain"))
        .webhook(receiver.webhook("fifo").set("ordering", &json!("fifo")))
        .start()
        .await;
    let webhooks = Webhooks::of(&gateway).await;
    let mut gateway = gateway.stop().await;
    let before = receiver.received().len();
    let data = gateway.folder().join("data");
    fs::remove_dir_all(&data).unwrap();
    fs::create_dir(&data).unwrap();
    write(&data.join("hookmill.db"), &migrations[..version], &webhooks);

    // It dies in the first change, and then in the last.
    let missing = migrations.len() - version;
    for time in [1, missing].into_iter().filter(|_| missing > 0) {
        let time = u32::try_from(time).unwrap();
        gateway = match gateway.start_to_die(Point::MigrationApplied, time).await {
            Err(died) => died,
            Ok(_) => panic!("it listens"),
        };
    }
    let gateway = gateway.start().await;
    let queued = if version < WITH_QUEUES { 0 } else { 3 };
    eventually("what is owed to arrive", || async {
        receiver.received().len() == before + 3 + queued
    })
    .await;
    for (n, expected) in (1..=5).zip(["delivered", "delivered", "delivered", "delivered", "dead"]) {
        for delivery in gateway.settled(&format!("old-{n}")).await {
            assert_eq!(delivery["state"], expected, "{delivery}");
        }
    }
    let arrived = &receiver.received()[before..];
    let ids = |target: &str| -> Vec<_> {
        let at = arrived.iter().filter(|request| request.target == target);
        at.map(|request| request.id().to_owned()).collect()
    };
    let mut plain = ids("/plain");
    plain.sort();
    assert_eq!(plain, ["old-2", "old-3", "old-4"]);
    let rendered = arrived.iter().find(|request| request.id() == "old-4").unwrap();
    assert_eq!(&rendered.body[..], b"{\"rendered\":4}", "the same bytes");
    assert_eq!(ids("/fifo"), ["old-1", "old-2", "old-3"].map(str::to_owned)[..queued]);
    // It can be purged, whatever wrote it.
    let purge = gateway.ask("/v1/purges", &json!({ "tenant": "acme" }), "").await;
    let path = format!("/v1/purges/{}", purge.body["id"].as_str().unwrap());
    eventually("the purge", || async { gateway.get(&path).await.body["state"] == "completed" })
        .await;
    assert_eq!(gateway.get("/v1/events/old-1").await.status, 404);
    gateway.stop().await;
}
