//! Holding: whether a delivery's plugins may run now, and what follows when they fail.

use std::sync::Arc;

use super::Pipeline;
use super::breaker::{Finding, Turn, Verdict};
use super::breakers::Joining;
use super::dispatch::{Began, Ended, failed};
use crate::delivery::{Delivery, Failure, FailureKind};
use crate::record::{Hold, Next, Update};
use crate::snapshot::{OnPluginFailure, Snapshot, Webhook};
use crate::transform::Failed;

/// A delivery whose plugins are to run.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) pipeline: &'a Pipeline,
    /// What it runs with.
    pub(super) snapshot: &'a Snapshot,
    pub(super) webhook: &'a Webhook,
    pub(super) delivery: &'a Delivery,
    pub(super) turn: Turn,
}

/// A delivery that is to be held.
struct Stopped {
    hold: Arc<Hold>,
    joining: Option<Joining>,
    /// It is the one that tripped the breaker.
    tripped: bool,
}

impl Run<'_> {
    /// How it ends without having run, if it is to be held.
    pub(super) fn held(self) -> Option<Ended> {
        let admitted = self.pipeline.0.breakers.admit(&self.webhook.id, self.turn);
        let (hold, joining) = admitted.err()?;
        let next = Next::Held(hold);
        let delivery = self.delivery.id;
        let update = Update { delivery, attempt: None, chain: Arc::default(), next };
        Some(Ended { joining: Some(joining), ..Ended::from(update) })
    }

    /// The plugins did their part: they work.
    pub(super) fn passed(self) {
        if let Some(hold) = self.pipeline.0.breakers.passed(&self.webhook.id, self.turn) {
            let Webhook { tenant, definition, .. } = self.webhook;
            let (webhook, plugin, since) = (&definition.name, &hold.cause, hold.since);
            tracing::info!(
                %tenant, webhook, %plugin, %since,
                "a held delivery went through the plugins; the others are released"
            );
        }
    }

    /// How it ends when a plugin failed; `chain` are the versions that ran.
    pub(super) fn failed(self, began: Began, chain: Arc<str>, found: Failed) -> Ended {
        let Failed { plugin, failure } = found;
        let kind = failure.kind;
        let attempt = began.failed(failure.clone());
        let definition = &self.webhook.definition;
        let mut ended = Ended::from(match definition.on_plugin_failure {
            OnPluginFailure::Drop if kind.is_plugin_run() => {
                self.passed();
                let next = Next::Dropped(failure.to_string());
                Update { delivery: self.delivery.id, attempt: Some(attempt), chain, next }
            }
            OnPluginFailure::Dead if kind.is_plugin_run() => {
                self.passed();
                let next = Next::Dead;
                Update { delivery: self.delivery.id, attempt: Some(attempt), chain, next }
            }
            _ if kind.is_plugin_run() || kind == FailureKind::PluginMissing => {
                return match self.verdict(Arc::clone(&plugin), failure) {
                    Some(Stopped { hold, joining, tripped }) => {
                        let delivery = self.delivery.id;
                        let next = Next::Held(hold);
                        let update = Update { delivery, attempt: Some(attempt), chain, next };
                        Ended { plugin: Some(plugin), joining, tripped, ..Ended::from(update) }
                    }
                    None => {
                        let update = failed(self.delivery, &definition.retry, attempt, chain, None);
                        Ended { plugin: Some(plugin), ..Ended::from(update) }
                    }
                };
            }
            // The event's fault, or the gateway's, which says nothing of the plugins.
            _ => failed(self.delivery, &definition.retry, attempt, chain, None),
        });
        ended.plugin = Some(plugin);
        ended
    }

    /// Asks the breaker; gives the hold when the delivery is to be held.
    fn verdict(self, plugin: Arc<str>, failure: Failure) -> Option<Stopped> {
        let setup = self.snapshot.chain_digest(self.webhook);
        let now = self.pipeline.0.current.load();
        let now = now.webhook(&self.webhook.id).map(|webhook| now.chain_digest(webhook));
        let (turn, delivery) = (self.turn, self.delivery.id);
        let outdated = now != Some(setup);
        let finding = Finding { turn, delivery, cause: plugin, setup, outdated, failure };
        let breakers = &self.pipeline.0.breakers;
        let (verdict, joining) = breakers.failed(&self.webhook.id, finding);
        let Webhook { tenant, definition, .. } = self.webhook;
        let webhook = &definition.name;
        match &verdict {
            Verdict::Trip(hold) => {
                let (plugin, failure) = (&hold.cause, &hold.failure);
                tracing::error!(
                    %tenant, webhook, %plugin, failures = breakers.failures(), last = %failure,
                    "the plugin fails on one event after the other; the webhook's deliveries are held"
                );
            }
            Verdict::Hold(hold) if self.turn == Turn::Trial => {
                let (plugin, since) = (&hold.cause, hold.since);
                tracing::warn!(
                    %tenant, webhook, %plugin, %since,
                    "the plugin still fails; the webhook's deliveries stay held"
                );
            }
            Verdict::Hold(_) | Verdict::Retry => {}
        }
        match verdict {
            Verdict::Trip(hold) => Some(Stopped { hold, joining, tripped: true }),
            Verdict::Hold(hold) => Some(Stopped { hold, joining, tripped: false }),
            Verdict::Retry => None,
        }
    }
}
