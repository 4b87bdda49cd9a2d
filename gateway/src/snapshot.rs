//! The snapshot: what is declared and loaded, compiled into one immutable value and swapped whole.
//!
//! Whoever starts work takes the current snapshot and keeps it to the end, so an event never sees half
//! of a change.

mod definition;
mod plugins;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::delivery::{Failure, FailureKind, WebhookId};
use crate::digest::Digest;
use crate::event::EventType;
use crate::route::Index;
use crate::transform::{Failed, Step};

pub use self::definition::{
    BodyForm, KeyHash, OnPluginFailure, PluginUse, TenantDefinition, WebhookDefinition,
};
pub use self::plugins::{PluginKey, PluginSet};

/// Tenants, webhooks and plugins at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    declared: Arc<Declared>,
    plugins: PluginSet,
}

#[derive(Debug, Default)]
struct Declared {
    keys: HashMap<KeyHash, Arc<Tenant>>,
    webhooks: HashMap<WebhookId, Arc<Webhook>>,
}

impl Declared {
    fn compile(tenants: Vec<TenantDefinition>) -> Self {
        let mut declared = Self::default();
        for definition in tenants {
            let keys = definition.keys.clone();
            let tenant = Arc::new(compile(definition));
            for webhook in &tenant.webhooks {
                declared.webhooks.insert(webhook.id.clone(), Arc::clone(webhook));
            }
            declared.keys.extend(keys.into_iter().map(|key| (key, Arc::clone(&tenant))));
        }
        declared
    }
}

/// A tenant, ready to route its events.
#[derive(Debug)]
pub struct Tenant {
    name: Arc<str>,
    index: Index<usize>,
    webhooks: Vec<Arc<Webhook>>,
}

impl Tenant {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// All of its webhooks, in the order they were declared.
    #[must_use]
    pub fn webhooks(&self) -> &[Arc<Webhook>] {
        &self.webhooks
    }

    /// The webhooks that get events of this type, in the order they were declared.
    pub fn route(&self, event_type: &EventType) -> impl Iterator<Item = &Arc<Webhook>> {
        self.index.find(event_type).into_iter().filter_map(|target| self.webhooks.get(target))
    }
}

/// A webhook, ready to be delivered to.
#[derive(Debug)]
pub struct Webhook {
    /// Derived from the tenant's and the webhook's names, so that it stays the same across restarts.
    pub id: WebhookId,
    /// The tenant's name.
    pub tenant: Arc<str>,
    /// What was declared.
    pub definition: WebhookDefinition,
    /// The tenant's plugins and then the webhook's own, each with its config.
    chain: Vec<(String, Arc<str>)>,
}

impl Webhook {
    /// Whether its chain names this plugin.
    #[must_use]
    pub fn uses(&self, plugin: &str) -> bool {
        self.chain.iter().any(|(name, _)| name == plugin)
    }
}

impl Snapshot {
    /// Compiles what is declared, with these plugins.
    #[must_use]
    pub fn new(tenants: Vec<TenantDefinition>, plugins: PluginSet) -> Self {
        Self { declared: Arc::new(Declared::compile(tenants)), plugins }
    }

    /// The same plugins with other declarations.
    #[must_use]
    pub fn with_tenants(&self, tenants: Vec<TenantDefinition>) -> Self {
        Self::new(tenants, self.plugins.clone())
    }

    /// The same declarations with other plugins.
    #[must_use]
    pub fn with_plugins(&self, plugins: PluginSet) -> Self {
        Self { declared: Arc::clone(&self.declared), plugins }
    }

    /// The plugins.
    #[must_use]
    pub fn plugins(&self) -> &PluginSet {
        &self.plugins
    }

    /// The tenant that an API key belongs to.
    #[must_use]
    pub fn tenant_of_key(&self, key: &str) -> Option<&Arc<Tenant>> {
        // A lookup by hash tells nothing about the key by how long it takes.
        self.declared.keys.get(&KeyHash::of(key))
    }

    /// The webhook with this id.
    #[must_use]
    pub fn webhook(&self, id: &WebhookId) -> Option<&Arc<Webhook>> {
        self.declared.webhooks.get(id)
    }

