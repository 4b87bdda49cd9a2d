//! What is declared: tenants, their keys, plugins and webhooks, as parsed values.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::{Canary, Version};
use crate::deliver::{Auth, Connection, Schedule};
use crate::digest::Digest;
use crate::route::Glob;
use crate::sign::Secret;
use crate::transform::Secrets;

/// A tenant: the unit of isolation.
#[derive(Debug, Clone)]
pub struct TenantDefinition {
    /// Unique name: `a-z 0-9 _ -`, at most 64 bytes.
    pub name: String,
    /// The API keys.
    pub keys: Vec<KeyHash>,
    /// Plugins that run before those of each webhook.
    pub plugins: Vec<PluginUse>,
    /// How often deliveries may begin for all of its webhooks together.
    pub rate_limit: Option<RateLimit>,
    /// Secrets that plugins may be granted, by name.
    pub secrets: Secrets,
    /// How long what is finished is kept.
    pub retention: Retention,
    /// How many deliveries it may be owed before no more of its events are taken.
    pub max_backlog: usize,
    /// The webhooks.
    pub webhooks: Vec<WebhookDefinition>,
    /// How events are delivered to a `webhook_url` of their own; none where that is not allowed.
    pub ad_hoc: Option<WebhookDefinition>,
}

/// How long what is finished of a tenant is kept. What is owed is kept in any case, but for `undelivered`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Finished events, with everything of them.
    pub events: Duration,
    /// The data of finished events.
    pub payloads: Duration,
    /// The attempts of finished events.
    pub attempts: Duration,
    /// When to give up what is owed.
    pub undelivered: Option<Duration>,
    /// How much data its events may have, in bytes, before finished ones make room.
    pub max_bytes: Option<u64>,
}

impl Retention {
    /// The shortest of the times.
    #[must_use]
    pub fn shortest(&self) -> Duration {
        let times = [self.payloads, self.attempts].into_iter().chain(self.undelivered);
        times.fold(self.events, Duration::min)
    }
}

impl Default for Retention {
    fn default() -> Self {
        const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
        Self { events: KEPT, payloads: KEPT, attempts: KEPT, undelivered: None, max_bytes: None }
    }
}

/// A webhook: where matching events go, in which form.
#[derive(Clone)]
pub struct WebhookDefinition {
    /// Unique name in the tenant: `A-Z a-z 0-9 _ -`, at most 64 bytes.
    pub name: String,
    /// Where requests go; none for the ad-hoc webhook, where each event says it.
    pub url: Option<Url>,
    /// Which events it gets: any of these.
    pub event_types: Vec<Glob>,
    /// The plugin chain, in order.
    pub plugins: Vec<PluginUse>,
    /// Signing secrets, newest first; all sign, so that keys can be rotated.
    pub secrets: Vec<Secret>,
    /// Headers of each request; names are lower case.
    pub headers: Vec<(String, String)>,
    /// How requests are authenticated, beside the signature.
    pub auth: Option<Arc<Auth>>,
    /// How connections are made, where not as for all other webhooks.
    pub connection: Option<Arc<Connection>>,
    /// The body when no plugin makes one.
    pub body: BodyForm,
    /// How long an exchange may take.
    pub timeout: Duration,
    /// When to try again.
    pub retry: Schedule,
    /// What becomes of a delivery whose plugins fail.
    pub on_plugin_failure: OnPluginFailure,
    /// In which order deliveries are made.
    pub ordering: Ordering,
    /// What becomes of those that follow a dead one in that order.
    pub on_dead: OnDead,
    /// How many requests may be under way at once.
    pub concurrency: usize,
    /// How often a delivery may begin.
    pub rate_limit: Option<RateLimit>,
    /// An inactive webhook gets no new events.
    pub active: bool,
    /// Labels that plugins can read.
    pub metadata: Vec<(String, String)>,
}

impl fmt::Debug for WebhookDefinition {
    /// Leaves out what may hold credentials: the values of headers, and the URL but for its host.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("WebhookDefinition")
            .field("name", &self.name)
            .field("host", &self.url.as_ref().and_then(Url::host_str))
            .field("event_types", &self.event_types)
            .field("plugins", &self.plugins)
            .field("secrets", &self.secrets)
            .field("headers", &headers)
            .field("auth", &self.auth)
            .field("connection", &self.connection)
            .field("body", &self.body)
            .field("timeout", &self.timeout)
            .field("retry", &self.retry)
            .field("on_plugin_failure", &self.on_plugin_failure)
            .field("ordering", &self.ordering)
            .field("on_dead", &self.on_dead)
            .field("concurrency", &self.concurrency)
            .field("rate_limit", &self.rate_limit)
            .field("active", &self.active)
            .field("metadata", &self.metadata)
            .finish()
    }
}

impl WebhookDefinition {
    /// The name of the ad-hoc webhook, which no other can have.
    pub const AD_HOC: &str = "(ad hoc)";
}

/// A plugin in a chain.
#[derive(Clone, PartialEq, Eq)]
pub struct PluginUse {
    /// The plugin's name.
    pub name: String,
    /// Which version of it.
    pub version: Version,
    /// Another version that a share of the events goes to.
    pub canary: Option<Canary>,
    /// Its config for this chain: JSON text.
    pub config: String,
    /// Where it was declared, such as `line 12`.
    pub place: String,
}

impl fmt::Debug for PluginUse {
    /// Leaves out the config, which may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginUse")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("canary", &self.canary)
            .finish_non_exhaustive()
    }
}

/// The body when no plugin makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyForm {
    /// The Standard Webhooks payload: `{"type", "timestamp", "data"}`.
    Envelope,
    /// The event's data alone.
    Data,
    /// A `CloudEvent` in structured JSON.
    CloudEvent,
}

/// What becomes of a delivery whose plugins fail. Whatever it is, nothing is sent untransformed.
///
/// An event that a plugin calls invalid is dead in any case, and a plugin that is not loaded is waited for:
/// neither is a failure in running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPluginFailure {
    /// It is tried again by the schedule, and held once the plugins fail on one event after the other.
    Retry,
    /// It is dropped at once.
    Drop,
    /// It is dead at once.
    Dead,
}

/// In which order a webhook's deliveries are made. What has to keep an order is delivered one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordering {
    /// None: each as soon as it can be.
    None,
    /// All in the order in which their events were accepted.
    Fifo,
    /// The same for those whose events share an ordering key; the others in none.
    Key,
}

/// What becomes of those that follow a dead delivery in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDead {
    /// They follow.
    Skip,
    /// They wait until the dead one is skipped.
    Block,
}

/// How often something may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Times a second in the long run; at least 1.
    pub per_second: u32,
    /// Times at once, after a pause; at least 1.
    pub burst: u32,
}

/// The hash of an API key; the key itself is never kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(Digest);

impl KeyHash {
    /// The shortest key that is accepted, in bytes: 128 bits in base64 are 22.
    pub const MIN_LEN: usize = 22;

    /// The hash of this key.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(Digest::of(key.as_bytes()))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}
