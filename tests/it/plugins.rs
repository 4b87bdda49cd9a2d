//! Every example plugin through a real gateway, with the fixtures of its own native tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hookmill_tests::{Gateway, Receiver, Reply, workspace};
use serde_json::value::RawValue;
use serde_json::{Value, json};

#[tokio::test]
async fn order_summary() {
    check("order-summary").await;
}

#[tokio::test]
async fn tenant_filter() {
    check("tenant-filter").await;
}

#[tokio::test]
async fn redact() {
    check("redact").await;
}

#[tokio::test]
async fn slack_message() {
    check("slack-message").await;
}

#[tokio::test]
async fn job_status_envelope() {
    check("job-status-envelope").await;
}

#[tokio::test]
async fn line_items() {
    check("line-items").await;
}

#[tokio::test]
async fn dedupe() {
    check("dedupe").await;
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook("it").plugins(&[("dedupe", json!({ "key": "/id" }))]);
    let gateway = Gateway::new()
        .manifest("dedupe", &manifest("dedupe"))
        .plugin("dedupe")
        .webhook(webhook)
        .start()
        .await;
    let mut reasons = Vec::new();
    for order in ["o_1", "o_2", "o_1"] {
        let id = gateway.send("order.paid", json!({ "id": order })).await;
        let deliveries = gateway.settled(&id).await;
        reasons.push(deliveries[0]["reason"].clone());
    }
    let first = receiver.received()[0].id().to_owned();
    let reason = format!("dedupe: repeats {first}: the same /id");
    assert_eq!(reasons, [Value::Null, Value::Null, json!(reason)]);
    assert_eq!(receiver.received().len(), 2);
}

#[tokio::test]
async fn enrich() {
    check("enrich").await;
    let crm = Receiver::answering(|request, _| match request.target.as_str() {
        "/v1/customers/7" => Reply { body: r#"{"name":"Ada"}"#.to_owned(), ..Reply::status(200) },
        _ => Reply::status(404),
    })
    .await;
    let receiver = Receiver::start().await;
    let config = json!({
        "url": crm.url("/v1/customers/{id}"), "id": "/customer", "into": "crm", "token": "crm_token"
    });
    let webhook = receiver.webhook("it").plugins(&[("enrich", config)]);
    let manifest = manifest("enrich").replace("https://crm.example.com", &crm.url(""));
    let gateway = Gateway::new()
        .manifest("enrich", &manifest)
        .plugin("enrich")
        .tenant_setting("secrets = { crm_token = \"hunter2-hunter2\" }")
        .webhook(webhook)
        .start()
        .await;
    for (customer, expected) in
        [(7, json!({ "customer": 7, "crm": { "name": "Ada" } })), (8, json!({ "customer": 8 }))]
    {
        let id = gateway.send("order.paid", json!({ "customer": customer })).await;
        gateway.settled(&id).await;
        let received = receiver.received();
        let request = received.iter().find(|request| request.id() == id).unwrap();
        assert_eq!(request.json(), expected);
    }
    let asked = crm.received();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|it| it.header("authorization") == "Bearer hunter2-hunter2"));
}

/// The manifest of a plugin, which its README shows; empty when it needs none.
fn manifest(plugin: &str) -> String {
    let folder = workspace().join("plugins").join(plugin);
    let Ok(manifest) = fs::read_to_string(folder.join(format!("{plugin}.toml"))) else {
        return String::new();
    };
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(readme.contains(&format!("```toml\n{manifest}```\n")), "{plugin}: {manifest}");
    manifest
}

