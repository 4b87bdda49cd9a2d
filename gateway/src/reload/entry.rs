//! An entry: what is known of a name in the plugins folder, and what is to be done about it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::folder::{Content, Found};
use super::loading::{Hashes, Known, Refused};
use super::stamp::FileState;
use crate::snapshot::{Misconfigured, PluginKey, PluginStatus, Rejection};
use crate::transform::Plugin;

/// How coarse the times of a file system may be. Within such a time, a file can change while its stamp stays.
const COARSEST: Duration = Duration::from_secs(3);

/// How recent a change has to be, by clocks that need not agree, for that to matter.
const RECENT: Duration = Duration::from_secs(60);

/// How long a file may keep changing before it is said that it does.
const RESTLESS: Duration = Duration::from_secs(10);

/// The waits before files are tried again that could not be loaded through no fault of theirs.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// A name in the folder.
#[derive(Debug)]
pub(super) struct Entry {
    /// The files as they were at the last look, none when they are gone; and since when.
    sighted: Option<Found>,
    since: Instant,
    /// Since when there is something that was not read yet.
    unread_since: Option<Instant>,
    /// It was said that the files keep changing.
    said_restless: bool,
    /// The files as they were when they were last read.
    read: Option<FileState>,
    /// What they held that was refused.
    refused: Option<Hashes>,
    /// When they are to be read again although they look the same.
    again: Option<Instant>,
    /// How often they could not be loaded through no fault of theirs.
    passing: u32,
    /// The load that is under way.
    loading: Option<AbortHandle>,
    /// What runs under this name, with the hash of its manifest.
    loaded: Option<(Arc<Plugin>, Hashes)>,
    /// What is to run under this name, once all configs fit it.
    waiting: Option<Waiting>,
    rejected: Option<Rejection>,
    /// The file is gone although webhooks use the plugin.
    missing: bool,
}

/// A plugin that has shown that it works.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) plugin: Arc<Plugin>,
    pub(super) hashes: Hashes,
    /// What its files hold, to keep it.
    pub(super) content: Content,
    /// How long it took to load it.
    pub(super) took: Duration,
}

/// What is to be done about an entry.
#[derive(Debug, PartialEq)]
pub(super) enum Task {
    /// Read the files, and load what they hold.
    Load(Box<Found>, Known),
    /// The files are gone.
    Forget,
    /// Nothing before that time, if at all.
    Wait(Option<Instant>),
}

