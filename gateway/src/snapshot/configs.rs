//! Which configs fit the schemas of the plugins that they are for: found out once for each, when either changes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::{PluginKey, PluginSet};
use crate::transform::{Misfits, Plugin};

/// A plugin in a chain, with its config, as declared by a tenant or by one of its webhooks.
#[derive(Debug)]
pub(super) struct Use {
    pub(super) tenant: Arc<str>,
    /// None where the plugin is one of the tenant's own, for all webhooks.
    pub(super) webhook: Option<String>,
    pub(super) plugin: String,
    pub(super) config: Arc<str>,
    pub(super) place: String,
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
            let Some(plugin) = plugins.find(&one.tenant, &one.plugin) else {
                continue;
            };
            let pair = (Arc::clone(plugin.label()), Arc::clone(&one.config));
            if checked.by_config.contains_key(&pair) {
                continue;
            }
            let misfits = match before.by_config.get(&pair) {
                Some(known) => known.clone(),
                None => plugin.check_config(&one.config).err().map(Arc::new),
            };
            checked.any |= misfits.is_some();
            checked.by_config.insert(pair, misfits);
        }
        checked
    }

    /// What of a config does not fit the plugin.
    pub(super) fn misfits(&self, plugin: &Plugin, config: &Arc<str>) -> Option<&Arc<Misfits>> {
        if !self.any {
            return None;
        }
        self.by_config.get(&(Arc::clone(plugin.label()), Arc::clone(config)))?.as_ref()
    }
}

/// A use of a plugin whose config does not fit the plugin's schema. Its webhooks send nothing meanwhile.
#[derive(Debug, Clone)]
pub struct Misconfigured {
    /// The plugin that is meant.
    pub plugin: PluginKey,
    /// Who uses it: `webhook acme/orders`, or `tenant acme`.
    pub user: String,
    /// Which of the declared uses it is.
    pub(super) index: usize,
    place: String,
    misfits: Arc<Misfits>,
}

impl Misconfigured {
    pub(super) fn new(index: usize, of: &Use, plugin: PluginKey, misfits: Arc<Misfits>) -> Self {
        let user = match &of.webhook {
            Some(webhook) => format!("webhook {}/{webhook}", of.tenant),
            None => format!("tenant {}", of.tenant),
        };
        Self { plugin, user, index, place: of.place.clone(), misfits }
    }

    /// One line for each misfit, with who uses the plugin and where that is declared.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let Self { user, place, plugin: PluginKey { name, .. }, .. } = self;
        self.misfits.lines().map(move |line| format!("{user} ({place}), plugin `{name}`: {line}"))
    }
}

impl fmt::Display for Misconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.user, self.place, self.misfits)
    }
}
