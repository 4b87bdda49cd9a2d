//! `GET /v1/plugins` and `GET /v1/plugins/{name}`: the plugins that a tenant may use, their versions, which
//! webhooks run which, and how each version fares.
//!
//! A tenant sees its own plugins and those for all, and of the latter just its own calls and webhooks.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response};
use jiff::Timestamp;
use serde::Serialize;

use super::breakers::HoldView;
use super::{Admin, json, milliseconds, unavailable};
use crate::access::authenticate;
use crate::digest::Digest;
use crate::problem::Problem;
use crate::record::Held;
use crate::snapshot::{Link, PluginSet, Shelf, Tenant, Version, Webhook};
use crate::transform::{Capability, Limits, Plugin, Reading};

const NO_FILE: &str = "the plugins folder has no such file";

/// All plugins that the tenant may use.
pub(super) async fn plugins(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let tenant = authenticate(&admin.current, &headers)?;
    let holds = admin.store.holds().await.map_err(unavailable)?;
    let snapshot = admin.current.load();
    let plugins = PluginView::all(snapshot.plugins(), &tenant, &holds, |_| true);
    json(&serde_json::json!({ "plugins": plugins.into_values().collect::<Vec<_>>() }))
}

/// One of them.
pub(super) async fn plugin(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let tenant = authenticate(&admin.current, &headers)?;
    let holds = admin.store.holds().await.map_err(unavailable)?;
    let snapshot = admin.current.load();
    let mut plugins = PluginView::all(snapshot.plugins(), &tenant, &holds, |it| it == name);
    let plugin = plugins
        .remove(&*name)
        .ok_or_else(|| Problem::not_found(format!("there is no plugin with the name {name:?}")))?;
    json(&plugin)
}

#[derive(Serialize)]
struct PluginView<'a> {
    name: &'a str,
    /// `tenant` for the tenant's own, `all` for one that all may use; absent when it is nowhere.
    scope: Option<&'static str>,
    /// `active`, `rejected`, `loading` or `missing`: how the file in the plugins folder fares.
    state: &'static str,
    /// Why it is not active.
    reason: Option<String>,
    /// The latest version: what runs for who pins none.
    version: Option<String>,
    /// The content that was rejected.
    rejected_version: Option<String>,
    /// When it was first rejected for that reason.
    rejected_at: Option<Timestamp>,
    /// The file has changed, and is being read or compiled.
    loading: bool,
    description: Option<DescriptionView<'a>>,
    limits: Option<LimitsView>,
    /// The names of the capabilities that it is granted.
    grants: Vec<&'static str>,
    versions: Vec<VersionView<'a>>,
    webhooks: Vec<UseView<'a>>,
}

#[derive(Serialize)]
struct DescriptionView<'a> {
    name: &'a str,
    version: &'a str,
    description: &'a str,
}

#[derive(Serialize)]
struct LimitsView {
    time_ms: f64,
    describe_time_ms: f64,
    memory_bytes: usize,
    table_elements: usize,
    host_calls: u64,
    output_bytes: usize,
    parts: usize,
    headers: usize,
    header_bytes: usize,
    query_parameters: usize,
    url_bytes: usize,
    message_bytes: usize,
    log_lines: usize,
    log_bytes: usize,
    fetches: usize,
    fetch_bytes: usize,
    kv_keys: u64,
    kv_bytes: u64,
}

#[derive(Serialize)]
struct VersionView<'a> {
    version: String,
    /// The version that it describes itself as.
    described: Option<&'a str>,
    size_bytes: Option<u64>,
    first_seen_at: Option<Timestamp>,
    last_active_at: Option<Timestamp>,
    /// It is the latest.
    active: bool,
    loaded: bool,
    /// It is kept on disk and can be pinned.
    kept: bool,
    /// This tenant's calls since the gateway was started; absent when there were none.
    calls: Option<CallsView>,
}

#[derive(Serialize)]
struct CallsView {
    total: u64,
    forwarded: u64,
    dropped: u64,
    failed: u64,
    /// The share of calls that failed, from 0 to 1.
    failure_rate: f64,
    /// How many failed for each reason.
    failures: BTreeMap<&'static str, u64>,
    mean_ms: f64,
    max_ms: f64,
}

