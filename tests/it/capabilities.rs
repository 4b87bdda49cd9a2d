//! What plugins may do beside transforming: only what was granted, once for each delivery, within limits.

use std::time::Duration;

use hookmill_tests::{Gateway, Receiver, Reply, Running, eventually};
use serde_json::{Value, json};

/// Everything, with a server on this machine.
fn grants(server: &Receiver) -> String {
    format!(
        "[grants]\nclock = true\nrandom = true\nsecrets = [\"crm_token\"]\nkv = true\nhttp = [{}]\n\
         [limits]\ntime = \"30s\"\n",
        json!(server.url("/api/"))
    )
}

/// A gateway whose webhook goes through the guest `capable`, which the manifest grants what it says.
fn gateway(receiver: &Receiver, manifest: &str) -> Gateway {
    let webhook = receiver
        .webhook("it")
        .plugins(&[("capable", json!({}))])
        .set("retry", &json!(["100ms", "100ms", "100ms"]));
    Gateway::new()
        .manifest("capable", manifest)
        .plugin("capable")
        .tenant_setting("secrets = { crm_token = \"hunter2-hunter2\", other = \"not granted\" }")
        .webhook(webhook)
}

/// The results of an event's steps, once it is delivered.
async fn results(gateway: &Running, receiver: &Receiver, steps: Value) -> Value {
    let id = gateway.send("a", json!({ "steps": steps })).await;
    let deliveries = gateway.settled(&id).await;
    assert_eq!(deliveries[0]["state"], "delivered", "{deliveries:?}");
    let received = receiver.received();
    let request = received.iter().rfind(|request| request.id() == id).unwrap();
    request.json()["results"].clone()
}

/// The message of the first failure of an event's delivery, with its kind.
async fn failure(gateway: &Running, steps: Value) -> (String, String) {
    let id = gateway.send("a", json!({ "steps": steps })).await;
    let deliveries = gateway.settled(&id).await;
    let failure = &deliveries[0]["attempts"][0]["failure"];
    let text = |field: &str| failure[field].as_str().unwrap_or_default().to_owned();
    (text("kind"), text("message"))
}

#[tokio::test]
async fn what_was_not_granted_is_refused_by_name_with_the_way_out() {
    let receiver = Receiver::start().await;
    let manifest = "[grants]\nclock = true\nrandom = true\nsecrets = [\"crm_token\"]\n\
                    http = [\"https://api.example.com/\"]";
    let running = gateway(&receiver, manifest).start().await;
    let log = running.log();
    assert!(
        log.contains("it imports `hookmill:plugin/kv@1.0.0`, which is not granted; to grant it, put `kv = true` under `[grants]` in capable.toml"),
        "{log}"
    );
    // A changed manifest is enough.
    let manifest = format!("{manifest}\nkv = true");
    std::fs::write(running.plugins().join("capable.toml"), manifest).unwrap();
    eventually("the plugin", || async { running.log().contains("plugin loaded") }).await;
    assert_eq!(results(&running, &receiver, json!([{ "get": "k" }])).await, json!([null]));
}

#[tokio::test]
async fn time_and_random_numbers_are_the_same_in_a_repeated_run() {
    // The first run fails after it has reported what it was given.
    let server =
        Receiver::answering(|_, before| Reply::status(if before == 0 { 500 } else { 200 }));
    let (server, receiver) = (server.await, Receiver::start().await);
    let running = gateway(&receiver, &grants(&server)).start().await;
    let steps = json!(["now", { "random": 8 }, { "report": server.url("/api/x") }]);
    let first = results(&running, &receiver, steps.clone()).await;
    let reports = server.received();
    assert_eq!(reports.len(), 2, "two runs");
    assert_eq!(reports[0].body, reports[1].body);
    assert_eq!(reports[0].json(), json!([first[0], first[1]]));
    let time: jiff::Timestamp = first[0][0].as_str().unwrap().parse().unwrap();
    assert_eq!(first[0][1], time.as_millisecond());
    assert_eq!(first[1][0].as_array().unwrap().len(), 8);
    let second = results(&running, &receiver, steps).await;
    assert_ne!(first[1], second[1], "another delivery has others");
}

