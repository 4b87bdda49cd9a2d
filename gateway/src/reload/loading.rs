//! Loads under way: several plugins at once, so that one that takes long delays no other.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::folder::{self, Content, Found, ReadError};
use crate::config::parse_manifest;
use crate::digest::Digest;
use crate::snapshot::PluginKey;
use crate::transform::{Grants, Plugin, Runtime};

/// The bytes of all files that are held while they are loaded, in KiB.
const HELD_KIB: u32 = 256 << 10;

/// The hashes of a plugin's file and of its manifest.
pub(super) type Hashes = (Digest, Digest);

/// Loads under way.
#[derive(Debug)]
pub(super) struct Loads {
    tasks: JoinSet<Outcome>,
    of: HashMap<Id, (PluginKey, Instant)>,
    room: Arc<Semaphore>,
}

/// What is known of the content already, so that what has not changed is not loaded again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// What runs.
    pub(super) loaded: Option<Hashes>,
    /// What was refused; none when it is to be tried again.
    pub(super) refused: Option<Hashes>,
}

/// What came of a load.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The files changed while they were read.
    Changed,
    /// They hold what is known.
    Same(Hashes),
    /// They hold a plugin.
    Loaded(Box<Loaded>),
    /// They do not.
    Refused(Refused),
}

/// A plugin that files hold.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) hashes: Hashes,
    pub(super) plugin: Plugin,
    /// What the files hold, to keep it.
    pub(super) content: Content,
}

/// Why files are no plugin.
#[derive(Debug)]
pub(super) struct Refused {
    /// None when they could not be read.
    pub(super) hashes: Option<Hashes>,
    pub(super) reason: String,
    /// The same files may load another time.
    pub(super) passing: bool,
}

/// A load that has ended.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) id: Id,
    pub(super) key: PluginKey,
    pub(super) began: Instant,
    pub(super) outcome: Outcome,
}

impl Loads {
    pub(super) fn new() -> Self {
        let room = Arc::new(Semaphore::new(usize::try_from(HELD_KIB).unwrap_or(usize::MAX)));
        Self { tasks: JoinSet::new(), of: HashMap::new(), room }
    }

    /// Begins to load.
    pub(super) fn begin(
        &mut self,
        runtime: &Runtime,
        key: &PluginKey,
        files: Found,
        known: Known,
    ) -> AbortHandle {
        let room = Arc::clone(&self.room);
        let (runtime, owned_key) = (runtime.clone(), key.clone());
        let load = async move { load(runtime, owned_key, files, known, room).await };
        let handle = self.tasks.spawn(load);
        self.of.insert(handle.id(), (key.clone(), Instant::now()));
        handle
    }

    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The next load that ends; waits for ever when there is none. Nothing is lost when it is dropped.
    pub(super) async fn next(&mut self) -> Option<Done> {
        match self.tasks.join_next_with_id().await {
            Some(ended) => self.done(ended),
            None => std::future::pending().await,
        }
    }

    /// A load that has ended already.
    pub(super) fn try_next(&mut self) -> Option<Done> {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            if let Some(done) = self.done(ended) {
                return Some(done);
            }
        }
        None
    }

    /// None of a load that was called off.
    fn done(&mut self, ended: Result<(Id, Outcome), JoinError>) -> Option<Done> {
        let (id, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_cancelled() => {
                self.of.remove(&error.id());
                return None;
            }
            Err(error) => {
                let reason = format!("loading it failed: {error}");
                (error.id(), Outcome::Refused(Refused { hashes: None, reason, passing: false }))
            }
        };
        let (key, began) = self.of.remove(&id)?;
        Some(Done { id, key, began, outcome })
    }
}

/// Reads files, and loads what they hold unless it is known.
async fn load(
    runtime: Runtime,
    key: PluginKey,
    files: Found,
    known: Known,
    room: Arc<Semaphore>,
) -> Outcome {
    let limit = runtime.max_file_bytes();
    let kib = u32::try_from(files.bytes().min(limit).div_ceil(1 << 10)).unwrap_or(HELD_KIB);
    let _room = room.acquire_many(kib.clamp(1, HELD_KIB)).await;
    let read = runtime.aside(move || {
        let content = folder::read(&files, limit)?;
        Ok(content.map(|content| (hashes(&content), content)))
    });
    let read = read.await.unwrap_or_else(|error| {
        Err(ReadError { reason: format!("reading it failed: {error}"), passing: false })
    });
    let (hashes, content) = match read {
        Ok(Some(read)) => read,
        Ok(None) => return Outcome::Changed,
        Err(ReadError { reason, passing }) => {
            return Outcome::Refused(Refused { hashes: None, reason, passing });
        }
    };
    if [known.loaded, known.refused].contains(&Some(hashes)) {
        return Outcome::Same(hashes);
    }
    match plugin(&runtime, &key, content.clone(), None).await {
        Ok(plugin) => Outcome::Loaded(Box::new(Loaded { hashes, plugin, content })),
        Err(NoPlugin { reason, passing }) => {
            Outcome::Refused(Refused { hashes: Some(hashes), reason, passing })
        }
    }
}

fn hashes(content: &Content) -> Hashes {
    (Digest::of(&content.wasm), Digest::of(content.manifest.as_bytes()))
}

/// Why content is no plugin.
#[derive(Debug)]
pub(super) struct NoPlugin {
    pub(super) reason: String,
    /// The same content may load another time.
    pub(super) passing: bool,
}

/// Makes a plugin of what its files hold, with what its manifest grants unless other grants are given.
pub(super) async fn plugin(
    runtime: &Runtime,
    key: &PluginKey,
    content: Content,
    grants: Option<Grants>,
) -> Result<Plugin, NoPlugin> {
    let refusal = |reason| NoPlugin { reason, passing: false };
    let Content { wasm, manifest } = content;
    let limit = runtime.max_file_bytes();
    if wasm.len() as u64 > limit {
        return Err(refusal(format!("it has {}", folder::over(limit))));
    }
    let mut manifest =
        parse_manifest(&manifest, runtime.default_limits(), runtime.max_memory_bytes())
            .map_err(|errors| refusal(format!("its {}.toml is wrong: {errors}", key.name)))?;
    if let Some(grants) = grants {
        manifest.grants = grants;
    }
    let loaded = runtime.load(&key.name, wasm, manifest).await;
    loaded.map_err(|error| NoPlugin { reason: error.to_string(), passing: error.is_passing() })
}
