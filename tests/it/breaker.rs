//! Plugins that keep failing: what is held, and how it is released.

use std::collections::BTreeSet;

use hookmill_tests::{Gateway, Receiver, Running, Webhook, eventually, stamped, wasm};
use jiff::Timestamp;
use serde_json::{Value, json};

/// A gateway whose breakers trip at three failures, and then wait.
fn gateway() -> Gateway {
    gateway_with("1h", 500)
}

/// The same with this time between probes, and this rate of releases.
fn gateway_with(probe: &str, rate: usize) -> Gateway {
    Gateway::new()
        .setting("plugins.breaker.failures = 3")
        .setting(&format!("plugins.breaker.probe = \"{probe}\""))
        .setting(&format!("plugins.breaker.release_per_second = {rate}"))
}

/// A webhook for events of its name through one plugin. One request is sent at a time, so that they arrive
/// in the order in which they are sent.
fn webhook(receiver: &Receiver, name: &str, plugin: &str, config: Value) -> Webhook {
    receiver
        .webhook(name)
        .events(&[name])
        .plugins(&[(plugin, config)])
        .set("concurrency", &json!(1))
        .set("retry", &json!(vec!["200ms"; 100]))
}

/// Sends events in one request; gives their ids.
async fn send(gateway: &Running, event_type: &str, data: &[Value]) -> Vec<String> {
    let events: Vec<_> =
        data.iter().map(|data| json!({ "type": event_type, "data": data })).collect();
    let answer = gateway.request(Value::from(events).to_string(), &[]).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    let events = answer.body["events"].as_array().unwrap();
    events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

fn numbered(numbers: std::ops::Range<usize>) -> Vec<Value> {
    numbers.map(|number| json!({ "number": number })).collect()
}

fn traps() -> Vec<Value> {
    vec![json!({ "do": "trap" }); 3]
}

async fn all_are(gateway: &Running, ids: &[String], state: &str) {
    for id in ids {
        gateway.delivery_in(state, id).await;
    }
}

/// The ids of what arrived, in order of arrival, each once.
fn arrived(receiver: &Receiver) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let received = receiver.received();
    let ids = received.iter().map(|request| request.id().to_owned());
    ids.filter(|id| seen.insert(id.clone())).collect()
}

#[tokio::test]
async fn what_is_held_is_delivered_in_order_by_the_plugins_next_version() {
    let receiver = Receiver::start().await;
    let gateway = gateway()
        .webhook(webhook(&receiver, "it", "turncoat", json!({})))
        // Of the same plugin, and none of the other's business.
        .webhook(webhook(&receiver, "other", "turncoat", json!({ "do": "forward" })));
    gateway.plugins().write("turncoat", &wasm("misbehave"));
    let gateway = gateway.start().await;
    let mut ids = send(&gateway, "it", &traps()).await;
    all_are(&gateway, &ids, "held").await;
    let unharmed = send(&gateway, "other", &traps()).await;
    all_are(&gateway, &unharmed, "delivered").await;

    ids.extend(send(&gateway, "it", &numbered(0..20)).await);
    let tried = gateway.delivery_in("held", &ids[0]).await;
    let failure = &tried["attempts"][0]["failure"];
    assert_eq!(failure["kind"], "plugin_trap");
    let untried = gateway.delivery_in("held", &ids[10]).await;
    assert_eq!(untried["attempts"], json!([]));
    assert_eq!(untried["next_attempt_at"], Value::Null);
    let reason = untried["reason"].as_str().unwrap();
    for part in ["held since 2", "turncoat@", "plugin_trap: turncoat: "] {
        assert!(reason.contains(part), "{reason}");
    }
    all_are(&gateway, &ids, "held").await;
    let plugin = gateway.get("/v1/plugins/turncoat").await.body;
    let holds = plugin["webhooks"].as_array().unwrap().iter();
    let holds: Vec<_> = holds.map(|webhook| &webhook["hold"]).collect();
    assert_eq!((&holds[0]["held"], holds[1]), (&json!(ids.len()), &Value::Null), "{plugin}");
    assert_eq!(holds[0]["failure"]["kind"], "plugin_trap");
    assert_eq!(arrived(&receiver), unharmed, "nothing is sent untransformed");

    gateway.plugins().replace("turncoat", &stamped("version-01"));
    all_are(&gateway, &ids, "delivered").await;
    assert_eq!(arrived(&receiver).split_off(unharmed.len()), ids);
    for request in receiver.received().split_off(unharmed.len()) {
        assert_eq!(request.json()["version"], "version-01");
    }
    assert_eq!(receiver.received().len(), unharmed.len() + ids.len(), "nothing is sent twice");
    let last = gateway.delivery_in("delivered", &ids[10]).await;
    assert_eq!((&last["reason"], last["attempts"].as_array().unwrap().len()), (&Value::Null, 1));

    let fresh = send(&gateway, "it", &numbered(20..21)).await;
    all_are(&gateway, &fresh, "delivered").await;
    let log = gateway.log();
    for said in [
        "the webhook's deliveries are held",
        "the webhook's plugins have changed",
        "the others are released",
        "nothing is held any more",
    ] {
        assert_eq!(log.matches(said).count(), 1, "{said}: {log}");
    }
    assert!(log.contains("released=23"), "{log}");
}

