//! `cargo xtask bench`: what a plugin call costs, what the whole gateway carries, what a tenant notices of a hostile
//! one and a receiver of bad ones, what a large backlog and very many plugins cost, and how soon a changed one is at work.

mod backlog;
mod containment;
mod end_to_end;
mod gateway;
mod neighbours;
mod plugin;
mod plugins;
mod reload;

use anyhow::{Result, bail};

use crate::arguments::Arguments;
use crate::report;

/// Runs the benchmark that the arguments name.
pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    if arguments.has("--json") {
        report::stand_aside();
    }
    match arguments.positional().as_deref() {
        Some("plugin") => plugin::run(arguments),
        Some("end-to-end") => end_to_end::run(arguments),
        Some("containment") => containment::run(arguments),
        Some("backlog") => backlog::run(arguments),
        Some("neighbours") => neighbours::run(arguments),
        Some("plugins") => plugins::run(arguments),
        Some("reload") => reload::run(arguments),
        _ => bail!(
            "there are `cargo xtask bench plugin`, `end-to-end`, `containment`, `neighbours`, `backlog`, \
             `plugins` and `reload`"
        ),
    }
}
