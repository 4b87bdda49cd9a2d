//! The configuration file and the files that it names, read again when they change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Config, Environment, NamedFile};
use crate::digest::Digest;
use crate::snapshot::TenantDefinition;

/// What is declared in the configuration file, in the files that it names for secrets and certificates, and in the
/// variables that the process was started with.
#[derive(Debug)]
pub struct Declared {
    path: PathBuf,
    environment: Environment,
    /// The files that the configuration named when it was last read.
    files: Arc<[NamedFile]>,
    /// What was last read.
    seen: Content,
    /// How long the last look took.
    effort: Duration,
}

/// The content of all files, as hashes.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    configuration: Option<Digest>,
    files: Vec<Option<Digest>>,
}

impl Declared {
    /// The declarations that a gateway was started with; `files` are those that the configuration names.
    #[must_use]
    pub fn new(path: PathBuf, environment: Environment, files: Vec<NamedFile>) -> Self {
        let seen = Content::read(content(&path), &files);
        Self { path, environment, files: files.into(), seen, effort: Duration::ZERO }
    }

    /// The folders that the files are in.
    pub(super) fn folders(&self) -> BTreeSet<&Path> {
        let named = self.files.iter().map(NamedFile::path);
        named.chain([self.path.as_path()]).map(folder).collect()
    }

    /// How long the last look at the files took.
    pub(super) fn effort(&self) -> Duration {
        self.effort
    }

    /// What is declared after a change of any of the files; none when something is wrong. When the configuration file
    /// is gone, that changes nothing.
    pub(super) async fn scan(&mut self, settle: Duration) -> Option<Option<Vec<TenantDefinition>>> {
        let now = self.look().await?;
        if now.configuration.is_none() || now == self.seen {
            return None;
        }
        tokio::time::sleep(settle).await;
        if self.look().await? != now {
            // Still being written; whoever writes it will be noticed again.
            return None;
        }
        let loaded = Config::load(&self.path, &self.environment);
        let files = match &loaded {
            Ok(config) => &config.files,
            Err(errors) => errors.files(),
        };
        // Not what is in them by now, but what was made use of.
        self.seen = Content::read(now.configuration, files);
        self.files = files.into();
        match loaded {
            Ok(config) => Some(Some(config.tenants)),
            Err(errors) => {
                refuse(errors.lines());
                Some(None)
            }
        }
    }

    /// Looks at all files, aside from the work: there may be many, and on a slow file system.
    async fn look(&mut self) -> Option<Content> {
        let began = Instant::now();
        let (path, files) = (self.path.clone(), Arc::clone(&self.files));
        let look = move || Content {
            configuration: content(&path),
            files: files.iter().map(NamedFile::content_now).collect(),
        };
        // It fails only while the runtime ends.
        let found = tokio::task::spawn_blocking(look).await.ok();
        self.effort = began.elapsed();
        found
    }
}

impl Content {
    /// That of the files as they were read.
    fn read(configuration: Option<Digest>, files: &[NamedFile]) -> Self {
        Self { configuration, files: files.iter().map(NamedFile::content).collect() }
    }
}

/// Says why a file changes nothing.
pub(super) fn refuse(errors: impl Iterator<Item = String>) {
    for error in errors {
        tracing::error!(error, "the configuration file is wrong and changes nothing");
    }
}

fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn content(path: &Path) -> Option<Digest> {
    std::fs::read(path).ok().map(|bytes| Digest::of(&bytes))
}
