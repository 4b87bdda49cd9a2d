//! `hookmill plugin try`: one call, and everything about it.

mod report;

use std::process::ExitCode;

use super::input::CallArgs;
use super::{Problem, print, sandbox};
use crate::cli::terminal::Paint;
use crate::transform;

/// Run a plugin on one event and show what comes of it.
///
/// Prints the verdict with every request that would be sent, what the plugin logged, asked of servers and changed
/// of its keys, and what the call used of each limit. The time is that of a first call; `hookmill plugin bench` measures many. Exits with 0 for a
/// verdict, to forward or to drop, and with 1 for a failure.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    call: CallArgs,

    /// Print everything as one line of JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  hookmill plugin try order-alert.wasm --event order.json --config config.json
  jq -c .order sample.json | hookmill plugin try order-alert.wasm --type order.paid --event -
  hookmill plugin try enrich.wasm --event order.json --config config.json \\
      --secret crm_token=x --http answers.json                where enrich.toml grants them";

/// Makes the call.
pub(super) async fn run(args: Args) -> Result<ExitCode, Problem> {
    let input = args.call.read()?;
    sandbox::with(async |sandbox| {
        let call = input.load(sandbox).await?;
        let trial = transform::trial(&call.event, call.recipient(), call.step()).await;
        let plugin = call.plugin();
        print(&match args.json {
            true => report::json(plugin, &trial, &call.stand_in),
            false => report::human(plugin, &trial, &call.stand_in, Paint::for_stdout()),
        })?;
        Ok(if trial.outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
    .await
}