/// Sends each fixture's event to a webhook with the fixture's config, and compares what arrives.
async fn check(plugin: &str) {
    let fixtures = fixtures(&workspace().join("plugins").join(plugin).join("fixtures"));
    assert!(fixtures.len() >= 2, "{plugin} has too few fixtures");
    for Fixture { name, fixture, payload } in fixtures {
        let receiver = Receiver::start().await;
        let config = fixture.get("config").cloned().unwrap_or(json!({}));
        let webhook = receiver.webhook("it").plugins(&[(plugin, config)]).set("retry", &json!([]));
        // A fixture may be of another tenant, or stand in for stores and servers; what it expects of those
        // is checked natively.
        let event = &fixture["event"];
        let stands_in =
            ["secrets", "kv", "time", "http"].iter().any(|it| fixture.get(it).is_some());
        if stands_in || event.get("tenant").is_some_and(|tenant| tenant != "acme") {
            continue;
        }
        let gateway = Gateway::new()
            .manifest(plugin, &manifest(plugin))
            .plugin(plugin)
            .webhook(webhook)
            .start()
            .await;
        let answer = gateway.request(submission(event, &payload), &[]).await.unwrap();
        assert_eq!(answer.status, 202, "{plugin}/{name}: {}", answer.body);
        let id = answer.body["events"][0]["id"].as_str().unwrap();
        let deliveries = gateway.settled(id).await;
        compare(&format!("{plugin}/{name}"), &fixture["expect"], &deliveries, &receiver);
    }
}

pub(crate) struct Fixture {
    pub(crate) name: String,
    pub(crate) fixture: Value,
    /// As it is written in the file: what a plugin sees is compared byte for byte.
    pub(crate) payload: String,
}

pub(crate) fn fixtures(folder: &Path) -> Vec<Fixture> {
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let raw: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text).unwrap();
        let event: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(raw["event"].get()).unwrap();
        Fixture {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            fixture: serde_json::from_str(&text).unwrap(),
            payload: event["payload"].get().to_owned(),
        }
    };
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(read)
        .collect()
}

pub(crate) fn submission(event: &Value, payload: &str) -> String {
    let mut submission = json!({ "type": "order.paid" });
    for field in ["id", "type", "timestamp", "attributes"] {
        if let Some(value) = event.get(field) {
            submission[field] = value.clone();
        }
    }
    let rest = submission.to_string();
    format!("{{\"data\":{payload},{}", rest.trim_start_matches('{'))
}

pub(crate) fn compare(case: &str, expect: &Value, deliveries: &[Value], receiver: &Receiver) {
    let received = receiver.received();
    let first = &deliveries[0];
    if let Some(parts) = expect.get("forward") {
        let states: Vec<_> = deliveries.iter().map(|delivery| &delivery["state"]).collect();
        let parts = parts.as_array().unwrap();
        assert_eq!(received.len(), parts.len(), "{case}: {states:?}");
        assert!(received.iter().all(|request| request.verified), "{case}");
        let mut bodies: Vec<_> = received.iter().map(|request| request.json()).collect();
        for part in parts {
            let body = part
                .get("json")
                .cloned()
                .unwrap_or_else(|| serde_json::from_str(part["text"].as_str().unwrap()).unwrap());
            let found = bodies.iter().position(|arrived| *arrived == body);
            let at = found.unwrap_or_else(|| panic!("{case}: {body} is not in {bodies:?}"));
            bodies.remove(at);
        }
        return;
    }
    assert!(received.is_empty(), "{case}: {received:?}");
    if let Some(reason) = expect.get("drop") {
        assert_eq!(first["state"], "dropped", "{case}");
        assert!(first["reason"].as_str().unwrap().ends_with(reason.as_str().unwrap()), "{case}");
        return;
    }
    let (kind, message) = match (expect.get("invalid"), expect.get("retry")) {
        (Some(message), _) => ("plugin_invalid", message),
        (_, Some(message)) => ("plugin_error", message),
        _ => panic!("{case} expects nothing that is known: {expect}"),
    };
    let failure = &first["attempts"][0]["failure"];
    assert_eq!(first["state"], "dead", "{case}");
    assert_eq!(failure["kind"], kind, "{case}");
    // Where in the text it stands differs: the fixture's file is indented.
    let message = message.as_str().unwrap().split(" at line").next().unwrap();
    assert!(failure["message"].as_str().unwrap().contains(message), "{case}: {failure}");
}
