//! The two ways to call a plugin, directly and as a component, are the same to it and to us.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookmill::delivery::{DeliveryId, WebhookId};
use hookmill::event::{Event, EventId, EventType};
use hookmill::transform::{self, Config, Limits, Outcome, Recipient, Runtime, Secrets, Step};
use hookmill_tests::{wasm, workspace};
use jiff::Timestamp;
use serde_json::{Value, json};

/// What a plugin made of an event, without what may differ: the end of a backtrace.
pub(crate) type Result = std::result::Result<Outcome, (&'static str, String)>;

/// A plugin in both forms.
pub(crate) struct Pair {
    steps: [Step; 2],
}

impl Pair {
    async fn load(runtime: &Runtime, name: &str) -> Self {
        Self::of(runtime, name, wasm(name)).await
    }

    pub(crate) async fn of(runtime: &Runtime, name: &str, direct: Vec<u8>) -> Self {
        // Without the mark, it is made a component.
        let mark = b"hookmill:arena";
        let at = direct.windows(mark.len()).position(|window| window == mark).unwrap();
        let mut component = direct.clone();
        component[at] = b'x';
        let load = async |bytes| {
            // Time that does not run out on a busy machine.
            let limits = Limits { time: Duration::from_secs(2), ..Limits::default() };
            let plugin = runtime.load(name, bytes, limits).await.unwrap();
            Step { plugin: Arc::new(plugin), config: "{}".into() }
        };
        Self { steps: [load(direct).await, load(component).await] }
    }

    /// Runs both, and gives what is the same.
    pub(crate) async fn run(&mut self, case: &str, event: &Event, config: &Value) -> Result {
        let (webhook, delivery) = (WebhookId("wh_it".into()), DeliveryId::generate());
        let metadata = [("region".to_owned(), "eu".to_owned())];
        let recipient = Recipient {
            webhook: &webhook,
            name: "it",
            metadata: &metadata,
            delivery,
            secrets: Secrets::NONE,
        };
        let mut results = Vec::new();
        for step in &mut self.steps {
            step.config = config.to_string().into();
            let result = transform::run(event, recipient, std::slice::from_ref(step)).await;
            results.push(result.map_err(|failed| {
                let message = failed.failure.message.split(" (in ").next().unwrap().to_owned();
                (failed.failure.kind.as_str(), message)
            }));
        }
        let [direct, component] = <[Result; 2]>::try_from(results).unwrap();
        // Not `assert_eq`: a body may be a megabyte.
        assert!(direct == component, "{case}");
        direct
    }
}

pub(crate) fn runtime(folder: &tempfile::TempDir) -> Runtime {
    Runtime::new(Config::new(folder.path().to_owned())).unwrap()
}

pub(crate) fn event(data: &str) -> Event {
    Event {
        tenant: "acme".into(),
        id: EventId::generate(),
        event_type: EventType::parse("order.paid").unwrap(),
        timestamp: Timestamp::UNIX_EPOCH,
        accepted_at: Timestamp::UNIX_EPOCH,
        data: Bytes::copy_from_slice(data.as_bytes()),
        attributes: vec![("source".to_owned(), "checkout, Zürich".to_owned())],
        ordering_key: None,
        webhook_url: None,
    }
}

#[tokio::test]
async fn every_fixture_comes_out_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(&folder);
    for plugin in fs::read_dir(workspace().join("plugins")).unwrap() {
        let path = plugin.unwrap().path();
        let Ok(fixtures) = fs::read_dir(path.join("fixtures")) else { continue };
        // What uses capabilities is always a component.
        if path.ends_with("dedupe") || path.ends_with("enrich") {
            continue;
        }
        let mut pair = Pair::load(&runtime, path.file_name().unwrap().to_str().unwrap()).await;
        let mut forwarded = 0;
        for fixture in fixtures {
            let path = fixture.unwrap().path();
            let fixture: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let event = event(&fixture["event"]["payload"].to_string());
            let config = fixture.get("config").cloned().unwrap_or(json!({}));
            let result = pair.run(path.to_str().unwrap(), &event, &config).await;
            forwarded += usize::from(matches!(result, Ok(Outcome::Forward(_))));
        }
        assert!(forwarded > 0, "{}", path.display());
    }
}

#[tokio::test]
async fn every_misdeed_comes_out_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(&folder);
    let mut pair = Pair::load(&runtime, "misbehave").await;
    let mut kinds = Vec::new();
    for (deed, count) in [
        ("forward", None),
        ("drop", None),
        ("loop", None),
        ("spin", Some(1)),
        ("memory", None),
        ("memory", Some(4)),
        ("panic", None),
        ("trap", None),
        ("recurse", None),
        ("big_output", None),
        ("big_output", Some(1 << 20)),
        ("big_output", Some((1 << 20) + 1)),
        ("many_parts", None),
        ("many_parts", Some(100)),
        ("many_parts", Some(100_000)),
        ("zero_parts", None),
        ("log_flood", None),
        ("big_log", None),
        ("invalid", None),
        ("retry", None),
        ("bad_header", None),
        ("broken_header", None),
        ("many_headers", None),
        ("bad_method", None),
        ("bad_path", None),
        ("bytes", None),
        ("not_json", None),
    ] {
        let data = json!({ "do": deed, "count": count, "message": "as told" });
        let case = format!("{deed} {count:?}");
        let result = pair.run(&case, &event(&data.to_string()), &json!({})).await;
        kinds.extend(result.err().map(|(kind, _)| kind));
    }
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "plugin_error",
            "plugin_invalid",
            "plugin_memory",
            "plugin_output",
            "plugin_timeout",
            "plugin_trap",
        ]
    );
}

#[tokio::test]
async fn payloads_of_every_size_arrive_whole() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(&folder);
    let mut pair = Pair::load(&runtime, "misbehave").await;
    // Around the sizes of pages and of the memory that a guest begins with.
    for size in [2, 4_000, 65_530, 65_536, 65_542, 180_000, 262_144, 400_000, 1_000_000] {
        let data = format!("[{}]", "7".repeat(size - 2));
        let result = pair.run(&size.to_string(), &event(&data), &json!({})).await;
        let Ok(Outcome::Forward(parts)) = result else { panic!("{size}") };
        assert!(parts[0].body == data, "{size}");
    }
}
