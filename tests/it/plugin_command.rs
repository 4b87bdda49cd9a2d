//! What a plugin's author does: `hookmill plugin`, from `new` to a running gateway.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use hookmill_tests::{Gateway, Receiver, binary, eventually, wasm, workspace};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

/// Where the crates of these tests are built: beside everything else that is built, so that only the first
/// run compiles their dependencies.
fn build_folder() -> PathBuf {
    // Cargo puts a test's binary three folders below.
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(3).unwrap().join("plugin-command")
}

/// A folder of one test's own, empty, that has the same path in each run.
fn work_folder(name: &str) -> PathBuf {
    let folder = build_folder().join("crates").join(name);
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .arg("plugin")
        .args(arguments)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", build_folder())
        .env("CARGO_NET_OFFLINE", "true")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// What a command did.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

async fn plugin(folder: &Path, arguments: &[&str]) -> Done {
    command(folder, arguments).output().await.unwrap().into()
}

/// The same, of a command that has to succeed; what it printed.
async fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let done = plugin(folder, arguments).await;
    assert_eq!(done.code, Some(0), "{arguments:?}: {done:#?}");
    done.out
}

/// The same, of a command that has to fail, and say this on standard error.
async fn fails(folder: &Path, arguments: &[&str], expected: &str) {
    let done = plugin(folder, arguments).await;
    assert_eq!(done.code, Some(1), "{arguments:?}: {done:#?}");
    assert!(done.err.contains(expected), "{arguments:?}: {expected:?} is not in {done:#?}");
}

/// A new plugin's crate, which builds with the versions that this workspace has.
async fn new_crate(folder: &Path, name: &str) -> PathBuf {
    let said = succeeds(folder, &["new", name]).await;
    assert!(said.contains(&format!("made ./{name}")), "{said}");
    let path = folder.join(name);
    fs::copy(workspace().join("Cargo.lock"), path.join("Cargo.lock")).unwrap();
    path
}

/// Runs cargo in a new plugin's crate.
async fn cargo(folder: &Path, arguments: &[&str]) {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", build_folder())
        .env("CARGO_NET_OFFLINE", "true")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let done = Done::from(output);
    assert_eq!(done.code, Some(0), "cargo {arguments:?}: {done:#?}");
}

#[tokio::test]
async fn from_nothing_to_a_running_gateway() {
    let folder = work_folder("from_nothing");
    let path = new_crate(&folder, "order-alert").await;
    cargo(&path, &["fmt", "--check"]).await;
    cargo(&path, &["test", "--lib"]).await;
    let said = succeeds(&path, &["test"]).await;
    assert!(said.contains("3 fixtures: 3 passed"), "{said}");

    let receiver = Receiver::start().await;
    let config = json!({ "minimum_cents": 5_000 });
    let webhook = receiver.webhook("it").plugins(&[("order-alert", config)]);
    let gateway = Gateway::new().webhook(webhook).start().await;
    let plugins = gateway.plugins().join("");
    let install = ["build", ".", "--install", plugins.to_str().unwrap()];
    let said = succeeds(&path, &install).await;
    for part in ["order-alert.wasm", "hookmill:plugin/log@1.0.0", "contract  1.0.0", "sha256"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    eventually("the plugin", || async { gateway.log().contains("plugin loaded") }).await;
    for (total, state) in [(25_900, "delivered"), (450, "dropped")] {
        let order = json!({ "id": "o_1", "customer": "Ada", "total_cents": total });
        let id = gateway.send("order.paid", order).await;
        assert_eq!(gateway.settled(&id).await[0]["state"], state);
    }
    let received = receiver.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].json(), json!({ "text": "Ada ordered for 259.00 (o_1)" }));
    assert!(received[0].verified);

    let file = gateway.plugins().path("order-alert");
    let inspected = succeeds(&folder, &["inspect", file.to_str().unwrap(), "--json"]).await;
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["describes"]["name"], "order-alert");
    assert_eq!(inspected["contract"], "1.0.0");
    let sections = inspected["bytes"]["custom_sections"].as_object().unwrap();
    let needed = |name: &String| {
        name == "name" || name.starts_with("component-type") || name.starts_with("hookmill:")
    };
    assert!(sections.len() >= 3 && sections.keys().all(needed), "{sections:?}");
}

