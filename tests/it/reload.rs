//! Plugins that change on disk while events flow.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use hookmill_tests::{Gateway, Plugins, Receiver, Running, eventually, stamped, wasm};
use serde_json::{Value, json};

/// A gateway with a webhook through the plugin `stamp`, at a first version.
pub(crate) fn gateway(receiver: &Receiver) -> Gateway {
    let gateway = Gateway::new().webhook(receiver.webhook("it").plugins(&[("stamp", json!({}))]));
    gateway.plugins().write("stamp", &stamped("version-00"));
    gateway
}

/// Waits until the gateway has logged this.
pub(crate) async fn logs(gateway: &Running, what: &str) {
    eventually(what, || async { gateway.log().contains(what) }).await;
}

/// The version that transforms an event now.
pub(crate) async fn version(gateway: &Running, receiver: &Receiver) -> String {
    let id = gateway.send("probe", Value::Null).await;
    gateway.settled(&id).await;
    let received = receiver.received();
    let request = received.iter().find(|request| request.id() == id).unwrap();
    request.json()["version"].as_str().unwrap().to_owned()
}

pub(crate) async fn runs(gateway: &Running, receiver: &Receiver, expected: &str) {
    eventually(expected, || async { version(gateway, receiver).await == expected }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_every_event_is_transformed_by_exactly_one_good_version() {
    const EVENTS: usize = 5_000;
    const REPLACEMENTS: usize = 20;
    let receiver = Arc::new(Receiver::start().await);
    let gateway = Arc::new(gateway(&receiver).start().await);
    let mut good = BTreeSet::from(["version-00".to_owned()]);
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    for replacement in 1..=REPLACEMENTS {
        if replacement % 2 == 0 {
            let stamp = format!("version-{replacement:02}");
            gateway.plugins().replace("stamp", &stamped(&stamp));
            sent.extend(load(&gateway, EVENTS / REPLACEMENTS, replacement).await);
            runs(&gateway, &receiver, &stamp).await;
            good.insert(stamp);
        } else {
            gateway.plugins().replace("stamp", &broken(replacement));
            sent.extend(load(&gateway, EVENTS / REPLACEMENTS, replacement).await);
            eventually("the rejection", || async {
                gateway.log().matches("plugin rejected").count() > replacement / 2
            })
            .await;
        }
    }
    assert_eq!(sent.len(), EVENTS);
    eventually("all events", || async { receiver.ids().len() >= EVENTS }).await;
    let mut arrived: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for request in receiver.received() {
        assert!(request.verified);
        arrived.entry(request.id().to_owned()).or_default().push(request.json());
    }
    let mut seen = BTreeSet::new();
    for (id, number) in &sent {
        let [body] = &arrived[id][..] else { panic!("{id} came more than once") };
        assert_eq!(body["data"], json!({ "number": number }), "{body}");
        seen.insert(body["version"].as_str().unwrap().to_owned());
    }
    assert!(seen.is_subset(&good), "{seen:?}");
    assert!(seen.len() > REPLACEMENTS / 4, "the load met several versions: {seen:?}");
}

/// Sends events from several tasks at once; gives their ids with what they carry.
async fn load(gateway: &Arc<Running>, count: usize, round: usize) -> BTreeMap<String, usize> {
    const TASKS: usize = 10;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let gateway = Arc::clone(gateway);
            tokio::spawn(async move {
                let mut sent = Vec::new();
                for n in 0..count / TASKS {
                    let number = (round * TASKS + task) * count + n;
                    sent.push((gateway.send("load", json!({ "number": number })).await, number));
                }
                sent
            })
        })
        .collect();
    let mut sent = BTreeMap::new();
    for task in tasks {
        sent.extend(task.await.unwrap());
    }
    sent
}

/// A file that is no good plugin, of a kind that differs from round to round.
fn broken(round: usize) -> Vec<u8> {
    let mut bytes = stamped(&format!("broken--{round:02}"));
    match round / 2 % 5 {
        0 => bytes.truncate(bytes.len() / 2),
        1 => bytes = format!("not wasm at all {round}").into_bytes(),
        // A module without any export, made different by a custom section.
        2 => {
            bytes = b"\0asm\x01\0\0\0".to_vec();
            bytes.extend([0, 3, 1, b'x', u8::try_from(round).unwrap()]);
        }
        3 => bytes.drain(100..200).for_each(drop),
        _ => bytes.truncate(8 + round),
    }
    bytes
}

