//! Processes that are killed or told to stop: nothing that was acknowledged is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hookmill_tests::{Gateway, Receiver, Reply, Running, eventually};
use serde_json::json;

/// Tasks that send at once.
const SENDERS: usize = 16;

/// Sends from several tasks until told to stop or the gateway is gone, and gathers what was acknowledged.
struct Load {
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    over: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(gateway: &Arc<Running>) -> Self {
        let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
        let over = Arc::new(AtomicBool::new(false));
        let tasks = (0..SENDERS)
            .map(|task| {
                let gateway = Arc::clone(gateway);
                tokio::spawn(send(gateway, task, Arc::clone(&acknowledged), Arc::clone(&over)))
            })
            .collect();
        Self { acknowledged, over, tasks }
    }

    /// What was acknowledged, once no task sends any more.
    async fn end(self) -> BTreeSet<String> {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.acknowledged.lock().unwrap().clone()
    }
}

/// One task of a load.
async fn send(
    gateway: Arc<Running>,
    task: usize,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    over: Arc<AtomicBool>,
) {
    for n in 0.. {
        let body = json!({ "type": "load", "data": { "task": task, "n": n } });
        let Ok(answer) = gateway.request(body.to_string(), &[]).await else { return };
        if answer.status == 202 {
            let id = answer.body["events"][0]["id"].as_str().unwrap().to_owned();
            acknowledged.lock().unwrap().insert(id);
        }
        if over.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// A number below `limit` that differs from run to run; it is printed with a failure.
fn random(limit: u64) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::from(now.subsec_nanos()) / 7 % limit
}

/// Everything acknowledged arrived, verified, and each id with the same bytes every time.
async fn check(acknowledged: &BTreeSet<String>, receiver: &Receiver) -> usize {
    let missing = || {
        let arrived = receiver.ids();
        acknowledged.difference(&arrived).count()
    };
    eventually("everything acknowledged", || async { missing() == 0 }).await;
    let mut bodies = BTreeMap::new();
    let mut duplicates = 0;
    for request in receiver.received() {
        assert!(request.verified, "{request:?}");
        if let Some(earlier) = bodies.insert(request.id().to_owned(), request.body.clone()) {
            assert_eq!(earlier, request.body, "{}", request.id());
            duplicates += 1;
        }
    }
    duplicates
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_under_load_lose_nothing() {
    const ROUNDS: u64 = 10;
    // Now and then a failure, so that retries are due when the process is killed.
    let receiver = Receiver::answering(|request, before| {
        let unlucky = request.body.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 10 == 0;
        Reply::status(if unlucky && before == 0 { 500 } else { 200 })
    })
    .await;
    let webhook = receiver
        .webhook("it")
        .plugins(&[("stamp", json!({}))])
        .set("retry", &json!(["200ms", "1s", "5s"]));
    let gateway = Gateway::new().plugin("stamp").webhook(webhook);
    let (gateway, acknowledged) = killed_under_load(gateway, ROUNDS).await;
    let running = gateway.start().await;
    let duplicates = check(&acknowledged, &receiver).await;
    // What was sent and not recorded when it was killed: no more than could be under way.
    let limit = usize::try_from(ROUNDS).unwrap() * 1_024 + acknowledged.len() / 5;
    assert!(duplicates <= limit, "{duplicates} duplicates of {}", acknowledged.len());
    for id in acknowledged.iter().take(50) {
        let deliveries = running.settled(id).await;
        assert_eq!(deliveries[0]["state"], "delivered", "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_no_part_of_a_split() {
    let receiver = Receiver::answering(|request, before| {
        let unlucky = request.id().ends_with("-2") && before == 0;
        Reply::status(if unlucky { 500 } else { 200 })
    })
    .await;
    let three = json!({ "do": "many_parts", "count": 3 });
    let webhook = receiver
        .webhook("it")
        .plugins(&[("misbehave", three)])
        .set("retry", &json!(["100ms", "1s", "5s"]));
    let gateway = Gateway::new().plugin("misbehave").webhook(webhook);
    let (gateway, acknowledged) = killed_under_load(gateway, 4).await;
    let _running = gateway.start().await;
    let parts = |id: &String| [id.clone(), format!("{id}-2"), format!("{id}-3")];
    check(&acknowledged.iter().flat_map(parts).collect(), &receiver).await;
}

/// Starts a gateway, sends, and kills it at a random moment, again and again; gives what was acknowledged.
async fn killed_under_load(mut gateway: Gateway, rounds: u64) -> (Gateway, BTreeSet<String>) {
    let mut acknowledged = BTreeSet::new();
    for round in 0..rounds {
        let running = Arc::new(gateway.start().await);
        let load = Load::start(&running);
        let pause = Duration::from_millis(50 + random(400));
        tokio::time::sleep(pause).await;
        gateway = kill(running).await;
        let sent = load.end().await;
        assert!(!sent.is_empty(), "nothing was sent in round {round}, {pause:?}");
        acknowledged.extend(sent);
    }
    (gateway, acknowledged)
}

/// Kills a gateway that others still send to: they see the connection break.
async fn kill(running: Arc<Running>) -> Gateway {
    running.signal("KILL").await;
    eventually("the senders", || async { Arc::strong_count(&running) == 1 }).await;
    Arc::into_inner(running).unwrap().kill().await
}

#[tokio::test]
async fn an_event_that_was_being_delivered_is_delivered_again_after_a_kill() {
    let receiver = Receiver::answering(|_, before| match before {
        0 => Reply::after(Duration::from_secs(60)),
        _ => Reply::status(200),
    })
    .await;
    let gateway = Gateway::new().webhook(receiver.webhook("it")).start().await;
    let id = gateway.send("a", json!(1)).await;
    receiver.wait_for(1).await;
    let gateway = gateway.kill().await.start().await;
    let received = receiver.wait_for(2).await;
    assert_eq!(received[1].id(), id);
    assert_eq!(received[1].body, received[0].body);
    let deliveries = gateway.settled(&id).await;
    assert_eq!(deliveries[0]["state"], "delivered");
}

#[tokio::test]
async fn a_retry_that_was_waiting_keeps_its_time_and_its_bytes_over_a_kill() {
    let receiver =
        Receiver::answering(|_, before| Reply::status(if before == 0 { 500 } else { 200 })).await;
    let webhook =
        receiver.webhook("it").plugins(&[("stamp", json!({}))]).set("retry", &json!(["2s"]));
    let gateway = Gateway::new().plugin("stamp").webhook(webhook).start().await;
    let id = gateway.send("a", json!(1)).await;
    receiver.wait_for(1).await;
    eventually("the record", || async {
        let answer = gateway.get(&format!("/v1/events/{id}")).await;
        answer.body["deliveries"][0]["state"] == "retrying"
    })
    .await;
    let stopped = gateway.kill().await;
    // Another version of the plugin must not change what was rendered.
    stopped.plugins().replace("stamp", &hookmill_tests::stamped("version-02"));
    let gateway = stopped.start().await;
    let received = receiver.wait_for(2).await;
    assert_eq!(received[1].body, received[0].body);
    let deliveries = gateway.settled(&id).await;
    let attempts = deliveries[0]["attempts"].as_array().unwrap();
    let times: Vec<jiff::Timestamp> = attempts
        .iter()
        .map(|attempt| attempt["started_at"].as_str().unwrap().parse().unwrap())
        .collect();
    let [first, second] = times[..] else { panic!("two attempts: {attempts:?}") };
    assert!(second.duration_since(first).as_secs() >= 2, "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn being_told_to_stop_under_load_loses_nothing_and_repeats_nothing() {
    let receiver = Receiver::answering(|_, _| Reply::after(Duration::from_millis(20))).await;
    let webhook = receiver.webhook("it").plugins(&[("stamp", json!({}))]);
    let mut gateway = Gateway::new().plugin("stamp").webhook(webhook);
    let mut acknowledged = BTreeSet::new();
    for _ in 0..3 {
        let running = Arc::new(gateway.start().await);
        let load = Load::start(&running);
        tokio::time::sleep(Duration::from_millis(300)).await;
        running.signal("TERM").await;
        acknowledged.extend(load.end().await);
        gateway = Arc::into_inner(running).unwrap().ended().await;
    }
    let _running = gateway.start().await;
    assert_eq!(check(&acknowledged, &receiver).await, 0, "duplicates");
}

#[tokio::test]
async fn a_stop_does_not_wait_longer_than_the_grace() {
    let receiver = Receiver::answering(|_, before| match before {
        0 => Reply::after(Duration::from_secs(600)),
        _ => Reply::status(200),
    })
    .await;
    let webhook = receiver.webhook("it").set("timeout", &json!("10m"));
    let gateway =
        Gateway::new().setting("shutdown_grace = \"200ms\"").webhook(webhook).start().await;
    let id = gateway.send("a", json!(1)).await;
    receiver.wait_for(1).await;
    let gateway = gateway.stop().await.start().await;
    assert_eq!(receiver.wait_for(2).await[1].id(), id);
    gateway.settled(&id).await;
}
