//! The configuration file, read again when it changes: tenants and webhooks take effect at once.

use std::path::{Path, PathBuf};

use super::Reloader;
use crate::config::{Config, Environment};
use crate::digest::Digest;
use crate::snapshot::Current;

/// What is declared in the configuration file, and in the variables that the process was started with.
#[derive(Debug)]
pub struct Declared {
    path: PathBuf,
    environment: Environment,
    /// The file's content when it was last read.
    seen: Option<Digest>,
}

impl Declared {
    /// The declarations that a gateway was started with.
    #[must_use]
    pub fn new(path: PathBuf, environment: Environment) -> Self {
        let seen = content(&path);
        Self { path, environment, seen }
    }

    /// The folder that the file is in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// Brings the snapshot up to date with the file. A file that is wrong, or gone, changes nothing.
    pub(super) async fn scan(&mut self, reloader: &mut Reloader, current: &Current) {
        let now = content(&self.path);
        if now.is_none() || now == self.seen {
            return;
        }
        tokio::time::sleep(reloader.config.settle).await;
        if content(&self.path) != now {
            // Still being written; whoever writes it will be noticed again.
            return;
        }
        self.seen = now;
        match Config::load(&self.path, &self.environment) {
            Ok(config) => {
                reloader.declare(config.tenants, current).await;
                tracing::info!(
                    "tenants and webhooks are as the configuration file declares them; other \
                     settings take effect at the next start"
                );
            }
            Err(errors) => {
                for error in errors.lines() {
                    tracing::error!(error, "the configuration file is wrong and changes nothing");
                }
            }
        }
    }
}

fn content(path: &Path) -> Option<Digest> {
    std::fs::read(path).ok().map(|bytes| Digest::of(&bytes))
}
