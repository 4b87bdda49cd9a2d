//! `hookmill plugin test`: runs a plugin's fixtures in the sandbox.

pub(super) mod cases;
mod difference;
mod update;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use self::cases::{Cases, Mode};
use super::crate_folder::{CrateFolder, PROFILE};
use super::sandbox::Sandbox;
use super::{Problem, print, sandbox};
use crate::cli::terminal::Paint;
use crate::transform::Plugin;

/// Run a plugin's fixtures in the sandbox.
///
/// Takes the folder of a plugin's crate, which is built first, or a built file. Every *.json file of the
/// fixtures folder is a case: an event, a config, and what is expected to come out. The same files run
/// natively, in the plugin's own unit tests; `testing::fixtures` of the SDK has the format. Exits with 0 if
/// every case turns out as expected.
///
/// A plugin that uses capabilities needs the grants of its NAME.toml, which stands in the crate's folder or
/// beside the file; a case says itself what secrets, keys and servers it finds.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The folder of the plugin's crate, or a built file.
    #[arg(value_name = "DIR|FILE.wasm", default_value = ".")]
    plugin: PathBuf,

    /// The folder of the fixtures. [default: fixtures, in the crate's folder or beside the file]
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,

    /// Write what came out into the fixtures, as what is expected from now on.
    #[arg(long)]
    update: bool,

    /// The profile to build with.
    #[arg(long, value_name = "NAME", default_value = PROFILE)]
    profile: String,
}

const EXAMPLES: &str = "\
A fixture:
  {
    \"event\": { \"type\": \"order.paid\", \"payload\": { \"id\": \"o_1\", \"total\": 7 } },
    \"config\": { \"currency\": \"EUR\" },
    \"expect\": { \"forward\": [{ \"json\": { \"line\": \"o_1: 7 EUR\" } }] }
  }
Instead of \"forward\", a case can expect {\"drop\": reason}, or a failure: {\"invalid\": text}, {\"retry\": text},
where the text is a part of the message, or \"invalid\" and \"retry\" alone.
For a plugin that uses capabilities, a case can have \"secrets\" and \"kv\", objects of strings, a \"time\", and
\"http\", a list of answers: {\"url\": \"https://…\", \"status\": 200, \"json\": …}.";

/// Tests.
pub(super) async fn run(args: Args) -> Result<ExitCode, Problem> {
    sandbox::with(async |sandbox| {
        let (plugin, fixtures) = plugin(sandbox, &args).await?;
        let mode = if args.update { Mode::Update } else { Mode::Compare };
        let cases = Cases::run(&plugin, &fixtures, mode).await?;
        print(&cases.told(Paint::for_stdout()))?;
        Ok(if cases.all_hold() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
    .await
}

/// The plugin, and the folder of its fixtures.
async fn plugin(sandbox: &Sandbox, args: &Args) -> Result<(Arc<Plugin>, PathBuf), Problem> {
    let (plugin, own) = if args.plugin.is_dir() {
        let folder = CrateFolder::open(&args.plugin).await?;
        (build(sandbox, &folder, &args.profile).await?, folder.fixtures())
    } else {
        let beside = args.plugin.parent().unwrap_or(Path::new("")).join("fixtures");
        (sandbox.load(sandbox.read(&args.plugin)?).await?, beside)
    };
    Ok((plugin, args.fixtures.clone().unwrap_or(own)))
}

/// Builds and loads the plugin of a crate.
async fn build(
    sandbox: &Sandbox,
    folder: &CrateFolder,
    profile: &str,
) -> Result<Arc<Plugin>, Problem> {
    let built = folder.build(profile).await?;
    sandbox.load(sandbox.file(built.name, built.bytes, folder.manifest())?).await
}
