//! What the gateway tells of its own work: to whom, how often, and what not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use hookmill::event::operational::Operational;
use hookmill::failpoint::Point;
use hookmill_tests::{
    Api, Dice, Gateway, Ledger, Load, Plugins, Receiver, Reckoning, Reply, Running, Shape, Webhook,
    eventually, stamped, wasm, workspace,
};
use serde_json::{Value, json};

/// A webhook for events of its name, that is tried again once and soon.
fn orders(receiver: &Receiver) -> Webhook {
    receiver.webhook("orders").events(&["order.*"]).set("retry", &json!(["50ms"]))
}

/// What has arrived of a type, by the ids that it came with: what comes twice after a crash counts once.
fn told(receiver: &Receiver, event_type: &str) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    let received = receiver.received().into_iter();
    received
        .filter(|request| seen.insert(request.id().to_owned()))
        .map(|request| request.json())
        .filter(|body| body["type"] == event_type)
        .collect()
}

/// What is told of an event's delivery to the webhook `orders`, once there is anything.
async fn told_of(receiver: &Receiver, event_type: &str, id: &str) -> Value {
    told_of_webhook(receiver, event_type, "orders", id).await
}

/// The same of another webhook.
async fn told_of_webhook(receiver: &Receiver, event_type: &str, webhook: &str, id: &str) -> Value {
    let is_of = |data: &Value| data["event"]["id"] == id && data["webhook"]["name"] == webhook;
    let find = || told(receiver, event_type).into_iter().find(|body| is_of(&body["data"]));
    eventually(&format!("{event_type} of {id}"), || async { find().is_some() }).await;
    find().unwrap()
}

/// The first of a type, once there is one.
async fn told_once(receiver: &Receiver, event_type: &str) -> Value {
    eventually(event_type, || async { !told(receiver, event_type).is_empty() }).await;
    told(receiver, event_type).remove(0)
}

/// The document's text.
fn document() -> String {
    fs::read_to_string(workspace().join("docs/operational-events.md")).unwrap()
}

/// That an event has just the fields that the document shows for its type.
fn assert_documented(told: &Value) {
    let document = document();
    let examples = document.split("```json").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut examples = examples.map(|example| serde_json::from_str::<Value>(example).unwrap());
    let example = examples.find(|example| example["type"] == told["type"]).unwrap();
    assert_eq!(fields("", told), fields("", &example), "{told}");
}

fn fields(path: &str, value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(entries) => {
            let below = |(name, value)| fields(&format!("{path}.{name}"), value);
            entries.iter().flat_map(below).collect()
        }
        _ => BTreeSet::from([path.to_owned()]),
    }
}

#[test]
fn every_type_is_documented() {
    let document = document();
    for one in Operational::ALL {
        assert!(document.contains(&format!("| `{}` |", one.as_str())), "{one:?}");
    }
}

