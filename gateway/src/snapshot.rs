//! The snapshot: what is declared and loaded, compiled into one immutable value and swapped whole.
//!
//! Whoever starts work takes the current snapshot and keeps it to the end, so an event never sees half
//! of a change.

mod configs;
mod current;
mod definition;
mod link;
mod plugins;
mod shelf;
mod status;
mod version;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::delivery::{Failure, FailureKind, WebhookId};
use crate::digest::Digest;
use crate::event::{Event, EventId, EventType};
use crate::route::{Glob, Index};
use crate::transform::{Failed, Secrets, Step};
use configs::{Checked, Use};

pub use self::configs::Misconfigured;
pub use self::current::Current;
pub use self::definition::{
    BodyForm, KeyHash, OnDead, OnPluginFailure, Ordering, PluginUse, RateLimit, Retention,
    TenantDefinition, WebhookDefinition,
};
pub use self::link::{Link, MissingPlugin, Pin};
pub use self::plugins::{PluginKey, PluginSet};
pub use self::shelf::{KeptVersion, Shelf};
pub use self::status::{PluginStatus, Rejection};
pub use self::version::{Canary, Share, Version};

/// Tenants, webhooks and plugins at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    declared: Arc<Declared>,
    plugins: PluginSet,
    /// Of every config that is declared, with the plugins as they are.
    checked: Arc<Checked>,
}

#[derive(Debug, Default)]
struct Declared {
    tenants: HashMap<Arc<str>, Arc<Tenant>>,
    keys: HashMap<KeyHash, Arc<Tenant>>,
    webhooks: HashMap<WebhookId, Arc<Webhook>>,
    pins: BTreeSet<Pin>,
    uses: Vec<Use>,
}

impl Declared {
    fn compile(tenants: Vec<TenantDefinition>) -> Self {
        let mut declared = Self::default();
        for definition in tenants {
            let keys = definition.keys.clone();
            let tenant = Arc::new(compile(definition, &mut declared.uses));
            for webhook in &tenant.webhooks {
                declared.webhooks.insert(webhook.id.clone(), Arc::clone(webhook));
                declared.pins.extend(webhook.pins());
            }
            declared.tenants.insert(Arc::clone(&tenant.name), Arc::clone(&tenant));
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
    ad_hoc: Option<Arc<Webhook>>,
    retention: Retention,
    max_backlog: usize,
    /// Whether any of its webhooks asks for operational events.
    is_listening: bool,
}

impl Tenant {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The webhooks that get events of this type, in the order they were declared.
    pub fn route(&self, event_type: &EventType) -> impl Iterator<Item = &Arc<Webhook>> {
        self.index.find(event_type).into_iter().filter_map(|target| self.webhooks.get(target))
    }

    /// The webhook for events that say themselves where they go, if the tenant has one.
    #[must_use]
    pub fn ad_hoc(&self) -> Option<&Arc<Webhook>> {
        self.ad_hoc.as_ref()
    }

    /// All of its webhooks, in the order they were declared; the one for ad-hoc destinations is the last.
    #[must_use]
    pub fn webhooks(&self) -> &[Arc<Webhook>] {
        &self.webhooks
    }

    /// How long what is finished is kept.
    #[must_use]
    pub fn retention(&self) -> &Retention {
        &self.retention
    }

    /// Whether any of its webhooks gets operational events of any type. Where none does, nobody has to look further.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.is_listening
    }

    /// How many deliveries it may be owed.
    #[must_use]
    pub fn max_backlog(&self) -> usize {
        self.max_backlog
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
    /// The tenant's limit for all of its webhooks together.
    pub tenant_rate_limit: Option<RateLimit>,
    /// The tenant's secrets that its plugins may be granted.
    pub plugin_secrets: Secrets,
    /// The tenant's plugins and then the webhook's own.
    chain: Vec<Link>,
}

impl Webhook {
    /// The plugins of its chain, in order.
    #[must_use]
    pub fn chain(&self) -> &[Link] {
        &self.chain
    }

    /// Whether its chain names this plugin.
    #[must_use]
    pub fn uses(&self, plugin: &str) -> bool {
        self.chain.iter().any(|link| link.name == plugin)
    }

    /// The key of the queue in which an event keeps its order, if it has to; empty for that of the whole webhook.
    #[must_use]
    pub fn queue_of(&self, event: &Event) -> Option<Arc<str>> {
        match self.definition.ordering {
            Ordering::None => None,
            Ordering::Fifo => Some(Arc::default()),
            Ordering::Key => event.ordering_key.as_deref().map(Arc::from),
        }
    }

    /// Whether what follows a dead delivery waits.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.definition.ordering != Ordering::None && self.definition.on_dead == OnDead::Block
    }

    fn pins(&self) -> impl Iterator<Item = Pin> {
        self.chain.iter().flat_map(|link| link.pins(&self.tenant))
    }
}

impl Snapshot {
    /// Compiles what is declared, with these plugins.
    #[must_use]
    pub fn new(tenants: Vec<TenantDefinition>, plugins: PluginSet) -> Self {
        Self::checked(Arc::new(Declared::compile(tenants)), plugins, &Checked::default())
    }

