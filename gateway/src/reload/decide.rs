//! Deciding: what has come in takes effect, or waits with a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::agree::{Agreement, Proposal, agree};
use super::{Rejection, Reloader, Waiting, declared, reject};
use crate::snapshot::{Current, Misconfigured, PluginKey, TenantDefinition};

/// What waits beside the plugins, and what was said of it.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    /// What the configuration file declares, when it could not take effect.
    declared: Option<Vec<TenantDefinition>>,
    /// Why it could not, so that each reason is given once.
    refusal: Vec<String>,
    /// What does not work as it is, so that it is told once.
    misconfigured: BTreeSet<String>,
}

impl Reloader {
    /// Takes what the configuration file declares now; none when the file is wrong.
    pub(super) async fn declare(
        &mut self,
        tenants: Option<Vec<TenantDefinition>>,
        current: &Current,
    ) {
        // Whatever it declared before is no longer wanted.
        self.undecided.declared = tenants;
        self.undecided.refusal.clear();
        self.decide(current).await;
    }

    /// Lets take effect what can. Everything that waits is looked at together.
    pub(super) async fn decide(&mut self, current: &Current) {
        let plugins = |of: fn(&super::Entry) -> Option<&Arc<crate::transform::Plugin>>| {
            let plugins = self.entries.iter();
            plugins.filter_map(|(key, entry)| Some((key.clone(), Arc::clone(of(entry)?)))).collect()
        };
        let proposal = Proposal {
            loaded: plugins(|entry| entry.loaded.as_ref().map(|(plugin, _)| plugin)),
            waiting: plugins(|entry| entry.waiting.as_ref().map(|waiting| &waiting.plugin)),
            declared: self.undecided.declared.clone(),
        };
        let now = current.load();
        // Checking configs takes what time the schemas ask for.
        match tokio::task::spawn_blocking(move || agree(&now, proposal)).await {
            Ok(agreement) => self.settle(agreement, current),
            Err(error) => {
                tracing::error!(%error, "the configs cannot be checked; everything stays as it is");
            }
        }
    }

    fn settle(&mut self, agreement: Agreement, current: &Current) {
        let Agreement { snapshot, refused, refused_declared } = agreement;
        current.store(snapshot);
        self.settle_declared(&refused_declared);
        self.settle_plugins(&refused);
    }

    fn settle_declared(&mut self, refused: &[Misconfigured]) {
        if self.undecided.declared.is_none() {
            return;
        }
        if refused.is_empty() {
            self.undecided.declared = None;
            self.undecided.refusal.clear();
            tracing::info!(
                "tenants and webhooks are as the configuration file declares them; other settings \
                 take effect at the next start"
            );
            return;
        }
        let refusal: Vec<_> = refused.iter().flat_map(Misconfigured::lines).collect();
        if refusal != self.undecided.refusal {
            declared::refuse(refusal.iter().cloned());
            self.undecided.refusal = refusal;
        }
    }

    fn settle_plugins(&mut self, refused: &BTreeMap<PluginKey, Vec<Misconfigured>>) {
        for (key, entry) in &mut self.entries {
            let Some(Waiting { plugin, manifest, took }) = entry.waiting.take() else {
                continue;
            };
            let version = plugin.version().short();
            if let Some(misconfigured) = refused.get(key) {
                let content = (plugin.version(), manifest);
                let users: Vec<_> = misconfigured.iter().map(ToString::to_string).collect();
                let reason = format!(
                    "configs that fit what runs now do not fit it; it waits until they are changed: {}",
                    users.join("; ")
                );
                entry.waiting = Some(Waiting { plugin, manifest, took });
                reject(key, entry, Rejection { content, reason });
                continue;
            }
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let replaced = entry.loaded.as_ref().map(|(old, _)| old.version().short());
            entry.rejected = None;
            entry.loaded = Some((plugin, manifest));
            tracing::info!(plugin = %key, version, replaced, took_ms, "plugin loaded");
        }
    }

    /// Says what does not work as it is: what was so from the start, or came with the first version of a plugin.
    pub fn report_misconfigured(&mut self, current: &Current) {
        let misconfigured = current.load().misconfigured();
        let lines: BTreeSet<_> = misconfigured.iter().flat_map(Misconfigured::lines).collect();
        for problem in lines.difference(&self.undecided.misconfigured) {
            tracing::error!(
                problem,
                "a config does not fit its plugin; deliveries wait and are retried"
            );
        }
        self.undecided.misconfigured = lines;
    }
}
