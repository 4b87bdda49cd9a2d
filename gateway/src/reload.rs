//! The reloader: watches the plugins folder and the configuration file, and swaps the snapshot when
//! either changes. Nobody else does.
//!
//! A plugin is `NAME.wasm` in the folder, for all tenants, or in `TENANT/`, for one; `NAME.toml` beside it
//! sets its limits. Whatever happens to the files, a plugin that works stays until another one has shown
//! that it works too.
//!
//! `watch` says when to look; `scan` looks, with `folder` and `stamp`; `entry` decides what to do about each
//! name; `loading` does it, for several at once; `decide` lets take effect what `agree` finds to fit. `versions` keeps earlier versions in the `archive` and loads
//! those that chains name; `rollback` puts one back into the folder.

mod agree;
mod archive;
mod decide;
mod declared;
mod entry;
mod folder;
mod loading;
mod rollback;
mod scan;
mod stamp;
mod versions;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::decide::Undecided;
use self::entry::{Entry, Waiting};
use self::loading::{Done, Loaded, Loads, Outcome};
use self::versions::Versions;
use crate::snapshot::{Current, Pin, PluginKey, PluginStatus, Rejection, Shelf};
use crate::transform::{Plugin, Runtime};

pub use self::archive::Archive;
pub use self::declared::Declared;
pub use self::folder::Content;
pub use self::rollback::{RolledBack, roll_back};
pub use self::watch::run;

/// What is watched, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder of the plugins.
    pub plugins_dir: PathBuf,
    /// Whether the system is asked to report changes. Network file systems report none.
    pub watch: bool,
    /// How long a file must stay unchanged before it is read: a copy under way is not a plugin yet.
    pub settle: Duration,
    /// How often the folder is scanned even without a notification, which network file systems
    /// do not send.
    pub poll: Duration,
    /// How long a scan waits for plugins that take long to load.
    pub start_wait: Duration,
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
    loads: Loads,
    versions: Versions,
    undecided: Undecided,
    /// What is wrong with the folder itself, so that each is said once.
    wrong: BTreeMap<PathBuf, String>,
    /// The folders that plugins can be in.
    folders: BTreeSet<PathBuf>,
    /// The plugins of which the snapshot does not know the latest yet.
    changed: BTreeSet<PluginKey>,
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
        let folders = BTreeSet::from([config.plugins_dir.clone()]);
        Self {
            config,
            runtime,
            entries: BTreeMap::new(),
            loads: Loads::new(),
            versions,
            undecided: Undecided::default(),
            wrong: BTreeMap::new(),
            folders,
            changed: BTreeSet::new(),
        }
    }

    /// The files that are not run, and why.
    pub fn rejections(&self) -> impl Iterator<Item = (&PluginKey, &Rejection)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, entry.rejection()?)))
    }

    /// What is wrong in the folder beside that: what can be no plugin, and folders that cannot be read.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.wrong.iter().map(|(path, problem)| format!("{}: {problem}", path.display()))
    }

    /// The plugins that are loaded.
    pub fn loaded(&self) -> impl Iterator<Item = (&PluginKey, &Arc<Plugin>)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, entry.loaded()?)))
    }

    /// The plugins that are still being loaded.
    pub fn loading(&self) -> impl Iterator<Item = &PluginKey> {
        self.entries.iter().filter(|(_, entry)| entry.is_loading()).map(|(key, _)| key)
    }

    /// Forgets a plugin whose file is gone, unless webhooks still use it.
    fn forget(&mut self, key: &PluginKey, current: &Current) {
        let users = current.load().users_of(key);
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if entry.loaded().is_some() && !users.is_empty() {
            if entry.miss(key, &users) {
                self.changed.insert(key.clone());
            }
            return;
        }
        entry.called_off();
        if let Some(plugin) = entry.loaded() {
            tracing::info!(plugin = %key, "plugin removed");
            self.versions.displaced(key, Arc::clone(plugin));
        }
        self.entries.remove(key);
        self.changed.insert(key.clone());
    }

    /// Takes what came of a load that has ended, and of all others that have.
    fn take(&mut self, ended: Option<Done>) {
        let mut ended = ended;
        loop {
            if let Some(done) = ended {
                self.take_one(done);
            }
            ended = self.loads.try_next();
            if ended.is_none() {
                return;
            }
        }
    }

    /// Takes what came of a load: the new plugin is to run, or the old one goes on.
    fn take_one(&mut self, done: Done) {
        let Done { id, key, began, outcome } = done;
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if !entry.end(id) {
            // A newer load was begun, or the file is gone.
            return;
        }
        self.changed.insert(key.clone());
        match outcome {
            Outcome::Changed => entry.changed(Instant::now()),
            Outcome::Same(hashes) => {
                tracing::debug!(plugin = %key, "the files hold what they held before");
                entry.same(hashes);
            }
            Outcome::Refused(refused) => entry.refuse(&key, refused),
            Outcome::Loaded(loaded) => {
                let Loaded { hashes, mut plugin, content } = *loaded;
                self.versions.continue_tally(&key, &mut plugin);
                let plugin = Arc::new(plugin);
                entry.wait(Waiting { plugin, hashes, content, took: began.elapsed() });
            }
        }
    }

    /// Lets take effect what has come in, and sees to the versions that are not the latest.
    async fn settle(&mut self, current: &Current) {
        // What is new runs at once. Keeping it takes its time.
        self.decide(current).await;
        self.changed.extend(self.versions.keep().await);
        self.hold(current).await;
        self.decide(current).await;
    }

    /// Loads the versions that chains name, or would by what is declared and waits, and forgets those that
    /// nothing needs any more.
    async fn hold(&mut self, current: &Current) {
        let snapshot = current.load();
        let undecided = self.undecided.declared.as_deref().unwrap_or_default();
        let pins = snapshot.pins().cloned().chain(Pin::of(undecided)).collect();
        let entries = &self.entries;
        let active = |key: &PluginKey| entries.get(key)?.loaded().cloned();
        let changed = self.versions.settle(snapshot.plugins(), pins, &self.runtime, active);
        self.changed.extend(changed.await);
    }

    /// These plugins as they are now.
    fn shelves(&self, keys: &BTreeSet<PluginKey>) -> impl Iterator<Item = (PluginKey, Shelf)> {
        keys.iter().map(|key| (key.clone(), self.shelf(key)))
    }

    fn shelf(&self, key: &PluginKey) -> Shelf {
        let entry = self.entries.get(key);
        let status = entry.map_or_else(PluginStatus::default, Entry::status);
        self.versions.shelf(key, entry.and_then(Entry::loaded), status)
    }

    /// The bytes of what waits to take effect.
    fn waiting_bytes(&self) -> usize {
        let waiting = self.entries.values().filter_map(Entry::waiting);
        waiting.map(|waiting| waiting.content.wasm.len()).sum()
    }
}
