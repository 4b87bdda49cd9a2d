//! `cargo xtask soak`: builds a gateway and what plagues it, and runs both.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

use crate::arguments::Arguments;
use crate::{command, wasm, workspace};

/// How long it runs when nothing is said, in minutes.
const MINUTES: u64 = 20;

/// Builds and runs the soak.
pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let minutes = arguments.option::<u64>("--minutes")?;
    let kills = arguments.option::<u64>("--kills")?;
    let seed = arguments.option::<u64>("--seed")?;
    let release = arguments.flag("--release");
    arguments.end()?;
    let (mode, count) = match (minutes, kills) {
        (Some(_), Some(_)) => bail!("`--minutes` and `--kills` exclude each other"),
        (None, Some(kills)) => ("kills", kills),
        (minutes, None) => ("minutes", minutes.unwrap_or(MINUTES)),
    };
    wasm::build()?;
    let bins = ["--bin", "hookmill-soak", "--bin", "hookmill-under-test"];
    let mut build = command::cargo(["build", "--package", "hookmill-tests"]);
    build.args(bins);
    if release {
        build.arg("--release");
    }
    command::step("build the soak", &mut build)?;

    let folder = if release { "release" } else { "debug" };
    let mut soak = Command::new(workspace::binary(folder, "hookmill-soak"));
    soak.args([mode, &count.to_string(), &seed.unwrap_or_else(fresh_seed).to_string()]);
    command::step("soak", &mut soak)
}

/// A seed that differs from run to run.
fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() << 20 | u64::from(now.subsec_micros())
}
