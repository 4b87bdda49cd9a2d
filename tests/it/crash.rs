//! Processes that are killed or told to stop: nothing that was acknowledged is lost.

use std::time::Duration;

use hookmill_tests::{
    Api, Dice, Gateway, Ledger, Load, Receiver, Reckoning, Reply, Shape, eventually,
};
use serde_json::json;

/// Deliveries under way at once: so many can be sent again after a kill.
const UNDER_WAY: usize = 128;

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_under_load_lose_nothing() {
    const ROUNDS: usize = 10;
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
    let reckoning = killed_under_load(gateway, ROUNDS, &receiver, 1).await;
    assert_eq!(reckoning.delivered, reckoning.acknowledged, "{reckoning}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_no_part_of_a_split() {
    let receiver = Receiver::answering(|request, before| {
        let unlucky = request.id().ends_with("~2") && before == 0;
        Reply::status(if unlucky { 500 } else { 200 })
    })
    .await;
    let three = json!({ "do": "many_parts", "count": 3 });
    let webhook = receiver
        .webhook("it")
        .plugins(&[("misbehave", three)])
        .set("retry", &json!(["100ms", "1s", "5s"]));
    let gateway = Gateway::new().plugin("misbehave").webhook(webhook);
    let reckoning = killed_under_load(gateway, 4, &receiver, 3).await;
    assert_eq!(reckoning.delivered, 3 * reckoning.acknowledged, "{reckoning}");
}

/// Sends to a gateway that is killed at random moments and started again, so many times; gives what came of it.
/// No promise is broken by that.
async fn killed_under_load(
    gateway: Gateway,
    rounds: usize,
    receiver: &Receiver,
    per_event: usize,
) -> Reckoning {
    let mut running = gateway.setting(&format!("delivery.concurrency = {UNDER_WAY}")).start().await;
    let (api, ledger) = (Api::of(&running), Ledger::default());
    let load = Load::start(&Shape { producers: 16, ..Shape::small("it") }, &api, &ledger);
    let dice = Dice::fresh();
    println!("seed {}", dice.seed);
    for _ in 0..rounds {
        load.progress(1).await;
        tokio::time::sleep(Duration::from_millis(50 + dice.below(400))).await;
        running = running.kill().await.start().await;
        api.move_to(&running);
    }
    load.progress(1).await;
    load.end().await;
    let reckoning = Reckoning::of(&ledger, &api, receiver, per_event).await;
    reckoning.assert_kept(rounds, UNDER_WAY);
    reckoning
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
    let mut running = Gateway::new().plugin("stamp").webhook(webhook).start().await;
    let (api, ledger) = (Api::of(&running), Ledger::default());
    let load = Load::start(&Shape { producers: 16, ..Shape::small("it") }, &api, &ledger);
    for _ in 0..3 {
        load.progress(1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        running = running.stop().await.start().await;
        api.move_to(&running);
    }
    load.end().await;
    let reckoning = Reckoning::of(&ledger, &api, &receiver, 1).await;
    reckoning.assert_kept(3, 0);
    assert_eq!(reckoning.arrivals, reckoning.delivered, "{reckoning}");
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
