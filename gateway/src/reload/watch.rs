//! Watching: notifications of the file system where it sends them, and a slow look around where not.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode, RemoveKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::{Declared, Reloader};
use crate::shutdown::Drain;
use crate::snapshot::Current;

/// How many times as long as a look took it rests before the next one. A folder in which something is written
/// all the time must not keep us busy.
const REST: u32 = 10;

/// Keeps the snapshot up to date with the plugins folder and the configuration file until the drain begins.
pub async fn run(reloader: Reloader, declared: Declared, current: Current, drain: Drain) {
    tokio::select! {
        () = watch(reloader, declared, current) => {}
        () = drain.begun() => {}
    }
}

async fn watch(mut reloader: Reloader, mut declared: Declared, current: Current) {
    let (settle, poll) = (reloader.config.settle, reloader.config.poll);
    let mut plugins = Watch::new(reloader.config.watch);
    let mut configuration = Watch::new(true);
    let mut plugins_pace = Pace::now();
    let mut configuration_pace = Pace::now();
    loop {
        // All ways come to the same: look around.
        tokio::select! {
            () = plugins.changed() => plugins_pace.hurry(),
            () = configuration.changed() => configuration_pace.hurry(),
            ended = reloader.loads.next() => {
                reloader.take(ended);
                reloader.settle(&current).await;
            }
            () = plugins_pace.due() => {
                let began = Instant::now();
                let next = reloader.look(&current).await;
                reloader.settle(&current).await;
                plugins_pace.looked(next, settle.max(REST * began.elapsed()).min(poll));
                if plugins.follow(reloader.folders.iter().map(PathBuf::as_path)) {
                    // What happened before the folder was watched was not reported.
                    plugins_pace.hurry();
                }
            }
            () = configuration_pace.due() => {
                configuration.follow(declared.folders());
                if let Some(tenants) = declared.scan(settle).await {
                    reloader.declare(tenants, &current).await;
                }
                let rest = settle.max(REST * declared.effort()).min(poll);
                configuration_pace.looked(Instant::now() + poll, rest);
            }
        }
    }
}

/// When to look next: as soon as there is reason to, but not without a rest.
struct Pace {
    next: Instant,
    rested: Instant,
}

impl Pace {
    fn now() -> Self {
        let now = Instant::now();
        Self { next: now, rested: now }
    }

    fn hurry(&mut self) {
        self.next = self.next.min(self.rested);
    }

    async fn due(&self) {
        sleep_until(self.next.max(self.rested)).await;
    }

    fn looked(&mut self, next: Instant, rest: Duration) {
        *self = Self { next, rested: Instant::now() + rest };
    }
}

/// A watch on some folders and what is directly in them, renewed when a folder has become another one.
struct Watch {
    wanted: bool,
    watcher: Option<RecommendedWatcher>,
    folders: BTreeMap<PathBuf, Option<Identity>>,
    /// What could not be watched, so that it is said once.
    said: BTreeMap<PathBuf, String>,
    signal: mpsc::Sender<()>,
    signals: mpsc::Receiver<()>,
    /// Notifications were lost, or a folder was: watches have to be set up again.
    lost: Arc<AtomicBool>,
}

/// Tells a folder from another one of the same name, even one that got the same inode.
type Identity = (u64, u64, Option<SystemTime>);

impl Watch {
    /// A watch on nothing yet; never on anything unless it is wanted.
    fn new(wanted: bool) -> Self {
        // One waiting message is enough: a look sees everything.
        let (signal, signals) = mpsc::channel(1);
        Self {
            wanted,
            watcher: None,
            folders: BTreeMap::new(),
            said: BTreeMap::new(),
            signal,
            signals,
            lost: Arc::default(),
        }
    }

    /// Waits until something has happened since it was last asked.
    async fn changed(&mut self) {
        // Its sender is here, so there is always one.
        self.signals.recv().await;
    }

