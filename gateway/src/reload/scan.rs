//! Scanning: looks into the plugins folder and begins what is to be done about what it sees.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::Reloader;
use super::entry::{Entry, Task};
use super::folder::{self, Listing};
use crate::snapshot::{Current, PluginKey};

/// How long a scan waits for files that keep changing.
const RESTLESS_WAIT: Duration = Duration::from_secs(2);

/// How often a scan says what it waits for.
const SLOW: Duration = Duration::from_secs(5);

/// The bytes of plugins that may wait for each other.
const MAX_WAITING_BYTES: usize = 256 << 20;

/// The most names that one message lists.
const MAX_NAMES: usize = 10;

impl Reloader {
    /// Brings the snapshot up to date with the folder. Returns when the folder holds nothing new, or when
    /// that takes longer than it should: what is still being loaded then goes on.
    pub async fn scan(&mut self, current: &Current) {
        self.changed.extend(self.versions.open().await);
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
                ended = self.loads.next() => {
                    self.take(ended);
                    // What is there at the start takes effect together, unless it would fill the memory.
                    if self.waiting_bytes() > MAX_WAITING_BYTES {
                        self.settle(current).await;
                    }
                }
                () = tokio::time::sleep_until(next_look.min(deadline).min(next_word)) => {}
            }
        }
        self.settle(current).await;
    }

    /// Looks into the folder, and begins to load what has changed and come to rest. Says when to look again
    /// at the latest.
    pub(super) async fn look(&mut self, current: &Current) -> Instant {
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
                self.changed.insert(key.clone());
                None
            }
            Task::Forget => {
                self.forget(key, current);
                None
            }
        }
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
