//! Plugins that misbehave: the typed failure, and that nothing is sent.

use std::time::Duration;

use hookmill_tests::{Gateway, Receiver, stamped, wasm};
use serde_json::json;

#[tokio::test]
async fn every_misdeed_is_a_typed_failure_retried_then_dead_and_never_sent() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook("it").plugins(&[("misbehave", json!({}))]);
    let gateway = Gateway::new()
        .setting("plugins.breaker.failures = 1000")
        .plugin("misbehave")
        .webhook(webhook)
        .start()
        .await;
    for (deed, kind, message) in [
        ("loop", "plugin_timeout", "ran longer than its limit of 50ms"),
        ("memory", "plugin_memory", "needs more memory than its limit of 16777216 bytes"),
        ("panic", "plugin_trap", "panicked at tests/guests/misbehave/src/deed.rs"),
        ("trap", "plugin_trap", "unreachable"),
        ("recurse", "plugin_trap", "misbehave::deed::recurse"),
        (
            "big_output",
            "plugin_output",
            "handed over more at once than its limits of 1048576 bytes",
        ),
        ("many_parts", "plugin_output", "made 1000 parts; its limit is 100"),
        ("zero_parts", "plugin_output", "forwarded nothing"),
        ("bad_header", "plugin_output", "the header `host` cannot be changed"),
        ("broken_header", "plugin_output", "no header may have"),
        ("many_headers", "plugin_output", "its limit is 32"),
        ("bad_method", "plugin_output", "is not POST, PUT or PATCH"),
        ("bad_path", "plugin_output", "the path suffix"),
        ("retry", "plugin_error", "as told"),
    ] {
        let data = match deed {
            "retry" => json!({ "do": deed, "message": "as told" }),
            _ => json!({ "do": deed }),
        };
        let id = gateway.send("a", data).await;
        let deliveries = gateway.settled(&id).await;
        assert_eq!(deliveries[0]["state"], "dead", "{deed}");
        let attempts = deliveries[0]["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 2, "{deed}: {attempts:?}");
        for attempt in attempts {
            let failure = &attempt["failure"];
            assert_eq!(failure["kind"], kind, "{deed}: {failure}");
            assert_eq!(failure["fault"], "plugin", "{deed}");
            let said = failure["message"].as_str().unwrap();
            assert!(said.starts_with("misbehave: ") && said.contains(message), "{deed}: {said}");
        }
        let log = gateway.log();
        let delivery = deliveries[0]["id"].as_str().unwrap();
        for outcome in ["attempt failed", "delivery is dead"] {
            let parts = [outcome, "acme", "misbehave@", &id, delivery, kind, message];
            let told = log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
            assert!(told, "{deed} is not in the log: {log}");
        }
    }
    assert!(receiver.received().is_empty(), "nothing is ever sent untransformed");
}

#[tokio::test]
async fn a_panics_message_is_in_the_log_with_all_that_it_was_about() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook("it").plugins(&[("misbehave", json!({}))]);
    let gateway = Gateway::new().plugin("misbehave").webhook(webhook).start().await;
    let id = gateway.send("a", json!({ "do": "panic", "message": "out of tea" })).await;
    let deliveries = gateway.settled(&id).await;
    let delivery = deliveries[0]["id"].as_str().unwrap();
    let log = gateway.log();
    let found = log.lines().any(|line| {
        ["ERROR", "panicked at", "out of tea", "misbehave", "acme", &id, delivery]
            .iter()
            .all(|part| line.contains(part))
    });
    assert!(found, "{log}");
}

