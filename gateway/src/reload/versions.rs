//! The versions other than the latest: keeps what was active, loads what chains pin, forgets the rest.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::archive::{Archive, Content};
use super::prepare;
use crate::digest::Digest;
use crate::snapshot::{KeptVersion, Pin, PluginKey, Shelf, Snapshot, Status};
use crate::transform::{Meter, Plugin, Runtime};

/// Knows the versions of each plugin but for the one in the folder.
#[derive(Debug)]
pub(super) struct Versions {
    archive: Archive,
    /// How many earlier versions of a plugin are kept; none when nothing is to be written.
    keep: Option<usize>,
    known: BTreeMap<PluginKey, Known>,
    /// What chains name, as of the last time that it was looked up.
    pins: Vec<Pin>,
}

/// What is known of one plugin's versions.
#[derive(Debug, Default)]
struct Known {
    /// The one that was active last coming first.
    kept: Vec<KeptVersion>,
    held: Vec<Arc<Plugin>>,
    unusable: Vec<Unusable>,
    meters: HashMap<Digest, Arc<Meter>>,
}

/// A version that a chain names and that cannot be loaded.
#[derive(Debug)]
struct Unusable {
    version: Digest,
    reason: String,
    /// The kept file is at fault, which somebody may mend; trying a good one again is pointless.
    unreadable: bool,
}

impl Versions {
    pub(super) fn new(archive: Archive, keep: Option<usize>) -> Self {
        Self { archive, keep, known: BTreeMap::new(), pins: Vec::new() }
    }

    /// Finds out what is kept; gives the plugins of which something is.
    pub(super) async fn open(&mut self) -> Vec<PluginKey> {
        let archive = self.archive.clone();
        let listed = tokio::task::spawn_blocking(move || archive.list()).await;
        match listed.map_err(std::io::Error::other).flatten() {
            Ok(listed) => {
                for (key, kept) in listed {
                    self.known.entry(key).or_default().kept = kept;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "earlier versions of plugins cannot be listed; none can be pinned");
            }
        }
        self.known.keys().cloned().collect()
    }

    /// The shelf of a plugin whose latest version is this one.
    pub(super) fn shelf(
        &self,
        key: &PluginKey,
        active: Option<&Arc<Plugin>>,
        status: Status,
    ) -> Shelf {
        let mut shelf = Shelf { active: active.cloned(), status, ..Shelf::default() };
        if let Some(known) = self.known.get(key) {
            let unusable = known.unusable.iter();
            shelf.held.clone_from(&known.held);
            shelf.kept = known.kept.as_slice().into();
            shelf.unusable = unusable.map(|it| (it.version, it.reason.clone())).collect();
            shelf.meters.clone_from(&known.meters);
        }
        shelf
    }

    /// Lets a plugin that was just loaded go on counting where the same version stopped.
    pub(super) fn continue_meter(&mut self, key: &PluginKey, plugin: &mut Plugin) {
        let meters = &mut self.known.entry(key.clone()).or_default().meters;
        plugin.continue_meter(Arc::clone(meters.entry(plugin.version()).or_default()));
    }

    /// Holds on to a version that is no longer the latest, if a chain names it.
    pub(super) fn displaced(&mut self, key: &PluginKey, plugin: Arc<Plugin>) {
        if self.is_pinned(key, plugin.version()) {
            self.known.entry(key.clone()).or_default().held.push(plugin);
        }
    }

    /// Keeps the version that is the latest from now on; tells whether that is news.
    pub(super) async fn keep(
        &mut self,
        key: &PluginKey,
        plugin: &Plugin,
        content: Content,
    ) -> bool {
        if self.keep.is_none() {
            return false;
        }
        let known = self.known.entry(key.clone()).or_default();
        let version = plugin.version();
        let place = known.kept.iter().position(|kept| kept.version == version);
        let first_seen = place.and_then(|place| known.kept.get(place)).map(|kept| kept.first_seen);
        let was_latest = place == Some(0);
        let (archive, owned_key) = (self.archive.clone(), key.clone());
        let described = plugin.description().version.clone();
        let put = tokio::task::spawn_blocking(move || {
            if was_latest && archive.has_manifest(&owned_key, version, &content.manifest) {
                return Ok(None);
            }
            archive.put(&owned_key, &described, &content, first_seen).map(Some)
        });
        match put.await.map_err(std::io::Error::other).flatten() {
            Ok(None) => false,
            Ok(Some(kept)) => {
                known.kept.retain(|earlier| earlier.version != version);
                known.kept.insert(0, kept);
                known.unusable.retain(|unusable| unusable.version != version);
                true
            }
            Err(error) => {
                tracing::warn!(plugin = %key, %version, %error, "the version cannot be kept; it cannot be pinned once it is replaced");
                false
            }
        }
    }

