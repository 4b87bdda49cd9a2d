//! Configs that do not fit the schemas of their plugins: refused where the mistake is made, never sent, never lost.

use std::fs;
use std::process::Stdio;

use hookmill_tests::{Gateway, Receiver, Running, Webhook, binary, described, eventually, wasm};
use serde_json::{Value, json};
use tokio::process::Command;

/// A schema that asks for `member`, a string, and takes nothing else.
fn asking_for(title: &str, member: &str) -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "type": "object",
        "properties": { member: { "type": "string" } },
        "required": [member],
        "additionalProperties": false,
    })
}

/// A gateway with a webhook through the plugin `described`, at version `old`, which asks for `a`.
async fn gateway(receiver: &Receiver) -> Running {
    let gateway = Gateway::new().webhook(webhook(receiver, &json!({ "a": "1" })));
    gateway.plugins().write("described", &described(&asking_for("old", "a")));
    gateway.start().await
}

fn webhook(receiver: &Receiver, config: &Value) -> Webhook {
    let retries = vec!["100ms"; 100];
    let webhook = receiver.webhook("it").set("retry", &json!(retries));
    webhook.plugins(&[("described", config.clone())])
}

/// What the plugin makes of an event now: its version and its config.
async fn made(gateway: &Running, receiver: &Receiver) -> Value {
    let id = gateway.send("probe", Value::Null).await;
    gateway.settled(&id).await;
    let received = receiver.received();
    received.iter().find(|request| request.id() == id).unwrap().json()
}

async fn logged(gateway: &Running, part: &str) {
    eventually(part, || async { gateway.log().contains(part) }).await;
}

/// Changes the configuration file by replacing a part of its text.
fn change(gateway: &Running, from: &str, to: &str) {
    let file = gateway.configuration_file();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from} is not in:\n{text}");
    let aside = file.with_extension("new");
    fs::write(&aside, text.replace(from, to)).unwrap();
    fs::rename(&aside, &file).unwrap();
}

#[tokio::test]
async fn check_names_every_config_that_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("plugins")).unwrap();
    for plugin in ["redact", "tenant-filter"] {
        fs::write(folder.path().join(format!("plugins/{plugin}.wasm")), wasm(plugin)).unwrap();
    }
    let file = r#"
[[tenants]]
name = "acme"
keys = ["acme-key-0123456789abcdef"]
plugins = [{ name = "redact", config = { remove = "/email" } }]

[[tenants.webhooks]]
name = "orders"
url = "https://example.com/"
event_types = ["*"]
plugins = [
  { name = "redact", config = { maks = [], mask = [{ path = "/a", keep_last = "4" }, {}] } },
  "tenant-filter",
  { name = "tenant-filter", config = { default = { field = "kind", exists = true } } },
  { name = "tenant-filter", config = { default = "keep" } },
]

