//! The contract with plugins, once published, never changes: neither its files, nor what a gateway makes of a plugin
//! that was built for it. `ARCHITECTURE.md` says how a version is added.

use std::collections::BTreeMap;
use std::fs;

use hookmill::digest::Digest;
use hookmill::transform::{Outcome, Runtime};
use hookmill_tests::{Gateway, Receiver, eventually, workspace};
use serde_json::{Value, json};

use crate::direct::{Pair, event, runtime};

/// A plugin as it was built when the contract was frozen.
const FIXTURE: &str = "tests/fixtures/world-1.0.0.wasm";
const FIXTURE_SHA256: &str = "533c82f555fc1043b27ed29301a79d63cdf71ad3504a6b38a2ad61c6022063c3";

/// The contract of 1.0.
const CONTRACT: &str = "plugin-sdk/wit/since-v1.0";
const CONTRACT_SHA256: [(&str, &str); 6] = [
    ("clock.wit", "c2e8885c11230173f6355bbf2b7c4f71dedf3bc34dcc6dc8889f610995b03bfa"),
    ("http.wit", "907085f8795508169d68c812d1dd3ba72bbadab28be6184a2acd78da553d7665"),
    ("kv.wit", "5c8e4806aac3793388fea10e3c5457952a383906714d890669a0fd88b29179b6"),
    ("plugin.wit", "a46b74f2714fd5999b062dc3498293ea7704472cc0a0fb2fd23f96ef63faf04a"),
    ("random.wit", "049e3c7c8fbf5592cd4b44a700efcadb21ea90a5510c5e7f6a257e5dadcddc76"),
    ("secrets.wit", "ce3da3fe323f606f9386885a18c6adbc8ceb3c3c5350c4446827daccb387a5fb"),
];

/// The fixture, which is what was frozen.
fn fixture() -> Vec<u8> {
    let bytes = fs::read(workspace().join(FIXTURE)).unwrap();
    assert_eq!(
        Digest::of(&bytes).to_string(),
        FIXTURE_SHA256,
        "{FIXTURE} stands for every plugin that was ever built for its version of the contract: \
         restore it, and put a plugin of another version beside it"
    );
    bytes
}

#[test]
fn what_is_published_of_the_contract_is_unchanged() {
    let files: BTreeMap<_, _> = fs::read_dir(workspace().join(CONTRACT))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let digest = Digest::of(&fs::read(entry.path()).unwrap()).to_string();
            (entry.file_name().into_string().unwrap(), digest)
        })
        .collect();
    let published: BTreeMap<_, _> = CONTRACT_SHA256
        .iter()
        .map(|(name, digest)| ((*name).to_owned(), (*digest).to_owned()))
        .collect();
    assert_eq!(
        files, published,
        "{CONTRACT} is published, and plugins are built for it: restore it, and add what is new as \
         since-v1.1, as plugin-sdk/wit/README.md says"
    );
}

#[test]
fn the_fixture_is_the_one_that_its_readme_describes() {
    let bytes = fixture();
    let readme = fs::read_to_string(workspace().join("tests/fixtures/README.md")).unwrap();
    assert!(readme.contains(FIXTURE_SHA256));
    assert!(readme.contains(&format!("{} bytes", bytes.len())));
}

