//! `cargo xtask bench`: what a plugin call costs, what the whole gateway carries, what a tenant notices of a hostile
//! one, what very many plugins cost, and how soon a changed one is at work.

mod containment;
mod end_to_end;
mod gateway;
mod plugins;
mod reload;

use anyhow::{Result, bail};

use crate::arguments::Arguments;
use crate::{command, wasm};

/// Runs the benchmark that the arguments name.
pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    match arguments.positional().as_deref() {
        Some("plugin") => {
            wasm::build()?;
            let mut command =
                command::cargo(["bench", "--package", "hookmill", "--bench", "plugin_call", "--"]);
            command::step("a plugin call", command.args(arguments.rest()))
        }
        Some("end-to-end") => end_to_end::run(arguments),
        Some("containment") => containment::run(arguments),
        Some("plugins") => plugins::run(arguments),
        Some("reload") => reload::run(arguments),
        _ => bail!(
            "there are `cargo xtask bench plugin`, `end-to-end`, `containment`, `plugins` and `reload`"
        ),
    }
}
