//! Guests that nobody vetted, all in one gateway, each with what must come of it; and beside them a healthy
//! tenant, whose events all arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hookmill_tests::{Expected, Gateway, Guest, Receiver, Running, eventually, guest, wasm};
use serde_json::{Value, json};

/// The longest message that may come of a guest, in bytes: the limit, the plugin's name and the place.
const MAX_MESSAGE: usize = 6 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_guest_does_is_typed_and_a_healthy_tenant_does_not_notice() {
    let receiver = Receiver::start().await;
    let guests = [Guest::all(), made()].concat();
    let mut gateway = Gateway::new()
        .setting("log.format = \"json\"")
        .plugin("stamp")
        .other_webhook(receiver.webhook("healthy").plugins(&[("stamp", json!({}))]));
    for guest in &guests {
        let webhook = receiver
            .webhook(&guest.name)
            .events(&[&event_type(guest)])
            .plugins(&[(&guest.name, json!({}))])
            .set("retry", &json!([]));
        gateway = gateway.webhook(webhook);
    }
    let gateway = Arc::new(gateway.start().await);
    let (stop, healthy) = (Arc::new(AtomicBool::new(false)), Arc::clone(&gateway));
    let stopped = Arc::clone(&stop);
    let healthy = tokio::spawn(async move {
        let mut ids = BTreeSet::new();
        while !stopped.load(Ordering::Relaxed) {
            ids.insert(healthy.send_as_other("a", json!(ids.len())).await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ids
    });

    for guest in &guests {
        std::fs::write(gateway.plugins().join(&format!("{}.toml", guest.name)), &guest.manifest)
            .unwrap();
        gateway.plugins().replace(&guest.name, &guest.wasm);
    }
    let verdicts = verdicts(&gateway, &guests).await;
    let mut wrong: Vec<_> = guests.iter().filter_map(|guest| misjudged(guest, &verdicts)).collect();

    // All at once, thrice each.
    let mut sent = Vec::new();
    for _ in 0..3 {
        for guest in guests.iter().filter(|guest| verdicts[&guest.name].is_none()) {
            sent.push((guest, gateway.send(&event_type(guest), json!({ "n": 1 })).await));
        }
    }
    for (guest, id) in sent {
        let deliveries = gateway.settled(&id).await;
        wrong.extend(unexpected(guest, &deliveries));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");

    stop.store(true, Ordering::Relaxed);
    let sent = healthy.await.unwrap();
    let arrived = || async { sent.is_subset(&receiver.ids()) };
    eventually("the healthy tenant's events", arrived).await;
    let log = gateway.log();
    assert!(!log.lines().any(|line| line.starts_with("FORGED")), "a guest wrote a line of the log");
    assert!(log.contains("FORGED"));
    let harmless: BTreeSet<_> = guests
        .iter()
        .filter(|guest| guest.expected == Expected::Delivered)
        .map(|guest| format!("/{}", guest.name))
        .chain(["/healthy".to_owned()])
        .collect();
    let reached: BTreeSet<_> = receiver.received().into_iter().map(|it| it.target).collect();
    assert_eq!(reached, harmless, "nothing else is ever sent");
}

fn event_type(guest: &Guest) -> String {
    format!("hostile.{}", guest.name.replace('-', "_"))
}

/// Why each guest was rejected; none for those that were loaded. Waits until all are judged.
async fn verdicts(gateway: &Running, guests: &[Guest]) -> BTreeMap<String, Option<String>> {
    let judged = || -> BTreeMap<String, Option<String>> {
        let log = gateway.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let judged = lines.filter_map(|line| {
            let plugin = line["plugin"].as_str()?.to_owned();
            match line["message"].as_str()? {
                "plugin loaded" => Some((plugin, None)),
                "plugin rejected" => Some((plugin, Some(line["reason"].as_str()?.to_owned()))),
                _ => None,
            }
        });
        judged.collect()
    };
    let all = || async {
        let judged = judged();
        guests.iter().all(|guest| judged.contains_key(&guest.name))
    };
    eventually("every guest to be loaded or rejected", all).await;
    judged()
}

fn misjudged(guest: &Guest, verdicts: &BTreeMap<String, Option<String>>) -> Option<String> {
    let Guest { name, expected, .. } = guest;
    match (expected, &verdicts[name]) {
        (Expected::Rejected(part), Some(reason))
            if reason.contains(part) && reason.len() <= MAX_MESSAGE =>
        {
            None
        }
        (Expected::Rejected(part), Some(reason)) => {
            Some(format!("{name}: rejected, but not for {part:?}: {reason}"))
        }
        (Expected::Rejected(part), None) => {
            Some(format!("{name}: loaded, and not rejected for {part:?}"))
        }
        (_, Some(reason)) => Some(format!("{name}: rejected: {reason}")),
        (_, None) => None,
    }
}

fn unexpected(guest: &Guest, deliveries: &[Value]) -> Option<String> {
    let Guest { name, expected, .. } = guest;
    let [delivery] = deliveries else {
        return Some(format!("{name}: {} deliveries", deliveries.len()));
    };
    let failure = &delivery["attempts"][0]["failure"];
    let as_expected = match expected {
        Expected::Failure(kind, part) => {
            let message = failure["message"].as_str().unwrap_or_default();
            failure["kind"] == json!(kind)
                && failure["fault"] == "plugin"
                && message.starts_with(name)
                && message.contains(part)
                && message.len() <= MAX_MESSAGE
        }
        Expected::Delivered => delivery["state"] == "delivered",
        Expected::Dropped => {
            let reason = delivery["reason"].as_str().unwrap_or_default();
            delivery["state"] == "dropped" && reason.len() <= MAX_MESSAGE
        }
        // Judged when it was loaded.
        Expected::Rejected(_) => true,
    };
    (!as_expected).then(|| {
        let (state, reason) = (&delivery["state"], &delivery["reason"]);
        let shown = format!("{state} {failure} {reason}");
        format!("{name}: {expected:?}, but {}", shown.chars().take(400).collect::<String>())
    })
}

/// Guests that are too large or too broken to be written by hand.
fn made() -> Vec<Guest> {
    let made = |name: &str, wasm, expected| Guest {
        name: name.to_owned(),
        wasm,
        manifest: String::new(),
        expected,
    };
    let rejected = |reason: &str| Expected::Rejected(reason.to_owned());
    let parse = |text: String| wat::parse_str(text).unwrap();
    let plugin = wasm("order-summary");
    let functions = parse(guest::module(&"(func)".repeat(200_000)));
    let component = |inside: &str, count| parse(format!("(component {})", inside.repeat(count)));
    let instances =
        format!("(component (core module $m) {})", "(core instance (instantiate $m))".repeat(600));
    let mut of_another_world = wasm("stamp");
    guest::append_custom(&mut of_another_world, "hookmill:world", &[b'9'; 100_000]);
    let long_name = guest::module(&format!(
        "(func $transform (param i32) (result i32) (call ${0}) (i32.const 0)) (func ${0} unreachable)",
        "x".repeat(90_000)
    ));
    let long_import = guest::module("").replacen(
        "(data",
        &format!("(import \"env\" \"{}\" (func)) (data", "x".repeat(90_000)),
        1,
    );
    vec![
        made("made-empty", Vec::new(), rejected("it is an empty file")),
        made("made-not-wasm", b"\x7fELF".repeat(1000), rejected("it is not WebAssembly")),
        made("made-cut-off", plugin[..plugin.len() / 2].to_vec(), rejected("damaged or cut off")),
        made("made-of-zeros", [b"\0asm", &[0; 4096][..]].concat(), rejected("damaged or cut off")),
        made("made-of-another-world", of_another_world, rejected("it was built for version 9999")),
        made("made-of-functions", functions, rejected("functions; at most 200000 are allowed")),
        made("made-of-modules", component("(core module)", 101), rejected("101 core modules")),
        made("made-of-types", component("(type string)", 60_000), rejected("it has 60000 types")),
        made("made-of-instances", parse(instances), rejected("it has 600 instances")),
        made(
            "made-nested",
            parse(format!("{}{}", "(component ".repeat(50), ")".repeat(50))),
            rejected("levels of nested components"),
        ),
        made(
            "made-with-a-long-name",
            guest::with_metadata(parse(long_name)),
            Expected::Failure("plugin_trap".to_owned(), "(in xxxx".to_owned()),
        ),
        made("made-with-a-long-import", guest::with_metadata(parse(long_import)), rejected("env")),
    ]
}
