//! The reloader: watches the plugins folder and the configuration file, and swaps the snapshot when
//! either changes. Nobody else does.
//!
//! A plugin is `NAME.wasm` in the folder, for all tenants, or in `TENANT/`, for one; `NAME.toml` beside it
//! sets its limits. Whatever happens to the files, a plugin that works stays until another one has shown
//! that it works too.
//!
//! `watch` says when to look; `folder` and `stamp` see what is there; `entry` decides what to do about each
//! name; `loading` does it, for several at once.

mod declared;
mod entry;
mod folder;
mod loading;
mod stamp;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::entry::{Entry, Task};
use self::folder::Listing;
use self::loading::{Done, Loads, Outcome};
use crate::snapshot::{Current, PluginKey, PluginSet, PluginStatuses, Rejection};
use crate::transform::{Plugin, Runtime};

pub use self::declared::Declared;
pub use self::watch::run;

/// How long a scan waits for files that keep changing.
const RESTLESS_WAIT: Duration = Duration::from_secs(2);

/// How often a scan says what it waits for.
const SLOW: Duration = Duration::from_secs(5);

/// The most names that one message lists.
const MAX_NAMES: usize = 10;

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
}

/// Knows what was in the folder when it last looked, and what came of it.
#[derive(Debug)]
pub struct Reloader {
    config: Config,
    runtime: Runtime,
    entries: BTreeMap<PluginKey, Entry>,
    loads: Loads,
    /// What is wrong with the folder itself, so that each is said once.
    wrong: BTreeMap<PathBuf, String>,
    /// The folders that plugins can be in.
    folders: BTreeSet<PathBuf>,
    /// Whether other plugins are loaded than the snapshot has.
    plugins_changed: bool,
    /// Whether there is other news of the files than the snapshot has.
    statuses_changed: bool,
}

impl Reloader {
    /// A reloader that has not looked yet.
    #[must_use]
    pub fn new(config: Config, runtime: Runtime) -> Self {
        let folders = BTreeSet::from([config.plugins_dir.clone()]);
        Self {
            config,
            runtime,
            entries: BTreeMap::new(),
            loads: Loads::new(),
            wrong: BTreeMap::new(),
            folders,
            plugins_changed: false,
            statuses_changed: false,
        }
    }

