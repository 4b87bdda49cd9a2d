//! Watching: notifications of the file system where it sends them, and a slow look around where not.

use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::{Declared, Reloader};
use crate::shutdown::Drain;
use crate::snapshot::Current;

/// Keeps the snapshot up to date with the plugins folder and the configuration file until the drain begins.
pub async fn run(mut reloader: Reloader, mut declared: Declared, current: Current, drain: Drain) {
    // One waiting message is enough: a scan sees everything.
    let (changed, mut changes) = mpsc::channel(1);
    let mut watch = Watch::start(changed);
    watch.add(&reloader.config().plugins_dir, RecursiveMode::Recursive);
    watch.add(declared.folder(), RecursiveMode::NonRecursive);
    let watching = async {
        loop {
            // Both ways come to the same: look around.
            let waited = tokio::time::timeout(reloader.config().poll, changes.recv()).await;
            if waited.is_err() {
                watch.renew();
            }
            if let Some(tenants) = declared.scan(reloader.config().settle).await {
                reloader.declare(tenants, &current).await;
            }
            reloader.scan(&current).await;
            reloader.report_misconfigured(&current);
            // A file beside them that is written all the time, such as a log, must not keep us busy.
            tokio::time::sleep(reloader.config().settle).await;
        }
    };
    tokio::select! {
        () = watching => {}
        () = drain.begun() => {}
    }
}

/// A watch on folders, renewed when a folder has become another one.
struct Watch {
    watcher: Option<RecommendedWatcher>,
    folders: Vec<Folder>,
}

struct Folder {
    path: PathBuf,
    mode: RecursiveMode,
    /// The folder that is watched under this path, if one is.
    watched: Option<Identity>,
}

/// Tells a folder from another one of the same name.
type Identity = (u64, u64);

impl Watch {
    fn start(changed: mpsc::Sender<()>) -> Self {
        let notify = move |event: notify::Result<Event>| {
            // Any event will do, errors and overflows included: the scan finds out what happened. But
            // not that somebody reads, which the scan does itself. When a message waits already, this
            // one adds nothing.
            if !event.is_ok_and(|event| is_reading(event.kind)) {
                changed.try_send(()).unwrap_or_default();
            }
        };
        let watcher = notify::recommended_watcher(notify)
            .inspect_err(|error| {
                tracing::warn!(%error, "the file system sends no notifications; changes show by polling");
            })
            .ok();
        Self { watcher, folders: Vec::new() }
    }

    fn add(&mut self, path: &Path, mode: RecursiveMode) {
        self.folders.push(Folder { path: path.to_owned(), mode, watched: None });
        self.renew();
    }

    fn renew(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        for folder in &mut self.folders {
            let now = identity(&folder.path);
            if now.is_none() || now == folder.watched {
                continue;
            }
            match watcher.watch(&folder.path, folder.mode) {
                Ok(()) => folder.watched = now,
                Err(error) => {
                    let path = folder.path.display();
                    tracing::warn!(%error, "{path} cannot be watched; changes show by polling");
                }
            }
        }
    }
}

fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

#[cfg(unix)]
fn identity(dir: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(dir).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(dir: &Path) -> Option<Identity> {
    dir.is_dir().then_some((0, 0))
}
