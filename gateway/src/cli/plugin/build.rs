//! `hookmill plugin build`: from a crate to a file that a gateway runs.

use std::path::PathBuf;
use std::process::ExitCode;

use super::crate_folder::{CrateFolder, PROFILE};
use super::{Problem, install, print};

/// Build a plugin's crate to the file that a gateway runs.
///
/// Runs cargo for the target wasm32-unknown-unknown (installing it with rustup where it is missing), leaves out
/// what no gateway reads, and prints where the file is and what it consists of. With --install it is put into
/// a gateway's plugins folder in one step, so that a running gateway never sees half of it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of the plugin's crate.
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,

    /// A gateway's plugins folder, or in it that of one tenant, to put NAME.wasm into.
    #[arg(long, value_name = "FOLDER")]
    install: Option<PathBuf>,

    /// The profile to build with.
    #[arg(long, value_name = "NAME", default_value = PROFILE)]
    profile: String,
}

/// Builds.
pub(super) async fn run(args: Args) -> Result<ExitCode, Problem> {
    let built = CrateFolder::open(&args.folder).await?.build(&args.profile).await?;
    print(&format!("{}\n{}", built.path.display(), built.summary()))?;
    if let Some(folder) = &args.install {
        let path = install::install(folder, &built.name, &built.bytes)?;
        print(&format!("installed as {}\n", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