    /// The webhooks whose chains name this plugin, as `tenant/webhook`.
    #[must_use]
    pub fn users_of(&self, key: &PluginKey) -> Vec<String> {
        let mut users: Vec<_> = self
            .declared
            .webhooks
            .values()
            .filter(|webhook| webhook.chain.iter().any(|(name, _)| *name == key.name))
            .filter(|webhook| key.tenant.as_ref().is_none_or(|tenant| **tenant == *webhook.tenant))
            .map(|webhook| format!("{}/{}", webhook.tenant, webhook.definition.name))
            .collect();
        users.sort();
        users
    }

    /// A webhook's chain with the plugins as they are now.
    ///
    /// # Errors
    /// When a plugin is not loaded.
    pub fn chain(&self, webhook: &Webhook) -> Result<Vec<Step>, Box<Failed>> {
        let step = |(name, config): &(String, Arc<str>)| {
            let plugin = self.plugins.find(&webhook.tenant, name).ok_or_else(|| {
                let message = format!("the plugin `{name}` is not loaded");
                let failure = Failure::new(FailureKind::PluginMissing, message);
                Box::new(Failed { plugin: name.as_str().into(), failure })
            })?;
            Ok(Step { plugin: Arc::clone(plugin), config: Arc::clone(config) })
        };
        webhook.chain.iter().map(step).collect()
    }

    /// The hash of all that decides how a webhook's plugins fare: their versions, configs and limits, what
    /// they see of the webhook, and what follows when they fail. When it changes, what failed may work.
    #[must_use]
    pub fn chain_digest(&self, webhook: &Webhook) -> Digest {
        let definition = &webhook.definition;
        let mut parts = vec![
            format!("{:?}", definition.on_plugin_failure),
            format!("{:?}", (&definition.name, &definition.metadata)),
        ];
        for (name, config) in &webhook.chain {
            let plugin = self.plugins.find(&webhook.tenant, name);
            let runs = plugin.map(|plugin| (plugin.label(), plugin.limits()));
            parts.push(format!("{:?}", (name, config, runs)));
        }
        let parts: Vec<_> = parts.iter().map(String::as_bytes).collect();
        Digest::of_parts(&parts)
    }

    /// The plugins that chains name and that are not loaded, each with a webhook that names it.
    #[must_use]
    pub fn missing_plugins(&self) -> Vec<(String, String)> {
        let mut missing: Vec<_> = self
            .declared
            .webhooks
            .values()
            .flat_map(|webhook| webhook.chain.iter().map(move |(name, _)| (webhook, name)))
            .filter(|(webhook, name)| self.plugins.find(&webhook.tenant, name).is_none())
            .map(|(webhook, name)| {
                (name.clone(), format!("{}/{}", webhook.tenant, webhook.definition.name))
            })
            .collect();
        missing.sort();
        missing
    }
}

fn compile(definition: TenantDefinition) -> Tenant {
    let name: Arc<str> = definition.name.into();
    let mut index = Index::default();
    let mut webhooks = Vec::with_capacity(definition.webhooks.len());
    for webhook in definition.webhooks {
        if webhook.active {
            webhook.event_types.iter().for_each(|glob| index.insert(glob, webhooks.len()));
        }
        let chain = definition
            .plugins
            .iter()
            .chain(&webhook.plugins)
            .map(|plugin| (plugin.name.clone(), plugin.config.as_str().into()))
            .collect();
        let id = Digest::of_parts(&[name.as_bytes(), webhook.name.as_bytes()]).short();
        webhooks.push(Arc::new(Webhook {
            id: WebhookId(format!("wh_{id}").into()),
            tenant: Arc::clone(&name),
            definition: webhook,
            chain,
        }));
    }
    Tenant { name, index, webhooks }
}

/// The current snapshot. Cheap to clone; all clones see the same one.
#[derive(Debug, Clone)]
pub struct Current {
    snapshot: Arc<ArcSwap<Snapshot>>,
    /// How often it was replaced.
    replaced: watch::Sender<u64>,
}

impl Current {
    /// Begins with this snapshot.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        Self { snapshot, replaced: watch::Sender::new(0) }
    }

    /// The snapshot as of now.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Replaces it. What is under way keeps the one that it has.
    pub fn store(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.replaced.send_modify(|times| *times += 1);
    }

    /// Counts how often it was replaced. Whoever sees a count sees a snapshot at least that new.
    #[must_use]
    pub fn replacements(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }
}