#[tokio::test]
async fn new_says_what_is_wrong_with_a_name_or_a_place() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("taken")).unwrap();
    fails(folder.path(), &["new", "taken"], "is there already").await;
    fails(folder.path(), &["new", "a", "--dir", "missing"], "there is no folder missing").await;
    fails(folder.path(), &["new", "a", "--sdk", "."], "is no checkout of the SDK").await;
    let done = plugin(folder.path(), &["new", "../a"]).await;
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.err.contains("it has the character '.'"), "{done:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_checkout_can_be_depended_on() {
    let folder = work_folder("checkout");
    succeeds(&folder, &["new", "from-checkout", "--sdk", workspace().to_str().unwrap()]).await;
    let path = folder.join("from-checkout");
    fs::copy(workspace().join("Cargo.lock"), path.join("Cargo.lock")).unwrap();
    succeeds(&path, &["test"]).await;
}

#[tokio::test]
async fn build_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fails(at, &["build", "missing"], "cannot find the folder missing").await;
    fails(at, &["build"], "has no Cargo.toml").await;
    let manifest = "[package]\nname = \"a\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(at.join("Cargo.toml"), manifest).unwrap();
    fs::create_dir(at.join("src")).unwrap();
    fs::write(at.join("src/lib.rs"), "").unwrap();
    fails(at, &["build"], "crate-type = [\"cdylib\", \"rlib\"]").await;
    let manifest = format!("{manifest}[lib]\ncrate-type = [\"cdylib\"]\n");
    fs::write(at.join("Cargo.toml"), manifest).unwrap();
    fails(at, &["build"], "exports no transform").await;
    fs::write(at.join("src/lib.rs"), "fn broken(").unwrap();
    fails(at, &["build"], "cargo could not build").await;
    // What the compiler says reaches the author.
    fails(at, &["build"], "unclosed delimiter").await;
    fs::write(at.join("Cargo.toml"), "[package\n").unwrap();
    fails(at, &["build"], "cargo cannot read the crate").await;
}

#[tokio::test]
async fn nothing_is_installed_where_no_file_can_be() {
    let folder = work_folder("install");
    let path = new_crate(&folder, "install-test").await;
    let missing = folder.join("missing");
    let missing = missing.to_str().unwrap();
    fails(&path, &["build", "--install", missing], "there is no such folder").await;
    assert!(!folder.join("missing").exists());
    // Nobody can write there, not even root, for whom permissions do not count.
    fails(&path, &["build", "--install", "/proc"], "cannot install into /proc").await;
}

#[tokio::test]
async fn a_crates_own_manifest_grants_what_its_plugin_uses() {
    let folder = work_folder("granted");
    let path = new_crate(&folder, "granted-test").await;
    let source = "//! Counts.\n\nuse hookmill_plugin::{Event, Result, Verdict, kv, transform};\n\n\
        /// Counts.\n#[transform]\nfn count(_event: Event<u64>) -> Result<Verdict> {\n    \
        Verdict::forward(&kv::add(\"n\", 1, None)?)\n}\n";
    fs::write(path.join("src/lib.rs"), source).unwrap();
    let fixture = |n: u32| {
        json!({
            "event": { "payload": 1 },
            "kv": { "n": n.to_string() },
            "expect": { "forward": [{ "json": n + 1 }] },
        })
    };
    for entry in fs::read_dir(path.join("fixtures")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for n in [3, 7] {
        fs::write(path.join(format!("fixtures/{n}.json")), fixture(n).to_string()).unwrap();
    }
    let manifest = path.canonicalize().unwrap().join("granted-test.toml");
    let refused = format!(
        "it imports `hookmill:plugin/kv@1.0.0`, which is not granted; to grant it, put `kv = true` under \
         `[grants]` in granted-test.toml (here that is {})",
        manifest.display()
    );
    fails(&path, &["test"], &refused).await;
    fs::write(&manifest, "[grants]\nkv = true\n").unwrap();
    let said = succeeds(&path, &["test"]).await;
    assert!(said.contains("2 fixtures: 2 passed"), "{said}");
}

/// A plugin's file, its manifest if it has one, and a folder for fixtures.
struct Bench {
    folder: tempfile::TempDir,
}

/// The folders of the project's plugins and of those of its tests, each with the plugin's name.
fn plugin_folders() -> Vec<(String, PathBuf)> {
    let folders = ["plugins", "tests/guests"].map(|folder| workspace().join(folder));
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let named = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), path);
    entries.map(|entry| named(entry.unwrap().path())).collect()
}

