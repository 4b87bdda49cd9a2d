//! `cargo xtask bench plugins`: a gateway with very many plugins: how long it takes to start, and what an idle
//! plugin costs.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::gateway::{Bench, KEY, Memory, build, memory, tenant};
use crate::arguments::Arguments;
use crate::{report, workspace};

/// What stands in the built plugin `stamp`, so that each copy can be another plugin.
const STAMP: &[u8] = b"stamp:0000000000";

/// Starts with compiled plugins; the best and the median are shown.
const WARM_STARTS: usize = 5;

/// Builds, measures and prints.
pub(super) fn run(mut arguments: Arguments) -> Result<()> {
    let count = arguments.option("--count")?.unwrap_or(1_000_usize);
    let release = !arguments.flag("--dev");
    let as_json = arguments.flag("--json");
    arguments.end()?;
    if count == 0 {
        bail!("--count is at least 1");
    }
    build(release)?;
    let bench = Bench::set_up("plugins", release)?;
    bench.configure("warn", &tenant("bench", KEY))?;
    report::heading(&format!("{count} plugins"));
    let figures = measure(&bench, count)?;
    if as_json {
        report::json(&figures);
    } else {
        print(&figures, count);
    }
    let logged = bench.logged();
    if !logged.is_empty() {
        bail!("the gateway had something to say:\n{logged}");
    }
    Ok(())
}

fn measure(bench: &Bench, count: usize) -> Result<Value> {
    let mut rows = vec![start(bench, "without plugins", count)?];
    let module = std::fs::read(workspace::wasm_file("stamp"))?;
    for n in 0..count {
        std::fs::write(bench.plugin_file(&format!("plugin-{n}")), stamped(&module, n)?)?;
    }
    rows.push(start(bench, "cold: every plugin is compiled", count)?);
    let mut warm = Vec::new();
    for _ in 0..WARM_STARTS {
        warm.push(start(bench, "warm: every plugin is in the cache", count)?);
    }
    warm.sort_by_key(|start| start.took);
    rows.push(warm.swap_remove(WARM_STARTS / 2));
    let empty = rows.first().map_or(Memory { rss: 0, pss: 0 }, |start| start.memory);
    let figures = rows.iter().map(|start| start.figure(empty, count)).collect();
    Ok(Value::Array(figures))
}

/// A start, and what the gateway takes of memory then.
struct Start {
    name: &'static str,
    took: Duration,
    memory: Memory,
}

impl Start {
    fn figure(&self, empty: Memory, count: usize) -> Value {
        let per_plugin = |with: u64, without: u64| {
            let bytes = with.saturating_sub(without) * 1024;
            bytes / u64::try_from(count).unwrap_or(u64::MAX)
        };
        json!({
            "name": self.name,
            "start_ms": self.took.as_secs_f64() * 1e3,
            "rss_kib": self.memory.rss,
            "pss_kib": self.memory.pss,
            "rss_bytes_per_plugin": per_plugin(self.memory.rss, empty.rss),
            "pss_bytes_per_plugin": per_plugin(self.memory.pss, empty.pss),
        })
    }
}

fn start(bench: &Bench, name: &'static str, count: usize) -> Result<Start> {
    let (mut gateway, _, took) = bench.start().with_context(|| format!("{name}, {count}"))?;
    let memory = memory(&gateway)?;
    gateway.kill()?;
    Ok(Start { name, took, memory })
}

/// The module with a number in it, which makes it another plugin.
fn stamped(module: &[u8], number: usize) -> Result<Vec<u8>> {
    let at = module.windows(STAMP.len()).position(|window| window == STAMP);
    let at = at.context("the plugin `stamp` has no place for a number")?;
    let mut bytes = module.to_vec();
    bytes.splice(at..at + STAMP.len(), format!("stamp:{number:010}").into_bytes());
    Ok(bytes)
}

fn print(figures: &Value, count: usize) {
    let header = ["", "start ms", "RSS MiB", "PSS MiB", "RSS/plugin KiB", "PSS/plugin KiB"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for figure in figures.as_array().into_iter().flatten() {
        let number = |name: &str| figure.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let name = figure.get("name").and_then(Value::as_str).unwrap_or("?");
        rows.push(vec![
            name.to_owned(),
            format!("{:.0}", number("start_ms")),
            format!("{:.1}", number("rss_kib") / 1024.0),
            format!("{:.1}", number("pss_kib") / 1024.0),
            format!("{:.1}", number("rss_bytes_per_plugin") / 1024.0),
            format!("{:.1}", number("pss_bytes_per_plugin") / 1024.0),
        ]);
    }
    report::table(&rows);
    report::line(&format!(
        "\n  Until the gateway listens, with all {count} loaded; warm is the median of {WARM_STARTS} starts. Per plugin: what is\n  \
         more than without plugins, divided by their number."
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_makes_another_plugin() {
        let module = b"before stamp:0000000000 after";
        assert_eq!(stamped(module, 42).unwrap(), b"before stamp:0000000042 after");
        assert!(stamped(b"without", 1).is_err());
    }
}
