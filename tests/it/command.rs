//! What the configuration and the command line say.

use std::path::Path;
use std::process::{Output, Stdio};

use hookmill_tests::{Gateway, SECRET, Webhook, binary, eventually, stamped, wasm};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

async fn hookmill(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn check_reports_everything_that_is_wrong_at_once_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = "listn = \"127.0.0.1:80\"\n\
        [delivery]\n\
        timeout = 5\n\
        [[tenants]]\n\
        name = \"Acme!\"\n\
        keys = [\"short\"]\n\
        [[tenants.webhooks]]\n\
        name = \"orders\"\n\
        url = \"http://10.0.0.1/hook\"\n\
        event_types = [\"order*\"]\n\
        secrets = [\"hunter2\"]\n";
    std::fs::write(folder.path().join("hookmill.toml"), file).unwrap();
    let output = hookmill(folder.path(), &["check"]).await;
    assert!(!output.status.success());
    let said = text(&output.stderr);
    for (line, part) in [
        (1, "`listen`"),
        (3, "delivery.timeout"),
        (5, "tenants[0].name"),
        (6, "tenants[0].keys[0]"),
        (9, "tenants[0].webhooks[0].url"),
        (10, "tenants[0].webhooks[0].event_types[0]"),
        (11, "tenants[0].webhooks[0].secrets[0]"),
    ] {
        let begins = format!("hookmill.toml:{line}:");
        let found = said.lines().any(|said| said.contains(&begins) && said.contains(part));
        assert!(found, "{begins} … {part} is not in:\n{said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn check_looks_at_the_plugins_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("plugins")).unwrap();
    let file = "[[tenants]]\nname = \"acme\"\nkeys = [\"acme-key-0123456789abcdef\"]\n\
        [[tenants.webhooks]]\nname = \"orders\"\nurl = \"https://example.com/\"\n\
        event_types = [\"*\"]\nplugins = [\"stamp\"]\n";
    std::fs::write(folder.path().join("hookmill.toml"), file).unwrap();
    let output = hookmill(folder.path(), &["check"]).await;
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(
        said.contains("webhook acme/orders names the plugin `stamp`, which is not in"),
        "{said}"
    );

    let plugin = folder.path().join("plugins/stamp.wasm");
    std::fs::write(&plugin, b"\0asm").unwrap();
    let output = hookmill(folder.path(), &["check"]).await;
    let said = text(&output.stderr);
    assert!(said.contains("plugin stamp in"), "{said}");

    std::fs::write(&plugin, wasm("stamp")).unwrap();
    let output = hookmill(folder.path(), &["check"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("plugin stamp 0.1.0"), "{}", text(&output.stdout));
}

#[tokio::test]
async fn a_gateway_that_cannot_start_says_why() {
    let gateway = Gateway::new().start().await;
    let folder = tempfile::tempdir().unwrap();
    let output = hookmill(folder.path(), &["serve"]).await;
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("there is no such file"), "{}", text(&output.stderr));

    let second = gateway.configuration_file();
    let output = hookmill(folder.path(), &["serve", "--config", second.to_str().unwrap()]).await;
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("another gateway uses the data folder"), "{said}");

    let address = gateway.url().strip_prefix("http://").unwrap();
    let taken = folder.path().join("hookmill.toml");
    std::fs::write(&taken, format!("listen = \"{address}\"\n")).unwrap();
    let output = hookmill(folder.path(), &["serve"]).await;
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
}

/// `hookmill listen --json` as a process, with the URL it listens on.
async fn listen(
    arguments: &[&str],
) -> (Child, tokio::io::Lines<BufReader<tokio::process::ChildStdout>>, String) {
    let mut child = Command::new(binary())
        .args(["listen", "--json", "--port", "0"])
        .args(arguments)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    let url = first["listening"].as_str().unwrap().to_owned();
    (child, lines, url)
}

#[tokio::test]
async fn send_and_listen_are_a_producer_and_a_receiver() {
    let (_listen, mut lines, url) = listen(&["--secret", SECRET, "--fail-first", "1"]).await;
    let webhook = Webhook::new("it", &url).plugins(&[("stamp", json!({}))]);
    let gateway = Gateway::new().webhook(webhook);
    gateway.plugins().write("stamp", &stamped("version-07"));
    let gateway = gateway.start().await;

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("event.json"), r#"{"n": 1}"#).unwrap();
    let key = "acme-key-0123456789abcdef";
    let arguments =
        ["send", "event.json", "--type", "a.b", "--url", gateway.url(), "--key", key, "--wait"];
    let output = hookmill(folder.path(), &arguments).await;
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("evt_") && said.contains("delivered"), "{said}");

    for status in [503, 200] {
        let line: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        assert_eq!(line["verified"], true, "{line}");
        assert_eq!(line["answered"], status, "{line}");
        assert_eq!(line["body"], json!({ "version": "version-07", "data": { "n": 1 } }));
    }

    let output = hookmill(
        folder.path(),
        &["send", "--type", "a b", "--data", "1", "--url", gateway.url(), "--key", key],
    )
    .await;
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("type") && said.contains("a b"), "{said}");
}

#[tokio::test]
async fn a_receiver_with_another_secret_is_told_so() {
    let (_listen, mut lines, url) =
        listen(&["--secret", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]).await;
    let gateway = Gateway::new().webhook(Webhook::new("it", &url)).start().await;
    gateway.send("a", json!(1)).await;
    let line: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!(line["verified"], false, "{line}");
    assert!(line["reason"].as_str().unwrap().contains("webhook-signature"), "{line}");
}

#[tokio::test]
async fn logs_can_be_json() {
    let gateway = Gateway::new().setting("log.format = \"json\"").start().await;
    eventually("the first line", || async { gateway.log().contains("listening") }).await;
    for line in gateway.log().lines() {
        let parsed: Value = serde_json::from_str(line).unwrap();
        assert!(parsed["timestamp"].is_string() && parsed["level"].is_string(), "{line}");
    }
}