#[tokio::test]
async fn what_can_never_be_transformed_is_dead_at_once() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook("it").plugins(&[("misbehave", json!({ "do": "invalid" }))]);
    let gateway = Gateway::new().plugin("misbehave").webhook(webhook).start().await;
    let id = gateway.send("a", json!(1)).await;
    let deliveries = gateway.settled(&id).await;
    assert_eq!(deliveries[0]["state"], "dead");
    assert_eq!(deliveries[0]["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(deliveries[0]["attempts"][0]["failure"]["kind"], "plugin_invalid");
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn a_flood_of_log_messages_changes_nothing() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook("it").plugins(&[("misbehave", json!({}))]);
    let gateway = Gateway::new().plugin("misbehave").webhook(webhook).start().await;
    gateway.send("a", json!({ "do": "log_flood", "count": 1000 })).await;
    assert_eq!(receiver.wait_for(1).await[0].json()["do"], "log_flood");
}

#[tokio::test]
async fn a_missing_plugin_is_retried_and_helped_by_its_arrival() {
    let receiver = Receiver::start().await;
    let webhook = receiver
        .webhook("it")
        .plugins(&[("stamp", json!({}))])
        .set("retry", &json!(["300ms", "300ms", "300ms", "1s", "2s", "4s"]));
    let gateway = Gateway::new().webhook(webhook).start().await;
    let id = gateway.send("a", json!(1)).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    gateway.plugins().replace("stamp", &stamped("version--1"));
    assert_eq!(receiver.wait_for(1).await[0].json()["version"], "version--1");
    let deliveries = gateway.settled(&id).await;
    let first = &deliveries[0]["attempts"][0]["failure"];
    assert_eq!(
        (&first["kind"], &first["fault"]),
        (&json!("plugin_missing"), &json!("configuration"))
    );
}

#[tokio::test]
async fn limits_of_a_manifest_hold() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook("it").plugins(&[("misbehave", json!({}))]);
    let gateway = Gateway::new().webhook(webhook);
    std::fs::write(
        gateway.plugins().join("misbehave.toml"),
        "[limits]\nparts = 2\ntime = \"5ms\"\n",
    )
    .unwrap();
    let gateway = gateway.plugin("misbehave").start().await;
    for (data, message) in [
        (json!({ "do": "many_parts", "count": 3 }), "made 3 parts; its limit is 2"),
        (json!({ "do": "loop" }), "ran longer than its limit of 5ms"),
    ] {
        let id = gateway.send("a", data).await;
        let deliveries = gateway.settled(&id).await;
        let said = deliveries[0]["attempts"][0]["failure"]["message"].to_string();
        assert!(said.contains(message), "{said}");
    }
}

#[tokio::test]
async fn what_is_at_a_limit_arrives_as_it_is_and_what_is_over_it_does_not() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook("it").plugins(&[("misbehave", json!({}))]);
    let gateway = Gateway::new()
        .setting("plugins.breaker.failures = 1000")
        .setting("plugins.limits.time = \"10s\"")
        .plugin("misbehave")
        .webhook(webhook.set("retry", &json!([])))
        .start()
        .await;
    let attempt = async |data: serde_json::Value| {
        let id = gateway.send("a", data).await;
        gateway.settled(&id).await[0]["attempts"][0].clone()
    };
    assert_eq!(attempt(json!({ "do": "big_output", "count": 1 << 20 })).await["status"], 200);
    let over = attempt(json!({ "do": "big_output", "count": (1 << 20) + 1 })).await;
    let said = over["failure"]["message"].as_str().unwrap();
    assert!(said.contains("returned 1048577 bytes; its limit is 1048576"), "{said}");
    for (deed, message) in [
        ("bad_header", "Connection"),
        ("bad_header", "transfer-encoding"),
        ("bad_header", "Content-Length"),
        ("bad_header", "webhook-signature"),
        ("bad_header", "webhook-id"),
        ("bad_header", "x y"),
        ("bad_header", "x\r\ny"),
        ("bad_path", "/%2e%2E/admin"),
        ("bad_path", "/a%2fb"),
        ("bad_path", "/a\\..\\b"),
        ("bad_path", "/a b"),
        ("bad_path", "/a\r\nx: y"),
        ("bad_path", "/a#b"),
        ("bad_path", "/a%2"),
    ] {
        let attempt = attempt(json!({ "do": deed, "message": message })).await;
        assert_eq!(attempt["failure"]["kind"], "plugin_output", "{deed} {message:?}: {attempt}");
    }
    for (deed, message) in [
        ("bad_path", "//evil.example/x"),
        ("bad_path", "@evil.example"),
        ("not_json", ""),
        ("bytes", ""),
    ] {
        let attempt = attempt(json!({ "do": deed, "message": message })).await;
        assert_eq!(attempt["status"], 200, "{deed} {message:?}: {attempt}");
    }
    let received = receiver.received();
    let targets: Vec<_> = received.iter().map(|request| request.target.as_str()).collect();
    assert_eq!(targets, ["/it", "/it/evil.example/x", "/it/@evil.example", "/it", "/it"]);
    assert_eq!(received[0].body.len(), 1 << 20);
    assert_eq!(received[3].body, "{\"not\": json", "text is passed on as it is");
    assert_eq!(received[4].body[..], [0, 159, 146, 150]);
    // The reference library verifies text alone.
    assert!(received[..4].iter().all(|request| request.verified));
}