impl Bench {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("plugin.wasm"), wasm(name)).unwrap();
        fs::create_dir(folder.path().join("fixtures")).unwrap();
        let own = plugin_folders().into_iter().find(|(plugin, _)| plugin == name);
        if let Some((_, own)) = own
            && let Ok(manifest) = fs::read_to_string(own.join(format!("{name}.toml")))
        {
            fs::write(folder.path().join("plugin.toml"), manifest).unwrap();
        }
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }
}

#[tokio::test]
async fn the_fixtures_of_the_projects_plugins_hold_in_the_sandbox() {
    for (name, folder) in plugin_folders() {
        if !folder.join("fixtures").is_dir() {
            continue;
        }
        let bench = Bench::new(&name);
        let fixtures = folder.join("fixtures");
        let arguments = ["test", "plugin.wasm", "--fixtures", fixtures.to_str().unwrap()];
        let said = succeeds(bench.path(), &arguments).await;
        let count = fs::read_dir(fixtures).unwrap().count();
        assert!(said.contains(&format!("{count} fixtures: {count} passed")), "{said}");
    }
}

#[tokio::test]
async fn what_differs_is_shown_and_can_be_taken_over() {
    let bench = Bench::new("misbehave");
    fails(bench.path(), &["test", "plugin.wasm"], "there are no fixtures").await;
    let case = |order: &str, rest: &str| {
        format!("{{\n  \"event\": {{ \"payload\": {order} }}{rest}\n}}\n")
    };
    let drop = r#"{ "do": "drop", "message": "no tea" }"#;
    bench.write("fixtures/1-drop.json", case(drop, ",\n  \"expect\": { \"drop\": \"tea\" }"));
    bench.write("fixtures/2-new.json", case("{ \"n\": 1.50 }", ""));
    bench.write("fixtures/3-typo.json", case("1", ",\n  \"expect\": { \"forwad\": [] }"));
    bench.write("fixtures/4-trap.json", case(r#"{ "do": "panic", "message": "oh" }"#, ""));
    let retry = r#"{ "do": "retry", "message": "as told" }"#;
    bench.write("fixtures/5-retry.json", case(retry, ",\n  \"expect\": { \"retry\": \"told\" }"));

    let done = plugin(bench.path(), &["test", "plugin.wasm"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    for part in [
        "-   \"drop\": \"tea\"",
        "+   \"drop\": \"no tea\"",
        "it expects nothing; --update writes what came out",
        "3-typo.json: expect: unknown variant `forwad`",
        "plugin_trap",
        "ok       5-retry.json",
        "5 fixtures: 1 passed, 4 failed",
    ] {
        assert!(done.out.contains(part), "{part} is not in {}", done.out);
    }

    let done = plugin(bench.path(), &["test", "plugin.wasm", "--update"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.out.contains("1 passed, 2 updated, 2 failed"), "{}", done.out);
    assert!(done.out.contains("no fixture can expect"), "{}", done.out);
    assert_eq!(
        bench.read("fixtures/1-drop.json"),
        case(drop, ",\n  \"expect\": {\n    \"drop\": \"no tea\"\n  }")
    );
    fs::remove_file(bench.path().join("fixtures/3-typo.json")).unwrap();
    fs::remove_file(bench.path().join("fixtures/4-trap.json")).unwrap();
    let said = succeeds(bench.path(), &["test", "plugin.wasm"]).await;
    assert!(said.contains("3 fixtures: 3 passed"), "{said}");
}

#[tokio::test]
async fn try_tells_everything_about_one_call() {
    let bench = Bench::new("order-summary");
    let order = r#"{"id":"o_1","customer":{"name":"Ada"},"currency":"EUR",
        "items":[{"sku":"A","name":"Tea","quantity":2,"unit_price_cents":450}]}"#;
    bench.write("order.json", order);
    bench.write("config.json", r#"{"include_lines":true}"#);
    let call = ["try", "plugin.wasm", "--event", "order.json", "--config", "config.json"];
    let said = succeeds(bench.path(), &call).await;
    for part in ["forward  1 part", "POST  application/json", "\"total_cents\": 900", "of 16 MiB"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let json: Value =
        serde_json::from_str(&succeeds(bench.path(), &[&call[..], &["--json"]].concat()).await)
            .unwrap();
    assert_eq!(json["outcome"], "forward");
    assert_eq!(json["parts"][0]["body"]["quantity"], 2);
    assert_eq!(json["limits"]["time_us"], 50_000.0);
    let used = &json["used"];
    assert!(used["time_us"].as_f64().unwrap() > 0.0, "{used}");
    assert!(used["memory_bytes"].as_u64().unwrap() >= 256 << 10, "{used}");
    let body = json["parts"][0]["body"].to_string();
    assert_eq!(used["output_bytes"].as_u64().unwrap(), body.len() as u64, "{used}");

    // The manifest beside the file counts, as in a gateway's folder.
    bench.write("plugin.toml", "[limits]\noutput_bytes = 10\n");
    let done = plugin(bench.path(), &call).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.out.contains("plugin_output") && done.out.contains("of 10 bytes"), "{done:?}");
    bench.write("plugin.toml", "[limits]\noutput_byte = 10\n");
    fails(bench.path(), &call, "plugin.toml:2").await;
}

#[tokio::test]
async fn a_fixture_may_say_no_more_than_is_granted() {
    let bench = Bench::new("capable");
    let case = |more: Value| {
        let mut case = json!({ "event": { "payload": { "steps": [] } }, "expect": "retry" });
        case.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        case.to_string()
    };
    bench.write("fixtures/1-secret.json", case(json!({ "secrets": { "other": "x" } })));
    let answer = json!({ "url": "https://b.example/", "json": 1 });
    bench.write("fixtures/2-answer.json", case(json!({ "http": [answer] })));
    bench.write("fixtures/3-typo.json", case(json!({ "http": [{ "ulr": "x" }] })));
    let fetch = json!({ "fetch": { "url": "https://a.example/x" } });
    let expected = json!({ "results": [
        { "error": "NotAllowed(\"the fixture has no answer to GET https://a.example/x\")" }
    ] });
    let asking = json!({
        "event": { "payload": { "steps": [fetch] } }, "expect": { "forward": [{ "json": expected }] }
    });
    bench.write("fixtures/4-unexpected.json", asking.to_string());
    let done = plugin(bench.path(), &["test", "plugin.wasm"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    for part in [
        "1-secret.json: there is a secret `other`, which `secrets` under `[grants]` in plugin.toml",
        "2-answer.json: there is an answer of https://b.example/, which `http` under `[grants]`",
        "3-typo.json: unknown field `ulr`",
        "4 fixtures: 1 passed, 3 failed",
    ] {
        assert!(done.out.contains(part), "{part} is not in {}", done.out);
    }
    fs::remove_file(bench.path().join("plugin.toml")).unwrap();
    fails(bench.path(), &["test", "plugin.wasm"], "in plugin.toml (here that is plugin.toml)")
        .await;
}

#[tokio::test]
async fn try_finds_the_secrets_keys_and_answers_that_it_is_given() {
    let bench = Bench::new("capable");
    let steps = json!([
        { "secret": "crm_token" },
        { "log": "the secret is $SECRET" },
        { "add": { "key": "n" } },
        { "delete": "old" },
        { "fetch": { "url": "https://a.example/x" } },
        { "fetch": { "url": "https://a.example/y", "method": "POST" } },
    ]);
    bench.write("event.json", json!({ "steps": steps }).to_string());
    bench.write("kv.json", r#"{ "n": "41", "old": "x", "same": "y" }"#);
    bench.write("http.json", r#"[{ "url": "https://a.example/x", "text": "found" }]"#);
    let call = ["try", "plugin.wasm", "--event", "event.json", "--kv", "kv.json"];
    let call =
        [&call[..], &["--http", "http.json", "--secret", "crm_token=hunter2-hunter2"]].concat();
    let said = succeeds(bench.path(), &call).await;
    for part in [
        "info   the secret is [secret crm_token]\n",
        "\nrequests\n  GET https://a.example/x  200\n  POST https://a.example/y  failed: --http has no answer \
         to POST https://a.example/y\n",
        "\nchanged keys\n  n = 42\n  old is removed\n",
        "fetches",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let said = succeeds(bench.path(), &[&call[..], &["--json"]].concat()).await;
    let json: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(json["parts"][0]["body"]["results"][2], 42);
    assert_eq!(json["parts"][0]["body"]["results"][4]["body"], "found");
    assert_eq!(json["changed_keys"], json!({ "n": "42", "old": null }));
    assert_eq!(json["requests"][0]["status"], 200);
    assert_eq!((&json["used"]["fetches"], &json["used"]["host_calls"]), (&json!(2), &json!(7)));

    let call = &call[..4];
    fails(bench.path(), &[call, &["--secret", "other=x"]].concat(), "there is a secret `other`")
        .await;
    fails(bench.path(), &[call, &["--kv", "http.json"]].concat(), "http.json: invalid type").await;
    fails(bench.path(), &[call, &["--kv", "-", "--http", "-"]].concat(), "both --kv and --http")
        .await;
    let done = plugin(bench.path(), &[call, &["--secret", "token"]].concat()).await;
    assert_eq!(done.code, Some(2), "{done:?}");
    let bench_call = ["bench", "plugin.wasm", "--event", "event.json", "--seconds", "1"];
    succeeds(bench.path(), &bench_call).await;
}

#[tokio::test]
async fn try_reads_standard_input_and_shows_failures_and_the_log() {
    let bench = Bench::new("misbehave");
    let run = async |input: &str, more: &[&str]| {
        let arguments = [&["try", "plugin.wasm", "--event", "-"], more].concat();
        let mut command = command(bench.path(), &arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        Done::from(child.wait_with_output().await.unwrap())
    };
    let done = run(r#"{"do":"drop","message":"no"}"#, &[]).await;
    assert_eq!((done.code, done.out.contains("drop  no")), (Some(0), true), "{done:?}");
    let done = run(r#"{"do":"panic","message":"out of tea"}"#, &[]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.out.contains("plugin_trap") && done.out.contains("out of tea"), "{}", done.out);
    assert!(done.out.contains("\nlog\n  error"), "{}", done.out);
    let done = run(r#"{"do":"loop"}"#, &["--json"]).await;
    let json: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(json["kind"], "plugin_timeout");
    assert!(json["used"]["time_us"].as_f64().unwrap() >= 50_000.0, "{json}");
    let whole = r#"{"type":"a.b","data":{"do":"invalid","message":"never"},"id":"order-1"}"#;
    let done = run(whole, &["--whole"]).await;
    assert!(done.out.contains("plugin_invalid") && done.out.contains("dead at once"), "{done:?}");
    let done = run("{", &[]).await;
    assert!(done.err.contains("standard input is not JSON"), "{done:?}");
}

#[tokio::test]
async fn every_command_names_the_file_that_is_wrong() {
    let bench = Bench::new("order-summary");
    bench.write("event.json", "{}");
    bench.write("broken.json", "{\"a\":}");
    bench.write("text.wasm", "not a plugin");
    bench.write("empty.wasm", "");
    let whole = wasm("order-summary");
    bench.write("cut.wasm", &whole[..whole.len() / 2]);
    let huge = fs::File::create(bench.path().join("huge.wasm")).unwrap();
    huge.set_len(1 << 40).unwrap();
    let event = ["--event", "event.json"];
    for command in ["try", "bench", "inspect", "test"] {
        let more: &[&str] = if matches!(command, "try" | "bench") { &event } else { &[] };
        for (file, expected) in [
            ("missing.wasm", "cannot read missing.wasm"),
            ("text.wasm", "its first bytes are not"),
            ("empty.wasm", "it is an empty file"),
            ("cut.wasm", "it is damaged or cut off"),
            ("huge.wasm", "huge.wasm has 1099511627776 bytes"),
        ] {
            fails(bench.path(), &[&[command, file], more].concat(), expected).await;
        }
    }
    for command in ["try", "bench"] {
        for (arguments, expected) in [
            (&["--event", "missing.json"][..], "cannot read missing.json"),
            (&["--event", "broken.json"], "broken.json is not JSON"),
            (&["--event", "event.json", "--config", "broken.json"], "broken.json is not JSON"),
            (&["--event", "-", "--config", "-"], "cannot be both"),
            (&["--event", "event.json", "--type", "a b"], "the type has the name"),
        ] {
            fails(bench.path(), &[&[command, "plugin.wasm"], arguments].concat(), expected).await;
        }
    }
    fails(bench.path(), &["try", ".", "--event", "event.json"], "is a folder").await;
    fails(bench.path(), &["bench", "plugin.wasm", "--event", "event.json"], "the plugin fails")
        .await;
}

#[tokio::test]
async fn inspect_and_bench_print_figures() {
    let bench = Bench::new("stamp");
    bench.write("event.json", "{\"n\":1}");
    let said = succeeds(bench.path(), &["inspect", "plugin.wasm"]).await;
    for part in
        ["core module", "1.0.0", "hookmill:plugin/log@1.0.0", "1 memory of 256 KiB", "16 MiB"]
    {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let call = ["bench", "plugin.wasm", "--event", "event.json", "--seconds", "1"];
    let json: Value =
        serde_json::from_str(&succeeds(bench.path(), &[&call[..], &["--json"]].concat()).await)
            .unwrap();
    let figure = |name: &str| json[name].as_f64().unwrap();
    assert!(figure("calls") >= 1.0 && figure("calls_per_second") > 0.0, "{json}");
    let ascending = ["p50_us", "p90_us", "p99_us", "max_us"].map(figure);
    assert!(ascending.is_sorted() && ascending[0] > 0.0, "{json}");
}

#[tokio::test]
async fn what_a_gateway_would_refuse_is_inspected_all_the_same() {
    let bench = Bench::new("stamp");
    let module = wat::parse_str(r#"(module (import "env" "f" (func)))"#).unwrap();
    bench.write("other.wasm", module);
    let done = plugin(bench.path(), &["inspect", "other.wasm"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.out.contains("this is no Hookmill plugin"), "{}", done.out);
    assert!(done.err.contains("the plugin other does not load"), "{}", done.err);
}

/// `hookmill plugin dev` as a process.
struct Dev {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Dev {
    fn start(folder: &Path, install: &Path) -> Self {
        let mut command = command(folder, &["dev", "--install", install.to_str().unwrap()]);
        // What cargo says would stand among what the tests say.
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits for a line that says this.
    async fn says(&mut self, expected: &str) {
        let mut said = Vec::new();
        let waiting = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                let found = line.contains(expected);
                said.push(line);
                if found {
                    return true;
                }
            }
            false
        };
        let found = tokio::time::timeout(std::time::Duration::from_secs(300), waiting).await;
        assert_eq!(found, Ok(true), "{expected:?} is not in {said:#?}");
    }
}

#[tokio::test]
async fn dev_installs_what_works_and_nothing_else() {
    let folder = work_folder("dev");
    let path = new_crate(&folder, "dev-test").await;
    let install = folder.join("plugins");
    fs::create_dir(&install).unwrap();
    let installed = install.join("dev-test.wasm");
    let source = path.join("src/lib.rs");
    let original = fs::read_to_string(&source).unwrap();

    let mut dev = Dev::start(&path, &install);
    dev.says("installed").await;
    let first = fs::read(&installed).unwrap();

    fs::write(&source, original.replace("a small order", "too small")).unwrap();
    dev.says("changed    src/lib.rs").await;
    dev.says("small-order.json").await;
    dev.says("the fixtures do not hold; nothing is installed").await;
    assert_eq!(fs::read(&installed).unwrap(), first);

    fs::write(&source, "fn broken(").unwrap();
    dev.says("cargo could not build").await;
    assert_eq!(fs::read(&installed).unwrap(), first);

    let fixture = path.join("fixtures/small-order.json");
    let expecting = fs::read_to_string(&fixture).unwrap().replace("a small order", "too small");
    fs::write(&fixture, expecting).unwrap();
    fs::write(&source, original.replace("a small order", "too small")).unwrap();
    dev.says("installed").await;
    assert_ne!(fs::read(&installed).unwrap(), first);
    let names: Vec<_> =
        fs::read_dir(&install).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["dev-test.wasm"]);

    let pid = dev.child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().await.unwrap().success());
    assert_eq!(dev.child.wait().await.unwrap().code(), Some(0));
}
