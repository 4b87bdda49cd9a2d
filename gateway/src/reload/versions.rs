//! The versions other than the latest: keeps what was active, loads what chains pin, forgets the rest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::archive::Archive;
use super::folder::Content;
use super::loading::{NoPlugin, plugin};
use crate::digest::Digest;
use crate::snapshot::{KeptVersion, Pin, PluginKey, PluginSet, PluginStatus, Shelf};
use crate::transform::{Grants, Plugin, Runtime, Tally};

/// Knows the versions of each plugin but for the one in the folder.
#[derive(Debug)]
pub(super) struct Versions {
    archive: Archive,
    /// How many earlier versions of a plugin are kept; none when nothing is to be written.
    keep: Option<usize>,
    known: BTreeMap<PluginKey, Known>,
    /// What became the latest and is to be kept.
    unkept: Vec<(PluginKey, Arc<Plugin>, Content)>,
    /// What chains name, as of the last time that it was looked up.
    pins: Vec<Pin>,
}

/// What is known of one plugin's versions.
#[derive(Debug, Default)]
struct Known {
    /// The one that was active last coming first.
    kept: Vec<KeptVersion>,
    /// Loaded as chains name them.
    held: Vec<Arc<Plugin>>,
    unusable: Vec<Unusable>,
    tallies: HashMap<Digest, Arc<Tally>>,
}

/// A version that a chain names and that cannot be loaded.
#[derive(Debug)]
struct Unusable {
    version: Digest,
    reason: String,
    /// The kept file is at fault, which somebody may mend, or the machine; else, trying again is pointless.
    passing: bool,
    /// What it was to be granted.
    grants: Option<Grants>,
}

impl Versions {
    pub(super) fn new(archive: Archive, keep: Option<usize>) -> Self {
        Self { archive, keep, known: BTreeMap::new(), unkept: Vec::new(), pins: Vec::new() }
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
        status: PluginStatus,
    ) -> Shelf {
        let mut shelf = Shelf { active: active.cloned(), status, ..Shelf::default() };
        if let Some(known) = self.known.get(key) {
            let unusable = known.unusable.iter();
            shelf.held.clone_from(&known.held);
            shelf.kept = known.kept.as_slice().into();
            shelf.unusable = unusable.map(|it| (it.version, it.reason.clone())).collect();
            shelf.tallies.clone_from(&known.tallies);
        }
        shelf
    }

    /// Lets a plugin that was just loaded go on counting where the same version stopped.
    pub(super) fn continue_tally(&mut self, key: &PluginKey, plugin: &mut Plugin) {
        let tallies = &mut self.known.entry(key.clone()).or_default().tallies;
        plugin.continue_tally(Arc::clone(tallies.entry(plugin.version()).or_default()));
    }

    /// Takes note of what became the latest version, and of what was it before.
    pub(super) fn replaced(
        &mut self,
        key: PluginKey,
        old: Option<Arc<Plugin>>,
        new: Arc<Plugin>,
        content: Content,
    ) {
        if let Some(old) = old.filter(|old| old.version() != new.version()) {
            self.displaced(&key, old);
        }
        if self.keep.is_some() {
            self.unkept.push((key, new, content));
        }
    }

    /// Holds on to a version that is no longer the latest, if a chain names it.
    pub(super) fn displaced(&mut self, key: &PluginKey, plugin: Arc<Plugin>) {
        if self.is_pinned(key, plugin.version()) {
            self.known.entry(key.clone()).or_default().held.push(plugin);
        }
    }

    /// Keeps what became the latest; gives the plugins of which that is news.
    pub(super) async fn keep(&mut self) -> Vec<PluginKey> {
        let mut news = Vec::new();
        for (key, plugin, content) in std::mem::take(&mut self.unkept) {
            if self.keep_one(&key, &plugin, content).await {
                news.push(key);
            }
        }
        news
    }

