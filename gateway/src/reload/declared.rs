//! The configuration file, read again when it changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Config, Environment};
use crate::digest::Digest;
use crate::snapshot::TenantDefinition;

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

    /// What a file that has changed declares; none when it is wrong. A file that is gone changes nothing.
    pub(super) async fn scan(&mut self, settle: Duration) -> Option<Option<Vec<TenantDefinition>>> {
        let now = content(&self.path);
        if now.is_none() || now == self.seen {
            return None;
        }
        tokio::time::sleep(settle).await;
        if content(&self.path) != now {
            // Still being written; whoever writes it will be noticed again.
            return None;
        }
        self.seen = now;
        match Config::load(&self.path, &self.environment) {
            Ok(config) => Some(Some(config.tenants)),
            Err(errors) => {
                refuse(errors.lines());
                Some(None)
            }
        }
    }
}

/// Says why a file changes nothing.
pub(super) fn refuse(errors: impl Iterator<Item = String>) {
    for error in errors {
        tracing::error!(error, "the configuration file is wrong and changes nothing");
    }
}

fn content(path: &Path) -> Option<Digest> {
    std::fs::read(path).ok().map(|bytes| Digest::of(&bytes))
}
