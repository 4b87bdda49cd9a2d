//! A plugin's crate, and how cargo builds it.

mod cargo;
mod target;

use std::path::{Path, PathBuf};

use super::{Problem, figures, install};
use crate::digest::Digest;
use crate::transform::{Anatomy, shrink};

/// The profile that plugins are built with unless told otherwise; `new` sets it up.
pub(super) const PROFILE: &str = "release";

/// A folder with a crate that is a plugin.
#[derive(Debug)]
pub(super) struct CrateFolder {
    /// The folder, absolute.
    pub(super) path: PathBuf,
    /// The crate's name, which is the plugin's.
    pub(super) name: String,
    /// Where cargo builds it.
    pub(super) target: PathBuf,
}

/// A plugin that was built.
#[derive(Debug)]
pub(super) struct Built {
    /// The crate's name.
    pub(super) name: String,
    /// The file, ready for a gateway.
    pub(super) path: PathBuf,
    /// Its content.
    pub(super) bytes: Vec<u8>,
    /// What it consists of.
    pub(super) anatomy: Anatomy,
    /// The bytes of what cargo made.
    before: usize,
}

impl CrateFolder {
    /// Looks at the crate in a folder.
    pub(super) async fn open(folder: &Path) -> Result<Self, Problem> {
        let shown = folder.display();
        let path = std::fs::canonicalize(folder)
            .map_err(|error| format!("cannot find the folder {shown}: {error}"))?;
        if !path.join("Cargo.toml").is_file() {
            return Err(format!(
                "{shown} has no Cargo.toml, so it is no plugin's crate; `hookmill plugin new` makes one"
            ));
        }
        let (name, target) = cargo::describe(&path).await?;
        Ok(Self { path, name, target })
    }

    /// The plugin's fixtures.
    pub(super) fn fixtures(&self) -> PathBuf {
        self.path.join("fixtures")
    }

    /// The manifest with the plugin's limits and grants, if the author keeps one beside the source.
    pub(super) fn manifest(&self) -> PathBuf {
        self.path.join(format!("{}.toml", self.name))
    }

    /// Builds the plugin. What cargo says goes to standard error.
    pub(super) async fn build(&self, profile: &str) -> Result<Built, Problem> {
        target::ensure(&self.path).await?;
        let made = cargo::build(&self.path, profile).await?;
        let cannot_read = |error| format!("cannot read {}: {error}", made.display());
        let large = std::fs::read(&made).map_err(cannot_read)?;
        let damaged = |error| format!("{}: {error}", made.display());
        let bytes = shrink(&large).map_err(damaged)?;
        let anatomy = Anatomy::of(&bytes).map_err(damaged)?;
        if !anatomy.is_plugin() {
            return Err(format!(
                "{} exports no transform; a plugin is a crate with a function under `#[transform]`",
                self.name
            ));
        }
        let path = self.destination()?;
        install::replace(&path, &bytes)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(Built { name: self.name.clone(), path, bytes, anatomy, before: large.len() })
    }

    /// Where the finished file goes.
    fn destination(&self) -> Result<PathBuf, Problem> {
        let folder = self.target.join("hookmill");
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        Ok(folder.join(format!("{}.wasm", self.name)))
    }
}

impl Built {
    /// A few lines on what was built.
    pub(super) fn summary(&self) -> String {
        let contract = self.anatomy.contract.as_deref().unwrap_or("unknown");
        let imports = match &*self.anatomy.imports {
            [] => "nothing".to_owned(),
            names => names.join(", "),
        };
        format!(
            "  size      {}, of {} that cargo made\n  imports   {imports}\n  contract  {contract}\n  \
             sha256    {}\n",
            figures::bytes(self.bytes.len()),
            figures::grouped(self.before),
            Digest::of(&self.bytes)
        )
    }
}