#[tokio::test]
async fn another_config_releases_what_is_held() {
    let receiver = Receiver::start().await;
    let gateway = gateway()
        .plugin("misbehave")
        .webhook(webhook(&receiver, "it", "misbehave", json!({ "do": "panic" })))
        .start()
        .await;
    let ids = send(&gateway, "it", &numbered(0..8)).await;
    all_are(&gateway, &ids, "held").await;
    let file = gateway.configuration_file();
    let configuration = std::fs::read_to_string(&file).unwrap();
    assert!(configuration.contains("\"panic\""), "{configuration}");
    std::fs::write(&file, configuration.replace("\"panic\"", "\"forward\"")).unwrap();
    all_are(&gateway, &ids, "delivered").await;
    assert_eq!(arrived(&receiver), ids);
}

#[tokio::test]
async fn a_plugin_that_is_missing_is_waited_for() {
    let receiver = Receiver::start().await;
    let gateway =
        gateway().webhook(webhook(&receiver, "it", "stamp", json!({})).set("retry", &json!([])));
    let gateway = gateway.start().await;
    let mut ids = send(&gateway, "it", &numbered(0..3)).await;
    // Without retries, the first two are dead before the breaker trips.
    let dead = ids.drain(..2).collect::<Vec<_>>();
    all_are(&gateway, &dead, "dead").await;
    ids.extend(send(&gateway, "it", &numbered(3..8)).await);
    all_are(&gateway, &ids, "held").await;
    let reason = gateway.delivery_in("held", &ids[1]).await["reason"].to_string();
    assert!(reason.contains("because stamp keeps failing"), "{reason}");
    assert!(reason.contains("plugin_missing: the plugin `stamp` is not loaded"), "{reason}");
    gateway.plugins().replace("stamp", &stamped("version-01"));
    all_are(&gateway, &ids, "delivered").await;
    assert_eq!(arrived(&receiver), ids);
}

/// Sends three events that fail, of which the last is held, and more that would not, which are too.
async fn hold_behind_a_trap(gateway: &Running) -> (String, Vec<String>) {
    let mut failed = send(gateway, "it", &traps()).await;
    let held = failed.pop().unwrap();
    all_are(gateway, &failed, "dead").await;
    gateway.delivery_in("held", &held).await;
    let ids = send(gateway, "it", &numbered(0..10)).await;
    all_are(gateway, &ids, "held").await;
    (held, ids)
}

