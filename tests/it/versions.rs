//! Versions of plugins: kept, pinned, rolled back, tried on a share of the events.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hookmill::digest::Digest;
use hookmill_tests::{
    Gateway, Receiver, Reply, Running, Webhook, binary, eventually, stamped, wasm,
};
use serde_json::{Value, json};
use tokio::process::Command;

/// On a busy machine a call may take long; where calls are counted, none is to fail for that.
const PATIENT: &str = "plugins.limits.time = \"10s\"";

/// A hash as `plugin versions` and messages show it.
fn brief(bytes: &[u8]) -> String {
    Digest::of(bytes).brief()
}

fn full(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// A webhook through one plugin, with more of its table.
fn through(receiver: &Receiver, name: &str, plugin: &str, more: &Value) -> Webhook {
    let mut table = json!({ "name": plugin });
    table.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    receiver.webhook(name).set("plugins", &json!([table]))
}

/// Runs the command line with a gateway's configuration.
async fn hookmill(configuration: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).arg("--config").arg(configuration).stdin(Stdio::null());
    command.output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn succeed(configuration: &Path, arguments: &[&str]) -> String {
    let output = hookmill(configuration, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

async fn fail(configuration: &Path, arguments: &[&str]) -> String {
    let output = hookmill(configuration, arguments).await;
    assert!(!output.status.success(), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

/// Puts a version into the folder and waits until it is the latest.
async fn replace(gateway: &Running, name: &str, bytes: &[u8]) {
    gateway.plugins().replace(name, bytes);
    latest(gateway, name, bytes).await;
}

/// Waits until this version is the latest, and kept.
async fn latest(gateway: &Running, name: &str, bytes: &[u8]) {
    let expected = full(bytes);
    eventually(&format!("{name} {expected}"), || async {
        let plugin = gateway.get(&format!("/v1/plugins/{name}")).await.body;
        plugin["version"] == *expected && version(&plugin, bytes)["kept"] == true
    })
    .await;
}

/// What `/v1/plugins/{name}` says of a version.
fn version(plugin: &Value, bytes: &[u8]) -> Value {
    let versions = plugin["versions"].as_array().cloned().unwrap_or_default();
    let found = versions.into_iter().find(|version| version["version"] == *full(bytes));
    found.unwrap_or(Value::Null)
}

/// The stamp that an event got on its way to a webhook.
async fn stamp(gateway: &Running, receiver: &Receiver, webhook: &str) -> String {
    let id = gateway.send("probe", Value::Null).await;
    gateway.settled(&id).await;
    let target = format!("/{webhook}");
    let received = receiver.received();
    let request = received.iter().find(|it| it.id() == id && it.target == target).unwrap();
    request.json()["version"].as_str().unwrap().to_owned()
}

/// The files of a plugin for all that a gateway keeps.
fn kept_files(configuration: &Path, name: &str) -> PathBuf {
    configuration.with_file_name("data").join("plugins/all").join(name)
}

fn kept_versions(configuration: &Path, name: &str) -> BTreeSet<String> {
    fs::read_dir(kept_files(configuration, name))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter_map(|file| file.strip_suffix(".wasm").map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn a_pin_outlives_reload_restart_and_the_file_itself() {
    let receiver = Receiver::start().await;
    let (old, new) = (stamped("version-00"), stamped("version-01"));
    let pin = json!({ "version": &brief(&old)[..8] });
    let gateway = Gateway::new()
        .webhook(through(&receiver, "pinned", "stamp", &pin))
        .webhook(through(&receiver, "latest", "stamp", &json!({})).events(&["probe"]));
    gateway.plugins().write("stamp", &old);
    let running = gateway.start().await;
    assert_eq!(stamp(&running, &receiver, "pinned").await, "version-00");

    replace(&running, "stamp", &new).await;
    assert_eq!(stamp(&running, &receiver, "pinned").await, "version-00");
    assert_eq!(stamp(&running, &receiver, "latest").await, "version-01");

    let running = running.stop().await.start().await;
    assert_eq!(stamp(&running, &receiver, "pinned").await, "version-00");
    assert_eq!(stamp(&running, &receiver, "latest").await, "version-01");

    let stopped = running.stop().await;
    fs::remove_file(stopped.plugins().path("stamp")).unwrap();
    let running = stopped.start().await;
    let id = running.send("other", Value::Null).await;
    assert_eq!(running.settled(&id).await[0]["state"], "delivered");
    let body = receiver.received().into_iter().find(|it| it.id() == id).unwrap().json();
    assert_eq!(body["version"], "version-00");
    let plugin = running.get("/v1/plugins/stamp").await.body;
    assert_eq!((&plugin["state"], &plugin["version"]), (&json!("missing"), &Value::Null));
}

#[tokio::test]
async fn a_pin_that_is_declared_later_is_loaded_before_it_is_used() {
    let receiver = Receiver::start().await;
    let (old, new) = (stamped("version-00"), stamped("version-01"));
    let gateway = Gateway::new().webhook(through(&receiver, "it", "stamp", &json!({})));
    gateway.plugins().write("stamp", &old);
    let running = gateway.start().await;
    replace(&running, "stamp", &new).await;
    let loaded = version(&running.get("/v1/plugins/stamp").await.body, &old)["loaded"].clone();
    assert_eq!(loaded, false, "an earlier version that nobody names takes no memory");

    let file = running.configuration_file();
    let declared = fs::read_to_string(&file).unwrap();
    let pinned = declared.replace(
        "\"name\" = \"stamp\"",
        &format!("\"name\" = \"stamp\", \"version\" = \"{}\"", full(&old)),
    );
    assert_ne!(pinned, declared);
    fs::write(&file, &pinned).unwrap();
    eventually("the pin", || async { stamp(&running, &receiver, "it").await == "version-00" })
        .await;
    assert!(!running.log().contains("attempt failed"), "{}", running.log());

    // Without the pin, the version is let go of again.
    fs::write(&file, &declared).unwrap();
    eventually("the end of the pin", || async {
        let plugin = running.get("/v1/plugins/stamp").await.body;
        version(&plugin, &old)["loaded"] == false
    })
    .await;
    assert_eq!(stamp(&running, &receiver, "it").await, "version-01");
}

#[tokio::test]
async fn a_version_that_nobody_has_is_reported_and_never_replaced_by_another() {
    let receiver = Receiver::start().await;
    let bytes = stamped("version-00");
    let gateway = Gateway::new().webhook(through(
        &receiver,
        "it",
        "stamp",
        &json!({ "version": "00000000" }),
    ));
    gateway.plugins().write("stamp", &bytes);
    let running = gateway.start().await;
    let id = running.send("a", json!(1)).await;
    let deliveries = running.settled(&id).await;
    let said = format!("the plugin `stamp` has no version 00000000; there are {}", brief(&bytes));
    let attempts = deliveries[0]["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    for attempt in attempts {
        assert_eq!(attempt["failure"]["kind"], "plugin_missing");
        assert_eq!(attempt["failure"]["message"], *said);
    }
    assert!(receiver.received().is_empty());
    let use_of = &running.get("/v1/plugins/stamp").await.body["webhooks"][0];
    assert_eq!((&use_of["version"], &use_of["problem"]), (&Value::Null, &json!(said)));

    let stopped = running.stop().await;
    let file = stopped.configuration_file();
    let checked = fail(&file, &["check"]).await;
    assert!(checked.contains(&format!("webhook acme/it: {said}")), "{checked}");

    // Two versions that begin alike.
    let record =
        fs::read_to_string(kept_files(&file, "stamp").join(format!("{}.json", full(&bytes))))
            .unwrap();
    for ending in ["a", "b"] {
        let name = format!("{ending:0>64}.json");
        fs::write(kept_files(&file, "stamp").join(name), &record).unwrap();
    }
    let checked = fail(&file, &["check"]).await;
    assert!(checked.contains("several versions that begin with 00000000"), "{checked}");
    // Checking has changed nothing.
    assert_eq!(kept_versions(&file, "stamp"), [full(&bytes)].into());
}

#[tokio::test]
async fn a_tenants_chain_can_pin_and_a_hash_may_be_its_own_or_everybodys() {
    let receiver = Receiver::start().await;
    let (shared, own) = (stamped("for-all---"), stamped("acmes-own-"));
    let pins = format!(
        "plugins = [{{ name = \"stamp\", version = \"{}\" }}, {{ name = \"stamp\", version = \"{}\" }}]",
        brief(&shared),
        brief(&own)
    );
    let gateway = Gateway::new().webhook(receiver.webhook("it")).tenant_setting(&pins);
    gateway.plugins().write("stamp", &shared);
    fs::create_dir(gateway.plugins().join("acme")).unwrap();
    fs::write(gateway.plugins().join("acme/stamp.wasm"), &own).unwrap();
    let running = gateway.start().await;
    let id = running.send("a", json!(1)).await;
    let deliveries = running.settled(&id).await;
    let body = receiver.received()[0].json();
    assert_eq!(body["version"], "acmes-own-");
    assert_eq!(body["data"]["version"], "for-all---");
    let versions: Vec<_> =
        deliveries[0]["plugins"].as_array().unwrap().iter().map(|it| &it["version"]).collect();
    assert_eq!(versions, [&json!(full(&shared)), &json!(full(&own))]);
    // The tenant's own plugin is nothing to others.
    let others = running.get_as_other("/v1/plugins/stamp").await.body;
    assert_eq!((&others["scope"], &others["version"]), (&json!("all"), &json!(full(&shared))));
    assert!(!others.to_string().contains(&full(&own)), "{others}");
    assert_eq!(others["webhooks"], json!([]));
    let plugin = running.get("/v1/plugins/stamp").await.body;
    assert_eq!((&plugin["scope"], &plugin["version"]), (&json!("tenant"), &json!(full(&own))));
    for bytes in [&shared, &own] {
        assert_eq!(version(&plugin, bytes)["calls"]["total"], 1, "{plugin}");
    }
}

#[tokio::test]
async fn as_many_earlier_versions_are_kept_as_are_to_be_and_those_that_are_named() {
    let receiver = Receiver::start().await;
    let versions: Vec<_> = (0..6).map(|n| stamped(&format!("version-{n:02}"))).collect();
    let pin = json!({ "version": brief(&versions[0]) });
    let gateway = Gateway::new()
        .setting("plugins.keep_versions = 2")
        .webhook(through(&receiver, "it", "stamp", &pin));
    gateway.plugins().write("stamp", &versions[0]);
    let running = gateway.start().await;
    for version in &versions[1..] {
        replace(&running, "stamp", version).await;
    }
    let file = running.configuration_file();
    let kept = |indices: &[usize]| indices.iter().map(|n| full(&versions[*n])).collect();
    let expected: BTreeSet<String> = kept(&[0, 3, 4, 5]);
    eventually("the bound", || async { kept_versions(&file, "stamp") == expected }).await;
    let listed = succeed(&file, &["plugin", "versions", "stamp"]).await;
    let line = |bytes: &[u8]| listed.lines().find(|line| line.contains(&brief(bytes)));
    assert!(line(&versions[0]).unwrap().ends_with("pinned by acme/it"), "{listed}");
    assert!(line(&versions[5]).unwrap().ends_with("in the plugins folder"), "{listed}");
    assert!(line(&versions[4]).unwrap().contains("0.1.0"), "{listed}");
    assert!(line(&versions[2]).is_none(), "{listed}");
    let unknown = fail(&file, &["plugin", "versions", "nope"]).await;
    assert!(unknown.contains("no version of `nope` is kept"), "{unknown}");
}

#[tokio::test]
async fn a_kept_file_that_was_tampered_with_is_refused_until_it_is_put_right() {
    let receiver = Receiver::start().await;
    let (old, new) = (stamped("version-00"), stamped("version-01"));
    let pin = json!({ "version": brief(&old) });
    let webhook =
        through(&receiver, "it", "stamp", &pin).set("retry", &json!(["100ms", "1s", "1s", "30s"]));
    let gateway = Gateway::new().webhook(webhook);
    gateway.plugins().write("stamp", &old);
    let running = gateway.start().await;
    replace(&running, "stamp", &new).await;
    let stopped = running.stop().await;
    let kept = kept_files(&stopped.configuration_file(), "stamp");
    // Another plugin of the same size.
    fs::write(kept.join(format!("{}.wasm", full(&old))), stamped("tampered--")).unwrap();

    let running = stopped.start().await;
    let id = running.send("a", json!(1)).await;
    let event = async || running.get(&format!("/v1/events/{id}")).await;
    eventually("a failed attempt", || async {
        event().await.body["deliveries"][0]["state"] == "retrying"
    })
    .await;
    let failure = event().await.body["deliveries"][0]["attempts"][0]["failure"].clone();
    assert_eq!(failure["kind"], "plugin_missing");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("its content is not what its name says"), "{message}");
    assert!(receiver.received().is_empty());

    // The right file in the folder mends what is kept, and the event goes on.
    replace(&running, "stamp", &old).await;
    assert_eq!(running.settled(&id).await[0]["state"], "delivered");
    assert_eq!(receiver.received()[0].json()["version"], "version-00");
    replace(&running, "stamp", &new).await;
    assert_eq!(stamp(&running, &receiver, "it").await, "version-00");
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_back_and_forth_under_load_loses_nothing() {
    const EVENTS: usize = 2_000;
    const TASKS: usize = 8;
    let receiver = Receiver::start().await;
    let (old, new) = (stamped("version-00"), stamped("version-01"));
    let gateway =
        Gateway::new().setting(PATIENT).webhook(through(&receiver, "it", "stamp", &json!({})));
    gateway.plugins().write("stamp", &old);
    let running = Arc::new(gateway.start().await);
    replace(&running, "stamp", &new).await;
    let file = running.configuration_file();

    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            tokio::spawn(load(Arc::clone(&running), task, EVENTS / TASKS, Arc::clone(&over)))
        })
        .collect();
    for rollback in 0..4 {
        let target = if rollback % 2 == 0 { &old } else { &new };
        let said = succeed(&file, &["plugin", "rollback", "stamp"]).await;
        assert!(said.contains(&format!("is {} (0.1.0) again", brief(target))), "{said}");
        latest(&running, "stamp", target).await;
    }
    over.store(true, Ordering::SeqCst);
    let mut sent = BTreeSet::new();
    for task in tasks {
        sent.extend(task.await.unwrap());
    }
    assert!(sent.len() >= EVENTS);
    eventually("all events", || async { receiver.ids().len() >= sent.len() }).await;

    let stamps = BTreeMap::from([(full(&old), "version-00"), (full(&new), "version-01")]);
    let received = receiver.received();
    assert_eq!(received.len(), sent.len(), "each once");
    let mut seen = BTreeSet::new();
    for request in received {
        assert!(request.verified && sent.contains(request.id()));
        let delivery = running.settled(request.id()).await.remove(0);
        assert_eq!(delivery["state"], "delivered");
        let hash = delivery["plugins"][0]["version"].as_str().unwrap();
        assert_eq!(request.json()["version"], stamps[hash], "{delivery}");
        seen.insert(hash.to_owned());
    }
    assert_eq!(seen.len(), 2, "the load met both versions");
}

/// Sends at least this many events, and goes on until told to stop; gives their ids.
async fn load(
    gateway: Arc<Running>,
    task: usize,
    at_least: usize,
    over: Arc<AtomicBool>,
) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < at_least || !over.load(Ordering::SeqCst) {
        ids.push(gateway.send("load", json!({ "task": task, "n": ids.len() })).await);
        // Steady rather than fast: the load is to last for several rollbacks.
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    ids
}

#[tokio::test]
async fn a_rollback_says_what_it_cannot_do_and_what_can_be_done() {
    let receiver = Receiver::start().await;
    let (old, new) = (stamped("version-00"), stamped("version-01"));
    let gateway = Gateway::new().webhook(through(&receiver, "it", "stamp", &json!({})));
    gateway.plugins().write("stamp", &old);
    let manifest = gateway.plugins().join("stamp.toml");
    fs::write(&manifest, "limits.time = \"20ms\"\n").unwrap();
    let running = gateway.start().await;
    let file = running.configuration_file();
    let none = fail(&file, &["plugin", "rollback", "stamp"]).await;
    assert!(none.contains("`stamp` has no earlier version that is kept"), "{none}");
    fs::remove_file(&manifest).unwrap();
    replace(&running, "stamp", &new).await;

    let unknown = fail(&file, &["plugin", "rollback", "stamp", "--to", "00000000"]).await;
    assert!(unknown.contains(&brief(&old)) && unknown.contains(&brief(&new)), "{unknown}");
    let already = fail(&file, &["plugin", "rollback", "stamp", "--to", &brief(&new)]).await;
    assert!(already.contains("is in the plugins folder already"), "{already}");
    let nobody = fail(&file, &["plugin", "rollback", "stamp", "--tenant", "acme"]).await;
    assert!(nobody.contains("no version of `acme/stamp` is kept"), "{nobody}");

    let pin = format!("plugins = [{{ name = \"stamp\", version = \"{}\" }}]", brief(&old));
    let stamp_file = running.plugins().path("stamp");
    fs::rename(&stamp_file, running.plugins().join("aside")).unwrap();
    std::os::unix::fs::symlink("aside", &stamp_file).unwrap();
    let link = fail(&file, &["plugin", "rollback", "stamp"]).await;
    assert!(link.contains("is a link") && link.contains(&pin), "{link}");
    fs::rename(running.plugins().join("aside"), &stamp_file).unwrap();

    // The manifest stays as the operator has it, unless it is to go back too.
    succeed(&file, &["plugin", "rollback", "stamp"]).await;
    latest(&running, "stamp", &old).await;
    assert!(!manifest.exists());
    let new_name = ["plugin", "rollback", "stamp", "--to", &brief(&new)];
    succeed(&file, &new_name).await;
    latest(&running, "stamp", &new).await;
    fs::write(&manifest, "limits.time = \"20ms\"\n").unwrap();
    eventually("the limit", || async {
        running.get("/v1/plugins/stamp").await.body["limits"]["time_ms"] == 20.0
    })
    .await;
    fs::write(&manifest, "limits.time = 1\n").unwrap();
    let wrong = fail(&file, &["plugin", "rollback", "stamp"]).await;
    assert!(wrong.contains("stamp.toml is wrong") && wrong.contains("--with-manifest"), "{wrong}");
    assert_eq!(fs::read(&stamp_file).unwrap(), new);
    succeed(&file, &["plugin", "rollback", "stamp", "--with-manifest"]).await;
    assert!(!manifest.exists(), "the version ran without one");
    latest(&running, "stamp", &old).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn where_the_folder_cannot_be_written_a_rollback_names_the_pin() {
    let receiver = Receiver::start().await;
    let (old, new) = (stamped("version-00"), stamped("version-01"));
    let gateway = Gateway::new().webhook(through(&receiver, "it", "stamp", &json!({})));
    gateway.plugins().write("stamp", &old);
    let running = gateway.start().await;
    replace(&running, "stamp", &new).await;
    let stopped = running.stop().await;
    let file = stopped.configuration_file();
    // Not even root can write there.
    let text = format!("plugins_dir = \"/proc\"\n{}", fs::read_to_string(&file).unwrap());
    fs::write(&file, text).unwrap();
    let said = fail(&file, &["plugin", "rollback", "stamp", "--to", &brief(&old)]).await;
    let pin = format!("plugins = [{{ name = \"stamp\", version = \"{}\" }}]", brief(&old));
    assert!(said.contains("the plugins folder /proc cannot be written"), "{said}");
    assert!(said.contains(&pin), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_gets_its_share_and_keeps_its_events_over_a_kill() {
    const EVENTS: usize = 2_000;
    const HELD: usize = 60;
    let held = Arc::new(AtomicBool::new(false));
    let hold = Arc::clone(&held);
    let receiver = Receiver::answering(move |_, before| {
        let held = hold.load(Ordering::SeqCst) && before == 0;
        if held { Reply::after(Duration::from_secs(600)) } else { Reply::status(200) }
    })
    .await;
    let (stable, tried) = (stamped("stable----"), stamped("tried-----"));
    let table = json!({
        "version": brief(&stable),
        "canary": { "version": "latest", "share": "20%" },
    });
    let webhook = through(&receiver, "it", "stamp", &table).set("timeout", &json!("10m"));
    let gateway = Gateway::new().setting(PATIENT).webhook(webhook);
    gateway.plugins().write("stamp", &stable);
    let running = gateway.start().await;
    replace(&running, "stamp", &tried).await;
    let batch = |count: usize| {
        let events: Vec<_> = (0..count).map(|n| json!({ "type": "a", "data": n })).collect();
        Value::Array(events).to_string()
    };
    for _ in 0..EVENTS / 500 {
        assert_eq!(running.request(batch(500), &[]).await.unwrap().status, 202);
    }
    let received = receiver.wait_for(EVENTS).await;
    let to_canary = received.iter().filter(|it| it.json()["version"] == "tried-----").count();
    // 400, give or take five standard deviations.
    assert!((310..=490).contains(&to_canary), "{to_canary} of {EVENTS}");
    eventually("the records", || async {
        let plugin = running.get("/v1/plugins/stamp").await.body;
        version(&plugin, &stable)["calls"]["total"] == EVENTS - to_canary
            && version(&plugin, &tried)["calls"]["total"] == to_canary
    })
    .await;

    held.store(true, Ordering::SeqCst);
    assert_eq!(running.request(batch(HELD), &[]).await.unwrap().status, 202);
    receiver.wait_for(EVENTS + HELD).await;
    let _running = running.kill().await.start().await;
    let all = receiver.wait_for(EVENTS + 2 * HELD).await;
    let mut bodies: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
    for request in &all[EVENTS..] {
        bodies.entry(request.id()).or_default().push(&request.body);
    }
    assert_eq!(bodies.len(), HELD);
    for (id, bodies) in &bodies {
        let [first, again] = bodies[..] else { panic!("{id} came {} times", bodies.len()) };
        assert_eq!(first, again, "{id}");
    }
    let versions: BTreeSet<String> = all[EVENTS..]
        .iter()
        .map(|request| request.json()["version"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(versions.len(), 2, "both versions are among the {HELD} events");
}

#[tokio::test]
async fn the_api_shows_how_both_versions_fare_and_nothing_of_other_tenants() {
    const EVENTS: u64 = 200;
    let receiver = Receiver::start().await;
    // The one being tried is a plugin that fails as its config tells it, which the stable one ignores.
    let (stable, tried) = (stamped("stable----"), wasm("misbehave"));
    let table = json!({
        "version": brief(&stable),
        "canary": { "version": "latest", "share": "50%" },
        "config": { "do": "retry", "message": "not today" },
    });
    let webhook = through(&receiver, "it", "stamp", &table).set("retry", &json!([]));
    let gateway =
        Gateway::new().setting(PATIENT).setting("plugins.breaker.failures = 1000").webhook(webhook);
    gateway.plugins().write("stamp", &stable);
    gateway.plugins().write("unused", &stable);
    let running = gateway.start().await;
    replace(&running, "stamp", &tried).await;
    let mut dead = 0;
    for n in 0..EVENTS {
        let id = running.send("a", json!(n)).await;
        let delivery = running.settled(&id).await.remove(0);
        let is_dead = delivery["state"] == "dead";
        let bytes = if is_dead { &tried } else { &stable };
        assert_eq!(delivery["plugins"][0]["version"], *full(bytes), "{delivery}");
        dead += u64::from(is_dead);
    }
    let plugin = running.get("/v1/plugins/stamp").await.body;
    assert_eq!((&plugin["state"], &plugin["reason"]), (&json!("active"), &Value::Null));
    assert_eq!(plugin["limits"]["time_ms"], 10_000.0);
    let [good, bad] = [version(&plugin, &stable), version(&plugin, &tried)];
    assert_eq!((&good["active"], &good["loaded"]), (&json!(false), &json!(true)));
    assert_eq!((&bad["active"], &bad["loaded"]), (&json!(true), &json!(true)));
    assert_eq!(good["calls"]["total"], EVENTS - dead);
    assert_eq!(good["calls"]["failure_rate"], 0.0);
    assert_eq!(bad["calls"]["total"], dead);
    assert_eq!(bad["calls"]["failure_rate"], 1.0);
    assert_eq!(bad["calls"]["failures"], json!({ "plugin_error": dead }));
    assert!(good["calls"]["max_ms"].as_f64() >= good["calls"]["mean_ms"].as_f64());
    assert!(good["calls"]["mean_ms"].as_f64() > Some(0.0));
    let [use_of] = &plugin["webhooks"].as_array().unwrap()[..] else { panic!("{plugin}") };
    assert_eq!((&use_of["name"], &use_of["version"]), (&json!("it"), &json!(full(&stable))));
    let canary = &use_of["canary"];
    assert_eq!((&canary["pinned"], &canary["share"]), (&json!("latest"), &json!(0.5)));
    assert_eq!(canary["version"], *full(&tried));

    // A file that is no plugin: what runs stays, and the API says why it is not replaced.
    running.plugins().replace("stamp", b"no plugin");
    eventually("the rejection", || async {
        let plugin = running.get("/v1/plugins/stamp").await.body;
        plugin["state"] == "rejected" && plugin["version"] == *full(&tried)
    })
    .await;
    let plugin = running.get("/v1/plugins/stamp").await.body;
    assert_eq!(plugin["rejected_version"], *full(b"no plugin"));
    assert!(plugin["reason"].as_str().unwrap().contains("it is not WebAssembly"), "{plugin}");

    // The other tenant sees the same plugins, and none of these calls and webhooks.
    let others = running.get_as_other("/v1/plugins").await.body;
    let names: Vec<_> =
        others["plugins"].as_array().unwrap().iter().map(|it| it["name"].as_str()).collect();
    assert_eq!(names, [Some("stamp"), Some("unused")]);
    let others = running.get_as_other("/v1/plugins/stamp").await.body;
    assert_eq!(others["webhooks"], json!([]));
    assert_eq!(version(&others, &tried)["calls"], Value::Null);
    assert_eq!(running.get("/v1/plugins/nope").await.status, 404);
}

#[tokio::test]
async fn a_grant_that_is_taken_back_is_taken_from_pinned_versions_too() {
    let receiver = Receiver::start().await;
    let old = wasm("capable");
    // Another file that is the same plugin: a component may end with any custom section.
    let new = [&old[..], b"\0\x03\x01xy"].concat();
    let grants = "[limits]\ntime = \"30s\"\n[grants]\nclock = true\nrandom = true\nkv = true\n\
                  http = [\"https://example.com/\"]\n";
    let gateway = Gateway::new()
        .manifest("capable", &format!("{grants}secrets = [\"token\"]\n"))
        .tenant_setting("secrets = { token = \"hunter2-hunter2\" }")
        .webhook(through(&receiver, "it", "capable", &json!({ "version": brief(&old) })));
    gateway.plugins().write("capable", &old);
    let running = gateway.start().await;
    replace(&running, "capable", &new).await;
    let secret = || async {
        let id = running.send("a", json!({ "steps": [{ "secret": "token" }] })).await;
        let deliveries = running.settled(&id).await;
        let received = receiver.received();
        let request = received.iter().find(|request| request.id() == id);
        (deliveries, request.map(|request| request.json()["results"][0].clone()))
    };
    let (deliveries, granted) = secret().await;
    assert_eq!(
        deliveries[0]["plugins"][0]["version"].as_str(),
        Some(&*full(&old)),
        "{deliveries:?}"
    );
    assert_eq!(granted, Some(json!(true)));

    let manifest = running.plugins().join("capable.toml");
    fs::write(manifest, format!("{grants}secrets = [\"other\"]\n")).unwrap();
    eventually("the secret to be taken back", || async { secret().await.1 == Some(json!(false)) })
        .await;
}