#[tokio::test]
async fn keys_outlive_calls_and_belong_to_a_tenant_and_a_plugin() {
    let receiver = Receiver::start().await;
    let manifest = grants(&receiver);
    let running = gateway(&receiver, &manifest).start().await;
    let steps = json!([
        { "set": { "key": "k", "value": "v" } },
        { "get": "k" },
        { "set_if_absent": { "key": "k", "value": "w" } },
        { "add": { "key": "n" } },
        { "add": { "key": "n" } },
        { "add": { "key": "k" } },
        { "delete": "k" },
        { "get": "k" },
        { "set": { "key": "short", "value": "v", "ttl": 1 } },
    ]);
    let not_a_number =
        json!({ "error": "NotANumber(\"the key's value is no integer of 64 bits\")" });
    assert_eq!(
        results(&running, &receiver, steps).await,
        json!([null, "v", false, 1, 2, not_a_number, true, null, null])
    );
    let running = running.stop().await.start().await;
    let expired = || async {
        results(&running, &receiver, json!([{ "get": "n" }, { "get": "short" }])).await
            == json!(["2", null])
    };
    eventually("the key's expiry", expired).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_deliveries_count_each_once() {
    let receiver = Receiver::start().await;
    let running = gateway(&receiver, &grants(&receiver)).start().await;
    let events: Vec<_> = (0..200)
        .map(|_| json!({ "type": "a", "data": { "steps": [{ "add": { "key": "n" } }] } }))
        .collect();
    let answer = running.request(Value::from(events).to_string(), &[]).await.unwrap();
    assert_eq!(answer.status, 202);
    let mut sums: Vec<_> = receiver
        .wait_for(200)
        .await
        .iter()
        .map(|request| request.json()["results"][0].as_i64().unwrap())
        .collect();
    sums.sort_unstable();
    assert_eq!(sums, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_run_that_failed_after_its_effect_does_it_once() {
    let server = Receiver::answering(|_, _| Reply::status(500)).await;
    let receiver = Receiver::start().await;
    let running = gateway(&receiver, &grants(&server)).start().await;
    // Three retries, so four runs: all fail, each after the effect.
    let fetch = json!({ "fetch": { "url": server.url("/api/x") } });
    let steps = json!([
        { "expect": [{ "set_if_absent": { "key": "seen" } }, true] },
        { "expect": [{ "get": "n" }, null] },
        { "expect": [{ "add": { "key": "n" } }, 1] },
        { "expect": [fetch, "never"] },
    ]);
    let id = running.send("a", json!({ "steps": steps })).await;
    let deliveries = running.settled(&id).await;
    assert_eq!(server.received().len(), 4, "each run got as far as the server: {deliveries:?}");
    assert_eq!(results(&running, &receiver, json!([{ "get": "n" }])).await, json!(["1"]));
}

#[tokio::test]
async fn a_run_that_was_killed_after_its_effect_does_it_once() {
    // The first run waits for a server that does not answer, until the gateway is killed.
    let server = Receiver::answering(|_, before| match before {
        0 => Reply::after(Duration::from_secs(600)),
        _ => Reply::status(200),
    })
    .await;
    let receiver = Receiver::start().await;
    let running = gateway(&receiver, &grants(&server)).start().await;
    let steps = json!([
        { "set_if_absent": { "key": "seen" } },
        { "get": "other" },
        { "add": { "key": "n" } },
        { "fetch": { "url": server.url("/api/x") } },
    ]);
    let id = running.send("a", json!({ "steps": steps })).await;
    server.wait_for(1).await;
    let running = running.kill().await.start().await;
    let deliveries = running.settled(&id).await;
    assert_eq!(deliveries[0]["state"], "delivered", "{deliveries:?}");
    let received = receiver.received();
    assert_eq!(
        received[0].json()["results"],
        json!([true, null, 1, { "status": 200, "body": "" }]),
        "as if it had run once"
    );
    assert_eq!(results(&running, &receiver, json!([{ "get": "n" }])).await, json!(["1"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_under_load_count_each_event_once() {
    const ROUNDS: usize = 4;
    const EVENTS: usize = 150;
    let receiver = Receiver::answering(|_, _| Reply::after(Duration::from_millis(2))).await;
    let mut stopped = gateway(&receiver, &grants(&receiver));
    let mut sent = std::collections::BTreeSet::new();
    for round in 0..ROUNDS {
        let running = stopped.start().await;
        let events: Vec<_> = (0..EVENTS)
            .map(|_| json!({ "type": "a", "data": { "steps": [{ "add": { "key": "n" } }] } }))
            .collect();
        let answer = running.request(Value::from(events).to_string(), &[]).await.unwrap();
        assert_eq!(answer.status, 202);
        let ids = answer.body["events"].as_array().unwrap();
        sent.extend(ids.iter().map(|event| event["id"].as_str().unwrap().to_owned()));
        // Some are delivered, some under way, some not begun.
        receiver.wait_for(round * EVENTS + EVENTS / 3).await;
        stopped = running.kill().await;
    }
    let running = stopped.start().await;
    eventually("all of them", || async { receiver.ids().is_superset(&sent) }).await;
    for id in &sent {
        running.settled(id).await;
    }
    let count = json!([(ROUNDS * EVENTS).to_string()]);
    assert_eq!(results(&running, &receiver, json!([{ "get": "n" }])).await, count);
}

#[tokio::test]
async fn quotas_and_sizes_are_told_and_hold() {
    let receiver = Receiver::start().await;
    let manifest =
        format!("{}kv_keys = 3\nkv_bytes = \"2 KiB\"\nhost_calls = 20\n", grants(&receiver));
    let running = gateway(&receiver, &manifest).start().await;
    let set = |key: &str, bytes: usize| json!({ "set": { "key": key, "bytes": bytes } });
    let steps = json!([
        set("a", 1),
        set("b", 1),
        set("c", 1),
        set("d", 1),
        set("a", 4000),
        set("a", 70_000),
        set(&"k".repeat(600), 1),
    ]);
    let told = results(&running, &receiver, steps).await;
    for (result, error) in [
        (&told[2], "null"),
        (
            &told[3],
            "Quota(\\\"the plugin keeps 3 keys and 6 bytes for this tenant; its limits are 3 keys and 2048 bytes\\\")",
        ),
        (&told[4], "Quota("),
        (&told[5], "TooLarge(\\\"the value has 70000 bytes; the limit is 65536\\\")"),
        (&told[6], "TooLarge(\\\"the key has 600 bytes; the limit is 512\\\")"),
    ] {
        assert!(result.to_string().contains(error), "{result} / {error}");
    }
    let (kind, message) = failure(&running, json!([{ "repeat": [21, { "get": "a" }] }])).await;
    assert_eq!(kind, "plugin_calls");
    let limit = "called the gateway's functions more often than its limit of 20";
    assert!(message.contains(limit), "{message}");
    let (_, message) = failure(&running, json!([{ "random": 70_000 }])).await;
    assert!(message.contains("asked for 70000 random bytes"), "{message}");
}

#[tokio::test]
async fn secrets_reach_servers_and_never_the_record() {
    let receiver = Receiver::start().await;
    let running = gateway(&receiver, &grants(&receiver)).start().await;
    let fetch = json!({ "fetch": {
        "url": receiver.url("/api/x"), "method": "POST", "body": "hello",
        "header": ["authorization", "Bearer $SECRET"],
    } });
    let told = results(
        &running,
        &receiver,
        json!([{ "secret": "crm_token" }, { "secret": "other" }, fetch]),
    );
    assert_eq!(told.await, json!([true, false, { "status": 200, "body": "" }]));
    let received = receiver.received();
    let fetched = received.iter().find(|request| request.target == "/api/x").unwrap();
    assert_eq!(fetched.header("authorization"), "Bearer hunter2-hunter2");
    assert_eq!((fetched.method.as_str(), &fetched.body[..]), ("POST", &b"hello"[..]));

    let (_, message) = failure(&running, json!([{ "retry": "the token $SECRET is wrong" }])).await;
    assert_eq!(message, "capable: the token [secret crm_token] is wrong");
    let (_, message) = failure(&running, json!([{ "panic": "with $SECRET" }])).await;
    assert!(message.contains("with [secret crm_token]"), "{message}");
    let id =
        running.send("a", json!({ "steps": [{ "log": "$SECRET" }, { "drop": "$SECRET" }] })).await;
    let deliveries = running.settled(&id).await;
    assert_eq!(deliveries[0]["reason"], "capable: [secret crm_token]");
    let log = running.log();
    assert!(log.contains("[secret crm_token]") && !log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn requests_go_where_the_grant_and_the_guard_let_them() {
    let server = Receiver::answering(|request, _| match request.target.as_str() {
        "/api/redirect" => {
            Reply { header: Some(("location", "/secret".to_owned())), ..Reply::status(302) }
        }
        "/api/large" => Reply { body: "x".repeat(3_000), ..Reply::status(200) },
        _ => Reply { body: "found".to_owned(), ..Reply::status(200) },
    })
    .await;
    let receiver = Receiver::start().await;
    let manifest = format!(
        "[grants]\nclock = true\nrandom = true\nsecrets = [\"crm_token\"]\nkv = true\n\
         http = [{}, \"http://10.0.0.1/\", \"http://[::1]/\"]\n\
         [limits]\ntime = \"30s\"\nfetches = 11\nfetch_bytes = \"2 KiB\"\n",
        json!(server.url("/api/"))
    );
    let running = gateway(&receiver, &manifest).start().await;
    let get = |url: String| json!({ "fetch": { "url": url } });
    let method = json!({ "fetch": { "url": server.url("/api/x"), "method": "TRACE" } });
    let header = json!({ "fetch": { "url": server.url("/api/x"), "header": ["Host", "a"] } });
    let large = json!({ "fetch": { "url": server.url("/api/x"), "body": "x".repeat(3_000) } });
    let steps = json!([
        get(server.url("/api/x?q=1")),
        get(server.url("/api/redirect")),
        get(server.url("/secret")),
        get(server.url("/api/../secret")),
        get("https://example.com/".to_owned()),
        get("http://10.0.0.1/".to_owned()),
        get("http://[::1]/".to_owned()),
        get(server.url("/api/large")),
        large,
        method,
        header,
        get(server.url("/api/x")),
    ]);
    let told = results(&running, &receiver, steps).await;
    for (index, expected) in [
        "{\"body\":\"found\",\"status\":200}",
        "\"status\":302",
        "NotAllowed(\\\"the plugin's grant does not cover http://127.0.0.1",
        "/secret",
        "NotAllowed(\\\"the plugin's grant does not cover https://example.com/",
        "NotAllowed(\\\"the URL leads to 10.0.0.1, which is not a public address",
        "NotAllowed(\\\"the URL leads to ::1, which is not a public address",
        "TooLarge(\\\"the response has more than 2048 bytes",
        "TooLarge(\\\"the request has ",
        "InvalidRequest(\\\"the method",
        "InvalidRequest(\\\"the header `host` cannot be set",
        "TooMany(\\\"the call made 11 requests, which is its limit",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(
            told[index].to_string().contains(expected),
            "{index}: {} / {expected}",
            told[index]
        );
    }
    let targets: Vec<_> = server.received().into_iter().map(|request| request.target).collect();
    assert_eq!(
        targets,
        ["/api/x?q=1", "/api/redirect", "/api/large"],
        "nothing else was asked for"
    );
}

#[tokio::test]
async fn a_slow_server_meets_the_calls_deadline_and_holds_up_nobody_else() {
    let server = Receiver::answering(|_, _| Reply::after(Duration::from_secs(600))).await;
    let receiver = Receiver::start().await;
    let manifest = grants(&server).replace("30s", "300ms");
    let other = receiver.webhook("other").events(&["other"]).plugins(&[("stamp", json!({}))]);
    let running = gateway(&receiver, &manifest)
        .setting("plugins.instances = 8")
        .plugin("stamp")
        .webhook(other)
        .start()
        .await;
    let fetch = |timeout: Option<u64>| json!({ "fetch": { "url": server.url("/api/x"), "timeout_ms": timeout } });
    let told = results(&running, &receiver, json!([fetch(Some(20))])).await;
    assert!(told[0].to_string().contains("Timeout(\\\"no complete answer within 20ms"), "{told}");

    let events: Vec<_> =
        (0..40).map(|_| json!({ "type": "a", "data": { "steps": [fetch(None)] } })).collect();
    let answer = running.request(Value::from(events).to_string(), &[]).await.unwrap();
    let before = receiver.received().len();
    for n in 0..10 {
        running.send("other", json!(n)).await;
    }
    let received = receiver.wait_for(before + 10).await;
    let others = received.iter().filter(|request| request.target == "/other").count();
    assert_eq!(others, 10, "they had instances while the others waited");
    let first = answer.body["events"][0]["id"].as_str().unwrap();
    let failed = || async {
        let answer = running.get(&format!("/v1/events/{first}")).await;
        answer.body["deliveries"][0]["attempts"].as_array().is_some_and(|made| !made.is_empty())
    };
    eventually("the first failure", failed).await;
    let answer = running.get(&format!("/v1/events/{first}")).await;
    let failure = &answer.body["deliveries"][0]["attempts"][0]["failure"];
    assert_eq!(failure["kind"], "plugin_timeout");
    let message = failure["message"].as_str().unwrap();
    assert!(
        message.contains("ran longer than its limit of 300ms")
            && message.contains(
                "waiting for `kv` or `http`; set a larger `time` under `[limits]` in capable.toml"
            ),
        "{message}"
    );
}
