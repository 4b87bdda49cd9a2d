//! Watches the source of a crate, and nothing that building it changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::cli::plugin::Problem;

/// How long nothing must change before a change is over: editors write several files, and each in steps.
const SETTLE: Duration = Duration::from_millis(100);

/// A watch on a crate's folder.
#[derive(Debug)]
pub(super) struct Watch {
    watcher: RecommendedWatcher,
    changes: mpsc::UnboundedReceiver<PathBuf>,
    source: Source,
}

/// What belongs to the source of a crate.
#[derive(Debug, Clone)]
struct Source {
    folder: PathBuf,
    /// Where cargo builds, if that is in the folder.
    target: Option<PathBuf>,
}

impl Watch {
    /// Watches a crate that is built in `target`.
    pub(super) fn start(folder: &Path, target: &Path) -> Result<Self, Problem> {
        let target = target.starts_with(folder).then(|| target.to_owned());
        let source = Source { folder: folder.to_owned(), target };
        let (sender, changes) = mpsc::unbounded_channel();
        let filter = source.clone();
        let notify = move |event: notify::Result<Event>| {
            let Ok(event) = event else { return };
            if is_reading(event.kind) {
                return;
            }
            // When nobody waits any more, the command has ended.
            if let Some(path) = event.paths.into_iter().find(|path| filter.contains(path)) {
                sender.send(path).unwrap_or_default();
            }
        };
        let watcher =
            notify::recommended_watcher(notify).map_err(|error| cannot(folder, &error))?;
        let mut watch = Self { watcher, changes, source };
        watch.renew()?;
        Ok(watch)
    }

    /// Waits for the next change to be over; a file that changed.
    pub(super) async fn changed(&mut self) -> Result<PathBuf, Problem> {
        let gone = || "the watch on the crate's folder has ended".to_owned();
        let first = self.changes.recv().await.ok_or_else(gone)?;
        while let Ok(change) = tokio::time::timeout(SETTLE, self.changes.recv()).await {
            change.ok_or_else(gone)?;
        }
        self.renew()?;
        Ok(first)
    }

    /// Watches the folder, and all in it that are there now and belong to the source: the folder where cargo
    /// builds is large, and written to all the time.
    fn renew(&mut self) -> Result<(), Problem> {
        let Self { watcher, source, .. } = self;
        let folder = &source.folder;
        let watched = watcher.watch(folder, RecursiveMode::NonRecursive);
        watched.map_err(|error| cannot(folder, &error))?;
        let entries = fs::read_dir(folder).map_err(|error| cannot(folder, &error))?;
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.is_dir() && source.contains(&path) {
                let watched = watcher.watch(&path, RecursiveMode::Recursive);
                // It may be gone by now.
                if let Err(error) =
                    watched.or_else(|error| if path.is_dir() { Err(error) } else { Ok(()) })
                {
                    return Err(cannot(&path, &error));
                }
            }
        }
        Ok(())
    }
}

fn cannot(path: &Path, error: &dyn std::fmt::Display) -> Problem {
    format!("cannot watch {}: {error}", path.display())
}

fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

impl Source {
    /// Whether a change of this file or folder may change the plugin. Names that begin with a full stop are of
    /// editors and tools, but for cargo's; names that end with `~` are copies; the lock file is cargo's.
    fn contains(&self, path: &Path) -> bool {
        let Ok(inside) = path.strip_prefix(&self.folder) else { return false };
        let foreign = |name: &str| {
            (name.starts_with('.') && name != ".cargo")
                || name.ends_with('~')
                || name == "Cargo.lock"
        };
        let own = |part: &std::ffi::OsStr| !foreign(&part.to_string_lossy());
        let built = self.target.as_ref().is_some_and(|target| path.starts_with(target));
        !built && inside.iter().next().is_some() && inside.iter().all(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_building_writes_is_no_source() {
        let source = Source { folder: "/c".into(), target: Some("/c/target".into()) };
        let contains = |path: &str| source.contains(Path::new(path));
        for path in
            ["/c/src/lib.rs", "/c/Cargo.toml", "/c/fixtures/a.json", "/c/.cargo/config.toml"]
        {
            assert!(contains(path), "{path}");
        }
        for path in
            ["/c", "/c/target/x", "/c/Cargo.lock", "/c/.git/index", "/c/src/.lib.rs.swp", "/d/x"]
        {
            assert!(!contains(path), "{path}");
        }
    }
}