#[derive(Serialize)]
struct UseView<'a> {
    id: &'a str,
    name: &'a str,
    #[serde(flatten)]
    runs: RunsView,
    /// What it holds because this plugin keeps failing.
    hold: Option<HoldView>,
    /// Another version that a share of the events goes to.
    canary: Option<CanaryView>,
}

#[derive(Serialize)]
struct CanaryView {
    #[serde(flatten)]
    runs: RunsView,
    /// From 0 to 1.
    share: f64,
}

/// A version as a chain names it, and what that means now.
#[derive(Serialize)]
struct RunsView {
    /// `latest`, or the first digits of a hash.
    pinned: String,
    /// The version that runs.
    version: Option<String>,
    /// Why none runs.
    problem: Option<String>,
}

impl<'a> PluginView<'a> {
    /// The plugins that a tenant may use and those that its webhooks name, by name, if they are wanted.
    fn all(
        plugins: &'a PluginSet,
        tenant: &'a Tenant,
        holds: &[Held],
        wanted: impl Fn(&str) -> bool,
    ) -> BTreeMap<&'a str, Self> {
        let visible = plugins.visible_to(tenant.name());
        let mut views: BTreeMap<_, _> = visible
            .into_iter()
            .filter(|(name, _)| wanted(name))
            .map(|(name, (shelf, own))| (name, Self::new(name, shelf, own, tenant.name())))
            .collect();
        for webhook in tenant.webhooks() {
            for link in webhook.chain().iter().filter(|link| wanted(&link.name)) {
                let view = views.entry(&link.name).or_insert_with(|| Self::missing(&link.name));
                view.webhooks.push(UseView::new(webhook, link, plugins, holds));
                view.show_what_runs(webhook, link, plugins);
            }
        }
        views
    }

    /// A tenant with a plugin of its own may still pin a version of the one for all.
    fn show_what_runs(&mut self, webhook: &Webhook, link: &Link, plugins: &'a PluginSet) {
        for version in link.versions() {
            if let Ok(plugin) = plugins.choose(&webhook.tenant, &link.name, version)
                && !self.versions.iter().any(|shown| shown.version == plugin.version().to_string())
            {
                self.versions.push(VersionView::elsewhere(plugin, &webhook.tenant));
            }
        }
    }

    fn new(name: &'a str, shelf: &'a Shelf, own: bool, tenant: &str) -> Self {
        let active = shelf.active.as_deref();
        let (state, reason) = match (&shelf.status.rejected, active) {
            (Some(rejected), _) => ("rejected", Some(rejected.reason_for(tenant))),
            (None, Some(_)) if !shelf.status.missing => ("active", None),
            (None, Some(_)) => {
                let reason = "its file is gone; webhooks that use it keep what was loaded";
                ("missing", Some(reason.to_owned()))
            }
            (None, None) if shelf.status.loading => {
                ("loading", Some("its file is being read or compiled".to_owned()))
            }
            (None, None) => ("missing", Some(NO_FILE.to_owned())),
        };
        let rejected = shelf.status.rejected.as_ref();
        Self {
            name,
            scope: Some(if own { "tenant" } else { "all" }),
            state,
            reason,
            version: active.map(|plugin| plugin.version().to_string()),
            rejected_version: rejected.and_then(|it| it.version).map(|it| it.to_string()),
            rejected_at: rejected.map(|rejected| rejected.since),
            loading: shelf.status.loading,
            description: active.map(|plugin| {
                let described = plugin.description();
                DescriptionView {
                    name: &described.name,
                    version: &described.version,
                    description: &described.description,
                }
            }),
            limits: active.map(|plugin| LimitsView::new(plugin.limits())),
            grants: active
                .map(|plugin| plugin.grants().capabilities().map(Capability::name).collect())
                .unwrap_or_default(),
            versions: shelf
                .versions()
                .map(|version| VersionView::new(shelf, version, tenant))
                .collect(),
            webhooks: Vec::new(),
        }
    }

    /// A plugin that webhooks name and that is nowhere.
    fn missing(name: &'a str) -> Self {
        Self {
            name,
            scope: None,
            state: "missing",
            reason: Some(NO_FILE.to_owned()),
            version: None,
            rejected_version: None,
            rejected_at: None,
            loading: false,
            description: None,
            limits: None,
            grants: Vec::new(),
            versions: Vec::new(),
            webhooks: Vec::new(),
        }
    }
}