    /// The same plugins with other declarations.
    #[must_use]
    pub fn with_tenants(&self, tenants: Vec<TenantDefinition>) -> Self {
        let declared = Arc::new(Declared::compile(tenants));
        Self::checked(declared, self.plugins.clone(), &self.checked)
    }

    /// The same declarations with other plugins.
    #[must_use]
    pub fn with_plugins(&self, plugins: PluginSet) -> Self {
        Self::checked(Arc::clone(&self.declared), plugins, &self.checked)
    }

    fn checked(declared: Arc<Declared>, plugins: PluginSet, before: &Checked) -> Self {
        let checked = Arc::new(Checked::of(&declared.uses, &plugins, before));
        Self { declared, plugins, checked }
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

    /// The tenant of this name.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.declared.tenants.get(name)
    }

    /// All tenants, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.declared.tenants.values()
    }

    /// The webhook with this id.
    #[must_use]
    pub fn webhook(&self, id: &WebhookId) -> Option<&Arc<Webhook>> {
        self.declared.webhooks.get(id)
    }

    /// All webhooks, in no order.
    pub fn webhooks(&self) -> impl Iterator<Item = &Arc<Webhook>> {
        self.declared.webhooks.values()
    }

    /// The webhooks whose chains name this plugin, as `tenant/webhook`.
    #[must_use]
    pub fn users_of(&self, key: &PluginKey) -> Vec<String> {
        let mut users: Vec<_> = self
            .declared
            .webhooks
            .values()
            .filter(|webhook| webhook.chain.iter().any(|link| link.name == key.name))
            .filter(|webhook| key.tenant.as_ref().is_none_or(|tenant| **tenant == *webhook.tenant))
            .map(|webhook| format!("{}/{}", webhook.tenant, webhook.definition.name))
            .collect();
        users.sort();
        users
    }

    /// A webhook's chain with the plugins as they are now, for this event.
    ///
    /// # Errors
    /// When a plugin is not loaded, or not the version that the chain names, or its config does not fit it.
    pub fn chain(&self, webhook: &Webhook, event: &EventId) -> Result<Vec<Step>, Box<Failed>> {
        let failed = |plugin: &str, kind, message| {
            Box::new(Failed { plugin: plugin.into(), failure: Failure::new(kind, message) })
        };
        let step = |link: &Link| {
            let version = link.version_for(event, &webhook.id);
            let plugin = self
                .plugins
                .choose(&webhook.tenant, &link.name, version)
                .map_err(|reason| failed(&link.name, FailureKind::PluginMissing, reason))?;
            if let Some(misfits) = self.checked.misfits(plugin, &link.config) {
                let message = format!("{}: {misfits}", link.name);
                return Err(failed(plugin.label(), FailureKind::PluginConfig, message));
            }
            Ok(Step { plugin: Arc::clone(plugin), config: Arc::clone(&link.config) })
        };
        webhook.chain.iter().map(step).collect()
    }

