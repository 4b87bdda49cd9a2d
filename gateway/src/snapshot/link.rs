//! A link of a webhook's chain: a plugin, its config, and the versions of it that the chain names.

use std::fmt;
use std::sync::Arc;

use super::{Canary, PluginUse, TenantDefinition, Version};
use crate::delivery::WebhookId;
use crate::digest::DigestPrefix;
use crate::event::EventId;

/// A plugin in a webhook's chain.
#[derive(Clone)]
pub struct Link {
    /// The plugin's name.
    pub name: String,
    /// Which version of it.
    pub version: Version,
    /// Another version that a share of the events goes to.
    pub canary: Option<Canary>,
    /// Its config for this chain: JSON text.
    pub config: Arc<str>,
}

impl Link {
    pub(super) fn new(declared: &PluginUse) -> Self {
        Self {
            name: declared.name.clone(),
            version: declared.version.clone(),
            canary: declared.canary.clone(),
            config: declared.config.as_str().into(),
        }
    }

    /// The versions that it names.
    pub fn versions(&self) -> impl Iterator<Item = &Version> {
        std::iter::once(&self.version).chain(self.canary.iter().map(|canary| &canary.version))
    }

    /// The version that an event goes to.
    pub(super) fn version_for(&self, event: &EventId, webhook: &WebhookId) -> &Version {
        match &self.canary {
            Some(canary) if canary.takes(event, &webhook.0, &self.name) => &canary.version,
            _ => &self.version,
        }
    }

    pub(super) fn pins(&self, tenant: &Arc<str>) -> impl Iterator<Item = Pin> {
        self.versions().filter_map(|version| match version {
            Version::Latest => None,
            Version::Pinned(prefix) => {
                let (tenant, name) = (Arc::clone(tenant), self.name.clone());
                Some(Pin { tenant, name, prefix: prefix.clone() })
            }
        })
    }
}

impl fmt::Debug for Link {
    /// Leaves out the config, which may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("canary", &self.canary)
            .finish_non_exhaustive()
    }
}

/// A version that a chain names by its hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin {
    /// The tenant whose chain it is.
    pub tenant: Arc<str>,
    /// The plugin's name.
    pub name: String,
    /// The first digits of the version's hash.
    pub prefix: DigestPrefix,
}

impl Pin {
    /// The versions that these declarations name by their hashes.
    pub fn of(tenants: &[TenantDefinition]) -> impl Iterator<Item = Self> {
        tenants.iter().flat_map(|tenant| {
            let name: Arc<str> = tenant.name.as_str().into();
            let own = tenant.webhooks.iter().flat_map(|webhook| &webhook.plugins);
            let links = tenant.plugins.iter().chain(own).map(Link::new);
            links.flat_map(move |link| link.pins(&name).collect::<Vec<_>>())
        })
    }
}

/// A plugin that a chain names and that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingPlugin {
    /// The webhook, as `tenant/webhook`.
    pub webhook: String,
    /// The plugin's name.
    pub name: String,
    /// The version that the chain names.
    pub version: Version,
    /// Why it cannot be run, in a sentence.
    pub reason: String,
}