#[tokio::test]
async fn a_tenant_that_takes_all_it_can_leaves_the_others_their_share() {
    let receiver = Receiver::start().await;
    let mut gateway = Gateway::new()
        .setting("delivery.concurrency = 8")
        .setting("delivery.max_ready = 64")
        .setting("plugins.instances = 4")
        .setting("plugins.total_memory_bytes = \"64 MiB\"")
        .setting("plugins.limits.time = \"200ms\"")
        .plugin("misbehave")
        .plugin("stamp")
        .other_webhook(receiver.webhook("healthy").plugins(&[("stamp", json!({}))]));
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let webhook = receiver.webhook(name).plugins(&[("misbehave", json!({ "do": "loop" }))]);
        gateway = gateway.webhook(webhook.set("retry", &json!([])));
    }
    let gateway = gateway.start().await;
    // Eight deliveries each: at a fifth of a second, several minutes of work.
    let loops = serde_json::Value::from(vec![json!({ "type": "a", "data": 1 }); 200]);
    let answer = gateway.request(loops.to_string(), &[]).await.unwrap();
    assert_eq!(answer.status, 202);
    for n in 0..50 {
        gateway.send_as_other("a", json!(n)).await;
    }
    let received = receiver.wait_for(50).await;
    assert!(received.iter().all(|request| request.target == "/healthy"));
    let last = answer.body["events"][199]["id"].as_str().unwrap();
    let deliveries = gateway.get(&format!("/v1/events/{last}")).await.body["deliveries"].clone();
    let waits = |delivery: &serde_json::Value| delivery["state"] == "pending";
    assert!(deliveries.as_array().unwrap().iter().any(waits), "the others did not wait for it");
}

#[tokio::test]
async fn spinning_plugins_do_not_stop_the_others() {
    let receiver = Receiver::start().await;
    let spinning = receiver.webhook("spin").events(&["spin"]).plugins(&[("misbehave", json!({}))]);
    let healthy = receiver.webhook("healthy").events(&["ok"]).plugins(&[("stamp", json!({}))]);
    let gateway = Gateway::new()
        .setting("plugins.breaker.failures = 1000")
        .plugin("misbehave")
        .plugin("stamp")
        .webhook(spinning.set("retry", &json!([])))
        .webhook(healthy)
        .start()
        .await;
    let loops: Vec<_> =
        (0..40).map(|_| json!({ "type": "spin", "data": { "do": "loop" } })).collect();
    let body = serde_json::Value::from(loops).to_string();
    let answer = gateway.request(body, &[]).await.unwrap();
    assert_eq!(answer.status, 202);
    for n in 0..20 {
        gateway.send("ok", json!(n)).await;
    }
    let received = receiver.wait_for(20).await;
    assert!(received.iter().all(|request| request.target == "/healthy"));
    for event in answer.body["events"].as_array().unwrap() {
        let deliveries = gateway.settled(event["id"].as_str().unwrap()).await;
        let kind = &deliveries[0]["attempts"][0]["failure"]["kind"];
        assert_eq!(
            kind, "plugin_timeout",
            "time spent waiting does not count, so each got its own"
        );
    }
}

#[tokio::test]
async fn a_components_file_is_loaded_like_a_core_modules() {
    let component = wit_component::ComponentEncoder::default()
        .module(&wasm("stamp"))
        .and_then(|mut encoder| encoder.encode())
        .unwrap();
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook("it").plugins(&[("made", json!({}))]);
    let gateway = Gateway::new().webhook(webhook);
    gateway.plugins().write("made", &component);
    let gateway = gateway.start().await;
    gateway.send("a", json!(1)).await;
    assert_eq!(receiver.wait_for(1).await[0].json()["version"], "0000000000");
}