    /// The hash of all that decides how a webhook's plugins fare: their versions, configs, limits and grants,
    /// the secrets, what they see of the webhook, and what follows when they fail. When it changes, what failed may work.
    #[must_use]
    pub fn chain_digest(&self, webhook: &Webhook) -> Digest {
        let definition = &webhook.definition;
        let mut parts = vec![
            format!("{:?}", definition.on_plugin_failure),
            format!("{:?}", (&definition.name, &definition.metadata)),
            webhook.plugin_secrets.digest().to_string(),
        ];
        for link in &webhook.chain {
            parts.push(format!("{:?}", (&link.name, &link.config, &link.canary)));
            for version in link.versions() {
                let plugin = self.plugins.choose(&webhook.tenant, &link.name, version).ok();
                let runs = plugin.map(|it| (it.label(), it.limits(), it.grants()));
                parts.push(format!("{runs:?}"));
            }
        }
        let parts: Vec<_> = parts.iter().map(String::as_bytes).collect();
        Digest::of_parts(&parts)
    }

    /// The versions that chains name by their hashes.
    pub fn pins(&self) -> impl Iterator<Item = &Pin> {
        self.declared.pins.iter()
    }

    /// The uses of plugins whose configs do not fit, in the order of declaration.
    #[must_use]
    pub fn misconfigured(&self) -> Vec<Misconfigured> {
        self.checked.misconfigured(&self.declared.uses, &self.plugins)
    }

    /// Whether a use works here that does not with other plugins and the same declarations.
    #[must_use]
    pub fn works(&self, elsewhere: &Misconfigured) -> bool {
        self.checked.works(&self.declared.uses, &self.plugins, elsewhere)
    }

    /// The plugins that chains name and that cannot be run.
    #[must_use]
    pub fn missing_plugins(&self) -> Vec<MissingPlugin> {
        let mut missing = Vec::new();
        for webhook in self.declared.webhooks.values() {
            for link in &webhook.chain {
                for version in link.versions() {
                    let chosen = self.plugins.choose(&webhook.tenant, &link.name, version);
                    missing.extend(chosen.err().map(|reason| MissingPlugin {
                        webhook: format!("{}/{}", webhook.tenant, webhook.definition.name),
                        name: link.name.clone(),
                        version: version.clone(),
                        reason,
                    }));
                }
            }
        }
        missing.sort();
        missing.dedup();
        missing
    }
}

/// Makes a tenant of what is declared, and adds its uses of plugins to all others.
fn compile(definition: TenantDefinition, uses: &mut Vec<Use>) -> Tenant {
    let name: Arc<str> = definition.name.into();
    let mut declare = |webhook: Option<&String>, plugins: &[PluginUse]| -> Vec<Link> {
        let links: Vec<_> = plugins.iter().map(Link::new).collect();
        uses.extend(links.iter().zip(plugins).map(|(link, plugin)| Use {
            tenant: Arc::clone(&name),
            webhook: webhook.cloned(),
            link: link.clone(),
            place: plugin.place.clone(),
        }));
        links
    };
    let of_tenant = declare(None, &definition.plugins);
    let (secrets, rate_limit) = (definition.secrets, definition.rate_limit);
    let mut webhook = |definition: WebhookDefinition| {
        let own = declare(Some(&definition.name), &definition.plugins);
        let id = Digest::of_parts(&[name.as_bytes(), definition.name.as_bytes()]).short();
        Arc::new(Webhook {
            id: WebhookId(format!("wh_{id}").into()),
            tenant: Arc::clone(&name),
            definition,
            tenant_rate_limit: rate_limit,
            plugin_secrets: secrets.clone(),
            chain: of_tenant.iter().cloned().chain(own).collect(),
        })
    };
    let mut index = Index::default();
    let mut webhooks: Vec<Arc<Webhook>> =
        definition.webhooks.into_iter().map(&mut webhook).collect();
    let mut is_listening = false;
    for (place, webhook) in webhooks.iter().enumerate() {
        if webhook.definition.active {
            let globs = &webhook.definition.event_types;
            globs.iter().for_each(|glob| index.insert(glob, place));
            is_listening |= globs.iter().any(Glob::is_operational);
        }
    }
    let ad_hoc = definition.ad_hoc.map(webhook);
    webhooks.extend(ad_hoc.clone());
    let (retention, max_backlog) = (definition.retention, definition.max_backlog);
    Tenant { name, index, webhooks, ad_hoc, retention, max_backlog, is_listening }
}