#[tokio::test]
async fn a_plugin_of_1_0_sees_and_does_all_that_the_contract_says() {
    let receiver = Receiver::start().await;
    let webhook = receiver
        .webhook("it")
        .plugins(&[("frozen", json!({}))])
        .set("metadata", &json!({ "region": "eu" }))
        .set("headers", &json!({ "X-Plain": "yes" }));
    let gateway = Gateway::new().webhook(webhook);
    gateway.plugins().write("frozen", &fixture());
    let gateway = gateway.start().await;
    let post = async |id: &str, deed: &str| {
        let event = json!({
            "id": id, "type": "order.paid", "timestamp": "2026-01-02T03:04:05Z",
            "attributes": { "source": "checkout, Zürich" }, "data": deed,
        });
        gateway.post(&event).await;
        gateway.settled(id).await
    };

    let whole = post("e_whole", "forward").await;
    let parts = post("e_parts", "split").await;
    let requests = receiver.received();
    let find = |id: &str| {
        let found = requests.iter().find(|request| request.id() == id);
        found.unwrap_or_else(|| panic!("{id} has not arrived; {parts:?}"))
    };
    let seen = |id: &str, deed: &str, delivery: &Value| {
        format!(
            "id={id}\ntype=order.paid\ntenant=acme\ntimestamp=2026-01-02T03:04:05Z\npayload=\"{deed}\"\n\
             webhook_id={}\nwebhook_name=it\ndelivery_id={}\nsource=checkout, Zürich\nregion=eu\n",
            delivery["webhook"]["id"].as_str().unwrap(),
            delivery["id"].as_str().unwrap(),
        )
    };
    let request = find("e_whole");
    assert_eq!(request.body, seen("e_whole", "forward", &whole[0]));
    assert_eq!((&*request.method, request.header("content-type")), ("POST", "text/plain"));
    assert_eq!(request.header("x-plain"), "yes");
    let first = parts.iter().find(|delivery| delivery["part"] == 1).unwrap();
    let request = find("e_parts");
    assert_eq!(request.body, seen("e_parts", "split", first));
    assert_eq!((&*request.method, request.header("x-frozen")), ("PUT", "1.0.0"));
    assert!(!request.headers.contains_key("x-plain"));
    assert!(request.target.ends_with("/frozen?a+b=c%26d"), "{}", request.target);
    let request = find("e_parts~2");
    assert_eq!(request.body, "e_parts");
    assert_eq!(request.header("content-type"), "application/octet-stream");
    assert!(requests.iter().all(|request| request.verified));

    let dropped = post("e_drop", "drop").await;
    assert_eq!(dropped[0]["state"], "dropped");
    assert_eq!(dropped[0]["reason"], "frozen: dropped as told");
    for (deed, kind, message, attempts) in [
        ("invalid", "plugin_invalid", "frozen: invalid as told", 1),
        ("retry", "plugin_error", "frozen: retry as told", 2),
        ("trap", "plugin_trap", "unreachable", 2),
    ] {
        let dead = post(&format!("e_{deed}"), deed).await;
        assert_eq!(dead[0]["state"], "dead", "{deed}");
        let made = dead[0]["attempts"].as_array().unwrap();
        assert_eq!(made.len(), attempts, "{deed}");
        assert_eq!(made[0]["failure"]["kind"], kind);
        let said = made[0]["failure"]["message"].as_str().unwrap();
        assert!(said.contains(message), "{deed}: {said}");
    }
    assert_eq!(receiver.received().len(), 3);
    eventually("the guest's message", || async {
        gateway.log().lines().any(|line| line.contains("WARN") && line.contains("told to"))
    })
    .await;
}

#[tokio::test]
async fn a_plugin_of_1_0_runs_directly_and_as_a_component() {
    let folder = tempfile::tempdir().unwrap();
    let runtime: Runtime = runtime(&folder);
    let mut pair = Pair::of(&runtime, "frozen", fixture()).await;
    let mut outcomes = Vec::new();
    for deed in ["forward", "split", "drop", "invalid", "retry", "trap"] {
        // The same from both; see `Pair::run`.
        let result = pair.run(deed, &event(&json!(deed).to_string()), &json!({})).await;
        outcomes.push(match result {
            Ok(Outcome::Forward(parts)) => format!("{} parts", parts.len()),
            Ok(Outcome::Drop(reason)) => reason,
            Err((kind, _)) => kind.to_owned(),
        });
    }
    let expected =
        ["1 parts", "2 parts", "frozen: dropped as told", "plugin_invalid", "plugin_error"];
    assert_eq!(outcomes[..5], expected.map(str::to_owned));
    assert_eq!(outcomes[5], "plugin_trap");
}
