//! Fixtures: files that say what a transform makes of an event.

mod diff;
mod expect;
mod mocks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;
use serde_json::value::RawValue;

use self::mocks::{Answer, Mocks};
use crate::event::{Context, Event};
use crate::transform::Transform;

/// Runs a transform on every `*.json` file of a folder, and panics with a readable difference for each
/// that turns out otherwise than the file says. `hookmill plugin test` runs the same files in the sandbox.
///
/// `dir` is relative to the plugin's own folder, where `cargo test` runs tests. A file holds one case:
///
/// ```json
/// {
///   "event": {
///     "type": "order.paid",
///     "tenant": "acme",
///     "attributes": { "region": "eu" },
///     "payload": { "id": "o_1", "total": 7 }
///   },
///   "config": { "currency": "EUR" },
///   "expect": { "forward": [{ "json": { "line": "o_1: 7 EUR" } }] }
/// }
/// ```
///
/// - `event` has `payload`, and may have `id`, `type`, `tenant`, `timestamp` and `attributes`. The payload
///   reaches the transform byte for byte as it is written.
/// - `context` may have `webhook_id`, `webhook_name`, `webhook_metadata` and `delivery_id`.
/// - What stands in for the gateway's capabilities, each of which may be left out: `secrets` and `kv` are
///   objects of strings, `time` is in RFC 3339, and `http` is a list of answers:
///   `{"method": "GET", "url": "https://…", "status": 200, "headers": {…}, "json": …}`. The method is `GET`,
///   the status 200 when left out; the body is `json` or `text`; with `"error": message` in place of all
///   that, the server cannot be reached. A request that no answer is for is not allowed. In the sandbox, the
///   `[grants]` in the plugin's manifest, `NAME.toml` in the crate's folder, have to cover them, and a secret's
///   value stands as `[secret NAME]` in reasons and messages, as in a gateway.
/// - `expect` is one of `{"forward": [part, …]}`, `{"drop": reason}`, `{"invalid": message}` and
///   `{"retry": message}`. Of a failure's message a part is enough, and `"invalid"` or `"retry"` alone stand
///   for any. A part has its body as `json` (compared as values), `text` (compared byte for
///   byte) or `bytes` (a list of numbers), and whatever else is not left to the gateway: `content_type`,
///   `headers` (`[{"set": [name, value]}, {"remove": name}]`), `method`, `path_suffix` and `query`
///   (`[[name, value]]`).
///
/// # Panics
///
/// When a case turns out otherwise, a file cannot be read, or there is none.
#[expect(clippy::needless_pass_by_value, reason = "a function is best passed by its bare name")]
pub fn fixtures<Args>(transform: impl Transform<'static, Args>, dir: impl AsRef<Path>) {
    let dir = dir.as_ref();
    let failures: Vec<String> = match files(dir) {
        Ok(files) if files.is_empty() => vec![format!("no *.json file in {}", dir.display())],
        Ok(files) => files
            .iter()
            .filter_map(|file| {
                let failure = check(&transform, file).err()?;
                Some(format!("{}: {failure}", file.display()))
            })
            .collect(),
        Err(error) => vec![format!("{}: {error}", dir.display())],
    };
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Runs one case. The error says what is different, or why the case cannot be run.
fn check<Args>(transform: &impl Transform<'static, Args>, file: &Path) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    // Kept until the process ends, so that transforms that borrow from the payload can be run too.
    let fixture: Fixture = serde_json::from_str(text.leak()).map_err(|error| error.to_string())?;
    let Fixture { event, context, config, secrets, kv, time, http, expect } = fixture;
    let config = config.map_or("{}", RawValue::get);
    let host = Mocks { secrets, kv, time, http }.into_host()?;
    let (event, context) = (event.into_event(), context.into_context(config));
    let outcome = host.enter(|| super::run_resolved(transform, event, context));
    expect::compare(&expect, &outcome)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    event: EventFields,
    #[serde(default)]
    context: ContextFields,
    #[serde(borrow)]
    config: Option<&'static RawValue>,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    #[serde(default)]
    kv: BTreeMap<String, String>,
    time: Option<String>,
    #[serde(default)]
    http: Vec<Answer>,
    expect: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventFields {
    id: Option<String>,
    r#type: Option<String>,
    tenant: Option<String>,
    timestamp: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(borrow)]
    payload: &'static RawValue,
}

impl EventFields {
    fn into_event(self) -> Event<&'static str> {
        let base = super::event(self.payload.get());
        Event {
            id: self.id.unwrap_or(base.id),
            event_type: self.r#type.unwrap_or(base.event_type),
            tenant: self.tenant.unwrap_or(base.tenant),
            timestamp: self.timestamp.unwrap_or(base.timestamp),
            attributes: self.attributes.into_iter().collect(),
            ..base
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContextFields {
    webhook_id: Option<String>,
    webhook_name: Option<String>,
    #[serde(default)]
    webhook_metadata: BTreeMap<String, String>,
    delivery_id: Option<String>,
}

impl ContextFields {
    fn into_context(self, config: &str) -> Context<&str> {
        let base = super::context(config);
        Context {
            webhook_id: self.webhook_id.unwrap_or(base.webhook_id),
            webhook_name: self.webhook_name.unwrap_or(base.webhook_name),
            webhook_metadata: self.webhook_metadata.into_iter().collect(),
            delivery_id: self.delivery_id.unwrap_or(base.delivery_id),
            ..base
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::needless_pass_by_value, reason = "a transform owns its event and context")]

    use super::*;
    use crate::verdict::Verdict;

    fn borrowing(event: Event<&RawValue>) -> Verdict {
        match event.payload.get() {
            "1.50" => Verdict::unchanged(),
            other => Verdict::drop(other),
        }
    }

    #[test]
    fn fixtures_that_hold_pass() {
        fixtures(borrowing, "tests/fixtures/hold");
    }

    #[test]
    #[should_panic(expected = "-  \"drop\": \"2\"\n+  \"drop\": \"1\"")]
    fn a_fixture_that_does_not_hold_panics_with_the_difference() {
        fixtures(borrowing, "tests/fixtures/differ");
    }

    fn asking(event: Event<String>) -> crate::Result<Verdict> {
        let answer = crate::http::Request::get(event.payload).send()?.success()?;
        let said = answer.header("x-said").unwrap_or_default().to_owned();
        let count = crate::kv::add("count", 1, None)?;
        let secret = crate::secrets::require("secret")?;
        Ok(Verdict::drop(format!("{said} {count} {secret} {}", crate::clock::now())))
    }

    #[test]
    fn a_fixture_stands_in_for_the_gateway() {
        fixtures(asking, "tests/fixtures/mocks");
    }

    #[test]
    #[should_panic(expected = "no *.json file in src")]
    fn a_folder_without_fixtures_is_a_mistake() {
        fixtures(borrowing, "src");
    }
}
