//! What stands in for the store and for servers where there are none: behind a fixture, or `plugin try`.
//!
//! It means what the SDK's `testing::Host` means natively, within the limits and grants that the gateway would
//! hold the plugin to.

mod keys;
mod script;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use self::keys::MemoryKeys;
use self::script::Script;
use super::host::Randomness;
use super::{Capability, Plugin, Secrets, Services};

pub use self::script::{Exchange, ScriptedAnswer};

/// What a plugin finds when it asks for more than its event.
#[derive(Debug, Clone, Default)]
pub struct Mocks {
    /// The tenant's secrets.
    pub secrets: Secrets,
    /// What the plugin keeps already.
    pub kv: BTreeMap<String, String>,
    /// What servers answer.
    pub http: Vec<ScriptedAnswer>,
}

/// What stands in for the store and the servers, and remembers what was asked of it.
#[derive(Clone)]
pub struct StandIn {
    secrets: Secrets,
    keys: Arc<MemoryKeys>,
    script: Arc<Script>,
    randomness: Randomness,
}

impl StandIn {
    /// For one run of a fixture: at this time, with the numbers that chance gives in native tests.
    pub(super) fn for_fixture(mocks: &Mocks, time: Timestamp) -> Self {
        Self {
            keys: Arc::new(MemoryKeys::new(&mocks.kv, Some(time))),
            randomness: Randomness::OfTests,
            ..Self::new(mocks, "the fixture")
        }
    }

    /// For calls at any time. `source` says where the answers of servers come from, for messages.
    #[must_use]
    pub fn new(mocks: &Mocks, source: &'static str) -> Self {
        Self {
            secrets: mocks.secrets.clone(),
            keys: Arc::new(MemoryKeys::new(&mocks.kv, None)),
            script: Arc::new(Script::new(mocks.http.clone(), source)),
            randomness: Randomness::Seed([0; 32]),
        }
    }

    /// The same plugin with this behind its capabilities.
    ///
    /// # Errors
    /// When there is something here that the plugin's grants keep from it: what, and how to grant it.
    pub fn serve(&self, plugin: &Plugin) -> Result<Plugin, String> {
        self.check_grants(plugin)?;
        let services = Services {
            keys: Arc::clone(&self.keys) as _,
            fetch: Arc::clone(&self.script) as _,
            randomness: self.randomness,
        };
        let runtime = plugin.runtime.clone().with_services(services);
        Ok(Plugin { runtime, ..plugin.clone() })
    }

    fn check_grants(&self, plugin: &Plugin) -> Result<(), String> {
        let (grants, name) = (plugin.grants(), plugin.name());
        let ungranted = |what: String, capability: Capability| {
            let key = capability.name();
            format!("{what}, which `{key}` under `[grants]` in {name}.toml does not cover")
        };
        let secret = self.secrets.names().find(|it| !grants.secrets.iter().any(|has| has == it));
        if let Some(secret) = secret {
            return Err(ungranted(format!("there is a secret `{secret}`"), Capability::Secrets));
        }
        let covered = |url| grants.http.iter().any(|allowed| allowed.covers(url));
        match self.script.urls().find(|url| !covered(url)) {
            Some(url) => Err(ungranted(format!("there is an answer of {url}"), Capability::Http)),
            None => Ok(()),
        }
    }

    /// The secrets, of which a plugin sees those that it was granted.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The keys that are not as they were at first, each with its value; none where it is gone.
    #[must_use]
    pub fn changed_keys(&self) -> BTreeMap<String, Option<String>> {
        self.keys.changed()
    }

    /// The first requests that were made, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Exchange> {
        self.script.exchanges()
    }
}

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandIn").field("secrets", &self.secrets).finish_non_exhaustive()
    }
}
