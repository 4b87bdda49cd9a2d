//! The second act: a plugin is replaced while events flow through it.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::ledger::Ledger;
use super::receiver::Arrival;
use super::stage::{ACME, STAMP, Stage};
use super::stream::Stream;
use crate::{report, workspace};

/// What stands in the built plugin, and is patched into another version.
const BUILT: &[u8] = b"stamp:0000000000";
const PATCHED: &[u8] = b"stamp:0000000002";

/// Events before the plugin is replaced, and after its first new output.
const EVENTS: usize = 100;

/// How long the new version may take to be noticed, compiled and used.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn show(stage: &mut Stage, ledger: &mut Ledger) -> Result<()> {
    let file = stage.plugin_file(STAMP);
    let next = patched(&std::fs::read(&file)?)?;
    let seen = stage.receiver.count();
    let stream = Stream::begin("swap", ACME, stage.api.clone(), stage.interrupt.clone());
    report::line("a stream of events runs through the plugin `stamp`, which adds its version …");
    let replaced = replace_midway(stage, &stream, &file, &next, seen);
    // The producer's own error tells more than what followed from it.
    let ids = stream.end()?;
    let took = replaced?;
    for id in ids {
        ledger.accepted(ACME, id);
    }
    let until = Instant::now() + PATIENCE;
    let first_after = |stage: &Stage| first_of_each_version(&stage.receiver.since(seen));
    while first_after(stage).len() < 2 && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    report::line(&format!(
        "… and after {} the new one is at work; the first event of each:",
        report::seconds(took)
    ));
    for arrival in first_after(stage).values() {
        report::line(&format!("  {}  {}", arrival.key.id, report::strong(&arrival.body)));
    }
    Ok(())
}

/// Replaces the plugin once enough events have come through it, and waits for enough of the new ones.
/// Returns how long the change took.
fn replace_midway(
    stage: &mut Stage,
    stream: &Stream,
    file: &std::path::Path,
    next: &[u8],
    seen: usize,
) -> Result<Duration> {
    let until = Instant::now() + PATIENCE;
    let wait_for = |stage: &mut Stage, what: &str, versions, events| loop {
        stage.check()?;
        let arrivals = stage.receiver.since(seen);
        let new = arrivals.iter().filter(|one| version(one) == what).count();
        if first_of_each_version(&arrivals).len() >= versions && new >= events {
            return Ok(());
        }
        if stream.has_failed() || Instant::now() > until {
            bail!("after {PATIENCE:?}, {new} events show the version {what}");
        }
        thread::sleep(Duration::from_millis(5));
    };
    wait_for(stage, "0000000000", 1, EVENTS)?;
    report::line(&format!("… its file is replaced after {} events …", stream.accepted()));
    let began = Instant::now();
    workspace::replace_file(file, next)?;
    wait_for(stage, "0000000002", 2, 1)?;
    let took = began.elapsed();
    wait_for(stage, "0000000002", 2, EVENTS)?;
    Ok(took)
}

/// Another version of the plugin, without a compiler: the stamp in its data says something else.
fn patched(module: &[u8]) -> Result<Vec<u8>> {
    let at = module
        .windows(BUILT.len())
        .position(|window| window == BUILT)
        .context("the plugin `stamp` carries no stamp")?;
    let mut patched = module.to_vec();
    for (byte, new) in patched.iter_mut().skip(at).zip(PATCHED) {
        *byte = *new;
    }
    Ok(patched)
}

/// The version that an event came out with.
fn version(arrival: &Arrival) -> String {
    let body: Value = serde_json::from_str(&arrival.body).unwrap_or_default();
    let version = body.get("version").and_then(Value::as_str);
    version.unwrap_or_default().to_owned()
}

fn first_of_each_version(arrivals: &[Arrival]) -> BTreeMap<String, Arrival> {
    let mut first = BTreeMap::new();
    for arrival in arrivals {
        first.entry(version(arrival)).or_insert_with(|| arrival.clone());
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_the_stamp_alone() {
        let module = [b"before ".as_slice(), BUILT, b" after"].concat();
        let expected = [b"before ".as_slice(), PATCHED, b" after"].concat();
        assert_eq!(patched(&module).unwrap(), expected);
        assert!(patched(b"stamp:").is_err());
    }
}