[[tenants.webhooks]]
name = "fine"
url = "https://example.com/"
event_types = ["*"]
plugins = [{ name = "redact", config = { remove = ["/items/*/cost"] } }]
"#;
    fs::write(folder.path().join("hookmill.toml"), file).unwrap();
    let mut check = Command::new(binary());
    check.arg("check").current_dir(folder.path()).stdin(Stdio::null());
    let output = check.output().await.unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let mut lines: Vec<_> =
        said.trim().lines().map(|line| line.trim_start_matches("hookmill: ")).collect();
    lines.sort_unstable();
    let mut expected = [
        "tenant acme (line 5), plugin `redact`: config /remove is a string; a list is needed",
        "webhook acme/orders (line 12), plugin `redact`: config has `maks`, which is not known; there is \
         `mask` and `remove`",
        "webhook acme/orders (line 12), plugin `redact`: config /mask/0/keep_last is a string; an integer is \
         needed",
        "webhook acme/orders (line 12), plugin `redact`: config /mask/1 lacks `path`, which is required",
        "webhook acme/orders (line 14), plugin `tenant-filter`: config /default/field does not match the \
         pattern `^(type|attributes\\..*|(/([^~/]|~[01])*)*)$`",
        "webhook acme/orders (line 15), plugin `tenant-filter`: config /default has none of the forms that are \
         allowed: it is not one of \"forward\" and \"drop\"; or it is a string; an object is needed",
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);

    let good = file
        .replace("\"/email\"", "[\"/email\"]")
        .replace("maks = [], mask = [{ path = \"/a\", keep_last = \"4\" }, {}]", "")
        .replace("\"kind\"", "\"type\"")
        .replace("\"keep\"", "\"drop\"");
    fs::write(folder.path().join("hookmill.toml"), good).unwrap();
    let output = check.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_misfit_at_the_start_is_told_and_its_deliveries_wait_for_the_config() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new()
        // No plugin has failed, so nothing is held for it.
        .setting("plugins.breaker.failures = 1")
        .webhook(webhook(&receiver, &json!({ "b": "1" })))
        .webhook(receiver.webhook("other"));
    gateway.plugins().write("described", &described(&asking_for("old", "a")));
    let gateway = gateway.start().await;
    logged(&gateway, "a config does not fit its plugin; deliveries wait and are retried").await;
    logged(&gateway, "plugin `described`: config lacks `a`, which is required").await;

    let id = gateway.send("order.paid", json!(1)).await;
    let deliveries = || async {
        gateway.get(&format!("/v1/events/{id}")).await.body["deliveries"]
            .as_array()
            .unwrap()
            .clone()
    };
    eventually("a failed attempt", || async {
        deliveries().await.iter().any(|delivery| delivery["state"] == "retrying")
    })
    .await;
    let delivery = deliveries().await.into_iter().find(|one| one["state"] == "retrying").unwrap();
    assert_eq!(delivery["webhook"]["name"], "it");
    let failure = &delivery["attempts"][0]["failure"];
    assert_eq!(failure["kind"], "plugin_config");
    assert_eq!(failure["fault"], "configuration");
    let message = failure["message"].as_str().unwrap();
    assert_eq!(
        message,
        "described: config has `b`, which is not known; there is `a`; config lacks `a`, which is required"
    );
    let others = receiver.wait_for(1).await;
    assert!(others.iter().all(|request| request.target == "/other"), "{others:?}");

    change(&gateway, "\"b\" = \"1\"", "\"a\" = \"1\"");
    gateway.settled(&id).await;
    let received = receiver.received();
    let late = received.iter().find(|request| request.target == "/it").unwrap();
    assert_eq!(late.json(), json!({ "version": "old", "config": { "a": "1" } }));
}

#[tokio::test]
async fn a_configuration_with_a_misfit_changes_nothing_and_says_why() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).await;
    let good = fs::read_to_string(gateway.configuration_file()).unwrap();
    change(&gateway, "\"a\" = \"1\"", "\"a\" = 1");
    logged(&gateway, "the configuration file is wrong and changes nothing").await;
    logged(&gateway, "plugin `described`: config /a is an integer; a string is needed").await;
    assert_eq!(made(&gateway, &receiver).await["config"], json!({ "a": "1" }));

    fs::write(gateway.configuration_file(), good.replace("\"a\" = \"1\"", "\"a\" = \"2\""))
        .unwrap();
    eventually("the new config", || async {
        made(&gateway, &receiver).await["config"] == json!({ "a": "2" })
    })
    .await;
}

#[tokio::test]
async fn a_plugin_that_a_config_does_not_fit_is_rejected_and_the_old_one_stays() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).await;
    gateway.plugins().replace("described", &described(&asking_for("new", "b")));
    logged(&gateway, "plugin rejected").await;
    logged(&gateway, "webhook acme/it (line ").await;
    logged(&gateway, "config lacks `b`, which is required").await;
    assert_eq!(made(&gateway, &receiver).await["version"], "old");
    // A version that it fits is taken at once.
    let lenient = json!({ "title": "lenient", "type": "object" });
    gateway.plugins().replace("described", &described(&lenient));
    eventually("the next version", || async {
        made(&gateway, &receiver).await["version"] == "lenient"
    })
    .await;
    assert_eq!(gateway.log().matches("plugin rejected").count(), 1);
}

/// What both come to when a plugin and its config have to change together.
async fn both_changed(gateway: &Running, receiver: &Receiver) {
    let expected = json!({ "version": "new", "config": { "b": "2" } });
    eventually("both", || async { made(gateway, receiver).await == expected }).await;
    for request in receiver.received() {
        let body = request.json();
        let old = json!({ "version": "old", "config": { "a": "1" } });
        assert!(body == old || body == expected, "half of the change was seen: {body}");
    }
}

#[tokio::test]
async fn a_new_plugin_waits_for_its_config() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).await;
    gateway.plugins().replace("described", &described(&asking_for("new", "b")));
    logged(&gateway, "it waits until they are changed").await;
    assert_eq!(made(&gateway, &receiver).await["version"], "old");
    change(&gateway, "\"a\" = \"1\"", "\"b\" = \"2\"");
    both_changed(&gateway, &receiver).await;
}