    async fn keep_one(&mut self, key: &PluginKey, plugin: &Plugin, content: Content) -> bool {
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

    /// Loads what chains pin, and forgets what nothing needs any more; `active` gives the latest version of a
    /// plugin. Gives the plugins that have changed by it.
    pub(super) async fn settle(
        &mut self,
        plugins: &PluginSet,
        pins: Vec<Pin>,
        runtime: &Runtime,
        active: impl Fn(&PluginKey) -> Option<Arc<Plugin>>,
    ) -> Vec<PluginKey> {
        self.pins = pins;
        let locate = |pin: &Pin| plugins.locate(&pin.tenant, &pin.name, &pin.prefix);
        let mut wanted: BTreeMap<PluginKey, BTreeSet<Digest>> = BTreeMap::new();
        for (key, version) in self.pins.iter().filter_map(locate) {
            if active(&key).is_none_or(|active| active.version() != version) {
                wanted.entry(key).or_default().insert(version);
            }
        }
        let mut changed = Vec::new();
        let keys: Vec<_> = self.known.keys().cloned().collect();
        for key in keys {
            let wanted = wanted.remove(&key).unwrap_or_default();
            let active = active(&key);
            // What an operator no longer grants is no longer granted to the other versions either.
            let grants = active.as_ref().map(|active| active.grants());
            let mut is_changed = self.release(&key, &wanted, grants);
            for version in wanted {
                is_changed |= self.hold(&key, version, grants, runtime).await;
            }
            is_changed |= self.prune(&key, active.as_ref().map(|active| active.version())).await;
            if is_changed {
                changed.push(key);
            }
        }
        changed
    }

    /// Lets go of versions that no chain names any more, or that are granted something else now.
    fn release(
        &mut self,
        key: &PluginKey,
        wanted: &BTreeSet<Digest>,
        grants: Option<&Grants>,
    ) -> bool {
        let Some(known) = self.known.get_mut(key) else { return false };
        let before = known.held.len() + known.unusable.len();
        known.held.retain(|plugin| {
            let is_granted = grants.is_none_or(|grants| grants == plugin.grants());
            is_granted && wanted.contains(&plugin.version())
        });
        known.unusable.retain(|unusable| {
            unusable.grants.as_ref() == grants && wanted.contains(&unusable.version)
        });
        known.held.len() + known.unusable.len() < before
    }

    /// Loads a version that chains name, unless it is loaded or cannot be.
    async fn hold(
        &mut self,
        key: &PluginKey,
        version: Digest,
        grants: Option<&Grants>,
        runtime: &Runtime,
    ) -> bool {
        let Some(known) = self.known.get_mut(key) else { return false };
        let earlier = known.unusable.iter().position(|it| it.version == version);
        let is_hopeless = earlier
            .and_then(|place| known.unusable.get(place))
            .is_some_and(|unusable| !unusable.passing);
        if is_hopeless || known.held.iter().any(|held| held.version() == version) {
            return false;
        }
        let (archive, owned_key) = (self.archive.clone(), key.clone());
        let read = tokio::task::spawn_blocking(move || archive.read(&owned_key, version)).await;
        let loaded = match read.map_err(|error| error.to_string()).flatten() {
            Ok(content) => plugin(runtime, key, content, grants.cloned()).await,
            Err(reason) => Err(NoPlugin { reason, passing: true }),
        };
        let refused = earlier.map(|place| known.unusable.swap_remove(place));
        match loaded {
            Ok(mut plugin) => {
                let tally = known.tallies.entry(version).or_default();
                plugin.continue_tally(Arc::clone(tally));
                known.held.push(Arc::new(plugin));
                tracing::info!(plugin = %key, version = version.short(), "pinned version loaded");
                true
            }
            Err(NoPlugin { reason, passing }) => {
                let is_news = refused.is_none_or(|refused| refused.reason != reason);
                if is_news {
                    tracing::error!(plugin = %key, version = version.short(), reason, "pinned version cannot be loaded; deliveries that need it are retried");
                }
                let grants = grants.cloned();
                known.unusable.push(Unusable { version, reason, passing, grants });
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
        known.tallies.retain(|version, _| stays(version));
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
