//! `cargo xtask bench backlog`: what a gateway with very many deliveries that wait costs more than one with few.
//!
//! The deliveries are owed by webhooks that nobody answers. Then the gateway is killed and started, stopped in order and
//! started, and from then on all webhooks have a receiver that takes everything. The first deliveries are the
//! same in number whatever waits behind them, so what one costs, to be claimed and to be made, can be compared.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::gateway::{Bench, KEY, Memory, build, build_load, memory, processor_time, tenant};
use crate::arguments::Arguments;
use crate::process::Process;
use crate::report;

/// The webhooks that are owed something, each as much.
const WEBHOOKS: usize = 20;

/// Events in one request.
const BATCH: usize = 500;

/// A port that nobody listens at.
const NOBODY: &str = "http://127.0.0.1:9/";

/// How long the measured deliveries may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Builds, measures and prints.
pub(super) fn run(mut arguments: Arguments) -> Result<()> {
    let few = arguments.option("--few")?.unwrap_or(10_000_usize);
    let many = arguments.option("--many")?.unwrap_or(1_000_000_usize);
    let release = !arguments.flag("--debug");
    let as_json = arguments.flag("--json");
    arguments.end()?;
    if few < WEBHOOKS * BATCH || many < few {
        bail!("--few is at least {}, and --many no less", WEBHOOKS * BATCH);
    }
    build(release)?;
    build_load(release)?;
    report::heading(&format!("{few} and {many} deliveries that wait"));
    // Some are under way or put off at any moment; the others are enough to compare.
    let measured = few * 4 / 5;
    let figures = [few, many]
        .iter()
        .map(|count| measure(*count, measured, release))
        .collect::<Result<Vec<_>>>()?;
    if as_json {
        report::json(&Value::Array(figures));
    } else {
        print(&figures, measured);
    }
    Ok(())
}

fn measure(count: usize, measured: usize, release: bool) -> Result<Value> {
    let bench = Bench::set_up("backlog", release)?;
    let (mut load, receiver) = bench.start_load(["--receive".to_owned()])?;
    bench.configure("off", &webhooks(NOBODY))?;
    let (mut gateway, address, _) = bench.start()?;
    let began = Instant::now();
    fill(&address, count)?;
    let filled = began.elapsed();
    gateway.kill()?;
    let (mut gateway, _, after_kill) = bench.start()?;
    gateway.stop()?;
    let database = bench.database_bytes()?;

    bench.configure("off", &webhooks(&receiver))?;
    let (gateway, _, start) = bench.start()?;
    let (began, used) = (Instant::now(), processor_time(&gateway)?);
    let received = wait_for(&mut load, measured)?;
    let (took, used) = (began.elapsed(), processor_time(&gateway)?.saturating_sub(used));
    let Memory { rss, .. } = memory(&gateway)?;
    let each = |duration: Duration| duration.as_secs_f64() * 1e6 / received as f64;
    Ok(json!({
        "waiting": count,
        "accepted_per_second": count as f64 / filled.as_secs_f64(),
        "database_mib": database as f64 / f64::from(1 << 20),
        "start_ms": start.as_secs_f64() * 1e3,
        "start_after_kill_ms": after_kill.as_secs_f64() * 1e3,
        "rss_mib": rss as f64 / 1024.0,
        "delivered_per_second": received as f64 / took.as_secs_f64(),
        "processor_us_per_delivery": each(used),
    }))
}

/// A tenant with webhooks that get every event.
fn webhooks(url: &str) -> String {
    let mut text = tenant("bench", KEY);
    for number in 0..WEBHOOKS {
        text.push_str(&format!(
            r#"
[[tenants.webhooks]]
name = "webhook-{number}"
url = "{url}"
event_types = ["*"]
"#
        ));
    }
    text
}

/// Has so many deliveries accepted.
fn fill(address: &str, count: usize) -> Result<()> {
    let url = format!("http://{address}/v1/events");
    let event = format!(r#"{{"type":"order.paid","data":"{}"}}"#, "x".repeat(200));
    let mut left = count / WEBHOOKS;
    while left > 0 {
        let events = left.min(BATCH);
        let body = format!("[{}]", vec![event.as_str(); events].join(","));
        ureq::post(&url)
            .header("authorization", &format!("Bearer {KEY}"))
            .header("content-type", "application/json")
            .send(&body)
            .context("the gateway refused events")?;
        left -= events;
    }
    Ok(())
}

/// Waits until the receiver has got so many requests; gives how many it has.
fn wait_for(load: &mut Process, count: usize) -> Result<u64> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        load.tell("?")?;
        let answer: Value = serde_json::from_str(&load.line(Duration::from_secs(10))?)?;
        let received = answer.get("received").and_then(Value::as_u64).unwrap_or(0);
        if usize::try_from(received)? >= count {
            return Ok(received);
        }
        thread::sleep(Duration::from_millis(2));
    }
    bail!("fewer than {count} deliveries were made within {PATIENCE:?}")
}

fn print(figures: &[Value], measured: usize) {
    let columns = [
        ("waiting", "waiting", 0),
        ("start_ms", "start ms", 0),
        ("start_after_kill_ms", "killed ms", 0),
        ("rss_mib", "RSS MiB", 1),
        ("database_mib", "database MiB", 1),
        ("delivered_per_second", "delivered/s", 0),
        ("processor_us_per_delivery", "CPU us each", 1),
    ];
    let mut rows = vec![columns.map(|(_, title, _)| title.to_owned()).to_vec()];
    for figure in figures {
        let cell = |(name, _, digits): (&str, &str, usize)| {
            let number = figure.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
            format!("{number:.digits$}")
        };
        rows.push(columns.map(cell).to_vec());
    }
    report::table(&rows);
    report::line(&format!(
        "\n  Until the gateway listens, after a stop in order and after it was killed; then until the first {measured} \n  \
         deliveries have arrived: the memory at that moment, and the processor time that each took."
    ));
}
