//! A shelf: everything that is known of one plugin's versions.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::PluginStatus;
use crate::digest::{Digest, DigestPrefix};
use crate::transform::{Plugin, Tally};

/// One plugin's versions.
#[derive(Debug, Clone, Default)]
pub struct Shelf {
    /// The version that runs for who asks for the latest: that of the plugins folder.
    pub active: Option<Arc<Plugin>>,
    /// Other versions that are loaded, as chains name them.
    pub held: Vec<Arc<Plugin>>,
    /// The versions that are kept on disk, the one that was active last coming first.
    pub kept: Arc<[KeptVersion]>,
    /// Versions that chains name and that cannot be loaded, and why.
    pub unusable: Vec<(Digest, String)>,
    /// What the calls of each version came to, also of those no longer loaded.
    pub tallies: HashMap<Digest, Arc<Tally>>,
    /// How the files in the plugins folder fare.
    pub status: PluginStatus,
}

/// A version that is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptVersion {
    /// The hash of its file.
    pub version: Digest,
    /// The version that it describes itself as.
    pub described: String,
    /// The size of its file.
    pub size_bytes: u64,
    /// When it was first loaded.
    pub first_seen: Timestamp,
    /// When it was last put into the plugins folder.
    pub last_active: Timestamp,
}

impl Shelf {
    /// The versions that can be named: those that are loaded, and those that are kept.
    pub fn versions(&self) -> impl Iterator<Item = Digest> {
        let loaded = self.active.iter().chain(&self.held).map(|plugin| plugin.version());
        let kept = self.kept.iter().map(|kept| kept.version);
        kept.filter(|version| self.loaded(*version).is_none()).chain(loaded)
    }

    /// The versions whose hashes begin like this.
    pub(super) fn fitting(&self, prefix: &DigestPrefix) -> impl Iterator<Item = Digest> {
        self.versions().filter(|version| prefix.fits(version))
    }

    /// A version that is loaded.
    #[must_use]
    pub fn loaded(&self, version: Digest) -> Option<&Arc<Plugin>> {
        self.active.iter().chain(&self.held).find(|plugin| plugin.version() == version)
    }

    /// Why a version cannot be loaded.
    pub(super) fn why_unusable(&self, version: Digest) -> Option<&str> {
        let unusable = self.unusable.iter().find(|(unusable, _)| *unusable == version);
        unusable.map(|(_, reason)| &**reason)
    }

    /// Whether nothing is known at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.active.is_none()
            && self.held.is_empty()
            && self.kept.is_empty()
            && self.status == PluginStatus::default()
    }
}
