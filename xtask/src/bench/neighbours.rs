//! `cargo xtask bench neighbours`: how much receivers that work notice of some that do not.
//!
//! Many good receivers get events at a steady rate, each as many. Their latency is measured alone, and then with
//! bad receivers beside them that are owed as many events each: one that is dead, one that is slow and one that fails. All
//! webhooks belong to one tenant, and then each to its own. Each measurement has a fresh gateway, so that it sees the
//! bad ones from their first failure on; the kinds alternate, so that what else the machine does hits all alike.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::gateway::{Bench, KEY, build, build_load, tenant};
use crate::arguments::Arguments;
use crate::process::Process;
use crate::report;

/// How much longer the good ones' events may take at the 99th percentile than without the bad ones.
const TARGET: f64 = 1.5;

/// What stands beside the good receivers, by the names that the load generator gives them.
struct Kind {
    name: &'static str,
    bad: &'static [&'static str],
}

const KINDS: [Kind; 3] = [
    Kind { name: "alone", bad: &[] },
    Kind { name: "one refuses, one is slow, one fails", bad: &["refuses", "slow", "fails"] },
    Kind { name: "one is silent, one is slow, one fails", bad: &["silent", "slow", "fails"] },
];

struct Options {
    seconds: u64,
    rounds: usize,
    rate: u64,
    receivers: usize,
    json: bool,
    release: bool,
}

/// Whose the webhooks are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tenants {
    One,
    Each,
}

impl Tenants {
    fn name(self) -> &'static str {
        match self {
            Self::One => "one tenant",
            Self::Each => "a tenant each",
        }
    }

    fn key(self, webhook: usize) -> String {
        match self {
            Self::One => KEY.to_owned(),
            Self::Each => format!("{KEY}-{webhook}"),
        }
    }
}

/// Builds, measures and prints.
pub(super) fn run(mut arguments: Arguments) -> Result<()> {
    let options = Options {
        seconds: arguments.option("--seconds")?.unwrap_or(10),
        rounds: arguments.option("--rounds")?.unwrap_or(5),
        rate: arguments.option("--rate")?.unwrap_or(1_000),
        receivers: arguments.option("--receivers")?.unwrap_or(100),
        json: arguments.flag("--json"),
        release: !arguments.flag("--debug"),
    };
    arguments.end()?;
    let numbers = [options.seconds, options.rate];
    if numbers.contains(&0) || options.rounds == 0 || options.receivers == 0 {
        bail!("--seconds, --rounds, --rate and --receivers are at least 1");
    }
    build(options.release)?;
    build_load(options.release)?;
    report::heading(&format!(
        "{} events/s to {} good receivers for {} s, alone and beside three bad ones, {} times",
        options.rate, options.receivers, options.seconds, options.rounds
    ));
    let mut figures = Vec::new();
    for tenants in [Tenants::One, Tenants::Each] {
        figures.extend(measure(&options, tenants)?);
    }
    if options.json {
        report::json(&Value::Array(figures));
    } else {
        print(&figures);
    }
    Ok(())
}

/// Measures each kind in turn, so many rounds, and gives the medians of each.
fn measure(options: &Options, tenants: Tenants) -> Result<Vec<Value>> {
    let bench = Bench::set_up("neighbours", options.release)?;
    let sizes = [options.seconds, 64, 1024, options.rate];
    let arguments = sizes.iter().map(u64::to_string).chain([options.receivers.to_string()]);
    let (mut load, receivers) =
        bench.start_many_receivers(["--neighbours".to_owned()].into_iter().chain(arguments))?;
    let mut rounds: Vec<Vec<Value>> = KINDS.iter().map(|_| Vec::new()).collect();
    for _ in 0..options.rounds {
        for (kind, figures) in KINDS.iter().zip(&mut rounds) {
            let figure = round(&bench, &mut load, &receivers, options, tenants, kind)?;
            check(kind, &figure)?;
            figures.push(figure);
        }
    }
    let medians = KINDS.iter().zip(&rounds).map(|(kind, figures)| {
        json!({
            "name": kind.name,
            "tenants": tenants.name(),
            "received": figures.iter().filter_map(|figure| figure.get("received")?.as_u64()).sum::<u64>(),
            "latency_ms": {
                "p50": median(figures, "p50"), "p99": median(figures, "p99"), "max": median(figures, "max"),
            },
            "rounds_p99_ms": figures.iter().map(|figure| latency(figure, "p99")).collect::<Vec<_>>(),
        })
    });
    Ok(medians.collect())
}

fn round(
    bench: &Bench,
    load: &mut Process,
    receivers: &Value,
    options: &Options,
    tenants: Tenants,
    kind: &Kind,
) -> Result<Value> {
    let mut urls = urls(receivers.get("good").context("the good receivers")?);
    for name in kind.bad {
        urls.extend(self::urls(receivers.get(*name).context("a bad receiver")?));
    }
    // That a receiver fails would be written all the time.
    bench.configure_afresh("off", &declared(&urls, tenants))?;
    let (gateway, address, _) = bench.start()?;
    let keys: Vec<_> = (0..urls.len()).map(|number| tenants.key(number)).collect();
    load.tell(&format!("{address} {} {}", options.receivers, keys.join(" ")))?;
    // Beside the measurement itself: warming up, and waiting for what is under way.
    let line = load.line(Duration::from_secs(options.seconds + 60));
    Ok(serde_json::from_str(&line.with_context(|| gateway.last_words())?)?)
}

