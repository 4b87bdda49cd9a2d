//! Agreement: which plugins and declarations can take effect, when configs must fit the plugins that they are for.
//!
//! Nothing that works is broken: a plugin whose schema a config does not fit any more has to wait, and so has
//! a configuration file with a config that does not fit. What waits is looked at again with every change, together
//! with all else that waits. So where a plugin and its configs have to change together, either may come first, and
//! both take effect with the second.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::snapshot::{Misconfigured, PluginKey, PluginSet, Snapshot, TenantDefinition};
use crate::transform::Plugin;

/// Plugins by what they are known by.
pub(super) type Plugins = BTreeMap<PluginKey, Arc<Plugin>>;

/// What there is to agree on.
#[derive(Debug)]
pub(super) struct Proposal {
    /// What runs, and what is known of it.
    pub(super) plugins: PluginSet,
    /// What is to run in place of it.
    pub(super) waiting: Plugins,
    /// What is to be declared in place of what is.
    pub(super) declared: Option<Vec<TenantDefinition>>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Agreement {
    /// What is to take effect.
    pub(super) snapshot: Snapshot,
    /// What would not work with the plugins that have to wait.
    pub(super) refused: BTreeMap<PluginKey, Vec<Misconfigured>>,
    /// What would not work with the new declarations, which have to wait then.
    pub(super) refused_declared: Vec<Misconfigured>,
}

/// Finds what can take effect of a proposal, the declarations first.
pub(super) fn agree(current: &Snapshot, proposal: Proposal) -> Agreement {
    let Proposal { plugins, waiting, declared } = proposal;
    let mut refused_declared = Vec::new();
    if let Some(tenants) = declared {
        let new = current.with_tenants(tenants);
        let (snapshot, refused) = overlaid(&new, &plugins, waiting.clone(), |_| true);
        refused_declared = snapshot.misconfigured();
        if refused_declared.is_empty() {
            return Agreement { snapshot, refused, refused_declared };
        }
    }
    // What does not work now either is no reason to wait.
    let (snapshot, refused) = overlaid(current, &plugins, waiting, |broken| current.works(broken));
    Agreement { snapshot, refused, refused_declared }
}

/// The declarations with the loaded plugins and as many of the waiting ones as possible: all but those with which
/// something would not work that `counts`.
fn overlaid(
    base: &Snapshot,
    plugins: &PluginSet,
    mut waiting: Plugins,
    counts: impl Fn(&Misconfigured) -> bool,
) -> (Snapshot, BTreeMap<PluginKey, Vec<Misconfigured>>) {
    let mut refused = BTreeMap::new();
    loop {
        let snapshot = base.with_plugins(plugins.with_latest(&waiting));
        let mut broken: BTreeMap<PluginKey, Vec<Misconfigured>> = BTreeMap::new();
        for one in snapshot.misconfigured() {
            let waiting = one.latest.as_ref().filter(|key| waiting.contains_key(key));
            if let Some(key) = waiting.filter(|_| counts(&one)) {
                broken.entry(key.clone()).or_default().push(one);
            }
        }
        if broken.is_empty() {
            return (snapshot, refused);
        }
        // Without these, others may be meant by the same names, so all are looked at again.
        waiting.retain(|key, _| !broken.contains_key(key));
        refused.append(&mut broken);
    }
}
