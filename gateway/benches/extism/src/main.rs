//! Times the transform through Extism: a fresh plugin from a compiled one for each call, and one that is reused.
//!
//! Takes the guest's file and the payloads' files; writes a list of JSON rows with `payload_bytes`, `fresh_us` and
//! `reused_us`, each the median of many calls.

use std::hint::black_box;
use std::time::{Duration, Instant};

use extism::{CompiledPlugin, Error, Manifest, Plugin, PluginBuilder, Wasm};
use serde_json::json;

/// How long to measure each figure.
const MEASURED: Duration = Duration::from_secs(3);

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let guest = arguments.next().ok_or_else(|| Error::msg("the guest's file is missing"))?;
    let manifest = Manifest::new([Wasm::data(std::fs::read(guest)?)]);
    let compiled = CompiledPlugin::new(PluginBuilder::new(manifest))?;
    let mut rows = Vec::new();
    for path in arguments {
        let payload = std::fs::read_to_string(path)?;
        let fresh = median(|| {
            let mut plugin = Plugin::new_from_compiled(&compiled)?;
            plugin.call::<_, String>("transform", black_box(&payload)).map(drop)
        })?;
        let mut plugin = Plugin::new_from_compiled(&compiled)?;
        let reused = median(|| plugin.call::<_, String>("transform", black_box(&payload)).map(drop))?;
        rows.push(json!({
            "payload_bytes": payload.len(), "fresh_us": fresh, "reused_us": reused,
        }));
    }
    println!("{}", serde_json::to_string(&rows)?);
    Ok(())
}

/// The median time of a call, in microseconds.
fn median(mut call: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    for _ in 0..100 {
        call()?;
    }
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < MEASURED {
        let call_began = Instant::now();
        call()?;
        times.push(call_began.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2].as_secs_f64() * 1e6)
}
