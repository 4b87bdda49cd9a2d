//! Which configs fit the schemas of the plugins that they are for: found out once for each, when either changes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::{Link, PluginKey, PluginSet, Version};
use crate::transform::{Misfits, Plugin};

/// A plugin in a chain, with its config, as declared by a tenant or by one of its webhooks.
#[derive(Debug)]
pub(super) struct Use {
    pub(super) tenant: Arc<str>,
    /// None where the plugin is one of the tenant's own, for all webhooks.
    pub(super) webhook: Option<String>,
    pub(super) link: Link,
    pub(super) place: String,
}

impl Use {
    /// The versions that it names, where they can be run.
    fn plugins<'a>(
        &'a self,
        plugins: &'a PluginSet,
    ) -> impl Iterator<Item = (&'a Version, &'a Arc<Plugin>)> {
        self.link.versions().filter_map(|version| {
            Some((version, plugins.choose(&self.tenant, &self.link.name, version).ok()?))
        })
    }
}

/// `name@version` of a plugin, which stands for its content.
type Label = Arc<str>;

/// The text of a config.
type Config = Arc<str>;

/// What the configs came to.
#[derive(Debug, Default)]
pub(super) struct Checked {
    by_config: HashMap<(Label, Config), Option<Arc<Misfits>>>,
    /// Whether any does not fit. Events do not ask further where all do.
    any: bool,
}

impl Checked {
    /// Checks every use, but for those that were checked before.
    pub(super) fn of(uses: &[Use], plugins: &PluginSet, before: &Self) -> Self {
        let mut checked = Self::default();
        for one in uses {
            for (_, plugin) in one.plugins(plugins) {
                checked.check(plugin, &one.link.config, before);
            }
        }
        checked
    }

    fn check(&mut self, plugin: &Plugin, config: &Config, before: &Self) {
        let pair = (Arc::clone(plugin.label()), Arc::clone(config));
        if self.by_config.contains_key(&pair) {
            return;
        }
        let misfits = match before.by_config.get(&pair) {
            Some(known) => known.clone(),
            None => plugin.check_config(config).err().map(Arc::new),
        };
        self.any |= misfits.is_some();
        self.by_config.insert(pair, misfits);
    }

    /// What of a config does not fit the plugin.
    pub(super) fn misfits(&self, plugin: &Plugin, config: &Arc<str>) -> Option<&Arc<Misfits>> {
        if !self.any {
            return None;
        }
        self.by_config.get(&(Arc::clone(plugin.label()), Arc::clone(config)))?.as_ref()
    }
    /// The uses whose configs do not fit, in their order.
    pub(super) fn misconfigured(&self, uses: &[Use], plugins: &PluginSet) -> Vec<Misconfigured> {
        // The usual case, told without a look at all of them.
        let uses = if self.any { uses } else { &[] };
        let misconfigured = uses.iter().enumerate().flat_map(|(index, one)| {
            one.plugins(plugins).filter_map(move |(version, plugin)| {
                let misfits = Arc::clone(self.misfits(plugin, &one.link.config)?);
                let latest =
                    (*version == Version::Latest).then(|| plugins.key(&one.tenant, &one.link.name));
                Some(Misconfigured::new(index, one, version, latest, misfits))
            })
        });
        misconfigured.collect()
    }

    /// Whether a use works that does not elsewhere.
    pub(super) fn works(
        &self,
        uses: &[Use],
        plugins: &PluginSet,
        elsewhere: &Misconfigured,
    ) -> bool {
        uses.get(elsewhere.index).is_some_and(|one| {
            let mut found = one.plugins(plugins);
            let plugin = found.find(|(version, _)| **version == elsewhere.version);
            plugin.is_some_and(|(_, plugin)| self.misfits(plugin, &one.link.config).is_none())
        })
    }
}

/// A use of a plugin whose config does not fit the plugin's schema. Its webhooks send nothing meanwhile.
#[derive(Debug, Clone)]
pub struct Misconfigured {
    /// The plugin whose latest version is meant; none where a version is pinned.
    pub latest: Option<PluginKey>,
    /// The tenant whose use it is.
    pub tenant: Arc<str>,
    /// Who uses it: `webhook acme/orders`, or `tenant acme`.
    pub user: String,
    /// Which of the declared uses it is.
    index: usize,
    plugin: String,
    version: Version,
    place: String,
    misfits: Arc<Misfits>,
}

impl Misconfigured {
    fn new(
        index: usize,
        of: &Use,
        version: &Version,
        latest: Option<PluginKey>,
        misfits: Arc<Misfits>,
    ) -> Self {
        let user = match &of.webhook {
            Some(webhook) => format!("webhook {}/{webhook}", of.tenant),
            None => format!("tenant {}", of.tenant),
        };
        let (plugin, version) = (of.link.name.clone(), version.clone());
        let tenant = Arc::clone(&of.tenant);
        Self { latest, tenant, user, index, plugin, version, place: of.place.clone(), misfits }
    }

    /// One line for each misfit, with who uses the plugin and where that is declared.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let Self { user, place, plugin, .. } = self;
        let version = match &self.version {
            Version::Latest => String::new(),
            Version::Pinned(version) => format!(" {version}"),
        };
        let lines = self.misfits.lines();
        lines.map(move |line| format!("{user} ({place}), plugin `{plugin}`{version}: {line}"))
    }
}

impl fmt::Display for Misconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.user, self.place, self.misfits)
    }
}
