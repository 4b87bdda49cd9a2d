//! `hookmill serve` and `hookmill check`: both begin with the configuration file.

use std::path::PathBuf;
use std::process::ExitCode;

/// Run the gateway.
///
/// Prints one line `listening on http://ADDRESS` on standard output once it is ready; the log goes to
/// standard error. The configuration file and the plugins folder are watched: a change takes effect
/// without a restart, and a file with an error changes nothing. SIGINT and SIGTERM end the gateway after
/// the work in flight.
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
    path: PathBuf,
}

/// Runs the gateway until a signal ends it.
pub(super) async fn serve(config: ConfigFile) -> ExitCode {
    super::terminal::fail(&format!("cannot serve {} yet", config.path.display()))
}

/// Checks the configuration.
pub(super) async fn check(config: ConfigFile) -> ExitCode {
    super::terminal::fail(&format!("cannot check {} yet", config.path.display()))
}
