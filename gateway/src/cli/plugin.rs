//! `hookmill plugin`: everything about plugins.

mod versions;

use std::process::ExitCode;

/// Work with plugins.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Versions(versions::VersionsArgs),
    Rollback(versions::RollbackArgs),
}

/// Runs one of the commands.
pub(super) async fn run(args: Args) -> ExitCode {
    match args.command {
        Command::Versions(args) => versions::versions(&args),
        Command::Rollback(args) => versions::rollback(&args).await,
    }
}
