//! Deciding: what has come in takes effect, or waits with a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::agree::{Agreement, Proposal, agree};
use super::entry::Waiting;
use super::{Reloader, declared};
use crate::failpoint::{self, Point};
use crate::snapshot::{Current, Misconfigured, PluginKey, Snapshot, TenantDefinition};

/// What waits beside the plugins, and what was said of it.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    /// What the configuration file declares, when it could not take effect.
    pub(super) declared: Option<Vec<TenantDefinition>>,
    /// It was not decided about yet.
    is_new: bool,
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
        self.undecided.is_new = true;
        self.undecided.refusal.clear();
        // A version that it pins is loaded first, so that it is checked and no delivery misses it.
        self.hold(current).await;
        self.settle(current).await;
    }

    /// Lets take effect what can, if anything has changed. Everything that waits is looked at together.
    pub(super) async fn decide(&mut self, current: &Current) {
        let changed = std::mem::take(&mut self.changed);
        if !std::mem::take(&mut self.undecided.is_new) && changed.is_empty() {
            return;
        }
        let waiting = self
            .entries
            .iter()
            .filter_map(|(key, entry)| Some((key.clone(), Arc::clone(&entry.waiting()?.plugin))));
        let now = current.load();
        let proposal = Proposal {
            plugins: now.plugins().with(self.shelves(&changed)),
            waiting: waiting.collect(),
            declared: self.undecided.declared.clone(),
        };
        // Checking configs takes what time the schemas ask for.
        match self.runtime.aside(move || agree(&now, proposal)).await {
            Ok(agreement) => self.agreed(agreement, changed, current),
            Err(error) => {
                tracing::error!(%error, "the configs cannot be checked; everything stays as it is");
                self.changed.extend(changed);
            }
        }
    }

    fn agreed(&mut self, agreed: Agreement, changed: BTreeSet<PluginKey>, current: &Current) {
        let Agreement { snapshot, refused, refused_declared } = agreed;
        let mut changed = changed;
        changed.extend(self.agreed_plugins(&refused));
        let plugins = snapshot.plugins().with(self.shelves(&changed));
        // All of it was checked just now.
        let snapshot = snapshot.with_plugins(plugins);
        self.report_misconfigured(&snapshot);
        failpoint::hit(Point::ChangeAgreed);
        current.store(snapshot);
        self.agreed_declared(&refused_declared);
    }

    fn agreed_declared(&mut self, refused: &[Misconfigured]) {
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

    /// Gives the plugins of which there is news.
    fn agreed_plugins(
        &mut self,
        refused: &BTreeMap<PluginKey, Vec<Misconfigured>>,
    ) -> Vec<PluginKey> {
        let mut news = Vec::new();
        for (key, entry) in &mut self.entries {
            if entry.waiting().is_none() {
                continue;
            }
            news.push(key.clone());
            if let Some(misconfigured) = refused.get(key) {
                entry.decline(key, misconfigured);
            } else if let Some((Waiting { plugin, content, took, .. }, replaced)) = entry.accept() {
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                let version = plugin.version().short();
                let replaced_version = replaced.as_ref().map(|old| old.version().short());
                tracing::info!(plugin = %key, version, replaced = replaced_version, took_ms, "plugin loaded");
                self.versions.replaced(key.clone(), replaced, plugin, content);
            }
        }
        news
    }

    /// Says what does not work as it is: what was so from the start, or came with the first version of a plugin.
    fn report_misconfigured(&mut self, snapshot: &Snapshot) {
        let misconfigured = snapshot.misconfigured();
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