#[tokio::test]
async fn a_new_config_waits_for_its_plugin() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).await;
    change(&gateway, "\"a\" = \"1\"", "\"b\" = \"2\"");
    logged(&gateway, "the configuration file is wrong and changes nothing").await;
    assert_eq!(made(&gateway, &receiver).await["version"], "old");
    gateway.plugins().replace("described", &described(&asking_for("new", "b")));
    both_changed(&gateway, &receiver).await;
}

#[tokio::test]
async fn what_waits_is_forgotten_when_it_is_taken_back() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).await;
    gateway.plugins().replace("described", &described(&asking_for("new", "b")));
    logged(&gateway, "it waits until they are changed").await;
    gateway.plugins().replace("described", &described(&asking_for("old", "a")));
    let known = gateway.log().matches("plugin loaded").count();
    gateway.plugins().write("other", &wasm("stamp"));
    // The folder is scanned in one go, so the first plugin has been looked at when the second is loaded.
    eventually("the scan", || async { gateway.log().matches("plugin loaded").count() > known })
        .await;
    change(&gateway, "\"a\" = \"1\"", "\"b\" = \"2\"");
    logged(&gateway, "the configuration file is wrong and changes nothing").await;
    assert_eq!(
        made(&gateway, &receiver).await,
        json!({ "version": "old", "config": { "a": "1" } })
    );
}

#[tokio::test]
async fn a_tenants_own_plugin_has_a_schema_of_its_own() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).await;
    let own = gateway.plugins().join("acme");
    fs::create_dir(&own).unwrap();
    let put = |title: &str, member: &str| {
        let aside = own.join(".described.tmp");
        fs::write(&aside, described(&asking_for(title, member))).unwrap();
        fs::rename(&aside, own.join("described.wasm")).unwrap();
    };
    put("own", "b");
    logged(&gateway, "plugin=acme/described").await;
    logged(&gateway, "config lacks `b`, which is required").await;
    assert_eq!(made(&gateway, &receiver).await["version"], "old");
    change(&gateway, "\"a\" = \"1\"", "\"b\" = \"2\"");
    let expected = json!({ "version": "own", "config": { "b": "2" } });
    eventually("the tenant's own", || async { made(&gateway, &receiver).await == expected }).await;

    // Without it, the one for all is meant again, which the config does not fit.
    let stopped = gateway.stop().await;
    fs::remove_file(own.join("described.wasm")).unwrap();
    let gateway = stopped.resume().await;
    logged(&gateway, "a config does not fit its plugin").await;
    let before = receiver.received().len();
    let id = gateway.send("probe", Value::Null).await;
    let path = format!("/v1/events/{id}");
    eventually("the failure", || async {
        let body = gateway.get(&path).await.body;
        body["deliveries"][0]["attempts"][0]["failure"]["kind"] == "plugin_config"
    })
    .await;
    assert_eq!(receiver.received().len(), before, "nothing is sent meanwhile");
}

#[tokio::test]
async fn a_hostile_schema_is_no_plugin() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).await;
    let link = |next: &str| json!({ "anyOf": [{ "$ref": next }, { "$ref": next }] });
    let mut definitions = serde_json::Map::new();
    for k in 0..30 {
        definitions.insert(format!("a{k}"), link(&format!("#/$defs/a{}", k + 1)));
    }
    definitions.insert("a30".to_owned(), json!(true));
    for (schema, why) in [
        (json!({ "type": "objet" }), "its config schema is not a JSON Schema at /type"),
        (
            json!({ "$ref": "https://example.com/" }),
            "its config schema refers to \"https://example.com/\"",
        ),
        (
            json!({ "$ref": "#/$defs/a0", "$defs": definitions }),
            "more than 2000 schemas to one value",
        ),
        (
            json!({ "allOf": [{ "$ref": "#" }] }),
            "its config schema refers to itself without an end",
        ),
        (json!({ "pattern": "(a{1000}){1000}" }), "its config schema has a pattern at /pattern"),
    ] {
        gateway.plugins().replace("described", &described(&schema));
        // Quotes in the reason are escaped in the log.
        let said = why.split('"').next().unwrap();
        logged(&gateway, said).await;
        assert_eq!(made(&gateway, &receiver).await["version"], "old", "{schema}");
    }
}