impl Entry {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            sighted: None,
            since: now,
            unread_since: None,
            said_restless: false,
            read: None,
            refused: None,
            again: None,
            passing: 0,
            loading: None,
            loaded: None,
            waiting: None,
            rejected: None,
            missing: false,
        }
    }

    /// Takes note of what a look saw.
    pub(super) fn sight(&mut self, found: Option<Found>, now: Instant) {
        if found != self.sighted {
            self.since = now;
            self.sighted = found;
        }
        let is_unread =
            self.sighted.as_ref().is_some_and(|found| self.read.as_ref() != Some(&found.state));
        match (is_unread, self.unread_since) {
            (true, None) => self.unread_since = Some(now),
            (false, Some(_)) => {
                self.unread_since = None;
                self.said_restless = false;
            }
            _ => {}
        }
    }

    /// What is to be done now, if files that stay unchanged for `settle` are complete.
    pub(super) fn task(&self, settle: Duration, now: Instant) -> Task {
        let rests_at = self.since + settle;
        let Some(found) = &self.sighted else {
            return if now >= rests_at { Task::Forget } else { Task::Wait(Some(rests_at)) };
        };
        let loaded = self.loaded.as_ref().map(|(_, hashes)| *hashes);
        if self.unread_since.is_some() {
            // What changed long ago is not being written, whenever it was first seen.
            let rests = now >= rests_at || found.state.is_older_than(settle + COARSEST);
            return match rests {
                // A file that was touched is tried again, whatever came of it before.
                true => Task::Load(Box::new(found.clone()), Known { loaded, refused: None }),
                false => Task::Wait(Some(rests_at)),
            };
        }
        match self.again {
            Some(again) if now >= again => {
                let refused = self.refused.filter(|_| self.passing == 0);
                Task::Load(Box::new(found.clone()), Known { loaded, refused })
            }
            again => Task::Wait(again),
        }
    }

    /// Takes note that the files are being loaded. What was begun before is called off: it is older.
    pub(super) fn begin(&mut self, found: &Found, load: AbortHandle) {
        if let Some(older) = self.loading.replace(load) {
            older.abort();
        }
        self.read = Some(found.state.clone());
        self.unread_since = None;
        self.said_restless = false;
        self.again = None;
        self.missing = false;
    }

    /// Takes note that a load ended; false when it was not the last one that was begun.
    pub(super) fn end(&mut self, load: tokio::task::Id) -> bool {
        self.loading.take_if(|loading| loading.id() == load).is_some()
    }

    /// The files changed while they were read.
    pub(super) fn changed(&mut self, now: Instant) {
        self.read = None;
        self.since = now;
        self.unread_since = Some(now);
    }

    /// The files hold what they held before.
    pub(super) fn same(&mut self, hashes: Hashes) {
        if self.loaded.as_ref().is_some_and(|(_, loaded)| *loaded == hashes) {
            self.forget_refusal();
            self.waiting = None;
        }
    }

    /// The files hold a plugin, which runs once it is accepted.
    pub(super) fn wait(&mut self, waiting: Waiting) {
        self.refused = None;
        self.passing = 0;
        self.look_again_if_recent();
        self.waiting = Some(waiting);
    }

    /// What is to be accepted or declined: nothing while something newer is being loaded.
    pub(super) fn waiting(&self) -> Option<&Waiting> {
        self.waiting.as_ref().filter(|_| !self.is_loading())
    }

    /// What waits runs from now on. Gives it with the plugin that it replaces.
    pub(super) fn accept(&mut self) -> Option<(Waiting, Option<Arc<Plugin>>)> {
        let waiting = self.waiting.take()?;
        self.forget_refusal();
        let loaded = (Arc::clone(&waiting.plugin), waiting.hashes);
        let replaced = self.loaded.replace(loaded).map(|(plugin, _)| plugin);
        Some((waiting, replaced))
    }

    /// What waits has to wait on. Says so unless it was said before.
    pub(super) fn decline(&mut self, key: &PluginKey, broken: &[Misconfigured]) {
        self.refused = self.waiting.as_ref().map(|waiting| waiting.hashes);
        let broken: Vec<_> =
            broken.iter().map(|it| (Arc::clone(&it.tenant), it.to_string())).collect();
        let uses: Vec<_> = broken.iter().map(|(_, of)| of.as_str()).collect();
        self.reject(key, Rejection::would_break(&uses), broken);
    }

    /// The files are no plugin. Says so unless it was said before.
    pub(super) fn refuse(&mut self, key: &PluginKey, refused: Refused) {
        let Refused { hashes, reason, passing } = refused;
        self.refused = hashes;
        self.waiting = None;
        self.look_again_if_recent();
        if passing {
            let wait = FIRST_RETRY.saturating_mul(1 << self.passing.min(16)).min(LAST_RETRY);
            self.passing = self.passing.saturating_add(1);
            self.again = Some(Instant::now() + wait);
        } else {
            self.passing = 0;
        }
        self.reject(key, reason, Vec::new());
    }

    fn reject(&mut self, key: &PluginKey, reason: String, broken: Vec<(Arc<str>, String)>) {
        let version = self.refused.map(|(wasm, _)| wasm);
        let known = self.rejected.as_ref();
        if known.is_some_and(|known| (known.version, &known.reason) == (version, &reason)) {
            return;
        }
        let kept = self.loaded.as_ref().map(|(plugin, _)| plugin.version().short());
        tracing::warn!(plugin = %key, kept, reason, "plugin rejected");
        self.rejected = Some(Rejection { version, reason, broken, since: Timestamp::now() });
    }

    /// The files are gone, and webhooks use the plugin. Says so unless it was said before.
    pub(super) fn miss(&mut self, key: &PluginKey, users: &[String]) -> bool {
        self.called_off();
        self.read = None;
        self.again = None;
        self.waiting = None;
        self.forget_refusal();
        let said = std::mem::replace(&mut self.missing, true);
        if !said {
            let users = users.join(", ");
            tracing::warn!(plugin = %key, users, "the file is gone; the webhooks that use it keep the loaded plugin");
        }
        !said
    }

    /// Calls off what is under way.
    pub(super) fn called_off(&mut self) {
        if let Some(loading) = self.loading.take() {
            loading.abort();
        }
    }

    /// Says once of files that keep changing that they do.
    pub(super) fn complain_if_restless(&mut self, key: &PluginKey, now: Instant) {
        let restless = self.unread_since.is_some_and(|since| now >= since + RESTLESS);
        if restless && !std::mem::replace(&mut self.said_restless, true) {
            tracing::warn!(plugin = %key, "the file keeps changing; it is read once it has come to rest");
        }
    }

    /// How long there has been something that was not read yet.
    pub(super) fn unread_for(&self, now: Instant) -> Option<Duration> {
        self.unread_since.map(|since| now.saturating_duration_since(since))
    }

    pub(super) fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    pub(super) fn loaded(&self) -> Option<&Arc<Plugin>> {
        self.loaded.as_ref().map(|(plugin, _)| plugin)
    }

    pub(super) fn rejection(&self) -> Option<&Rejection> {
        self.rejected.as_ref()
    }

    pub(super) fn status(&self) -> PluginStatus {
        PluginStatus {
            rejected: self.rejected.clone(),
            loading: self.is_loading(),
            missing: self.missing,
        }
    }

    fn forget_refusal(&mut self) {
        self.refused = None;
        self.rejected = None;
        self.passing = 0;
    }

    /// Another write may have left the stamp as it is, so the content is compared once more.
    fn look_again_if_recent(&mut self) {
        if self.read.as_ref().is_some_and(|read| !read.is_older_than(RECENT)) {
            self.again = Some(Instant::now() + COARSEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::digest::Digest;
    use crate::reload::folder;

    const SETTLE: Duration = Duration::from_millis(50);

    fn found(dir: &Path) -> Found {
        folder::list(dir).unwrap().found.into_values().next().unwrap()
    }

    fn key() -> PluginKey {
        PluginKey { tenant: None, name: "a".to_owned() }
    }

    /// A load that never ends by itself.
    fn load() -> AbortHandle {
        tokio::spawn(std::future::pending::<()>()).abort_handle()
    }

    fn hashes(wasm: &[u8]) -> Hashes {
        (Digest::of(wasm), Digest::of(b""))
    }

    fn refused(passing: bool) -> Refused {
        Refused { hashes: Some(hashes(b"1")), reason: "it is bad".to_owned(), passing }
    }

    #[tokio::test]
    async fn a_file_is_read_once_it_has_come_to_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wasm");
        let began = Instant::now();
        let mut entry = Entry::new(began);
        for len in 1..=3 {
            fs::write(&path, vec![0; len]).unwrap();
            let now = began + SETTLE * u32::try_from(len).unwrap();
            entry.sight(Some(found(dir.path())), now);
            assert_eq!(entry.task(SETTLE, now), Task::Wait(Some(now + SETTLE)));
        }
        let now = began + SETTLE * 4;
        let files = found(dir.path());
        entry.sight(Some(files.clone()), now);
        assert_eq!(entry.task(SETTLE, now), Task::Load(Box::new(files.clone()), Known::default()));
        entry.begin(&files, load());
        entry.sight(Some(files), now);
        assert_eq!(entry.task(SETTLE, now), Task::Wait(None));
    }

    #[tokio::test]
    async fn what_changed_long_ago_is_read_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wasm");
        fs::write(&path, "1").unwrap();
        let mut entry = Entry::new(Instant::now());
        entry.sight(Some(found(dir.path())), Instant::now());
        // The time of modification alone is no proof: `cp -p` sets it to an old one.
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let now = Instant::now();
        entry.sight(Some(found(dir.path())), now);
        assert!(matches!(entry.task(SETTLE, now), Task::Wait(Some(_))));
    }

    #[tokio::test]
    async fn a_newer_load_calls_off_the_older_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.wasm"), "1").unwrap();
        let files = found(dir.path());
        let mut entry = Entry::new(Instant::now());
        let (older, newer) = (load(), load());
        entry.begin(&files, older.clone());
        entry.begin(&files, newer.clone());
        assert!(!entry.end(older.id()), "what it made is not taken");
        assert!(entry.is_loading());
        assert!(entry.end(newer.id()));
        assert!(!entry.is_loading());
    }

    #[tokio::test]
    async fn content_is_compared_once_more_where_the_stamp_may_not_tell() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.wasm"), "1").unwrap();
        let files = found(dir.path());
        let mut entry = Entry::new(Instant::now());
        entry.begin(&files, load());
        entry.refuse(&key(), refused(false));
        // On a coarse clock, the next write leaves the stamp as it is: what is seen is what was read.
        entry.sight(Some(files.clone()), Instant::now());
        let Task::Wait(Some(again)) = entry.task(SETTLE, Instant::now()) else {
            panic!("{entry:?}")
        };
        let known = Known { loaded: None, refused: Some(hashes(b"1")) };
        assert_eq!(entry.task(SETTLE, again), Task::Load(Box::new(files.clone()), known));
        // It was the same, and is not compared for ever.
        entry.begin(&files, load());
        entry.same(hashes(b"1"));
        assert_eq!(entry.task(SETTLE, again), Task::Wait(None));
    }

    #[tokio::test]
    async fn what_failed_through_no_fault_of_the_file_is_tried_again_less_and_less_often() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.wasm"), "1").unwrap();
        let files = found(dir.path());
        let mut entry = Entry::new(Instant::now());
        entry.sight(Some(files.clone()), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            entry.begin(&files, load());
            entry.refuse(&key(), refused(true));
            let Task::Wait(Some(again)) = entry.task(SETTLE, Instant::now()) else {
                panic!("{entry:?}")
            };
            // The content is no reason not to.
            let load = Task::Load(Box::new(files.clone()), Known::default());
            assert_eq!(entry.task(SETTLE, again), load);
            waits.push(again.saturating_duration_since(Instant::now()).as_secs_f64().round());
        }
        assert_eq!(waits, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
    }

    #[tokio::test]
    async fn a_refusal_stands_until_the_content_changes() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.wasm"), "1").unwrap();
        let files = found(dir.path());
        let mut entry = Entry::new(Instant::now());
        entry.begin(&files, load());
        entry.refuse(&key(), refused(false));
        let first = entry.rejection().cloned();
        assert!(first.as_ref().is_some_and(|it| it.version == Some(Digest::of(b"1"))));
        entry.refuse(&key(), refused(false));
        assert_eq!(entry.rejection().cloned(), first, "with its time");
        assert_eq!(entry.status().rejected, first);
    }
}
