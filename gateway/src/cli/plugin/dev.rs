//! `hookmill plugin dev`: builds, tests and installs a plugin whenever its source changes.

mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;
use tokio::time::Instant;

use self::watch::Watch;
use super::crate_folder::{Built, CrateFolder, PROFILE};
use super::sandbox::Sandbox;
use super::test::cases::{Cases, Mode};
use super::{Problem, figures, install, print};
use crate::cli::interrupt;
use crate::cli::terminal::Paint;
use crate::digest::Digest;

/// Build, test and install a plugin whenever its source changes.
///
/// Watches the crate's folder. After each change the plugin is built and its fixtures run in the sandbox; when
/// all turn out as expected, it is put into the gateway's folder, where a running gateway takes it up. Whatever
/// fails is told, and nothing is installed until it is mended. Ctrl-C ends it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of the plugin's crate.
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,

    /// The gateway's plugins folder, or in it that of one tenant.
    #[arg(long, value_name = "PLUGINS_DIR")]
    install: PathBuf,

    /// The profile to build with.
    #[arg(long, value_name = "NAME", default_value = PROFILE)]
    profile: String,
}

/// Watches until a signal comes.
pub(super) async fn run(args: Args) -> Result<ExitCode, Problem> {
    if !args.install.is_dir() {
        let shown = args.install.display();
        return Err(format!("cannot install into {shown}: there is no such folder"));
    }
    let folder = CrateFolder::open(&args.folder).await?;
    let watch = Watch::start(&folder.path, &folder.target)?;
    let dev = Dev {
        sandbox: Sandbox::new()?,
        folder,
        install: args.install,
        profile: args.profile,
        paint: Paint::for_stdout(),
    };
    tokio::select! {
        ended = dev.work(watch) => ended.map(|()| ExitCode::SUCCESS),
        () = interrupt::interrupted() => Ok(ExitCode::SUCCESS),
    }
}

struct Dev {
    sandbox: Sandbox,
    folder: CrateFolder,
    install: PathBuf,
    profile: String,
    paint: Paint,
}

impl Dev {
    /// Builds, and builds again after each change. Ends when nobody can see it any more.
    async fn work(&self, mut watch: Watch) -> Result<(), Problem> {
        let mut installed = None;
        self.say("watching", &self.folder.path.display().to_string())?;
        loop {
            match self.round(installed).await {
                Ok(digest) => installed = Some(digest),
                Err(problem) => self.say("failed", &self.paint.bad(&problem))?,
            }
            let changed = watch.changed().await?;
            self.say("changed", &self.relative(&changed))?;
        }
    }

    /// Builds, tests and installs once; the hash of what is installed then.
    async fn round(&self, installed: Option<Digest>) -> Result<Digest, Problem> {
        let began = Instant::now();
        let built = self.folder.build(&self.profile).await?;
        let size = figures::bytes(built.bytes.len());
        self.say("built", &format!("{size} in {}", figures::time(began.elapsed())))?;

        let began = Instant::now();
        let digest = Digest::of(&built.bytes);
        let cases = self.test(&built).await?;
        if !cases.all_hold() {
            print(&cases.told(self.paint))?;
            return Err("the fixtures do not hold; nothing is installed".to_owned());
        }
        self.say("tested", &format!("{} in {}", cases.sum(), figures::time(began.elapsed())))?;

        if installed == Some(digest) {
            self.say("unchanged", "the same file is installed already")?;
            return Ok(digest);
        }
        let path = install::install(&self.install, &built.name, &built.bytes)?;
        let place = format!("{} ({})", path.display(), digest.short());
        self.say("installed", &self.paint.good(&place))?;
        Ok(digest)
    }

    async fn test(&self, built: &Built) -> Result<Cases, Problem> {
        let (name, bytes) = (built.name.clone(), built.bytes.clone());
        let file = self.sandbox.file(name, bytes, self.folder.manifest())?;
        let plugin = self.sandbox.load(file).await?;
        Cases::run(&plugin, &self.folder.fixtures(), Mode::Compare).await
    }

    /// A line with the time, in UTC, and what was done.
    fn say(&self, step: &str, what: &str) -> Result<(), Problem> {
        let now = Timestamp::now().strftime("%H:%M:%SZ").to_string();
        print(&format!("{}  {step:<9}  {what}\n", self.paint.faint(&now)))
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.folder.path).unwrap_or(path).display().to_string()
    }
}