#[tokio::test]
async fn what_is_held_stays_so_over_a_kill_until_it_is_reset() {
    let receiver = Receiver::start().await;
    let webhook = webhook(&receiver, "it", "misbehave", json!({})).set("retry", &json!([]));
    let gateway = gateway().plugin("misbehave").webhook(webhook).start().await;
    let (trap, mut ids) = hold_behind_a_trap(&gateway).await;
    let before = gateway.delivery_in("held", &trap).await;
    let gateway = gateway.kill().await.start().await;
    ids.extend(send(&gateway, "it", &numbered(10..15)).await);
    all_are(&gateway, &ids, "held").await;
    let after = gateway.delivery_in("held", &trap).await;
    assert_eq!(after, before);
    assert!(receiver.received().is_empty());

    for (answer, code) in [
        (gateway.command("/v1/plugins/unknown/reset").await, "not_found"),
        (gateway.command_as_other("/v1/plugins/misbehave/reset").await, "not_found"),
        (gateway.get("/v1/plugins/misbehave/reset").await, "method_not_allowed"),
    ] {
        assert_eq!(answer.body["code"], code, "{}", answer.body);
    }
    let answer = gateway.command("/v1/plugins/misbehave/reset").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["plugin"], "misbehave");
    let webhook = &answer.body["webhooks"][0];
    assert_eq!((&webhook["name"], &webhook["held"]), (&json!("it"), &json!(16)));
    assert!(webhook["plugin"].as_str().unwrap().starts_with("misbehave@"), "{webhook}");
    assert_eq!(webhook["failure"]["kind"], "plugin_trap", "{webhook}");

    // The first that is tried fails: all of it is held on.
    eventually("the trial", || async {
        let tried = gateway.delivery_in("held", &trap).await;
        tried["attempts"].as_array().unwrap().len() == 2
    })
    .await;
    all_are(&gateway, &ids, "held").await;
    assert!(receiver.received().is_empty());
    assert!(gateway.log().contains("the webhook's deliveries stay held"));

    // The second one goes through, and so the others follow; what fails by itself holds up nobody.
    gateway.command("/v1/plugins/misbehave/reset").await;
    all_are(&gateway, &ids, "delivered").await;
    assert_eq!(arrived(&receiver), ids);
    let dead = gateway.delivery_in("dead", &trap).await;
    assert_eq!(dead["attempts"].as_array().unwrap().len(), 3);
    eventually("the end", || async { gateway.log().contains("nothing is held any more") }).await;
    let answer = gateway.command("/v1/plugins/misbehave/reset").await;
    assert_eq!(answer.body["webhooks"], json!([]));
}

#[tokio::test]
async fn a_probe_finds_that_a_plugin_works_again() {
    let receiver = Receiver::start().await;
    let webhook = webhook(&receiver, "it", "misbehave", json!({})).set("retry", &json!([]));
    let gateway = gateway_with("1s", 500).plugin("misbehave").webhook(webhook).start().await;
    let mut failed = send(&gateway, "it", &traps()).await;
    let ids = send(&gateway, "it", &numbered(0..5)).await;
    all_are(&gateway, &ids, "delivered").await;
    let trap = failed.pop().unwrap();
    let dead = gateway.delivery_in("dead", &trap).await;
    assert!(dead["attempts"].as_array().unwrap().len() >= 2, "{dead}");
    assert_eq!(receiver.received().len(), ids.len());
}

#[tokio::test]
async fn a_webhook_can_drop_or_give_up_what_its_plugins_fail_on() {
    let receiver = Receiver::start().await;
    let gateway = gateway()
        .plugin("misbehave")
        .webhook(
            webhook(&receiver, "drop", "misbehave", json!({}))
                .set("on_plugin_failure", &json!("drop")),
        )
        .webhook(
            webhook(&receiver, "dead", "misbehave", json!({}))
                .set("on_plugin_failure", &json!("dead")),
        )
        .start()
        .await;
    let retry = json!({ "do": "retry", "message": "not now" });
    let data = [traps(), vec![retry], vec![json!({ "do": "loop" })]].concat();
    for (name, state) in [("drop", "dropped"), ("dead", "dead")] {
        let ids = send(&gateway, name, &data).await;
        all_are(&gateway, &ids, state).await;
        for id in &ids {
            let delivery = gateway.delivery_in(state, id).await;
            let [attempt] = &delivery["attempts"].as_array().unwrap()[..] else {
                panic!("one attempt: {delivery}")
            };
            assert_eq!(attempt["failure"]["fault"], "plugin");
        }
        let told = gateway.delivery_in(state, &ids[3]).await;
        assert_eq!(told["attempts"][0]["failure"]["message"], "misbehave: not now");
        if state == "dropped" {
            assert_eq!(told["reason"], "plugin_error: misbehave: not now");
        }
        assert!(gateway.log().contains(&ids[3]));
        // What its plugins can never transform is dead whatever the webhook says.
        let invalid = send(&gateway, name, &[json!({ "do": "invalid" })]).await;
        all_are(&gateway, &invalid, "dead").await;
    }
    assert!(receiver.received().is_empty(), "nothing is sent untransformed");
    let ids = send(&gateway, "drop", &numbered(0..1)).await;
    all_are(&gateway, &ids, "delivered").await;
}

