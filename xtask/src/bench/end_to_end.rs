//! `cargo xtask bench end-to-end`: events from a producer through the gateway to a receiver.
//!
//! The gateway is the release build, with one webhook that signs. Producer and receiver are one process
//! on the same machine, so every figure stands beside the raw rate of that process alone.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::gateway::{Bench, KEY, build, build_load, tenant};
use crate::arguments::Arguments;
use crate::process::Process;
use crate::report;

/// It guards nothing but the benchmark, on this machine.
const SECRET: &str = "whsec_YmVuY2gtc2VjcmV0LTAxMjM0NTY3ODlhYmNkZWY=";

const PLUGIN: &str = "order-summary";

struct Options {
    seconds: u64,
    connections: u64,
    bytes: u64,
    rates: Vec<u64>,
    plugin: bool,
    json: bool,
}

/// Builds, measures and prints.
pub(super) fn run(mut arguments: Arguments) -> Result<()> {
    let options = Options {
        seconds: arguments.option("--seconds")?.unwrap_or(10),
        connections: arguments.option("--connections")?.unwrap_or(128),
        bytes: arguments.option("--bytes")?.unwrap_or(1024),
        rates: match arguments.option("--rate")? {
            Some(rate) => vec![rate],
            None => vec![1000, 5000],
        },
        plugin: !arguments.flag("--no-plugin"),
        json: arguments.flag("--json"),
    };
    arguments.end()?;
    if options.connections == 0 || options.seconds == 0 || options.rates.contains(&0) {
        bail!("--seconds, --connections and --rate are at least 1");
    }
    build(true)?;
    build_load(true)?;

    report::heading(&format!(
        "{} connections, {} bytes of data, {} s each, {}",
        options.connections,
        options.bytes,
        options.seconds,
        if options.plugin { "one plugin" } else { "no plugin" }
    ));
    let figures = measure(&options)?;
    if options.json {
        report::json(&Value::Array(figures.clone()));
    } else {
        print(&figures);
    }
    check(&figures)
}

fn measure(options: &Options) -> Result<Vec<Value>> {
    let bench = Bench::set_up("end-to-end", true)?;
    bench.install(PLUGIN)?;
    let numbers = [options.seconds, options.connections, options.bytes];
    let arguments = numbers.iter().chain(&options.rates).map(u64::to_string);
    let (mut load, receiver) = bench.start_load(arguments)?;
    let mut figures = vec![figure(&load, options)?];

    bench.configure("warn", &tenants(&receiver, options.plugin))?;
    let (gateway, address, _) = bench.start()?;
    load.tell(&format!("{address} {KEY}"))?;
    for _ in 0..2 + options.rates.len() {
        let figure = figure(&load, options);
        figures.push(figure.with_context(|| gateway.last_words())?);
    }
    Ok(figures)
}

/// The next measurement of the load generator.
fn figure(load: &Process, options: &Options) -> Result<Value> {
    // Beside the measurement itself: warming up, and waiting for what is under way.
    let patience = Duration::from_secs(options.seconds + 60);
    Ok(serde_json::from_str(&load.line(patience)?)?)
}

/// The tenant, with a webhook that signs.
fn tenants(receiver: &str, plugin: bool) -> String {
    let plugins = if plugin { format!("[{PLUGIN:?}]") } else { "[]".to_owned() };
    let tenant = tenant("bench", KEY);
    format!(
        r#"{tenant}
[[tenants.webhooks]]
name = "orders"
url = "{receiver}/orders"
event_types = ["order.*"]
plugins = {plugins}
secrets = ["{SECRET}"]
"#
    )
}

/// Prints the figures as a table.
fn print(figures: &[Value]) {
    let header = ["", "events/s", "of raw", "accepted", "received", "p50 ms", "p99 ms", "max ms"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let raw = figures.first().and_then(per_second).unwrap_or(f64::NAN);
    for figure in figures {
        let rate = per_second(figure).unwrap_or(f64::NAN);
        let name = figure.get("name").and_then(Value::as_str).unwrap_or("?");
        let mut row =
            vec![name.to_owned(), format!("{rate:.0}"), format!("{:.1} %", 100.0 * rate / raw)];
        row.extend(["accepted", "received"].map(|name| match count(figure, name) {
            Some(count) => count.to_string(),
            None => "-".to_owned(),
        }));
        row.extend(["p50", "p99", "max"].map(|name| {
            let latency = figure.pointer(&format!("/latency_ms/{name}"));
            let latency = latency.and_then(Value::as_f64);
            latency.map_or_else(|| "-".to_owned(), |millis| format!("{millis:.2}"))
        }));
        rows.push(row);
    }
    report::table(&rows);
    report::line(
        "\n  raw: the producer straight to the receiver. acknowledge: events that no webhook wants, durable\n  \
         before the answer. end-to-end: as fast as they arrive. steady: at a fixed rate. Latency is from\n  \
         just before the POST to the arrival at the receiver.",
    );
}

/// Fails unless every accepted event arrived, once.
fn check(figures: &[Value]) -> Result<()> {
    for figure in figures {
        let [accepted, received, repeated, refused] =
            ["accepted", "received", "repeated", "refused"].map(|name| count(figure, name));
        let name = figure.get("name").and_then(Value::as_str).unwrap_or("?");
        if received.is_some() && received != accepted {
            bail!("{name}: {accepted:?} events were accepted and {received:?} received");
        }
        for (count, what) in [(repeated, "arrived again"), (refused, "were refused")] {
            if let Some(count @ 1..) = count {
                report::line(&report::bad(&format!("{name}: {count} events {what}")));
            }
        }
    }
    Ok(())
}

fn per_second(figure: &Value) -> Option<f64> {
    figure.get("per_second")?.as_f64()
}

fn count(figure: &Value, name: &str) -> Option<u64> {
    figure.get(name)?.as_u64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_must_match() {
        let good =
            json!({"name": "raw", "accepted": 2, "received": 2, "repeated": 0, "refused": 0});
        let unwanted = json!({"name": "acknowledge", "accepted": 2, "received": null});
        let bad = json!({"name": "end-to-end", "accepted": 2, "received": 1});
        assert!(check(&[good.clone(), unwanted]).is_ok());
        assert!(check(&[good, bad]).is_err());
    }
}
