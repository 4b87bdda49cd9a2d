//! The kill matrix: the process dies at each step of an event's path, and nothing that was promised is broken.
//!
//! A new failpoint is tried under load by itself. One that a load does not come to gets a scenario of its own in
//! [`die_at`].

use std::sync::Arc;
use std::time::Duration;

use hookmill::failpoint::Point;
use hookmill_tests::{
    Api, Gateway, Ledger, Load, Receiver, Reckoning, Reply, Running, Shape, Webhook, eventually,
    stamped, wasm,
};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};

use super::kill_jobs;

/// Deliveries under way at once: so many can be sent again after a death.
const UNDER_WAY: usize = 32;

/// Events that are accepted after each restart, to show that work goes on.
const AFTERWARDS: usize = 10;

/// Gateways that are tried at once.
const AT_ONCE: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_death_at_any_step_breaks_no_promise() {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let tries = Point::ALL.map(|point| {
        let turns = Arc::clone(&turns);
        let tried = tokio::spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            die_at(point).await;
        });
        (point, tried)
    });
    let mut failed = Vec::new();
    for (point, tried) in tries {
        if tried.await.is_err() {
            failed.push(point.as_str());
        }
    }
    assert!(failed.is_empty(), "a promise was broken by a death at {failed:?}; see above");
}

/// One gateway that dies at this point, is started again, and has to account for everything.
async fn die_at(point: Point) {
    if let Point::JobStepWritten | Point::JobStepKept = point {
        return kill_jobs::die_at(point).await;
    }
    let receiver = unsteady().await;
    let ledger = Ledger::default();
    let shape = Shape::small("it");
    let (gateway, api) = match point {
        Point::MigrationApplied => (die_at_start(&receiver).await, None),
        Point::HeldTaken => (die_releasing(&receiver, &ledger).await, None),
        Point::RemovalWritten | Point::RemovalCommitted => {
            (die_removing(&receiver, point).await, None)
        }
        Point::PurgeWritten | Point::PurgeCommitted => (die_purging(&receiver, point).await, None),
        _ => {
            let time = match point {
                Point::DeliveriesClaimed => 3,
                // A few of them come with the start.
                Point::ChangeAgreed => 8,
                _ => 20,
            };
            let running = gateway(&receiver).start_to_die(point, time).await.unwrap();
            let api = Api::of(&running);
            let load = Load::start(&shape, &api, &ledger);
            let gateway = match point {
                Point::ChangeAgreed => die_reloading(running).await,
                _ => running.died().await,
            };
            (gateway, Some((api, load)))
        }
    };
    let running = gateway.start().await;
    let (api, load) = match api {
        Some((api, load)) => {
            api.move_to(&running);
            (api, load)
        }
        None => {
            let api = Api::of(&running);
            let load = Load::start(&shape, &api, &ledger);
            (api, load)
        }
    };
    load.progress(AFTERWARDS).await;
    load.end().await;
    // What was held goes to one webhook, each event of the load to three, in five parts.
    let per_event = if point == Point::HeldTaken { 1 } else { 5 };
    let reckoning = Reckoning::of(&ledger, &api, &receiver, per_event).await;
    println!("{point}: {reckoning}");
    reckoning.assert_kept(1, UNDER_WAY);
    assert_eq!(reckoning.delivered, reckoning.deliveries, "{point}");
    match point {
        Point::RemovalWritten | Point::RemovalCommitted => removed(&running).await,
        Point::PurgeWritten | Point::PurgeCommitted => purged(&running).await,
        _ => {}
    }
}

/// A receiver that fails on the first attempt of some, so that retries are due.
async fn unsteady() -> Receiver {
    Receiver::answering(|request, before| {
        let unlucky = request.id().bytes().map(usize::from).sum::<usize>() % 3 == 0;
        Reply::status(if unlucky && before == 0 { 500 } else { 200 })
    })
    .await
}

/// Three webhooks for each event of a load: one with a retry now and then, one that splits, one whose plugin logs.
fn gateway(receiver: &Receiver) -> Gateway {
    let patient = |webhook: Webhook| {
        webhook.events(&["load"]).set("retry", &json!(["50ms", "200ms", "1s", "3s"]))
    };
    let split = json!({ "do": "many_parts", "count": 3 });
    let chatty = json!({ "do": "log_flood", "count": 1, "message": "called" });
    Gateway::new()
        .setting(&format!("delivery.concurrency = {UNDER_WAY}"))
        .plugin("stamp")
        .plugin("misbehave")
        .webhook(patient(receiver.webhook("stamped").plugins(&[("stamp", json!({}))])))
        .webhook(patient(receiver.webhook("split").plugins(&[("misbehave", split)])))
        .webhook(patient(receiver.webhook("chatty").plugins(&[("misbehave", chatty)])))
}

/// Dies in the second migration of an empty folder.
async fn die_at_start(receiver: &Receiver) -> Gateway {
    match gateway(receiver).start_to_die(Point::MigrationApplied, 2).await {
        Err(died) => died,
        Ok(_) => panic!("it listens"),
    }
}