/// The addresses of one receiver or of several, as URLs.
fn urls(addresses: &Value) -> Vec<String> {
    let one = addresses.as_str().into_iter();
    let several = addresses.as_array().into_iter().flatten().filter_map(Value::as_str);
    one.chain(several).map(|address| format!("http://{address}/")).collect()
}

/// The configuration's tenants: a webhook for each URL, which gets events of a type of its own.
fn declared(urls: &[String], tenants: Tenants) -> String {
    let mut text = String::new();
    for (number, url) in urls.iter().enumerate() {
        if tenants == Tenants::Each || number == 0 {
            text.push_str(&tenant(&format!("tenant-{number}"), &tenants.key(number)));
        }
        text.push_str(&format!(
            r#"
[[tenants.webhooks]]
name = "webhook-{number}"
url = "{url}"
event_types = ["order.{number}"]
"#
        ));
    }
    text
}

/// Fails unless every event of the good receivers arrived, once.
fn check(kind: &Kind, figure: &Value) -> Result<()> {
    let count = |name: &str| figure.get(name).and_then(Value::as_u64);
    if count("received") != count("awaited") || count("refused") != Some(0) {
        bail!("{}: events of the good receivers were refused or lost: {figure}", kind.name);
    }
    if count("repeated") != Some(0) {
        bail!("{}: events came to the good receivers twice: {figure}", kind.name);
    }
    Ok(())
}

/// Prints the figures side by side, each with its ratio to the good ones alone.
fn print(figures: &[Value]) {
    let header = ["", "received", "p50 ms", "ratio", "p99 ms", "ratio", "max ms"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let mut slow = Vec::new();
    for figures in figures.chunks(KINDS.len()) {
        let alone = figures.first().cloned().unwrap_or_default();
        for figure in figures {
            let text = |name: &str| figure.get(name).and_then(Value::as_str).unwrap_or("?");
            let name = format!("{}: {}", text("tenants"), text("name"));
            let received = figure.get("received").and_then(Value::as_u64).unwrap_or(0);
            let ratio = |percentile| latency(figure, percentile) / latency(&alone, percentile);
            let mut row = vec![name.clone(), received.to_string()];
            for percentile in ["p50", "p99"] {
                row.push(format!("{:.2}", latency(figure, percentile)));
                row.push(format!("{:.2}", ratio(percentile)));
            }
            row.push(format!("{:.2}", latency(figure, "max")));
            rows.push(row);
            if ratio("p99") > TARGET {
                slow.push(format!(
                    "  {name}: the 99th percentile is {:.1} times that of the good ones alone; the target \
                     is {TARGET}",
                    ratio("p99")
                ));
            }
        }
    }
    report::table(&rows);
    report::line(
        "\n  The good receivers' latency, from just before the POST to the arrival; medians of the rounds.",
    );
    for line in slow {
        report::line(&report::bad(&line));
    }
}

fn latency(figure: &Value, percentile: &str) -> f64 {
    let latency = figure.pointer(&format!("/latency_ms/{percentile}"));
    latency.and_then(Value::as_f64).unwrap_or(f64::NAN)
}

fn median(figures: &[Value], percentile: &str) -> f64 {
    let mut all: Vec<_> = figures.iter().map(|figure| latency(figure, percentile)).collect();
    all.sort_by(f64::total_cmp);
    let upper = all.get(all.len() / 2).copied().unwrap_or(f64::NAN);
    let lower = all.get(all.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN);
    f64::midpoint(lower, upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(p99: f64, received: u64) -> Value {
        json!({
            "awaited": 2, "received": received, "refused": 0, "repeated": 0,
            "latency_ms": { "p50": 1.0, "p99": p99, "max": 9.0 },
        })
    }

    #[test]
    fn what_is_lost_is_an_error() {
        let [kind, ..] = &KINDS;
        assert!(check(kind, &figure(1.0, 2)).is_ok());
        assert!(check(kind, &figure(1.0, 1)).is_err());
    }

    #[test]
    fn the_median_is_that_of_the_rounds() {
        let figures = [9.0, 1.0, 3.0, 2.0].map(|p99| figure(p99, 2));
        assert!((median(&figures, "p99") - 2.5).abs() < 1e-9);
        assert!((median(figures.get(..3).unwrap(), "p99") - 3.0).abs() < 1e-9);
    }

    #[test]
    fn each_webhook_has_a_url_a_type_and_its_tenants_key() {
        let urls = urls(&json!(["127.0.0.1:1", "127.0.0.1:2"]));
        let one = declared(&urls, Tenants::One);
        assert_eq!((one.matches("[[tenants]]").count(), one.matches("order.1").count()), (1, 1));
        let each = declared(&urls, Tenants::Each);
        assert_eq!(each.matches("[[tenants]]").count(), 2);
        assert!(each.contains(&Tenants::Each.key(1)) && each.contains("http://127.0.0.1:2/"));
    }
}
