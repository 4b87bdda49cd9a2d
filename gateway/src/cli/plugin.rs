//! `hookmill plugin`: everything that a plugin's author needs, from an empty folder to a running gateway.
//!
//! `crate_folder` builds crates and `install` puts files in place; `sandbox` runs plugins as the gateway does;
//! the other modules are the subcommands and what they print.

mod bench;
mod build;
mod crate_folder;
mod dev;
mod figures;
mod input;
mod inspect;
mod install;
mod new;
mod sandbox;
mod test;
mod try_out;
mod versions;

use std::process::ExitCode;

use super::terminal;

/// Write, test, measure and install plugins.
///
/// A plugin is a Rust crate that builds to WebAssembly. `new` makes one, `dev` builds, tests and installs it
/// each time its source changes. The other commands take the built file, and run it in the sandbox that the
/// gateway runs it in, with the same limits: the defaults, or those in NAME.toml beside it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
From nothing to a running gateway:
  hookmill plugin new order-alert
  hookmill plugin test order-alert                           build it, run its fixtures
  hookmill plugin build order-alert --install plugins        put it into a gateway's folder";

#[derive(Debug, clap::Subcommand)]
enum Command {
    New(new::Args),
    Build(build::Args),
    Test(test::Args),
    Try(try_out::Args),
    Inspect(inspect::Args),
    Bench(bench::Args),
    Dev(dev::Args),
    Versions(versions::VersionsArgs),
    Rollback(versions::RollbackArgs),
}

/// Why a command ends without success: a message for people.
type Problem = String;

/// Runs a subcommand.
pub(super) async fn run(args: Args) -> ExitCode {
    let done = match args.command {
        Command::New(args) => new::run(args),
        Command::Build(args) => build::run(args).await,
        Command::Test(args) => test::run(args).await,
        Command::Try(args) => try_out::run(args).await,
        Command::Inspect(args) => inspect::run(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Dev(args) => dev::run(args).await,
        Command::Versions(args) => return versions::versions(&args),
        Command::Rollback(args) => return versions::rollback(&args).await,
    };
    done.unwrap_or_else(|problem| terminal::fail(&problem))
}

/// Writes a result to standard output.
fn print(text: &str) -> Result<(), Problem> {
    terminal::print(text).map_err(|error| format!("cannot write to standard output: {error}"))
}