    /// Brings the snapshot up to date with the folder. Returns when the folder holds nothing new, or when
    /// that takes longer than it should: what is still being loaded then goes on.
    pub async fn scan(&mut self, current: &Current) {
        let began = Instant::now();
        let deadline = began + self.config.start_wait;
        let mut next_look = began;
        let mut next_word = began + SLOW;
        loop {
            let now = Instant::now();
            if now >= next_look {
                next_look = self.look(current).await;
            }
            if self.has_settled(now) {
                break;
            }
            if now >= deadline {
                let plugins = self.slow();
                tracing::warn!(plugins, "these plugins take long to load; they run once they are");
                break;
            }
            if now >= next_word {
                let plugins = self.slow();
                tracing::info!(plugins, "waiting for plugins that are being loaded");
                next_word = now + SLOW;
            }
            tokio::select! {
                () = self.ended() => {}
                () = tokio::time::sleep_until(next_look.min(deadline).min(next_word)) => {}
            }
        }
        self.publish(current);
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

    /// Looks into the folder, and begins to load what has changed and come to rest. Says when to look again
    /// at the latest.
    async fn look(&mut self, current: &Current) -> Instant {
        let dir = self.config.plugins_dir.clone();
        let listed = self.runtime.aside(move || folder::list(&dir)).await.flatten();
        let now = Instant::now();
        let poll = now + self.config.poll;
        let listing = match listed {
            Ok(listing) => listing,
            Err(error) => {
                let problem = format!("cannot be read, so plugins stay as they are: {error}");
                let dir = self.config.plugins_dir.clone();
                self.complain(BTreeMap::from([(dir, problem)]));
                return poll;
            }
        };
        self.sight(listing, now);
        let keys: Vec<_> = self.entries.keys().cloned().collect();
        let next = keys.into_iter().filter_map(|key| self.act(&key, now, current)).min();
        next.map_or(poll, |next| next.min(poll))
    }

    /// Takes note of what is in the folder, and of what is there no more.
    fn sight(&mut self, listing: Listing, now: Instant) {
        let Listing { mut found, tenants, unreadable, misnamed: mut wrong } = listing;
        for (key, entry) in &mut self.entries {
            let tenant = key.tenant.as_ref();
            // What cannot be seen may still be there.
            if !tenant.is_some_and(|tenant| unreadable.contains_key(tenant)) {
                entry.sight(found.remove(key), now);
            }
        }
        for (key, found) in found {
            self.entries.entry(key).or_insert_with(|| Entry::new(now)).sight(Some(found), now);
        }
        for (tenant, error) in &unreadable {
            if let Some(folder) = tenants.get(tenant) {
                let problem = format!("cannot be read, so its plugins stay as they are: {error}");
                wrong.insert(folder.clone(), problem);
            }
        }
        self.folders = tenants.into_values().collect();
        self.folders.insert(self.config.plugins_dir.clone());
        self.complain(wrong);
    }

    /// Says what is wrong in the folder unless it was said before.
    fn complain(&mut self, wrong: BTreeMap<PathBuf, String>) {
        for (path, problem) in &wrong {
            if self.wrong.get(path) != Some(problem) {
                tracing::warn!(problem, "{}", path.display());
            }
        }
        self.wrong = wrong;
    }

    /// Does what is to be done about a name; says when there is something to do again.
    fn act(&mut self, key: &PluginKey, now: Instant, current: &Current) -> Option<Instant> {
        let entry = self.entries.get_mut(key)?;
        entry.complain_if_restless(key, now);
        match entry.task(self.config.settle, now) {
            Task::Wait(until) => until,
            Task::Load(files, known) => {
                let load = self.loads.begin(&self.runtime, key, (*files).clone(), known);
                entry.begin(&files, load);
                self.statuses_changed = true;
                None
            }
            Task::Forget => {
                self.forget(key, current);
                None
            }
        }
    }

    /// Forgets a plugin whose file is gone, unless webhooks still use it.
    fn forget(&mut self, key: &PluginKey, current: &Current) {
        let users = current.load().users_of(key);
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if entry.loaded().is_some() && !users.is_empty() {
            self.statuses_changed |= entry.miss(key, &users);
            return;
        }
        entry.called_off();
        self.statuses_changed = true;
        if entry.loaded().is_some() {
            tracing::info!(plugin = %key, "plugin removed");
            self.plugins_changed = true;
        }
        self.entries.remove(key);
    }

    /// Waits until a load has ended, and takes what came of all that have. Nothing is lost when it is dropped.
    async fn ended(&mut self) {
        let mut ended = self.loads.next().await;
        loop {
            if let Some(done) = ended {
                self.take(done);
            }
            ended = self.loads.try_next();
            if ended.is_none() {
                return;
            }
        }
    }

    /// Takes what came of a load: from now on the new plugin runs, or the old one goes on.
    fn take(&mut self, done: Done) {
        let Done { id, key, began, outcome } = done;
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if !entry.end(id) {
            // A newer load was begun, or the file is gone.
            return;
        }
        self.statuses_changed = true;
        match outcome {
            Outcome::Changed => entry.changed(Instant::now()),
            Outcome::Same(hashes) => {
                tracing::debug!(plugin = %key, "the files hold what they held before");
                entry.same(hashes);
            }
            Outcome::Refused(refused) => entry.refuse(&key, refused),
            Outcome::Loaded(hashes, plugin) => {
                let version = plugin.version().short();
                let replaced = entry.load(hashes, plugin);
                let replaced = replaced.map(|old| old.version().short());
                self.plugins_changed = true;
                let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(plugin = %key, version, replaced, took_ms, "plugin loaded");
            }
        }
    }

    /// Swaps the snapshot if anything has changed.
    fn publish(&mut self, current: &Current) {
        let plugins_changed = std::mem::take(&mut self.plugins_changed);
        if !std::mem::take(&mut self.statuses_changed) && !plugins_changed {
            return;
        }
        let statuses: PluginStatuses =
            Arc::new(self.entries.iter().map(|(key, it)| (key.clone(), it.status())).collect());
        let mut snapshot = current.load().with_statuses(statuses);
        if plugins_changed {
            let loaded = self.loaded().map(|(key, plugin)| (key.clone(), Arc::clone(plugin)));
            snapshot = snapshot.with_plugins(loaded.collect::<PluginSet>());
        }
        current.store(snapshot);
    }

    /// Whether all that was seen is read and loaded, but for files that keep changing.
    fn has_settled(&self, now: Instant) -> bool {
        let patience = self.config.settle + RESTLESS_WAIT;
        let waits = |entry: &Entry| entry.unread_for(now).is_some_and(|since| since < patience);
        self.loads.is_empty() && !self.entries.values().any(waits)
    }

    /// The names of plugins that are waited for, for people.
    fn slow(&self) -> String {
        let waits =
            |entry: &Entry| entry.is_loading() || entry.unread_for(Instant::now()).is_some();
        let slow: Vec<_> = self.entries.iter().filter(|(_, entry)| waits(entry)).collect();
        let names: Vec<_> = slow.iter().take(MAX_NAMES).map(|(key, _)| key.to_string()).collect();
        let names = names.join(", ");
        match slow.len().saturating_sub(MAX_NAMES) {
            0 => names,
            more => format!("{names} and {more} more"),
        }
    }
}
