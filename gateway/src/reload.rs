//! The reloader: watches the plugins folder and the configuration file, and swaps the snapshot when
//! either changes. Nobody else does.
//!
//! A plugin is `NAME.wasm` in the folder, for all tenants, or in `TENANT/`, for one; `NAME.toml` beside it
//! sets its limits. Whatever happens to the files, a plugin that works stays until another one has shown
//! that it works too.

mod agree;
mod declared;
mod decide;
mod folder;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::parse_manifest;
use crate::digest::Digest;
use crate::snapshot::{Current, PluginKey};
use crate::transform::{Plugin, Runtime};
use decide::Undecided;
use folder::{FileState, Found};

pub use self::declared::Declared;
pub use self::watch::run;

/// What is watched, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder of the plugins.
    pub plugins_dir: PathBuf,
    /// How long a file must stay unchanged before it is read: a copy under way is not a plugin yet.
    pub settle: Duration,
    /// How often the folder is scanned even without a notification, which network file systems
    /// do not send.
    pub poll: Duration,
}

/// Knows what was in the folder when it last looked, and what came of it.
#[derive(Debug)]
pub struct Reloader {
    config: Config,
    runtime: Runtime,
    entries: BTreeMap<PluginKey, Entry>,
    undecided: Undecided,
}

/// A name in the folder.
#[derive(Debug, Default)]
struct Entry {
    /// The files as they were when they were last read.
    seen: Option<FileState>,
    /// What runs under this name, with the hash of its manifest.
    loaded: Option<(Arc<Plugin>, Digest)>,
    /// What is to run under this name, once all configs fit it.
    waiting: Option<Waiting>,
    /// The content that was last refused, so that each is reported once.
    rejected: Option<Rejection>,
    /// It was reported that the file is gone although webhooks use the plugin.
    missed: bool,
}

/// A plugin that has shown that it works.
#[derive(Debug)]
struct Waiting {
    plugin: Arc<Plugin>,
    /// The hash of its manifest.
    manifest: Digest,
    took: Duration,
}

/// A file that is not run, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The hash of the file's content, and of its manifest.
    content: (Digest, Digest),
    /// Why.
    pub reason: String,
}

impl Reloader {
    /// A reloader that has not looked yet.
    #[must_use]
    pub fn new(config: Config, runtime: Runtime) -> Self {
        Self { config, runtime, entries: BTreeMap::new(), undecided: Undecided::default() }
    }

    /// What it watches.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Brings the snapshot up to date with the folder. Returns when the folder holds nothing new.
    pub async fn scan(&mut self, current: &Current) {
        loop {
            let Some(found) = self.look().await else {
                return;
            };
            self.forget_removed(&found, current).await;
            let changed: Vec<_> =
                found.into_iter().filter(|(key, found)| self.is_new(key, found)).collect();
            if changed.is_empty() {
                return;
            }
            tokio::time::sleep(self.config.settle).await;
            let Some(again) = self.look().await else {
                return;
            };
            for (key, found) in changed {
                // What still changes is looked at again in the next round.
                if again.get(&key).is_some_and(|again| again.state == found.state) {
                    self.read(key, &found, current).await;
                }
            }
        }
    }

    /// The files that are not run, and why.
    pub fn rejections(&self) -> impl Iterator<Item = (&PluginKey, &Rejection)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, entry.rejected.as_ref()?)))
    }

    /// The plugins that are loaded.
    pub fn loaded(&self) -> impl Iterator<Item = (&PluginKey, &Arc<Plugin>)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, &entry.loaded.as_ref()?.0)))
    }

    async fn look(&self) -> Option<BTreeMap<PluginKey, Found>> {
        let dir = self.config.plugins_dir.clone();
        let listed = tokio::task::spawn_blocking(move || folder::list(&dir)).await;
        match listed.map_err(std::io::Error::other).flatten() {
            Ok(found) => Some(found),
            Err(error) => {
                let dir = self.config.plugins_dir.display();
                tracing::warn!(%error, "the plugins folder {dir} cannot be read; plugins stay as they are");
                None
            }
        }
    }

    fn is_new(&self, key: &PluginKey, found: &Found) -> bool {
        self.entries.get(key).and_then(|entry| entry.seen.as_ref()) != Some(&found.state)
    }

    /// Forgets plugins whose files are gone, unless webhooks still use them.
    async fn forget_removed(&mut self, found: &BTreeMap<PluginKey, Found>, current: &Current) {
        let gone: Vec<_> =
            self.entries.keys().filter(|key| !found.contains_key(key)).cloned().collect();
        for key in gone {
            let users = current.load().users_of(&key);
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            entry.seen = None;
            entry.rejected = None;
            entry.waiting = None;
            if entry.loaded.is_some() && !users.is_empty() {
                if !std::mem::replace(&mut entry.missed, true) {
                    let users = users.join(", ");
                    tracing::warn!(plugin = %key, users, "the file is gone; the webhooks that use it keep the loaded plugin");
                }
                continue;
            }
            let was_loaded = entry.loaded.is_some();
            self.entries.remove(&key);
            if was_loaded {
                tracing::info!(plugin = %key, "plugin removed");
                self.decide(current).await;
            }
        }
    }

    /// Reads a file that has come to rest, and runs it from now on if it can be run.
    async fn read(&mut self, key: PluginKey, found: &Found, current: &Current) {
        let began = Instant::now();
        let limit = self.runtime.max_file_bytes();
        let files = found.clone();
        let read = tokio::task::spawn_blocking(move || folder::read(&files, limit)).await;
        let entry = self.entries.entry(key.clone()).or_default();
        entry.missed = false;
        entry.waiting = None;
        let (bytes, manifest) = match read.map_err(std::io::Error::other).flatten() {
            Ok(Some(content)) => content,
            // It changed while it was read, and is looked at again.
            Ok(None) => return,
            Err(error) => {
                entry.seen = Some(found.state.clone());
                let content = (Digest::of(b""), Digest::of(b""));
                return reject(&key, entry, Rejection { content, reason: error.to_string() });
            }
        };
        entry.seen = Some(found.state.clone());
        let content = (Digest::of(&bytes), Digest::of(manifest.as_bytes()));
        let same =
            |(plugin, manifest): &(Arc<Plugin>, Digest)| (plugin.version(), *manifest) == content;
        if entry.loaded.as_ref().is_some_and(same) {
            entry.rejected = None;
            return;
        }
        let loaded = match parse_manifest(
            &manifest,
            self.runtime.default_limits(),
            self.runtime.max_memory_bytes(),
        ) {
            Ok(limits) => {
                self.runtime.load(&key.name, bytes, limits).await.map_err(|error| error.to_string())
            }
            Err(errors) => Err(format!("its {}.toml is wrong: {errors}", key.name)),
        };
        match loaded {
            Err(reason) => reject(&key, entry, Rejection { content, reason }),
            Ok(plugin) => {
                let (plugin, took) = (Arc::new(plugin), began.elapsed());
                entry.waiting = Some(Waiting { plugin, manifest: content.1, took });
                self.decide(current).await;
            }
        }
    }
}

/// Keeps what runs, and reports the new content once.
fn reject(key: &PluginKey, entry: &mut Entry, rejection: Rejection) {
    let known = entry.rejected.as_ref() == Some(&rejection);
    if !known {
        let kept = entry.loaded.as_ref().map(|(plugin, _)| plugin.version().short());
        tracing::warn!(plugin = %key, kept, reason = rejection.reason, "plugin rejected");
    }
    entry.rejected = Some(rejection);
}
