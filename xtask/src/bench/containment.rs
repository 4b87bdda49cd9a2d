//! `cargo xtask bench containment`: how much a healthy tenant notices of a hostile one.
//!
//! Its latency at a steady rate is measured alone, and then beside each kind of hostile plugin, in a fresh
//! gateway each time. The hostile tenant's events keep coming for as long as the measurement takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use super::gateway::{Bench, build, build_load, tenant};
use crate::arguments::Arguments;
use crate::report;

/// They guard nothing but the benchmark, on this machine.
const HEALTHY_KEY: &str = "healthy-key-0123456789abcdef";
const HOSTILE_KEY: &str = "hostile-key-0123456789abcdef";

const HEALTHY_PLUGIN: &str = "order-summary";
const HOSTILE_PLUGIN: &str = "misbehave";

/// Events of the hostile tenant in one request.
const BATCH: u32 = 25;

/// How much longer the healthy tenant's events may take than without the hostile one.
const TARGET: f64 = 2.0;

/// A kind of hostile tenant: what its events tell the plugin to do, and to how many webhooks each goes.
struct Kind {
    name: &'static str,
    order: &'static str,
    webhooks: usize,
}

const KINDS: [Kind; 6] = [
    Kind { name: "spinner", order: r#"{"do":"loop"}"#, webhooks: 1 },
    Kind { name: "allocator", order: r#"{"do":"memory"}"#, webhooks: 1 },
    Kind { name: "recursion", order: r#"{"do":"recurse"}"#, webhooks: 1 },
    Kind { name: "log flood", order: r#"{"do":"log_flood","count":1000000}"#, webhooks: 1 },
    Kind { name: "part bomb", order: r#"{"do":"many_parts","count":1000}"#, webhooks: 1 },
    Kind { name: "pool filler", order: r#"{"do":"loop"}"#, webhooks: 16 },
];

struct Options {
    seconds: u64,
    rate: u64,
    hostile_rate: u64,
    json: bool,
    release: bool,
}

/// Builds, measures and prints.
pub(super) fn run(mut arguments: Arguments) -> Result<()> {
    let options = Options {
        seconds: arguments.option("--seconds")?.unwrap_or(10),
        rate: arguments.option("--rate")?.unwrap_or(500),
        hostile_rate: arguments.option("--hostile-rate")?.unwrap_or(200),
        json: arguments.flag("--json"),
        release: !arguments.flag("--debug"),
    };
    arguments.end()?;
    if options.seconds == 0 || options.rate == 0 || options.hostile_rate == 0 {
        bail!("--seconds, --rate and --hostile-rate are at least 1");
    }
    build(options.release)?;
    build_load(options.release)?;
    report::heading(&format!(
        "{} events/s of a healthy tenant for {} s, beside {} deliveries/s of a hostile one",
        options.rate, options.seconds, options.hostile_rate
    ));
    let mut figures = vec![measure(&options, None)?];
    for kind in &KINDS {
        figures.push(measure(&options, Some(kind))?);
    }
    if options.json {
        report::json(&Value::Array(figures.clone()));
    } else {
        print(&figures);
    }
    check(&figures)
}

/// Measures the healthy tenant beside a kind of hostile one, or alone.
fn measure(options: &Options, kind: Option<&Kind>) -> Result<Value> {
    let bench = Bench::set_up("containment", options.release)?;
    bench.install(HEALTHY_PLUGIN)?;
    bench.install(HOSTILE_PLUGIN)?;
    let arguments = ["--steady", &options.seconds.to_string(), "64", "1024"].map(str::to_owned);
    let arguments = arguments.into_iter().chain([options.rate.to_string()]);
    let (mut load, receiver) = bench.start_load(arguments)?;
    // What goes wrong in hostile plugins would be written all the time.
    bench.configure("off", &tenants(&receiver, kind))?;
    let (gateway, address, _) = bench.start()?;

    let hostile = kind.map(|kind| Hostile::start(&address, kind, options.hostile_rate));
    load.tell(&format!("{address} {HEALTHY_KEY}"))?;
    // Beside the measurement itself: warming up, and waiting for what is under way.
    let line = load.line(Duration::from_secs(options.seconds + 60));
    let accepted = hostile.map(Hostile::stop).transpose()?;
    let figure: Value = serde_json::from_str(&line.with_context(|| gateway.last_words())?)?;
    let Value::Object(mut figure) = figure else {
        bail!("the load generator printed no figures: {figure}");
    };
    figure.insert("name".to_owned(), json!(kind.map_or("alone", |kind| kind.name)));
    figure.insert("hostile_events".to_owned(), json!(accepted));
    Ok(Value::Object(figure))
}

/// The healthy tenant with a webhook, and the hostile one with as many as its kind has.
fn tenants(receiver: &str, kind: Option<&Kind>) -> String {
    let mut tenants = tenant("healthy", HEALTHY_KEY);
    tenants.push_str(&format!(
        r#"
[[tenants.webhooks]]
name = "orders"
url = "{receiver}/orders"
event_types = ["order.*"]
plugins = ["{HEALTHY_PLUGIN}"]
"#
    ));
    tenants.push_str(&tenant("hostile", HOSTILE_KEY));
    for number in 0..kind.map_or(0, |kind| kind.webhooks) {
        tenants.push_str(&format!(
            r#"
[[tenants.webhooks]]
name = "hostile-{number}"
url = "{receiver}/hostile"
event_types = ["hostile"]
plugins = ["{HOSTILE_PLUGIN}"]
retry = []
"#
        ));
    }
    tenants
}

/// The hostile tenant's producer, on a thread of its own.
struct Hostile {
    stop: Arc<AtomicBool>,
    producer: thread::JoinHandle<Result<u64>>,
}

impl Hostile {
    fn start(address: &str, kind: &Kind, rate: u64) -> Self {
        let url = format!("http://{address}/v1/events");
        let event = format!(r#"{{"type":"hostile","data":{}}}"#, kind.order);
        let body =
            format!("[{}]", (0..BATCH).map(|_| event.as_str()).collect::<Vec<_>>().join(","));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        // All kinds make as many calls: what differs is what they do, not how much there is of it.
        let calls = f64::from(BATCH) * kind.webhooks as f64;
        let pause = Duration::from_secs_f64(calls / rate as f64);
        let producer = thread::spawn(move || {
            let mut accepted = 0;
            while !stopped.load(Ordering::Relaxed) {
                ureq::post(&url)
                    .header("authorization", &format!("Bearer {HOSTILE_KEY}"))
                    .header("content-type", "application/json")
                    .send(&body)
                    .context("the gateway refused the hostile tenant's events")?;
                accepted += u64::from(BATCH);
                thread::sleep(pause);
            }
            Ok(accepted)
        });
        Self { stop, producer }
    }

    /// How many of its events were accepted.
    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.producer.join().map_err(|_| anyhow!("the hostile tenant's producer panicked"))?
    }
}

/// Prints the figures side by side, each with its ratio to the first.
fn print(figures: &[Value]) {
    let header = ["beside", "received", "p50 ms", "ratio", "p99 ms", "ratio", "max ms"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let alone = figures.first().cloned().unwrap_or_default();
    for figure in figures {
        let name = figure.get("name").and_then(Value::as_str).unwrap_or("?");
        let received = figure.get("received").and_then(Value::as_u64).unwrap_or(0);
        let mut row = vec![name.to_owned(), received.to_string()];
        for percentile in ["p50", "p99"] {
            row.push(format!("{:.2}", latency(figure, percentile)));
            row.push(format!("{:.2}", ratio(figure, &alone, percentile)));
        }
        row.push(format!("{:.2}", latency(figure, "max")));
        rows.push(row);
    }
    report::table(&rows);
    report::line(
        "\n  The healthy tenant's latency, from just before the POST to the arrival at the receiver.",
    );
    for figure in figures {
        let ratio = ratio(figure, &alone, "p99");
        if ratio > TARGET {
            let name = figure.get("name").and_then(Value::as_str).unwrap_or("?");
            report::line(&report::bad(&format!(
                "  {name}: the 99th percentile is {ratio:.1} times that of the tenant alone; the \
                 target is {TARGET}"
            )));
        }
    }
}

fn latency(figure: &Value, percentile: &str) -> f64 {
    let latency = figure.pointer(&format!("/latency_ms/{percentile}"));
    latency.and_then(Value::as_f64).unwrap_or(f64::NAN)
}

fn ratio(figure: &Value, alone: &Value, percentile: &str) -> f64 {
    latency(figure, percentile) / latency(alone, percentile)
}

/// Fails unless every event of the healthy tenant arrived, once.
fn check(figures: &[Value]) -> Result<()> {
    for figure in figures {
        let count = |name: &str| figure.get(name).and_then(Value::as_u64);
        let name = figure.get("name").and_then(Value::as_str).unwrap_or("?");
        if count("received") != count("accepted") || count("refused") != Some(0) {
            bail!("beside {name}, events of the healthy tenant were refused or lost: {figure}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(p99: f64, received: u64) -> Value {
        json!({
            "name": "x", "accepted": 2, "received": received, "refused": 0,
            "latency_ms": { "p50": 1.0, "p99": p99, "max": 9.0 },
        })
    }

    #[test]
    fn what_is_lost_is_an_error_and_what_is_slow_is_a_ratio() {
        assert!(check(&[figure(1.0, 2), figure(5.0, 2)]).is_ok());
        assert!(check(&[figure(1.0, 2), figure(1.0, 1)]).is_err());
        assert!((ratio(&figure(5.0, 2), &figure(2.0, 2), "p99") - 2.5).abs() < 1e-9);
        assert!(latency(&json!({}), "p99").is_nan());
    }
}
