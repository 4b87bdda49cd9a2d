//! The reloader: watches the plugins folder and the configuration file, and swaps the snapshot when
//! either changes. Nobody else does.
//!
//! A plugin is `NAME.wasm` in the folder, for all tenants, or in `TENANT/`, for one; `NAME.toml` beside it
//! sets its limits. Whatever happens to the files, a plugin that works stays until another one has shown
//! that it works too.

mod archive;
mod declared;
mod folder;
mod rollback;
mod versions;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::parse_manifest;
use crate::digest::Digest;
use crate::snapshot::{Current, PluginKey, Rejected, Shelf, Snapshot, Status};
use crate::transform::{Plugin, Runtime};
use folder::{FileState, Found};
use versions::Versions;

pub use self::archive::{Archive, Content};
pub use self::declared::Declared;
pub use self::rollback::{RolledBack, roll_back};
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
    /// Where earlier versions of plugins are kept. Only the gateway may write there.
    pub archive_dir: PathBuf,
    /// How many earlier versions of a plugin are kept beside those that chains name.
    pub keep_versions: usize,
}

/// Knows what was in the folder when it last looked, and what came of it.
#[derive(Debug)]
pub struct Reloader {
    config: Config,
    runtime: Runtime,
    entries: BTreeMap<PluginKey, Entry>,
    versions: Versions,
    /// Whether it is known which versions are kept.
    opened: bool,
}

/// A name in the folder.
#[derive(Debug, Default)]
struct Entry {
    /// The files as they were when they were last read.
    seen: Option<FileState>,
    /// What runs under this name, with the hash of its manifest.
    loaded: Option<(Arc<Plugin>, Digest)>,
    /// The content that was last refused, so that each is reported once.
    rejected: Option<Rejection>,
    /// It was reported that the file is gone although webhooks use the plugin.
    missed: bool,
}

/// A file that is not run, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The hash of the file's content, and of its manifest; none when they cannot be read.
    content: Option<(Digest, Digest)>,
    /// Why.
    pub reason: String,
}

impl Reloader {
    /// A reloader that has not looked yet, and that keeps the versions it sees.
    #[must_use]
    pub fn new(config: Config, runtime: Runtime) -> Self {
        let keep = Some(config.keep_versions);
        Self::keeping(keep, config, runtime)
    }

    /// A reloader that has not looked yet, and that writes nothing.
    #[must_use]
    pub fn only_looking(config: Config, runtime: Runtime) -> Self {
        Self::keeping(None, config, runtime)
    }

    fn keeping(keep: Option<usize>, config: Config, runtime: Runtime) -> Self {
        let versions = Versions::new(Archive::at(config.archive_dir.clone()), keep);
        Self { config, runtime, entries: BTreeMap::new(), versions, opened: false }
    }

    /// What it watches.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Brings the snapshot up to date with the folder. Returns when the folder holds nothing new.
    pub async fn scan(&mut self, current: &Current) {
        if !self.opened {
            let kept = self.versions.open().await;
            self.publish(kept, current);
            self.opened = true;
        }
        self.scan_folder(current).await;
        let settled = self.settle(Snapshot::clone(&current.load())).await;
        if let Some(settled) = settled {
            current.store(settled);
        }
    }

    /// The snapshot with the versions that its chains pin, when that makes a difference.
    pub(super) async fn settle(&mut self, snapshot: Snapshot) -> Option<Snapshot> {
        let entries = &self.entries;
        let active = |key: &PluginKey| Some(entries.get(key)?.loaded.as_ref()?.0.version());
        let changed = self.versions.settle(&snapshot, &self.runtime, active).await;
        (!changed.is_empty()).then(|| self.with_shelves(&snapshot, changed))
    }

