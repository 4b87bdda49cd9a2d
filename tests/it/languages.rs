//! Plugins that need a WASI, and those in other languages.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hookmill::delivery::{DeliveryId, WebhookId};
use hookmill::event::{Event, EventId, EventType};
use hookmill::transform::{self, Limits, Recipient, Runtime, Secrets, Step};
use hookmill_tests::{Gateway, Receiver, Running, workspace};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::plugins::{Fixture, compare, fixtures, submission};

/// A gateway whose one webhook goes through the guest `preview1`.
async fn gateway(receiver: &Receiver) -> Running {
    let webhook = receiver.webhook("it").plugins(&[("preview1", json!({}))]);
    Gateway::new().plugin("preview1").webhook(webhook.set("retry", &json!([]))).start().await
}

#[tokio::test]
async fn what_a_plugin_prints_is_in_the_log() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).await;
    let id = gateway.send("a", json!({ "do": "print" })).await;
    receiver.wait_for(1).await;
    let log = gateway.log();
    let said: Vec<_> = log
        .lines()
        .filter(|line| line.contains(&id))
        .filter_map(|line| {
            ["INFO", "WARN"].iter().find(|level| line.contains(**level)).copied().zip(
                ["a warning", "one line", "a message", "without an end"]
                    .iter()
                    .find(|text| line.contains(**text)),
            )
        })
        .collect();
    let expected = [
        ("WARN", &"a warning"),
        ("INFO", &"one line"),
        ("INFO", &"a message"),
        ("INFO", &"without an end"),
    ];
    assert_eq!(said, expected, "{log}");
}

#[tokio::test]
async fn a_flood_of_printed_lines_changes_nothing() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).await;
    gateway.send("a", json!({ "do": "print_flood" })).await;
    receiver.wait_for(1).await;
    let log = gateway.log();
    assert_eq!(log.lines().filter(|line| line.contains(": more ")).count(), 50);
    assert!(log.contains("omitted=150"), "{log}");
}

#[tokio::test]
async fn a_plugin_sees_nothing_of_the_machine() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).await;
    gateway.send("a", json!({ "do": "look" })).await;
    let seen = receiver.wait_for(1).await[0].json();
    const BAD_DESCRIPTOR: u32 = 8;
    for (what, value) in [("arguments", 0), ("variables", 0), ("folder", BAD_DESCRIPTOR)] {
        assert_eq!(seen[what], value, "{what}: {seen}");
    }
}

#[tokio::test]
async fn time_stands_still_but_for_sleep_which_takes_none() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).await;
    let before = jiff::Timestamp::now();
    gateway.send("a", json!({ "do": "sleep", "milliseconds": 40 })).await;
    let seen = receiver.wait_for(1).await[0].json();
    let time = i128::from(seen["time"].as_u64().unwrap());
    let accepted = before.as_microsecond()..=jiff::Timestamp::now().as_microsecond();
    assert!(accepted.contains(&i64::try_from(time / 1000).unwrap()), "{seen}");
    let slept = seen["slept"].as_u64().unwrap();
    assert_eq!(slept / 1_000_000, 40, "a clock of its own shows what it asked for: {seen}");
}

#[tokio::test]
async fn sleeping_too_long_and_exiting_are_failures() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).await;
    for (data, kind, message) in [
        (
            json!({ "do": "sleep", "milliseconds": 10_000_000 }),
            "plugin_timeout",
            "slept longer than its limit of 50ms",
        ),
        (json!({ "do": "exit" }), "plugin_trap", "; it printed: Traceback:; out of tea"),
    ] {
        let id = gateway.send("a", data).await;
        let deliveries = gateway.settled(&id).await;
        let failure = &deliveries[0]["attempts"][0]["failure"];
        assert_eq!(failure["kind"], kind, "{failure}");
        assert!(failure["message"].as_str().unwrap().contains(message), "{failure}");
    }
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn a_repeated_run_makes_the_same_bytes_and_another_delivery_others() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(folder.path());
    let bytes = hookmill_tests::wasm("preview1");
    let plugin = runtime.load("preview1", bytes, Limits::default()).await.unwrap();
    let steps = [Step { plugin: Arc::new(plugin), config: "{}".into() }];
    let event = event(r#"{"do":"look"}"#);
    let one = DeliveryId::generate();
    let first = run(&event, one, &steps).await;
    assert_eq!(first, run(&event, one, &steps).await);
    assert_ne!(first, run(&event, DeliveryId::generate(), &steps).await);
}

/// The variable that tells the folder of the built plugins, `LANGUAGE.wasm`; figures are put there.
const BUILT: &str = "BUILT_LANGUAGES";

#[tokio::test]
#[ignore = "needs the tools of each language: `cargo xtask test --all-languages`"]
async fn every_language_does_as_the_fixtures_say() {
    let built = std::env::var_os(BUILT).map(PathBuf::from);
    let built = built.unwrap_or_else(|| panic!("{BUILT} names no folder"));
    let mut figures = Vec::new();
    for entry in fs::read_dir(&built).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let language = file.file_stem().unwrap().to_str().unwrap();
        figures.push(check(language, &file).await);
    }
    assert!(!figures.is_empty(), "{} holds no plugin", built.display());
    fs::write(built.join("figures.json"), Value::Array(figures).to_string()).unwrap();
}

