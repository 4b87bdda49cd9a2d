//! What there is to tell of plugins: which versions run from now on, and which files are refused.
//!
//! Found by comparing each snapshot with the one before it. What runs when the gateway starts is no news; what is
//! refused then is.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::Pipeline;
use super::News;
use super::data::{FileName, PluginData, PluginNews};
use crate::event::operational::Operational;
use crate::record::NewEvent;
use crate::shutdown::Drain;
use crate::snapshot::{PluginKey, Rejection, Shelf, Snapshot, Tenant};
use crate::transform::Plugin;

/// Tells of plugins until the drain begins.
pub(in super::super) async fn run(pipeline: Pipeline, drain: Drain) {
    let mut replacements = pipeline.0.current.replacements();
    let mut known = Known::at_start(&pipeline.0.current.load());
    loop {
        replacements.mark_unchanged();
        let told = known.compare(&pipeline.0.current.load());
        let telling = async {
            for told in told {
                pipeline.announce(told).await;
            }
            replacements.changed().await
        };
        tokio::select! {
            () = drain.begun() => return,
            replaced = telling => {
                if replaced.is_err() {
                    return;
                }
            }
        }
    }
}

/// How each plugin was when it was last looked at.
pub(super) struct Known(BTreeMap<PluginKey, State>);

#[derive(Default)]
struct State {
    active: Option<Arc<Plugin>>,
    rejected: Option<Rejection>,
}

impl Known {
    pub(super) fn at_start(snapshot: &Snapshot) -> Self {
        let shelves = snapshot.plugins().all();
        let active = |shelf: &Shelf| State { active: shelf.active.clone(), rejected: None };
        Self(shelves.map(|(key, shelf)| (key, active(shelf))).collect())
    }

    /// What there is to tell since the last time.
    pub(super) fn compare(&mut self, snapshot: &Snapshot) -> Vec<NewEvent> {
        let mut told = Vec::new();
        let mut known = BTreeMap::new();
        for (key, shelf) in snapshot.plugins().all() {
            let before = self.0.remove(&key).unwrap_or_default();
            told.extend(loaded(snapshot, &key, shelf, &before));
            told.extend(rejected(snapshot, &key, shelf, &before));
            let (active, rejected) = (shelf.active.clone(), shelf.status.rejected.clone());
            known.insert(key, State { active, rejected });
        }
        self.0 = known;
        told
    }
}

fn loaded(snapshot: &Snapshot, key: &PluginKey, shelf: &Shelf, before: &State) -> Vec<NewEvent> {
    let Some(plugin) = &shelf.active else { return Vec::new() };
    if before.active.as_ref().is_some_and(|before| Arc::ptr_eq(before, plugin)) {
        return Vec::new();
    }
    let now = Timestamp::now();
    let version = plugin.version();
    let replaced = before.active.as_ref().map(|before| before.version().to_string());
    let tell = |tenant: &Tenant| {
        let name = key.to_string();
        let micros = now.as_microsecond().to_be_bytes();
        let identity: [&[u8]; 3] = [name.as_bytes(), version.as_bytes(), &micros];
        let described = &plugin.description().version;
        let news = PluginNews::Loaded { described, replaced: replaced.clone() };
        let data = data(tenant, key, Some(version.to_string()), news);
        News::new(Operational::PluginLoaded, &identity, now, data).event(tenant)
    };
    concerned(snapshot, key).filter_map(|tenant| tell(tenant)).collect()
}

fn rejected(snapshot: &Snapshot, key: &PluginKey, shelf: &Shelf, before: &State) -> Vec<NewEvent> {
    let Some(rejection) = &shelf.status.rejected else { return Vec::new() };
    if before.rejected.as_ref() == Some(rejection) {
        return Vec::new();
    }
    let version = rejection.version.map(|version| version.to_string());
    let tell = |tenant: &Tenant| {
        let name = key.to_string();
        let micros = rejection.since.as_microsecond().to_be_bytes();
        let hash = version.as_deref().unwrap_or_default();
        let identity = [name.as_bytes(), hash.as_bytes(), &micros];
        let reason = rejection.reason_for(tenant.name());
        let news = PluginNews::Rejected {
            reason: &reason,
            kept: shelf.active.as_ref().map(|plugin| plugin.version().to_string()),
            since: rejection.since,
        };
        let data = data(tenant, key, version.clone(), news);
        News::new(Operational::PluginRejected, &identity, rejection.since, data).event(tenant)
    };
    concerned(snapshot, key).filter_map(|tenant| tell(tenant)).collect()
}

/// The tenants that are told of a plugin: whose own it is, or, of one for all, those whose webhooks use it.
fn concerned<'a>(
    snapshot: &'a Snapshot,
    key: &'a PluginKey,
) -> impl Iterator<Item = &'a Arc<Tenant>> {
    let uses = |tenant: &Tenant| {
        tenant.webhooks().iter().any(|webhook| webhook.uses(&key.name))
            && snapshot.plugins().key(tenant.name(), &key.name) == *key
    };
    snapshot.tenants().filter(|tenant| tenant.is_listening()).filter(move |tenant| {
        match &key.tenant {
            Some(owner) => owner == tenant.name(),
            None => uses(tenant),
        }
    })
}

fn data<'a>(
    tenant: &'a Tenant,
    key: &'a PluginKey,
    version: Option<String>,
    news: PluginNews<'a>,
) -> PluginData<'a> {
    let scope = if key.tenant.is_some() { "tenant" } else { "all" };
    PluginData { tenant: tenant.name(), plugin: FileName { name: &key.name, scope, version }, news }
}
