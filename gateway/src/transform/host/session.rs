//! A session: what one call asks of the gateway, counted and bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::random::Stream;
use super::{Granted, Grants, Randomness, Services};
use crate::kv::{Observed, Quota, Run, Scope};
use crate::transform::Limits;

/// What a call is about.
pub(in crate::transform) struct About {
    /// The tenant.
    pub(in crate::transform) tenant: Arc<str>,
    /// The run.
    pub(in crate::transform) run: Run,
    /// When the event was accepted.
    pub(in crate::transform) accepted_at: Timestamp,
    /// The secrets that it may read.
    pub(in crate::transform) secrets: Granted,
}

/// One call's use of the capabilities.
pub(in crate::transform) struct Session {
    about: About,
    scope: Scope,
    grants: Arc<Grants>,
    services: Option<Arc<Services>>,
    /// What it may do once more, or be refused.
    pub(super) left: Allowance,
    random: Stream,
    /// How often each operation was done with each key.
    occurrences: HashMap<(&'static str, String), u32>,
    /// What was read since the last change.
    pub(super) observed: Vec<Observed>,
    /// How long it waited for what is outside.
    pub(in crate::transform) waited: Duration,
    /// Why it was ended.
    pub(in crate::transform) stopped: Option<String>,
}

/// What is left to a call.
pub(super) struct Allowance {
    pub(super) limits: Limits,
    pub(super) fetches: usize,
    /// The bytes that `kv` may still move: they are remembered until the run has an outcome.
    pub(super) kv_bytes: usize,
}

impl Session {
    /// The most bytes of keys and values that a call may move.
    pub(super) const KV_BYTES: usize = 1 << 20;

    pub(in crate::transform) fn new(
        about: About,
        plugin: &Arc<str>,
        grants: Arc<Grants>,
        limits: &Limits,
        services: Option<Arc<Services>>,
    ) -> Self {
        let randomness =
            services.as_ref().map_or(Randomness::Seed([0; 32]), |services| services.randomness);
        Self {
            scope: Scope { tenant: Arc::clone(&about.tenant), plugin: Arc::clone(plugin) },
            random: Stream::new(randomness, about.run),
            left: Allowance {
                limits: limits.clone(),
                fetches: limits.fetches,
                kv_bytes: Self::KV_BYTES,
            },
            about,
            grants,
            services,
            occurrences: HashMap::new(),
            observed: Vec::new(),
            waited: Duration::ZERO,
            stopped: None,
        }
    }

    /// Ends the call, for this reason.
    pub(super) fn stop<T>(&mut self, reason: String) -> wasmtime::Result<T> {
        let error = wasmtime::Error::msg(reason.clone());
        self.stopped = Some(reason);
        Err(error)
    }

    pub(in crate::transform) fn about(&self) -> &About {
        &self.about
    }

    /// The plugin's name.
    pub(in crate::transform) fn plugin(&self) -> &str {
        &self.scope.plugin
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(super) fn grants(&self) -> &Grants {
        &self.grants
    }

    pub(super) fn services(&self) -> Option<Arc<Services>> {
        self.services.clone()
    }

    pub(super) fn random(&mut self) -> &mut Stream {
        &mut self.random
    }

    /// The HTTP requests that it made.
    pub(in crate::transform) fn fetches(&self) -> usize {
        self.left.limits.fetches - self.left.fetches
    }

    pub(super) fn quota(&self) -> Quota {
        Quota { keys: self.left.limits.kv_keys, bytes: self.left.limits.kv_bytes }
    }

    /// How many of these operations on this key came before.
    pub(super) fn occurrence(&mut self, operation: &'static str, key: &str) -> u32 {
        let count = self.occurrences.entry((operation, key.to_owned())).or_default();
        let before = *count;
        *count += 1;
        before
    }
}
