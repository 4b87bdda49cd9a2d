//! Watching: notifications of the file system where it sends them, and a slow look around where not.

use std::path::Path;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::Reloader;
use crate::shutdown::Drain;
use crate::snapshot::Current;

/// Keeps the snapshot up to date with the folder until the drain begins.
pub async fn run(mut reloader: Reloader, current: Current, drain: Drain) {
    // One waiting message is enough: a scan sees everything.
    let (changed, mut changes) = mpsc::channel(1);
    let mut watch = Watch::start(reloader.config().plugins_dir.clone(), changed);
    let watching = async {
        loop {
            // Both ways come to the same: look around.
            let waited = tokio::time::timeout(reloader.config().poll, changes.recv()).await;
            if waited.is_err() {
                watch.renew();
            }
            reloader.scan(&current).await;
        }
    };
    tokio::select! {
        () = watching => {}
        () = drain.begun() => {}
    }
}

/// A watch on the folder, renewed when the folder has become another one.
struct Watch {
    dir: std::path::PathBuf,
    watcher: Option<RecommendedWatcher>,
    watched: Option<Identity>,
}

/// Tells a folder from another one of the same name.
type Identity = (u64, u64);

impl Watch {
    fn start(dir: std::path::PathBuf, changed: mpsc::Sender<()>) -> Self {
        // Any event will do, errors and overflows included: the scan finds out what happened. When a
        // message waits already, this one adds nothing.
        let notify = move |_| changed.try_send(()).unwrap_or_default();
        let watcher = notify::recommended_watcher(notify)
            .inspect_err(|error| {
                tracing::warn!(%error, "the file system sends no notifications; changes show by polling");
            })
            .ok();
        let mut watch = Self { dir, watcher, watched: None };
        watch.renew();
        watch
    }

    fn renew(&mut self) {
        let now = identity(&self.dir);
        if now.is_none() || now == self.watched {
            return;
        }
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        match watcher.watch(&self.dir, RecursiveMode::Recursive) {
            Ok(()) => self.watched = now,
            Err(error) => {
                tracing::warn!(%error, "the plugins folder cannot be watched; changes show by polling");
            }
        }
    }
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