#[tokio::test]
async fn events_that_can_never_be_transformed_trip_nothing() {
    let receiver = Receiver::start().await;
    let gateway = gateway()
        .plugin("misbehave")
        .webhook(webhook(&receiver, "it", "misbehave", json!({})))
        .start()
        .await;
    let ids = send(&gateway, "it", &vec![json!({ "do": "invalid" }); 20]).await;
    all_are(&gateway, &ids, "dead").await;
    let ids = send(&gateway, "it", &numbered(0..1)).await;
    all_are(&gateway, &ids, "delivered").await;
}

#[tokio::test]
async fn thousands_are_released_bit_by_bit_beside_the_work_of_others() {
    const HELD: usize = 2_000;
    const RATE: usize = 250;
    let receiver = Receiver::start().await;
    let other = Receiver::start().await;
    let gateway = gateway_with("1h", RATE)
        .webhook(webhook(&receiver, "it", "turncoat", json!({})))
        .webhook(webhook(&other, "other", "stamp", json!({})))
        .plugin("stamp");
    gateway.plugins().write("turncoat", &wasm("misbehave"));
    let gateway = gateway.start().await;
    let mut ids = send(&gateway, "it", &traps()).await;
    all_are(&gateway, &ids, "held").await;
    for half in [0..HELD / 2, HELD / 2..HELD] {
        ids.extend(send(&gateway, "it", &numbered(half)).await);
    }
    gateway.plugins().replace("turncoat", &stamped("version-01"));
    receiver.wait_for(10).await;
    for number in 0..5 {
        let fresh = send(&gateway, "other", &numbered(number..number + 1)).await;
        all_are(&gateway, &fresh, "delivered").await;
        // What arrives meanwhile joins behind.
        ids.extend(send(&gateway, "it", &numbered(number..number + 1)).await);
    }
    assert!(receiver.received().len() < HELD, "others wait until all is released");
    eventually("all", || async { receiver.ids().len() == ids.len() }).await;
    assert_eq!(arrived(&receiver), ids);
    assert_eq!(receiver.received().len(), ids.len(), "nothing is sent twice");
    let started = async |id: &String| -> Timestamp {
        let delivery = gateway.delivery_in("delivered", id).await;
        let attempts = delivery["attempts"].as_array().unwrap();
        attempts.last().unwrap()["started_at"].as_str().unwrap().parse().unwrap()
    };
    // The first comes alone, and each step lets go of a tenth of a second's share.
    let took = started(&ids[HELD]).await.duration_since(started(&ids[1]).await);
    let least = (HELD - RATE / 10) * 1_000 / RATE;
    assert!(took.as_millis() >= i128::try_from(least).unwrap() * 9 / 10, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_amid_a_release_lose_nothing_and_keep_the_order() {
    const HELD: usize = 400;
    let receiver = Receiver::start().await;
    let gateway = gateway().webhook(webhook(&receiver, "it", "turncoat", json!({})));
    gateway.plugins().write("turncoat", &wasm("misbehave"));
    let running = gateway.start().await;
    let mut ids = send(&running, "it", &traps()).await;
    all_are(&running, &ids, "held").await;
    ids.extend(send(&running, "it", &numbered(0..HELD)).await);
    running.plugins().replace("turncoat", &stamped("version-01"));
    let mut running = running;
    for part in 1..4 {
        receiver.wait_for(part * HELD / 5).await;
        let gateway = match part {
            2 => running.stop().await,
            _ => running.kill().await,
        };
        running = gateway.start().await;
        ids.extend(send(&running, "it", &numbered(HELD + part..HELD + part + 1)).await);
    }
    all_are(&running, &ids, "delivered").await;
    assert_eq!(arrived(&receiver), ids);
    assert!(receiver.received().iter().all(|request| request.verified));
}
