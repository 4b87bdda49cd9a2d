//! `cargo xtask bench plugin`: one call of a plugin, beside the same transform natively; with `--peers`, beside the same
//! transform through another plugin runtime too, which is built in a workspace of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::arguments::Arguments;
use crate::{command, report, wasm, workspace};

/// The payloads' sizes, as the benchmark's groups name them.
const SIZES: [&str; 3] = ["1200", "20000", "200000"];

/// What is measured of each, with its name in the figures.
const MEASURED: [(&str, &str); 4] = [
    ("native", "native_us"),
    ("fresh", "fresh_us"),
    ("reused", "reused_us"),
    ("instantiate", "instantiate_us"),
];

/// Builds, measures and prints.
pub(super) fn run(mut arguments: Arguments) -> Result<()> {
    let json = arguments.flag("--json");
    let peers = arguments.flag("--peers");
    wasm::build()?;
    let payloads = workspace::target().join("bench/payloads");
    std::fs::create_dir_all(&payloads)
        .with_context(|| format!("cannot create {}", payloads.display()))?;
    let mut bench =
        command::cargo(["bench", "--package", "hookmill", "--bench", "plugin_call", "--"]);
    bench.args(arguments.rest()).env("HOOKMILL_BENCH_PAYLOADS", &payloads);
    command::step("a plugin call", &mut bench)?;
    let mut rows = SIZES.map(row).into_iter().collect::<Result<Vec<_>>>()?;
    if peers {
        for (row, figures) in rows.iter_mut().zip(extism(&payloads)?) {
            row.insert("extism_fresh_us".to_owned(), json!(figure(&figures, "/fresh_us")?));
            row.insert("extism_reused_us".to_owned(), json!(figure(&figures, "/reused_us")?));
        }
    }
    match json {
        true => report::json(&Value::from_iter(rows)),
        false => print(&rows),
    }
    Ok(())
}

/// The medians of one payload, in microseconds, from what criterion has written.
fn row(size: &str) -> Result<Map<String, Value>> {
    let mut row = Map::new();
    let of = |what: &str, file: &str| -> Result<Value> {
        let group = workspace::target().join("criterion/plugin_call");
        let path = group.join(what).join(size).join("new").join(file);
        let text = std::fs::read(&path)
            .with_context(|| format!("there are no figures in {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    };
    let benchmark = of("native", "benchmark.json")?;
    let bytes = benchmark.pointer("/throughput/Bytes").context("a benchmark has no payload")?;
    row.insert("payload_bytes".to_owned(), bytes.clone());
    for (what, name) in MEASURED {
        let nanoseconds = figure(&of(what, "estimates.json")?, "/median/point_estimate")?;
        row.insert(name.to_owned(), json!(rounded(nanoseconds / 1e3)));
    }
    Ok(row)
}

fn figure(figures: &Value, pointer: &str) -> Result<f64> {
    let figure = figures.pointer(pointer).and_then(Value::as_f64);
    figure.with_context(|| format!("the figures have no {pointer}"))
}

fn rounded(micros: f64) -> f64 {
    (micros * 100.0).round() / 100.0
}

/// The same payloads through Extism.
fn extism(payloads: &Path) -> Result<Vec<Value>> {
    let folder = workspace::root().join("gateway/benches/extism");
    let target = workspace::target().join("peers/extism");
    let cargo = |arguments: &[&str]| {
        let mut cargo = command::cargo(arguments.iter().copied());
        // The workspace's flags for guests are for guests of its own SDK.
        cargo.current_dir(&folder).env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", "");
        cargo
    };
    let host = ["build", "--release", "--package", "extism-peer"];
    command::step("build the peer", &mut cargo(&host))?;
    let guest = ["--target", "wasm32-unknown-unknown", "--package", "extism-peer-guest"];
    let guest = [&["build", "--profile", "plugin"][..], &guest].concat();
    command::step("build the peer's guest", &mut cargo(&guest))?;
    let wasm = target.join("wasm32-unknown-unknown/plugin/extism_peer_guest.wasm");
    let files: Vec<PathBuf> =
        SIZES.iter().map(|size| payloads.join(format!("{size}.json"))).collect();
    report::heading("the peer");
    let output = Command::new(target.join("release/extism-peer")).arg(wasm).args(files).output()?;
    if !output.status.success() {
        anyhow::bail!("the peer: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Prints the figures as a table.
fn print(rows: &[Map<String, Value>]) {
    let cell = |row: &Map<String, Value>, name: &str| {
        row.get(name).map(Value::to_string).unwrap_or_default()
    };
    let line = |title: &str, cells: &dyn Fn(&Map<String, Value>) -> String| {
        std::iter::once(title.to_owned()).chain(rows.iter().map(cells)).collect::<Vec<_>>()
    };
    let mut table = vec![line("", &|row| format!("{} bytes", cell(row, "payload_bytes")))];
    let names: Vec<&String> = rows.first().into_iter().flat_map(Map::keys).collect();
    for name in names.into_iter().filter(|name| name.ends_with("_us")) {
        table.push(line(&name.replace("_us", " µs"), &|row| cell(row, name)));
    }
    let micros = |row: &Map<String, Value>, name| row.get(name).and_then(Value::as_f64);
    let ratio = |row: &Map<String, Value>| {
        let ratio = micros(row, "fresh_us").zip(micros(row, "native_us"));
        ratio.map(|(fresh, native)| format!("{:.2}", fresh / native)).unwrap_or_default()
    };
    table.push(line("fresh / native", &ratio));
    report::heading("medians");
    report::table(&table);
}
