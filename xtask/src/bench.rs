//! `cargo xtask bench`: what a plugin call costs, and what the whole gateway carries.

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
        _ => bail!("there are `cargo xtask bench plugin` and `cargo xtask bench end-to-end`"),
    }
}
