//! `hookmill serve` and `hookmill check`: both begin with the configuration file.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use super::terminal;
use crate::app;
use crate::config::Environment;

/// Run the gateway.
///
/// Prints one line `listening on http://ADDRESS` on standard output once it is ready; the log goes to
/// standard error. The plugins folder and the configuration file are watched: a changed plugin, tenant or
/// webhook takes effect without a restart, and a file with an error changes nothing. SIGINT and SIGTERM end the gateway after the work in flight.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub(super) config: ConfigFile,
}

/// Check the configuration file, its plugins included, and print everything that is wrong with it.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) config: ConfigFile,

    /// Check the database as well. Reads all of it; a gateway may run meanwhile.
    #[arg(long)]
    pub(super) store: bool,
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigFile {
    /// The configuration file.
    #[arg(
        long = "config",
        short = 'c',
        value_name = "FILE",
        env = "HOOKMILL_CONFIG",
        default_value = "hookmill.toml"
    )]
    pub(super) path: PathBuf,
}

/// Runs the gateway until a signal ends it.
pub(super) async fn serve(config: ConfigFile) -> ExitCode {
    match app::serve(&config.path, &environment()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => terminal::fail(&error.to_string()),
    }
}

/// Checks the configuration.
pub(super) async fn check(CheckArgs { config, store }: CheckArgs) -> ExitCode {
    let mut report = match app::check(&config.path, &environment()).await {
        Ok(report) => report,
        Err(error) => return terminal::fail(&error.to_string()),
    };
    if store {
        match app::check_store(&config.path, &environment()) {
            Ok(more) => {
                report.notes.extend(more.notes);
                report.problems.extend(more.problems);
            }
            Err(error) => report.problems.push(error.to_string()),
        }
    }
    let mut stdout = std::io::stdout().lock();
    for note in &report.notes {
        // Nobody may be reading; the exit code tells all the same.
        drop(writeln!(stdout, "{note}"));
    }
    if report.problems.is_empty() {
        drop(writeln!(stdout, "{} is good", config.path.display()));
        return ExitCode::SUCCESS;
    }
    terminal::fail(&report.problems.join("\n"))
}

/// The variables that this process was started with.
pub(super) fn environment() -> Environment {
    std::env::vars_os().collect()
}
