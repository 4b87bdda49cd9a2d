//! `hookmill compile-plugin`: what the gateway starts to compile a plugin. Not for people, and not in the help.

use std::process::ExitCode;

use super::terminal;
use crate::transform::{Bounds, compile_stdin};

/// Compile the plugin on standard input for the gateway that started this.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Processor time that it may take, in seconds.
    #[arg(long)]
    seconds: u64,

    /// Address space that it may take, in bytes.
    #[arg(long)]
    memory_bytes: u64,
}

/// Compiles. No other thread may be running: each would take address space.
pub(super) fn run(args: &Args) -> ExitCode {
    let bounds = Bounds { seconds: args.seconds, memory_bytes: args.memory_bytes };
    match compile_stdin(bounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => terminal::fail(&format!("a plugin cannot be compiled: {error}")),
    }
}