#[tokio::test]
async fn every_way_to_replace_a_file_is_noticed() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).start().await;
    let plugins = gateway.plugins();
    assert_eq!(version(&gateway, &receiver).await, "version-00");

    plugins.replace("stamp", &stamped("moved-----"));
    runs(&gateway, &receiver, "moved-----").await;

    plugins.write("stamp", &stamped("copied----"));
    runs(&gateway, &receiver, "copied----").await;

    torn(&plugins, &stamped("torn------")).await;
    runs(&gateway, &receiver, "torn------").await;

    // As a config map is mounted: the visible name leads through a link that is swapped.
    for (folder, stamp) in [("..one", "linked-one"), ("..two", "linked-two")] {
        fs::create_dir(plugins.join(folder)).unwrap();
        fs::write(plugins.join(folder).join("stamp.wasm"), stamped(stamp)).unwrap();
        std::os::unix::fs::symlink(folder, plugins.join("..data.tmp")).unwrap();
        fs::rename(plugins.join("..data.tmp"), plugins.join("..data")).unwrap();
        if folder == "..one" {
            std::os::unix::fs::symlink("..data/stamp.wasm", plugins.join("aside")).unwrap();
            fs::rename(plugins.join("aside"), plugins.path("stamp")).unwrap();
        }
        runs(&gateway, &receiver, stamp).await;
    }
}

/// Writes a file in pieces with pauses, as a slow copy does.
async fn torn(plugins: &Plugins, bytes: &[u8]) {
    use std::io::Write as _;
    let mut file = fs::File::create(plugins.path("stamp")).unwrap();
    for piece in bytes.chunks(bytes.len() / 8) {
        file.write_all(piece).unwrap();
        file.sync_all().unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    }
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_why() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).start().await;
    let foreign = b"\0asm\x01\0\0\0\
        \x01\x04\x01\x60\0\0\
        \x02\x0b\x01\x03env\x03out\0\0";
    let future = {
        let mut bytes = wasm("stamp");
        let section = b"hookmill:world1.0.0";
        let at = bytes.windows(section.len()).position(|window| window == section).unwrap();
        bytes[at + section.len() - 5] = b'9';
        bytes
    };
    for (bytes, why) in [
        (b"not wasm".to_vec(), "it is not WebAssembly"),
        (wasm("stamp")[..1000].to_vec(), "it is damaged or cut off"),
        (foreign.to_vec(), "it is a core module that cannot be made a component"),
        (future, "it was built for version 9.0.0 of the plugin contract"),
    ] {
        gateway.plugins().replace("stamp", &bytes);
        eventually(why, || async { gateway.log().contains(why) }).await;
        assert_eq!(version(&gateway, &receiver).await, "version-00");
    }
    let manifest = gateway.plugins().join("stamp.toml");
    gateway.plugins().replace("stamp", &stamped("version-01"));
    runs(&gateway, &receiver, "version-01").await;
    fs::write(manifest, "[limits]\nmemory = 1\n").unwrap();
    let why = "memory_bytes";
    eventually(why, || async { gateway.log().contains(why) }).await;
    assert_eq!(version(&gateway, &receiver).await, "version-01");
}

#[tokio::test]
async fn a_removed_file_that_is_used_stays_loaded_and_comes_back() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).start().await;
    fs::remove_file(gateway.plugins().path("stamp")).unwrap();
    let why = "the file is gone";
    eventually(why, || async { gateway.log().contains(why) }).await;
    assert_eq!(version(&gateway, &receiver).await, "version-00");
    gateway.plugins().replace("stamp", &stamped("version-01"));
    runs(&gateway, &receiver, "version-01").await;
}

#[tokio::test]
async fn a_tenants_own_plugin_comes_before_the_one_for_all() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).start().await;
    fs::create_dir(gateway.plugins().join("acme")).unwrap();
    fs::create_dir(gateway.plugins().join("globex")).unwrap();
    fs::write(gateway.plugins().join("globex/stamp.wasm"), stamped("globex----")).unwrap();
    fs::write(gateway.plugins().join("acme/stamp.wasm"), stamped("acme------")).unwrap();
    runs(&gateway, &receiver, "acme------").await;
}

#[tokio::test]
async fn a_changed_configuration_takes_effect_and_a_wrong_one_changes_nothing() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new().webhook(receiver.webhook("old")).start().await;
    let file = gateway.configuration_file();
    let text = fs::read_to_string(&file).unwrap();

    fs::write(&file, text.replace("event_types", "event_tipes")).unwrap();
    let why = "the configuration file is wrong";
    eventually(why, || async { gateway.log().contains(why) }).await;
    gateway.send("a", json!(1)).await;
    assert_eq!(receiver.wait_for(1).await[0].target, "/old");

    let aside = file.with_extension("new");
    fs::write(&aside, text.replace("/old", "/new")).unwrap();
    fs::rename(&aside, &file).unwrap();
    eventually("the new URL", || async {
        let id = gateway.send("a", json!(1)).await;
        gateway.settled(&id).await;
        receiver.received().last().unwrap().target == "/new"
    })
    .await;
}
