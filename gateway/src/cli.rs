//! The command line: `hookmill serve`, `check`, `send`, `listen`, `plugin` and `purge`.
//!
//! The help texts here are the manual. What a command prints for people or programs goes to standard
//! output, what went wrong to standard error. Exit codes: 0 for success, 1 for failure, 2 for a command
//! line that cannot be read.

mod compile;
mod duration;
mod interrupt;
mod layout;
mod listen;
mod plugin;
mod purge;
mod send;
mod serve;
mod terminal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::transform;

/// A webhook gateway that runs WebAssembly plugins.
///
/// Takes events over HTTP, lets plugins filter, split and reshape them for each webhook, signs the
/// result as Standard Webhooks describes, and delivers it until the receiver has taken it.
#[derive(Debug, Parser)]
#[command(name = "hookmill", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Try it in three terminals:
  hookmill listen --secret whsec_…       a receiver that verifies and prints
  hookmill serve                         the gateway, as hookmill.toml declares it
  hookmill send --type order.paid --data '{\"id\":1}' --key … --wait
Write a plugin:
  hookmill plugin new order-alert        a crate that builds; see `hookmill plugin --help`";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Check(serve::CheckArgs),
    Send(Box<send::Args>),
    Listen(listen::Args),
    #[command(name = transform::COMMAND, hide = true)]
    CompilePlugin(compile::Args),
    Plugin(plugin::Args),
    Purge(purge::Args),
}

/// Runs the command that this process was started with.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with the exit code 0. Nobody is left to tell when
            // even this cannot be printed.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Command::CompilePlugin(args) = &cli.command {
        return compile::run(args);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return terminal::fail(&format!("the runtime cannot start: {error}")),
    };
    runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::serve(args.config).await,
            Command::Check(args) => serve::check(args).await,
            Command::Send(args) => send::run(*args).await,
            Command::Listen(args) => listen::run(args).await,
            Command::CompilePlugin(args) => compile::run(&args),
            Command::Plugin(args) => plugin::run(args).await,
            Command::Purge(args) => purge::run(args).await,
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn secrets_from_the_environment_do_not_show_in_the_help() {
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                if argument.get_env().is_some() && matches!(name, "key" | "secrets") {
                    assert!(argument.is_hide_env_values_set(), "{name}");
                }
            }
        }
    }
}