/// Dies while plugins are replaced, again and again.
async fn die_reloading(running: Running) -> Gateway {
    let plugins = running.plugins();
    let replacing = async {
        for version in 10.. {
            plugins.replace("stamp", &stamped(&format!("version-{version}")));
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    tokio::select! {
        gateway = running.died() => gateway,
        () = replacing => unreachable!("numbers do not end"),
    }
}

/// Dies while deliveries that were held are released in batches.
async fn die_releasing(receiver: &Receiver, ledger: &Ledger) -> Gateway {
    let webhook = receiver.webhook("held").events(&["held"]).plugins(&[("turncoat", json!({}))]);
    let gateway = gateway(receiver)
        .setting("plugins.breaker.failures = 1")
        .setting("plugins.breaker.probe = \"1h\"")
        .webhook(webhook);
    gateway.plugins().write("turncoat", &wasm("misbehave"));
    let running = gateway.start().await;
    let data = json!({ "do": "trap" }).to_string();
    let mut ids = Vec::new();
    for n in 0..40 {
        let id = format!("held_{n}");
        ledger.sending(&id, &data);
        running.post(&json!({ "type": "held", "id": id, "data": { "do": "trap" } })).await;
        ledger.acknowledge(&id);
        ids.push(id);
    }
    for id in &ids {
        running.delivery_in("held", id).await;
    }
    let gateway = running.kill().await;
    gateway.plugins().replace("turncoat", &stamped("version-01"));
    match gateway.start_to_die(Point::HeldTaken, 2).await {
        Ok(running) => running.died().await,
        Err(died) => died,
    }
}

/// Events that are removed, in three batches.
const VICTIMS: usize = 300;

fn victims() -> Value {
    let attributes = json!({ "who": "c_1" });
    let victim = |n| json!({ "type": "victim", "id": format!("victim_{n}"), "data": n, "attributes": attributes });
    (0..VICTIMS).map(victim).collect()
}

/// Dies while what is past its time is removed: all that the other tenant has.
async fn die_removing(receiver: &Receiver, point: Point) -> Gateway {
    let gateway = gateway(receiver)
        .setting("retention.events = \"1s\"")
        .tenant_setting("retention = { events = \"1h\" }")
        .start_to_die(point, 2)
        .await
        .unwrap();
    let answer = gateway.ask_as_other("/v1/events", &victims()).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    gateway.died().await
}

async fn removed(gateway: &Running) {
    for n in 0..VICTIMS {
        eventually(&format!("victim_{n} to be removed"), || async {
            gateway.get_as_other(&format!("/v1/events/victim_{n}")).await.status == 404
        })
        .await;
    }
}

/// Dies while events are purged that are owed to a webhook whose receiver is away.
async fn die_purging(receiver: &Receiver, point: Point) -> Gateway {
    let away = Webhook::new("away", "http://127.0.0.1:9/").events(&["victim"]);
    let gateway = gateway(receiver)
        .webhook(away.set("retry", &json!(["1h"])))
        .start_to_die(point, 3)
        .await
        .unwrap();
    let answer = gateway.ask("/v1/events", &victims(), "c_1").await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let purge = json!({ "attribute": { "name": "who", "value": "c_1" } });
    // It may die before it has answered.
    drop(gateway.try_ask("/v1/purges", &purge).await);
    gateway.died().await
}

/// It has gone on by itself. The same request is another one then, and nothing is left for it.
async fn purged(gateway: &Running) {
    for n in 0..VICTIMS {
        eventually(&format!("victim_{n} to be purged"), || async {
            gateway.get(&format!("/v1/events/victim_{n}")).await.status == 404
        })
        .await;
    }
    let purge = json!({ "attribute": { "name": "who", "value": "c_1" } });
    let purge = gateway.ask("/v1/purges", &purge, "").await;
    let path = format!("/v1/purges/{}", purge.body["id"].as_str().unwrap());
    eventually("a purge to end", || async {
        gateway.get(&path).await.body["state"] == "completed"
    })
    .await;
    let answer = gateway.ask("/v1/events", &victims(), "c_1").await;
    assert_eq!(answer.body["events"][0]["status"], "accepted", "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_in_the_middle_of_a_request_breaks_no_promise() {
    /// More than the sockets between them take in.
    const BYTES: usize = 8 << 20;
    let receiver = Receiver::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/it", listener.local_addr().unwrap());
    let begun = Arc::new(Notify::new());
    tokio::spawn(stop_midway(listener, receiver.url(""), Arc::clone(&begun)));
    let gateway = Gateway::new()
        .setting("ingest.max_body_bytes = \"16 MiB\"")
        .webhook(Webhook::new("it", &url))
        .start()
        .await;
    let ledger = Ledger::default();
    let shape = Shape { producers: 1, bytes: BYTES, pause: Duration::MAX, ..Shape::small("it") };
    let load = Load::start(&shape, &Api::of(&gateway), &ledger);
    begun.notified().await;
    eventually("the answer", || async { ledger.count() == 1 }).await;
    let gateway = gateway.kill().await.start().await;
    drop(load);
    let reckoning = Reckoning::of(&ledger, &Api::of(&gateway), &receiver, 1).await;
    reckoning.assert_kept(1, 1);
    assert_eq!((reckoning.delivered, reckoning.arrivals), (1, 1), "{reckoning}");
}

/// Lets the first connection's request begin and reads no more of it; passes on all others.
async fn stop_midway(listener: TcpListener, receiver: String, begun: Arc<Notify>) {
    let mut stopped = Vec::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        if stopped.is_empty() {
            stream.read_exact(&mut [0; 64 << 10]).await.unwrap();
            begun.notify_one();
            stopped.push(stream);
            continue;
        }
        let address = receiver.trim_start_matches("http://").to_owned();
        tokio::spawn(async move {
            let mut onward = TcpStream::connect(address).await.unwrap();
            drop(tokio::io::copy_bidirectional(&mut stream, &mut onward).await);
        });
    }
}