    async fn scan_folder(&mut self, current: &Current) {
        loop {
            let Some(found) = self.look().await else {
                return;
            };
            self.forget_removed(&found, current);
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
    fn forget_removed(&mut self, found: &BTreeMap<PluginKey, Found>, current: &Current) {
        let gone: Vec<_> =
            self.entries.keys().filter(|key| !found.contains_key(key)).cloned().collect();
        for key in gone {
            let users = current.load().users_of(&key);
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            entry.seen = None;
            entry.rejected = None;
            if entry.loaded.is_some() && !users.is_empty() {
                if !std::mem::replace(&mut entry.missed, true) {
                    let users = users.join(", ");
                    tracing::warn!(plugin = %key, users, "the file is gone; the webhooks that use it keep the loaded plugin");
                    self.publish([key], current);
                }
                continue;
            }
            let was_loaded = entry.loaded.take();
            self.entries.remove(&key);
            if let Some((plugin, _)) = was_loaded {
                tracing::info!(plugin = %key, "plugin removed");
                self.versions.displaced(&key, plugin);
            }
            self.publish([key], current);
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
        let content = match read.map_err(std::io::Error::other).flatten() {
            Ok(Some((bytes, manifest))) => Content { bytes, manifest },
            // It changed while it was read, and is looked at again.
            Ok(None) => return,
            Err(error) => {
                entry.seen = Some(found.state.clone());
                reject(&key, entry, Rejection { content: None, reason: error.to_string() });
                return self.publish([key], current);
            }
        };
        entry.seen = Some(found.state.clone());
        let hashes = (Digest::of(&content.bytes), Digest::of(content.manifest.as_bytes()));
        let same =
            |(plugin, manifest): &(Arc<Plugin>, Digest)| (plugin.version(), *manifest) == hashes;
        if entry.loaded.as_ref().is_some_and(same) {
            entry.rejected = None;
            return self.publish([key], current);
        }
        match prepare(&self.runtime, &key, content.clone()).await {
            Err(reason) => {
                reject(&key, entry, Rejection { content: Some(hashes), reason });
                self.publish([key], current);
            }
            Ok(mut plugin) => {
                self.versions.continue_meter(&key, &mut plugin);
                let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                let plugin = Arc::new(plugin);
                let version = plugin.version().short();
                entry.rejected = None;
                let replaced = entry.loaded.replace((Arc::clone(&plugin), hashes.1));
                let replaced = replaced.map(|(replaced, _)| {
                    let version = replaced.version();
                    if version != plugin.version() {
                        self.versions.displaced(&key, replaced);
                    }
                    version.short()
                });
                self.publish([key.clone()], current);
                tracing::info!(plugin = %key, version, replaced, took_ms, "plugin loaded");
                if self.versions.keep(&key, &plugin, content).await {
                    self.publish([key], current);
                }
            }
        }
    }

    fn publish(&self, keys: impl IntoIterator<Item = PluginKey>, current: &Current) {
        current.store(self.with_shelves(&current.load(), keys));
    }

    /// The snapshot with these plugins as they are now.
    fn with_shelves(
        &self,
        snapshot: &Snapshot,
        keys: impl IntoIterator<Item = PluginKey>,
    ) -> Snapshot {
        let shelves = keys.into_iter().map(|key| {
            let shelf = self.shelf(&key);
            (key, shelf)
        });
        snapshot.with_plugins(snapshot.plugins().with(shelves))
    }

    fn shelf(&self, key: &PluginKey) -> Shelf {
        let entry = self.entries.get(key);
        let active = entry.and_then(|entry| Some(&entry.loaded.as_ref()?.0));
        let status = entry.map_or_else(Status::default, |entry| Status {
            rejected: entry.rejected.as_ref().map(|rejection| Rejected {
                version: rejection.content.map(|(version, _)| version),
                reason: rejection.reason.clone(),
            }),
            gone: entry.missed,
        });
        self.versions.shelf(key, active, status)
    }
}

/// Makes a plugin of its files' content.
async fn prepare(runtime: &Runtime, key: &PluginKey, content: Content) -> Result<Plugin, String> {
    let Content { bytes, manifest } = content;
    let (len, limit) = (bytes.len() as u64, runtime.max_file_bytes());
    if len > limit {
        return Err(folder::too_large(len, limit));
    }
    let limits = parse_manifest(&manifest, runtime.default_limits(), runtime.max_memory_bytes())
        .map_err(|errors| format!("its {}.toml is wrong: {errors}", key.name))?;
    runtime.load(&key.name, bytes, limits).await.map_err(|error| error.to_string())
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
