//! The plugins that are loaded, by name: those for all tenants, and those of one.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::transform::Plugin;

/// What a plugin is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginKey {
    /// The tenant whose own it is; none when it is for all.
    pub tenant: Option<Arc<str>>,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PluginKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tenant {
            Some(tenant) => write!(f, "{tenant}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The loaded plugins. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PluginSet {
    shared: Arc<ByName>,
    own: Arc<HashMap<Arc<str>, ByName>>,
}

type ByName = HashMap<String, Arc<Plugin>>;

impl PluginSet {
    /// The plugin that a tenant means by this name: its own before the one for all.
    #[must_use]
    pub fn find(&self, tenant: &str, name: &str) -> Option<&Arc<Plugin>> {
        let own = self.own.get(tenant).and_then(|own| own.get(name));
        own.or_else(|| self.shared.get(name))
    }

    /// What the plugin is known by that a tenant means by this name.
    #[must_use]
    pub fn key(&self, tenant: &str, name: &str) -> PluginKey {
        let own = self.own.get_key_value(tenant).filter(|(_, own)| own.contains_key(name));
        PluginKey { tenant: own.map(|(tenant, _)| Arc::clone(tenant)), name: name.to_owned() }
    }
}

impl FromIterator<(PluginKey, Arc<Plugin>)> for PluginSet {
    fn from_iter<I: IntoIterator<Item = (PluginKey, Arc<Plugin>)>>(plugins: I) -> Self {
        let mut shared = ByName::new();
        let mut own: HashMap<Arc<str>, ByName> = HashMap::new();
        for (key, plugin) in plugins {
            match key.tenant {
                Some(tenant) => own.entry(tenant).or_default().insert(key.name, plugin),
                None => shared.insert(key.name, plugin),
            };
        }
        Self { shared: Arc::new(shared), own: Arc::new(own) }
    }
}