    /// Loads what this snapshot's chains name, and forgets what nothing needs any more; `active` tells the
    /// latest version of a plugin. Gives the plugins that have changed by it.
    pub(super) async fn settle(
        &mut self,
        snapshot: &Snapshot,
        runtime: &Runtime,
        active: impl Fn(&PluginKey) -> Option<Digest>,
    ) -> Vec<PluginKey> {
        self.pins = snapshot.pins().cloned().collect();
        let plugins = snapshot.plugins();
        let locate = |pin: &Pin| plugins.locate(&pin.tenant, &pin.name, &pin.prefix);
        let mut wanted: BTreeMap<PluginKey, Vec<Digest>> = BTreeMap::new();
        for (key, version) in self.pins.iter().filter_map(locate) {
            if active(&key) != Some(version) {
                wanted.entry(key).or_default().push(version);
            }
        }
        let mut changed = Vec::new();
        let keys: Vec<_> = self.known.keys().cloned().collect();
        for key in keys {
            let wanted = wanted.remove(&key).unwrap_or_default();
            let mut is_changed = self.release(&key, &wanted);
            for version in wanted {
                is_changed |= self.hold(&key, version, runtime).await;
            }
            is_changed |= self.prune(&key, active(&key)).await;
            if is_changed {
                changed.push(key);
            }
        }
        changed
    }

    /// Lets go of versions that no chain names any more.
    fn release(&mut self, key: &PluginKey, wanted: &[Digest]) -> bool {
        let Some(known) = self.known.get_mut(key) else { return false };
        let before = known.held.len() + known.unusable.len();
        known.held.retain(|plugin| wanted.contains(&plugin.version()));
        known.unusable.retain(|unusable| wanted.contains(&unusable.version));
        known.held.len() + known.unusable.len() < before
    }

    /// Loads a version that chains name, unless it is loaded or cannot be.
    async fn hold(&mut self, key: &PluginKey, version: Digest, runtime: &Runtime) -> bool {
        let Some(known) = self.known.get_mut(key) else { return false };
        let earlier = known.unusable.iter().position(|it| it.version == version);
        let is_hopeless = earlier
            .and_then(|place| known.unusable.get(place))
            .is_some_and(|unusable| !unusable.unreadable);
        if is_hopeless || known.held.iter().any(|held| held.version() == version) {
            return false;
        }
        let (archive, owned_key) = (self.archive.clone(), key.clone());
        let read = tokio::task::spawn_blocking(move || archive.read(&owned_key, version)).await;
        let (loaded, unreadable) = match read.map_err(|error| error.to_string()).flatten() {
            Ok(content) => (prepare(runtime, key, content).await, false),
            Err(reason) => (Err(reason), true),
        };
        let refused = earlier.map(|place| known.unusable.swap_remove(place));
        match loaded {
            Ok(mut plugin) => {
                let meter = known.meters.entry(version).or_default();
                plugin.continue_meter(Arc::clone(meter));
                known.held.push(Arc::new(plugin));
                tracing::info!(plugin = %key, version = version.short(), "pinned version loaded");
                true
            }
            Err(reason) => {
                let is_news = refused.is_none_or(|refused| refused.reason != reason);
                if is_news {
                    tracing::error!(plugin = %key, version = version.short(), reason, "pinned version cannot be loaded; deliveries that need it are retried");
                }
                known.unusable.push(Unusable { version, reason, unreadable });
                is_news
            }
        }
    }

    /// Forgets the oldest versions beyond what is to be kept, but never one that is in use.
    async fn prune(&mut self, key: &PluginKey, active: Option<Digest>) -> bool {
        let (Some(keep), Some(known)) = (self.keep, self.known.get(key)) else { return false };
        // The usual case, told without a look at all pins.
        if known.kept.len() <= keep + usize::from(active.is_some()) {
            return false;
        }
        let in_use = |version| active == Some(version) || self.is_pinned(key, version);
        let earlier = known.kept.iter().map(|kept| kept.version).filter(|it| !in_use(*it));
        let superfluous: Vec<_> = earlier.skip(keep).collect();
        if superfluous.is_empty() {
            return false;
        }
        let (archive, owned_key, gone) = (self.archive.clone(), key.clone(), superfluous.clone());
        let remove = move || gone.iter().try_for_each(|it| archive.remove(&owned_key, *it));
        let removed = tokio::task::spawn_blocking(remove).await;
        if let Err(error) = removed.map_err(std::io::Error::other).flatten() {
            tracing::warn!(plugin = %key, %error, "an earlier version cannot be removed; it is tried again at the next start");
        }
        let Some(known) = self.known.get_mut(key) else { return false };
        known.kept.retain(|kept| !superfluous.contains(&kept.version));
        let stays = |version: &Digest| {
            active == Some(*version) || known.kept.iter().any(|kept| kept.version == *version)
        };
        known.meters.retain(|version, _| stays(version));
        true
    }

    fn is_pinned(&self, key: &PluginKey, version: Digest) -> bool {
        self.pins.iter().any(|pin| {
            pin.name == key.name
                && key.tenant.as_ref().is_none_or(|tenant| *tenant == pin.tenant)
                && pin.prefix.fits(&version)
        })
    }
}
