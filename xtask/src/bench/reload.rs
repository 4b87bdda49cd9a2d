//! `cargo xtask bench reload`: from a file that is in its place to the first event that comes through it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::gateway::{Bench, KEY, build, tenant};
use crate::arguments::Arguments;
use crate::process::Process;
use crate::{report, workspace};

const PLUGIN: &str = "order-summary";

/// How long a new version may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Builds, measures and prints.
pub(super) fn run(mut arguments: Arguments) -> Result<()> {
    let rounds = arguments.option("--rounds")?.unwrap_or(20_usize);
    let release = !arguments.flag("--dev");
    let as_json = arguments.flag("--json");
    arguments.end()?;
    if rounds == 0 {
        bail!("--rounds is at least 1");
    }
    build(release)?;
    let bench = Bench::set_up("reload", release)?;
    let module = std::fs::read(workspace::wasm_file(PLUGIN))?;
    report::heading(&format!("{rounds} rounds of a plugin of {} kB", module.len() / 1000));
    let figures = measure(&bench, &module, rounds)?;
    if as_json {
        report::json(&figures);
    } else {
        print(&figures);
    }
    Ok(())
}

fn measure(bench: &Bench, module: &[u8], rounds: usize) -> Result<Value> {
    let mut listen = bench.hookmill();
    listen.args(["listen", "--json", "--port", "0"]);
    let receiver = Process::start("the receiver", &mut listen, bench.log())?;
    let url = receiver.address("{\"listening\":\"", "\"")?;
    let tenant = tenant("bench", KEY);
    let tenants = format!(
        "{tenant}[[tenants.webhooks]]\nname = \"orders\"\nurl = \"{url}/orders\"\nevent_types = [\"*\"]\n\
         plugins = [\"{PLUGIN}\"]\n"
    );
    bench.configure("warn", &tenants)?;
    let file = bench.plugin_file(PLUGIN);
    workspace::replace_file(&file, &version_of(module, 0))?;
    let (gateway, address, _) = bench.start()?;
    let producer = Producer::new(&address)?;
    let mut running = producer.version()?;
    let mut replace = |number| {
        let took = replaced(&producer, &file, &version_of(module, number), &mut running);
        took.with_context(|| gateway.last_words())
    };
    let uncached = (1..=rounds).map(&mut replace).collect::<Result<Vec<_>>>()?;
    // All of these have been compiled before.
    let cached = (0..rounds).map(&mut replace).collect::<Result<Vec<_>>>()?;
    Ok(json!([figure("compiled first", uncached), figure("from the cache", cached)]))
}

/// Moves a new version into place, and waits for the first event that comes through it.
fn replaced(
    producer: &Producer,
    file: &Path,
    module: &[u8],
    running: &mut String,
) -> Result<Duration> {
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, module)?;
    let began = Instant::now();
    std::fs::rename(&fresh, file)?;
    while began.elapsed() < PATIENCE {
        let now = producer.version()?;
        if now != *running {
            *running = now;
            return Ok(began.elapsed());
        }
    }
    bail!("after {PATIENCE:?}, the new version does not run");
}

/// The module with a custom section, which makes it another version that does the same.
fn version_of(module: &[u8], number: usize) -> Vec<u8> {
    let content = format!("\u{5}bench{number:010}");
    let mut bytes = module.to_vec();
    bytes.push(0);
    // Always the same 16 bytes, so one byte says how many.
    bytes.extend(u8::try_from(content.len()));
    bytes.extend(content.into_bytes());
    bytes
}

/// Sends events one by one.
struct Producer {
    agent: ureq::Agent,
    url: String,
}

impl Producer {
    fn new(address: &str) -> Result<Self> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(true)
            .timeout_global(Some(Duration::from_secs(30)))
            .proxy(None)
            .build()
            .new_agent();
        Ok(Self { agent, url: format!("http://{address}") })
    }

    /// Sends an event, waits until it is delivered, and says which version it came through.
    fn version(&self) -> Result<String> {
        let event = include_str!("../../samples/order.json");
        let posted = self
            .agent
            .post(format!("{}/v1/events", self.url))
            .header("authorization", format!("Bearer {KEY}"))
            .header("content-type", "application/json")
            .send(event)?;
        let posted: Value = serde_json::from_str(&posted.into_body().read_to_string()?)?;
        let id = posted.pointer("/events/0/id").and_then(Value::as_str).context("an id")?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let event = self
                .agent
                .get(format!("{}/v1/events/{id}", self.url))
                .header("authorization", format!("Bearer {KEY}"))
                .call()?;
            let event: Value = serde_json::from_str(&event.into_body().read_to_string()?)?;
            let text = |pointer| event.pointer(pointer).and_then(Value::as_str);
            match text("/deliveries/0/state") {
                Some("delivered") => {
                    let version = text("/deliveries/0/plugins/0/version");
                    return Ok(version.context("a version")?.to_owned());
                }
                Some("pending") => std::thread::sleep(Duration::from_millis(1)),
                _ => bail!("the event was not delivered: {event}"),
            }
        }
        bail!("the event is not delivered");
    }
}

fn figure(name: &str, mut took: Vec<Duration>) -> Value {
    took.sort();
    let millis = |share: usize| {
        let index = (took.len() * share / 100).min(took.len().saturating_sub(1));
        took.get(index).map(|took| took.as_secs_f64() * 1e3)
    };
    json!({
        "name": name,
        "rounds": took.len(),
        "p50_ms": millis(50),
        "p90_ms": millis(90),
        "max_ms": millis(100),
    })
}

fn print(figures: &Value) {
    let header = ["", "rounds", "p50 ms", "p90 ms", "max ms"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for figure in figures.as_array().into_iter().flatten() {
        let number = |name: &str| figure.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let name = figure.get("name").and_then(Value::as_str).unwrap_or("?");
        let mut row = vec![name.to_owned()];
        row.extend(["rounds", "p50_ms", "p90_ms", "max_ms"].map(|it| format!("{:.0}", number(it))));
        rows.push(row);
    }
    report::table(&rows);
    report::line(
        "\n  From the rename that puts the file in its place to the arrival of the first event that was\n  \
         transformed by it, with events sent one after the other all the while.",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_differ_in_a_custom_section() {
        let (one, two) = (version_of(b"module", 1), version_of(b"module", 2));
        assert_eq!(one, b"module\0\x10\x05bench0000000001");
        assert_ne!(one, two);
    }

    #[test]
    fn a_figure_has_the_median_and_the_slowest() {
        let took = (1..=10).map(Duration::from_millis).collect();
        let figure = figure("x", took);
        assert_eq!((&figure["p50_ms"], &figure["max_ms"]), (&json!(6.0), &json!(10.0)));
    }
}