/// Measures a plugin, then runs its fixtures through a gateway.
async fn check(language: &str, file: &Path) -> Value {
    let bytes = fs::read(file).unwrap();
    let example = workspace().join("plugin-sdk/examples").join(language);
    let mut gateway = Gateway::new()
        .setting("plugins.max_file_bytes = \"64 MiB\"")
        .setting("data_dir = \"data\"");
    // What is compiled while it is measured need not be compiled again.
    let cache = gateway.configuration_file().with_file_name("data").join("plugin-cache");
    let figures = measure(language, &bytes, &cache).await;
    gateway.plugins().write("plugin", &bytes);
    let manifest = example.join("order-message.toml");
    if manifest.exists() {
        fs::copy(manifest, gateway.plugins().join("plugin.toml")).unwrap();
    }
    let fixtures = fixtures(&example.join("fixtures"));
    assert!(fixtures.len() >= 4, "{language} has too few fixtures");
    let mut receivers = Vec::new();
    for Fixture { name, fixture, .. } in &fixtures {
        let receiver = Receiver::start().await;
        let name = name.trim_end_matches(".json");
        let config = fixture.get("config").cloned().unwrap_or(json!({}));
        let webhook = receiver.webhook(name).events(&[name]).plugins(&[("plugin", config)]);
        gateway = gateway.webhook(webhook.set("retry", &json!([])));
        receivers.push(receiver);
    }
    let gateway = gateway.start().await;
    for (Fixture { name, fixture, payload }, receiver) in fixtures.iter().zip(&receivers) {
        let mut event = fixture["event"].clone();
        // The type leads to the fixture's own webhook.
        event["type"] = json!(name.trim_end_matches(".json"));
        let answer = gateway.request(submission(&event, payload), &[]).await.unwrap();
        assert_eq!(answer.status, 202, "{language}/{name}: {}", answer.body);
        let id = answer.body["events"][0]["id"].as_str().unwrap();
        let deliveries = gateway.settled(id).await;
        compare(&format!("{language}/{name}"), &fixture["expect"], &deliveries, receiver);
    }
    figures
}

/// The size, the time to compile, and the time of a call.
async fn measure(language: &str, bytes: &[u8], cache: &Path) -> Value {
    let runtime = runtime(cache);
    let began = Instant::now();
    let limits =
        Limits { time: Duration::from_secs(10), memory_bytes: 64 << 20, ..Limits::default() };
    let plugin = runtime.load(language, bytes.to_vec(), limits).await;
    let plugin = plugin.unwrap_or_else(|error| panic!("{language} does not load: {error}"));
    let compiled = began.elapsed();
    let config = r##"{"channel":"#orders","minimum_cents":100}"##;
    let steps = [Step { plugin: Arc::new(plugin), config: config.into() }];
    let items = vec![json!({ "name": "Tea", "quantity": 3, "unit_price_cents": 450 }); 22];
    let order = json!({ "customer": { "name": "Ada" }, "currency": "EUR", "items": items });
    let event = event(&order.to_string());
    let mut calls = Vec::new();
    let began = Instant::now();
    while calls.len() < 20 || began.elapsed() < Duration::from_secs(1) {
        let began = Instant::now();
        run(&event, DeliveryId::generate(), &steps).await;
        calls.push(began.elapsed());
    }
    calls.sort();
    json!({
        "language": language,
        "bytes": bytes.len(),
        "compile_ms": compiled.as_secs_f64() * 1e3,
        "call_us": calls[calls.len() / 2].as_secs_f64() * 1e6,
    })
}

fn runtime(cache: &Path) -> Runtime {
    Runtime::new(transform::Config {
        max_file_bytes: 64 << 20,
        ..transform::Config::new(cache.to_owned())
    })
    .unwrap()
}

fn event(data: &str) -> Event {
    Event {
        tenant: "acme".into(),
        id: EventId::parse("evt_1").unwrap(),
        event_type: EventType::parse("order.paid").unwrap(),
        timestamp: jiff::Timestamp::UNIX_EPOCH,
        accepted_at: jiff::Timestamp::UNIX_EPOCH,
        data: bytes::Bytes::copy_from_slice(data.as_bytes()),
        attributes: Vec::new(),
        ordering_key: None,
        webhook_url: None,
    }
}

async fn run(event: &Event, delivery: DeliveryId, steps: &[Step]) -> transform::Outcome {
    let webhook = WebhookId("wh_it".into());
    let recipient = Recipient {
        webhook: &webhook,
        name: "it",
        metadata: &[],
        delivery,
        secrets: Secrets::NONE,
    };
    transform::run(event, recipient, steps).await.unwrap()
}