#[tokio::test]
async fn successes_and_errors_are_told_to_different_receivers() {
    let receiver =
        Receiver::answering(|request, before| match request.json()["data"]["fails"].as_u64() {
            Some(fails) if before < usize::try_from(fails).unwrap() => {
                Reply { body: "out of order".to_owned(), ..Reply::status(503) }
            }
            _ => Reply::status(200),
        })
        .await;
    let (successes, errors, all) =
        (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let failures = ["hookmill.delivery.failed", "hookmill.delivery.exhausted"];
    let gateway = Gateway::new()
        .webhook(orders(&receiver))
        .webhook(successes.webhook("successes").events(&["hookmill.delivery.succeeded"]))
        .webhook(errors.webhook("errors").events(&failures))
        .webhook(all.webhook("all"))
        .other_webhook(all.webhook("globex").events(&["hookmill.*"]))
        .start()
        .await;
    let good = gateway.send("order.paid", json!({ "card": "4000-0000" })).await;
    let recovering = gateway.send("order.paid", json!({ "fails": 1 })).await;
    let lost = gateway.send("order.paid", json!({ "fails": 9 })).await;

    let succeeded = told_of(&successes, "hookmill.delivery.succeeded", &good).await;
    let data = &succeeded["data"];
    assert_eq!(data["tenant"], "acme");
    assert_eq!(data["event"], json!({ "id": good, "type": "order.paid" }));
    assert_eq!((&data["attempt"]["number"], &data["attempt"]["status"]), (&json!(1), &json!(200)));
    assert_eq!(data["attempt"]["failure"], Value::Null);
    assert!(data["attempt"]["duration_ms"].as_f64().unwrap() > 0.0, "{data}");
    assert!(!succeeded.to_string().contains("4000-0000"), "no data of the event: {succeeded}");
    // As the API shows the delivery and its attempt.
    let shown = gateway.settled(&good).await;
    let shown = shown.iter().find(|it| it["id"] == data["delivery"]["id"]).unwrap();
    for field in ["part", "message_id", "state", "next_attempt_at"] {
        assert_eq!(data["delivery"][field], shown[field], "{field}");
    }
    assert_eq!(data["webhook"], shown["webhook"]);
    assert_eq!(data["attempt"], shown["attempts"][0]);

    let failed = told_of(&errors, "hookmill.delivery.failed", &recovering).await;
    assert_documented(&failed);
    let data = &failed["data"];
    assert_eq!(data["delivery"]["state"], "retrying");
    assert!(data["delivery"]["next_attempt_at"].is_string(), "{data}");
    assert_eq!(data["attempt"]["failure"]["kind"], "status");
    assert_eq!(data["attempt"]["failure"]["fault"], "receiver");
    assert_eq!(data["attempt"]["response_excerpt"], "out of order");
    let succeeded = told_of(&successes, "hookmill.delivery.succeeded", &recovering).await;
    assert_eq!(succeeded["data"]["attempt"]["number"], 2);
    let exhausted = told_of(&errors, "hookmill.delivery.exhausted", &lost).await;
    assert_eq!(exhausted["data"]["attempt"]["number"], 2);
    assert_eq!(exhausted["data"]["attempt"]["failure"]["kind"], "status");
    assert_eq!(exhausted["data"]["delivery"]["state"], "dead");
    assert!(told(&successes, "hookmill.delivery.failed").is_empty());
    assert!(told(&errors, "hookmill.delivery.succeeded").is_empty());
    for request in successes.received().iter().chain(&errors.received()) {
        assert!(request.verified, "signed as every delivery is");
        let shown = gateway.get(&format!("/v1/events/{}", request.id())).await;
        assert_eq!(shown.body["type"], request.json()["type"]);
        assert_eq!(shown.body["data"], request.json()["data"]);
    }
    // Of the three events, and of nothing that was told of them.
    all.wait_for(3).await;
    assert_eq!(all.ids(), BTreeSet::from([good, recovering, lost]));
    assert!(all.received().iter().all(|request| request.target == "/all"));
}

#[tokio::test]
async fn a_receiver_of_news_that_fails_is_no_news() {
    let receiver = Receiver::start().await;
    let log = Receiver::answering(|_, _| Reply::status(500)).await;
    let news = log.webhook("log").events(&["*", "hookmill.*"]).set("retry", &json!(["20ms"]));
    let gateway = Gateway::new().webhook(orders(&receiver)).webhook(news).start().await;
    let id = gateway.send("order.paid", json!(1)).await;
    // The order goes to both; all of it is told to the one that fails, and that it fails to take that is not.
    let dead = told_of_webhook(&log, "hookmill.delivery.exhausted", "log", &id).await;
    let succeeded = told_of(&log, "hookmill.delivery.succeeded", &id).await;
    let failed = told_of_webhook(&log, "hookmill.delivery.failed", "log", &id).await;
    let before = log.ids();
    assert_eq!(before.len(), 4, "the order, and three outcomes: {before:?}");
    for body in [dead, succeeded, failed] {
        assert_eq!(body["data"]["event"]["type"], "order.paid");
    }
    for id in &before {
        gateway.settled(id).await;
    }
    // What was on its way out when all had settled would be found at the next start.
    let gateway = gateway.stop().await.start().await;
    let second = gateway.send("order.paid", json!(2)).await;
    told_of_webhook(&log, "hookmill.delivery.exhausted", "log", &second).await;
    told_of(&log, "hookmill.delivery.succeeded", &second).await;
    told_of_webhook(&log, "hookmill.delivery.failed", "log", &second).await;
    assert_eq!(log.ids().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_is_told_once_wherever_the_process_dies() {
    for point in [Point::ResponseRead, Point::OutcomeWritten, Point::OutcomeRecorded] {
        let (receiver, log) = (Receiver::start().await, Receiver::start().await);
        let gateway = Gateway::new()
            .webhook(orders(&receiver))
            .webhook(log.webhook("log").events(&["hookmill.delivery.*"]));
        let running = gateway.start_to_die(point, 1).await.unwrap();
        let first = json!({ "id": "first", "type": "order.paid", "data": 1 });
        // It may die before it answers; by then the event is durable.
        drop(running.request(first.to_string(), &[]).await);
        let running = running.died().await.start().await;
        let told_first = told_of(&log, "hookmill.delivery.succeeded", "first").await;
        assert_eq!(told_first["data"]["attempt"]["number"], 1, "{point}");
        running.settled("first").await;
        let second = running.send("order.paid", json!(2)).await;
        told_of(&log, "hookmill.delivery.succeeded", &second).await;
        let told = told(&log, "hookmill.delivery.succeeded");
        assert_eq!(told.len(), 2, "{point}: {told:?}");
        assert_eq!(log.ids().len(), 2, "{point}: nothing else");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_under_load_lose_and_double_nothing_that_is_told() {
    const ROUNDS: usize = 5;
    const UNDER_WAY: usize = 32;
    let receiver = Receiver::answering(|request, before| {
        let unlucky = request.id().bytes().map(usize::from).sum::<usize>() % 3 == 0;
        Reply::status(if unlucky && before == 0 { 500 } else { 200 })
    })
    .await;
    let log = Receiver::start().await;
    let webhook = receiver.webhook("it").set("retry", &json!(["50ms", "200ms", "1s", "3s"]));
    let gateway = Gateway::new()
        .setting(&format!("delivery.concurrency = {UNDER_WAY}"))
        .webhook(webhook)
        .webhook(log.webhook("log").events(&["hookmill.delivery.*"]));
    let mut running = gateway.start().await;
    let (api, ledger) = (Api::of(&running), Ledger::default());
    let load = Load::start(&Shape::small("it"), &api, &ledger);
    let dice = Dice::fresh();
    println!("seed {}", dice.seed);
    for _ in 0..ROUNDS {
        load.progress(1).await;
        tokio::time::sleep(Duration::from_millis(50 + dice.below(200))).await;
        running = running.kill().await.start().await;
        api.move_to(&running);
    }
    load.progress(1).await;
    load.end().await;
    let reckoning = Reckoning::of(&ledger, &api, &receiver, 1).await;
    println!("{reckoning}");
    reckoning.assert_kept(ROUNDS, UNDER_WAY);

    let succeeded = || told(&log, "hookmill.delivery.succeeded");
    eventually("all that is told", || async { succeeded().len() >= reckoning.delivered }).await;
    let mut failed: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let of = |body: &Value| {
        let data = &body["data"];
        let number = data["attempt"]["number"].as_u64().unwrap();
        (data["delivery"]["id"].as_str().unwrap().to_owned(), number)
    };
    let told_failed = || told(&log, "hookmill.delivery.failed");
    let last: BTreeMap<_, _> = succeeded().iter().map(of).collect();
    assert_eq!((last.len(), succeeded().len()), (reckoning.delivered, reckoning.delivered));
    // Each attempt before the last one has failed, and was told of once.
    let expected: u64 = last.values().map(|number| number - 1).sum();
    let expected = usize::try_from(expected).unwrap();
    assert!(expected > 0, "some have failed");
    eventually("all failures", || async { told_failed().len() >= expected }).await;
    for (delivery, number) in told_failed().iter().map(of) {
        failed.entry(delivery).or_default().push(number);
    }
    for (delivery, mut numbers) in failed {
        numbers.sort_unstable();
        assert_eq!(numbers, (1..last[&delivery]).collect::<Vec<_>>(), "{delivery}");
    }
}

#[tokio::test]
async fn nobody_can_forge_what_the_gateway_tells() {
    let log = Receiver::start().await;
    let gateway = Gateway::new().webhook(log.webhook("log").events(&["hookmill.*"])).start().await;
    let forged = json!({ "type": "hookmill.delivery.succeeded", "data": 1 });
    let answer = gateway.request(forged.to_string(), &[]).await.unwrap();
    assert_eq!((answer.status, &answer.body["code"]), (422, &json!("invalid_event")));
    let detail = answer.body["errors"][0]["detail"].as_str().unwrap();
    assert_eq!(answer.body["errors"][0]["field"], "type");
    assert!(detail.contains("begins with `hookmill.`"), "{detail}");
    let list = json!([{ "type": "order.paid", "data": 1 }, forged]);
    let answer = gateway.request(list.to_string(), &[]).await.unwrap();
    assert_eq!(answer.body["errors"][0]["field"], "[1].type");
    assert!(log.ids().is_empty());
}

#[tokio::test]
async fn a_permanent_refusal_is_told_with_its_reason_and_its_plugin() {
    let (receiver, log) = (Receiver::start().await, Receiver::start().await);
    let invalid = json!({ "do": "invalid", "message": "no such order" });
    let gateway = Gateway::new()
        .plugin("misbehave")
        .webhook(orders(&receiver).plugins(&[("misbehave", invalid)]))
        .webhook(log.webhook("log").events(&["hookmill.delivery.*"]))
        .start()
        .await;
    let id = gateway.send("order.paid", json!(1)).await;
    let exhausted = told_of(&log, "hookmill.delivery.exhausted", &id).await;
    let data = &exhausted["data"];
    assert_eq!(data["attempt"]["failure"]["kind"], "plugin_invalid");
    assert_eq!(data["attempt"]["failure"]["fault"], "plugin");
    let message = data["attempt"]["failure"]["message"].as_str().unwrap();
    assert!(message.contains("no such order"), "{message}");
    assert_eq!(data["plugin"]["name"], "misbehave");
    assert_eq!(data["plugin"]["version"].as_str().unwrap().len(), 64);
    assert_eq!(data["delivery"]["next_attempt_at"], Value::Null);
}

/// Waits until the gateway shows the plugin in this state.
async fn shows(gateway: &Running, plugin: &str, state: &str) {
    let path = format!("/v1/plugins/{plugin}");
    eventually(&format!("{plugin} {state}"), || async {
        gateway.get(&path).await.body["state"] == state
    })
    .await;
}

#[tokio::test]
async fn what_becomes_of_plugins_files_is_told_to_the_tenants_that_use_them() {
    let (receiver, log, others) =
        (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let gateway = Gateway::new()
        .webhook(orders(&receiver).plugins(&[("stamp", json!({}))]))
        .webhook(log.webhook("log").events(&["hookmill.plugin.*"]))
        .other_webhook(others.webhook("log").events(&["hookmill.plugin.*"]));
    gateway.plugins().write("stamp", &stamped("version-00"));
    let gateway = gateway.start().await;
    let before = gateway.get("/v1/plugins/stamp").await.body["version"].clone();

    gateway.plugins().replace("stamp", &stamped("version-01"));
    let loaded = told_once(&log, "hookmill.plugin.loaded").await;
    assert_documented(&loaded);
    let data = &loaded["data"];
    let now = gateway.get("/v1/plugins/stamp").await.body["version"].clone();
    assert_eq!(data["plugin"], json!({ "name": "stamp", "scope": "all", "version": now }));
    assert_eq!(data["replaced"], before);
    assert_eq!(data["tenant"], "acme");

    gateway.plugins().replace("stamp", b"no plugin at all");
    let rejected = told_once(&log, "hookmill.plugin.rejected").await;
    shows(&gateway, "stamp", "rejected").await;
    let shown = gateway.get("/v1/plugins/stamp").await.body;
    assert_documented(&rejected);
    let data = &rejected["data"];
    assert_eq!((&data["reason"], &data["kept"]), (&shown["reason"], &now));
    assert_eq!(data["since"], shown["rejected_at"]);
    assert_eq!(data["plugin"]["version"], shown["rejected_version"]);

    // What is refused at a start is told then; what runs is not.
    let gateway = gateway.stop().await.start().await;
    eventually("the second refusal", || async {
        told(&log, "hookmill.plugin.rejected").len() == 2
    })
    .await;
    // Its own plugins concern a tenant whether a webhook uses them or not.
    Plugins::at(gateway.plugins().join("globex")).write("own", &wasm("stamp"));
    let own = told_once(&others, "hookmill.plugin.loaded").await;
    assert_eq!(own["data"]["plugin"]["scope"], "tenant");
    assert_eq!(own["data"]["replaced"], Value::Null);
    assert_eq!(others.ids().len(), 1, "what `globex` does not use is none of its business");
    assert_eq!(told(&log, "hookmill.plugin.loaded").len(), 1);
}

#[tokio::test]
async fn a_plugin_that_keeps_failing_is_told_of_when_its_breaker_trips() {
    let (receiver, log) = (Receiver::start().await, Receiver::start().await);
    let gateway = Gateway::new()
        .setting("plugins.breaker.failures = 3")
        .setting("plugins.breaker.probe = \"1h\"")
        .plugin("misbehave")
        .webhook(
            // Those that fail before it trips are not tried again meanwhile.
            orders(&receiver)
                .plugins(&[("misbehave", json!({ "do": "trap" }))])
                .set("retry", &json!(["1h"])),
        )
        .webhook(log.webhook("log").events(&["hookmill.*"]))
        .start()
        .await;
    let mut ids = Vec::new();
    for number in 0..6 {
        ids.push(gateway.send("order.paid", json!(number)).await);
    }
    let failing = told_once(&log, "hookmill.plugin.failing").await;
    assert_documented(&failing);
    let data = &failing["data"];
    assert_eq!(data["plugin"]["name"], "misbehave");
    assert_eq!(data["webhook"]["name"], "orders");
    assert_eq!((&data["failures"], &data["failure"]["kind"]), (&json!(3), &json!("plugin_trap")));
    let state = async |id: &String| {
        let event = gateway.get(&format!("/v1/events/{id}")).await.body;
        event["deliveries"][0]["state"].as_str().unwrap().to_owned()
    };
    eventually("all but the first two to be held", || async {
        let mut held = 0;
        for id in &ids {
            held += usize::from(state(id).await == "held");
        }
        held == 4
    })
    .await;
    let held = gateway.get("/v1/plugins/misbehave").await.body;
    assert_eq!(data["since"], held["webhooks"][0]["hold"]["since"]);
    assert_eq!(told(&log, "hookmill.plugin.failing").len(), 1);
    let failed = told_once(&log, "hookmill.delivery.failed").await;
    assert_eq!(failed["data"]["plugin"]["name"], "misbehave");
}

#[tokio::test]
async fn what_is_told_goes_through_plugins_and_keeps_an_order_as_all_events_do() {
    let receiver =
        Receiver::answering(|_, before| Reply::status(if before < 2 { 500 } else { 200 })).await;
    let log =
        Receiver::answering(|_, before| Reply::status(if before == 0 { 500 } else { 200 })).await;
    let retries = json!(["20ms", "20ms"]);
    let gateway = Gateway::new()
        .plugin("stamp")
        .webhook(orders(&receiver).set("retry", &retries))
        .webhook(
            log.webhook("log")
                .events(&["hookmill.delivery.*"])
                .plugins(&[("stamp", json!({}))])
                .set("ordering", &json!("key"))
                .set("retry", &retries),
        )
        .start()
        .await;
    let id = gateway.send("order.paid", json!(1)).await;
    let received = log.wait_for(6).await;
    let arrived: Vec<_> = received
        .iter()
        .filter(|request| request.answered == 200)
        .map(|request| request.json()["data"]["attempt"]["number"].as_u64().unwrap())
        .collect();
    assert_eq!(arrived, [1, 2, 3], "each of them is tried twice, and none overtakes another");
    assert!(received.iter().all(|request| request.json()["version"].is_string()), "{received:?}");
    gateway.settled(&id).await;
}

#[tokio::test]
async fn a_backlog_over_its_limit_refuses_events_and_not_what_tells_of_them() {
    let receiver = Receiver::start().await;
    let log = Receiver::answering(|_, _| Reply::status(500)).await;
    let gateway = Gateway::new()
        .tenant_setting("max_backlog = 1")
        .webhook(orders(&receiver))
        .webhook(log.webhook("log").events(&["hookmill.delivery.*"]).set("retry", &json!(["1h"])))
        .start()
        .await;
    // What is in one request may go over the limit.
    let order = json!({ "type": "order.paid", "data": 1 });
    let list = json!([order, order, order]);
    let answer = gateway.request(list.to_string(), &[]).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    log.wait_for(3).await;
    assert_eq!(told(&log, "hookmill.delivery.succeeded").len(), 3);
    // They are owed as all else is.
    let answer = gateway.request(order.to_string(), &[]).await.unwrap();
    assert_eq!((answer.status, &answer.body["code"]), (429, &json!("backlog_full")));
}