impl LimitsView {
    fn new(limits: &Limits) -> Self {
        Self {
            time_ms: limits.time.as_secs_f64() * 1e3,
            describe_time_ms: limits.describe_time.as_secs_f64() * 1e3,
            memory_bytes: limits.memory_bytes,
            table_elements: limits.table_elements,
            host_calls: limits.host_calls,
            output_bytes: limits.output_bytes,
            parts: limits.parts,
            headers: limits.headers,
            header_bytes: limits.header_bytes,
            query_parameters: limits.query_parameters,
            url_bytes: limits.url_bytes,
            message_bytes: limits.message_bytes,
            log_lines: limits.log_lines,
            log_bytes: limits.log_bytes,
            fetches: limits.fetches,
            fetch_bytes: limits.fetch_bytes,
            kv_keys: limits.kv_keys,
            kv_bytes: limits.kv_bytes,
        }
    }
}

impl<'a> VersionView<'a> {
    fn new(shelf: &'a Shelf, version: Digest, tenant: &str) -> Self {
        let kept = shelf.kept.iter().find(|kept| kept.version == version);
        let loaded = shelf.loaded(version);
        let described = loaded.map(|plugin| &*plugin.description().version);
        let reading = shelf.tallies.get(&version).and_then(|tally| tally.reading(tenant));
        Self {
            version: version.to_string(),
            described: described.or(kept.map(|kept| &*kept.described)),
            size_bytes: kept.map(|kept| kept.size_bytes),
            first_seen_at: kept.map(|kept| kept.first_seen),
            last_active_at: kept.map(|kept| kept.last_active),
            active: shelf.active.as_ref().is_some_and(|active| active.version() == version),
            loaded: loaded.is_some(),
            kept: kept.is_some(),
            calls: reading.as_ref().map(CallsView::new),
        }
    }

    /// A version that is loaded, of another plugin of the same name.
    fn elsewhere(plugin: &'a Plugin, tenant: &str) -> Self {
        Self {
            version: plugin.version().to_string(),
            described: Some(&plugin.description().version),
            size_bytes: None,
            first_seen_at: None,
            last_active_at: None,
            active: false,
            loaded: true,
            kept: false,
            calls: plugin.tally().reading(tenant).as_ref().map(CallsView::new),
        }
    }
}

impl CallsView {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 calls")]
    fn new(reading: &Reading) -> Self {
        let (total, failed) = (reading.calls(), reading.failures());
        let micros =
            |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // Counters are read one after the other, so there may be a time without a call.
        let calls = total.max(1) as f64;
        Self {
            total,
            forwarded: reading.forwarded,
            dropped: reading.dropped,
            failed,
            failure_rate: failed as f64 / calls,
            failures: reading.failed.iter().map(|(kind, count)| (kind.as_str(), *count)).collect(),
            mean_ms: milliseconds(micros(reading.time)) / calls,
            max_ms: milliseconds(micros(reading.max_time)),
        }
    }
}

impl<'a> UseView<'a> {
    fn new(webhook: &'a Webhook, link: &Link, plugins: &PluginSet, holds: &[Held]) -> Self {
        let mut holds = holds.iter().filter(|held| held.webhook == webhook.id);
        let runs = |version: &Version| {
            let chosen = plugins.choose(&webhook.tenant, &link.name, version);
            RunsView {
                pinned: version.to_string(),
                version: chosen.as_ref().ok().map(|plugin| plugin.version().to_string()),
                problem: chosen.err(),
            }
        };
        Self {
            id: &webhook.id.0,
            name: &webhook.definition.name,
            runs: runs(&link.version),
            hold: holds.find(|held| held.hold.name() == link.name).map(HoldView::new),
            canary: link.canary.as_ref().map(|canary| CanaryView {
                runs: runs(&canary.version),
                share: canary.share.as_fraction(),
            }),
        }
    }
}