    /// Watches these folders and no others; true when one of them was not watched before.
    fn follow<'a>(&mut self, wanted: impl IntoIterator<Item = &'a Path>) -> bool {
        if !self.wanted || !self.start() {
            return false;
        }
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        if self.lost.swap(false, Ordering::SeqCst) {
            self.folders.values_mut().for_each(|watched| *watched = None);
        }
        let before = std::mem::take(&mut self.folders);
        let mut is_new = false;
        for folder in wanted {
            let now = identity(folder);
            let watched = before.get(folder).copied().flatten();
            if now.is_some() && watched == now {
                self.folders.insert(folder.to_owned(), now);
                continue;
            }
            if before.contains_key(folder) {
                // An error says that the watch is gone with the folder.
                drop(watcher.unwatch(folder));
            }
            // A folder that is not there is looked for at each poll.
            let Some(now) = now else { continue };
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    is_new = true;
                    self.said.remove(folder);
                    self.folders.insert(folder.to_owned(), Some(now));
                }
                Err(error) => say_once(&mut self.said, folder, &error),
            }
        }
        for folder in before.keys().filter(|folder| !self.folders.contains_key(*folder)) {
            drop(watcher.unwatch(folder));
        }
        is_new
    }

    /// Asks the system for notifications, unless that is done; false when it gives none.
    fn start(&mut self) -> bool {
        if self.watcher.is_some() {
            return true;
        }
        let (signal, lost) = (self.signal.clone(), Arc::clone(&self.lost));
        let notified = move |event: notify::Result<Event>| {
            // Any event will do, errors and overflows included: a look finds out what happened. But
            // not that somebody reads, which the look does itself.
            if event.as_ref().is_ok_and(|event| is_reading(event.kind)) {
                return;
            }
            if event.as_ref().map_or(true, is_loss) {
                lost.store(true, Ordering::SeqCst);
            }
            // When a message waits already, this one adds nothing.
            signal.try_send(()).unwrap_or_default();
        };
        match notify::recommended_watcher(notified) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => say_once(&mut self.said, Path::new(""), &error),
        }
        self.watcher.is_some()
    }
}

/// Says once that a folder cannot be watched; an empty path stands for all.
fn say_once(said: &mut BTreeMap<PathBuf, String>, folder: &Path, error: &notify::Error) {
    let error = error.to_string();
    if said.get(folder) == Some(&error) {
        return;
    }
    if folder.as_os_str().is_empty() {
        tracing::warn!(error, "the system sends no notifications; changes show by polling");
    } else {
        let path = folder.display();
        tracing::warn!(error, "{path} cannot be watched; changes show by polling");
    }
    said.insert(folder.to_owned(), error);
}

fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// Whether the watch may not see everything any more: events were dropped, or a folder is gone.
fn is_loss(event: &Event) -> bool {
    event.need_rescan() || matches!(event.kind, EventKind::Remove(kind) if kind != RemoveKind::File)
}

fn identity(dir: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(dir).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.created().ok()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Waits for a notification that must come.
    async fn told(watch: &mut Watch) {
        let waited = tokio::time::timeout(Duration::from_secs(30), watch.changed()).await;
        assert!(waited.is_ok(), "no notification");
    }

    fn forget_notifications(watch: &mut Watch) {
        while watch.signals.try_recv().is_ok() {}
    }

    #[tokio::test]
    async fn a_folder_is_watched_again_when_it_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("plugins");
        let mut watch = Watch::new(true);
        assert!(!watch.follow([folder.as_path()]), "it is not there yet");
        fs::create_dir(&folder).unwrap();
        assert!(watch.follow([folder.as_path()]));
        assert!(!watch.follow([folder.as_path()]), "once is enough");
        fs::write(folder.join("a.wasm"), "1").unwrap();
        told(&mut watch).await;
        // Gone and back at once, which can give the same inode; and another one in its place.
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        told(&mut watch).await;
        assert!(watch.follow([folder.as_path()]));
        fs::rename(&folder, dir.path().join("old")).unwrap();
        fs::create_dir(&folder).unwrap();
        assert!(watch.follow([folder.as_path()]));
        forget_notifications(&mut watch);
        fs::write(folder.join("a.wasm"), "1").unwrap();
        told(&mut watch).await;
    }

    #[tokio::test]
    async fn lost_notifications_lead_to_new_watches() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(true);
        assert!(watch.follow([dir.path()]));
        watch.lost.store(true, Ordering::SeqCst);
        assert!(watch.follow([dir.path()]));
        forget_notifications(&mut watch);
        fs::write(dir.path().join("a.wasm"), "1").unwrap();
        told(&mut watch).await;
    }

    #[test]
    fn an_overflow_is_a_loss_and_reading_is_nothing() {
        let overflow = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        assert!(is_loss(&overflow));
        assert!(is_loss(&Event::new(EventKind::Remove(RemoveKind::Folder))));
        assert!(!is_loss(&Event::new(EventKind::Remove(RemoveKind::File))));
        assert!(is_reading(EventKind::Access(AccessKind::Open(AccessMode::Read))));
        assert!(!is_reading(EventKind::Access(AccessKind::Close(AccessMode::Write))));
    }

    #[tokio::test]
    async fn what_is_not_wanted_is_not_watched() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(false);
        assert!(!watch.follow([dir.path()]));
        assert!(watch.watcher.is_none());
    }
}
