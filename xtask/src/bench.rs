//! `cargo xtask bench`: what a plugin call costs, what the whole gateway carries, and what a
//! tenant notices of a hostile one.

mod containment;
mod end_to_end;

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
        _ => bail!("there are `cargo xtask bench plugin`, `end-to-end` and `containment`"),
    }
}
