//! The breakers of all webhooks: those that failed lately, and no others, take memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::breaker::{Breaker, Config, Finding, Progress, Turn, Verdict};
use crate::delivery::{DeliveryId, WebhookId};
use crate::record::{Held, Hold, Which};

/// The breakers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Breakers(Arc<Shared>);

struct Shared {
    config: Config,
    by_webhook: Mutex<HashMap<WebhookId, Entry>>,
    /// How many entries there are, so that nobody takes the lock while nothing fails.
    entries: AtomicUsize,
    /// Rings when there may be something to do for the keeper.
    bell: Notify,
}

struct Entry {
    breaker: Breaker,
    /// The replacement of the snapshot that the hold was last compared with.
    compared: Option<u64>,
}

/// A delivery that is held, until it is on record. Dropping it says that it is.
pub(super) struct Joining {
    breakers: Breakers,
    webhook: WebhookId,
}

impl Breakers {
    /// Begins with what was held when the process started.
    pub(super) fn new(config: Config, held: Vec<Held>) -> Self {
        let now = Instant::now();
        let entries = held.into_iter().map(|held| {
            let breaker = Breaker::restored(held.hold, held.releasing, now, &config);
            (held.webhook, Entry { breaker, compared: None })
        });
        let by_webhook: HashMap<_, _> = entries.collect();
        let entries = AtomicUsize::new(by_webhook.len());
        Self(Arc::new(Shared {
            by_webhook: Mutex::new(by_webhook),
            entries,
            bell: Notify::new(),
            config,
        }))
    }

    /// Lets a delivery that has no request yet run, or gives the reason to hold it.
    pub(super) fn admit(
        &self,
        webhook: &WebhookId,
        turn: Turn,
    ) -> Result<(), (Arc<Hold>, Joining)> {
        let admitted = self.known(webhook, |breaker| breaker.admit(turn)).unwrap_or(Ok(()));
        admitted.map_err(|hold| (hold, self.joining(webhook)))
    }

    /// A delivery went through the plugins. The hold, when that begins a release.
    pub(super) fn passed(&self, webhook: &WebhookId, turn: Turn) -> Option<Arc<Hold>> {
        let began = self.known(webhook, |breaker| {
            let began = breaker.passed(turn, Instant::now());
            breaker.hold().filter(|_| began).cloned()
        });
        let hold = began.flatten();
        if hold.is_some() {
            self.ring();
        }
        hold
    }

    /// A delivery failed in a plugin. What is to be held comes with what says that it is.
    pub(super) fn failed(
        &self,
        webhook: &WebhookId,
        finding: Finding,
    ) -> (Verdict, Option<Joining>) {
        let config = &self.0.config;
        let verdict = {
            let mut by_webhook = self.lock();
            let new = || Entry { breaker: Breaker::new(), compared: None };
            let entry = by_webhook.entry(webhook.clone()).or_insert_with(new);
            let verdict = entry.breaker.failed(finding, config, Instant::now(), Timestamp::now());
            // What failed may have been replaced already.
            entry.compared = None;
            self.0.entries.store(by_webhook.len(), Ordering::Release);
            verdict
        };
        match verdict {
            Verdict::Retry => (verdict, None),
            Verdict::Hold(_) | Verdict::Trip(_) => {
                self.ring();
                (verdict, Some(self.joining(webhook)))
            }
        }
    }

    /// A trial ended, whatever was learnt from it.
    pub(super) fn tried(&self, webhook: &WebhookId, delivery: DeliveryId) {
        let config = &self.0.config;
        self.known(webhook, |breaker| breaker.tried(delivery, Instant::now(), config));
        self.ring();
    }

    /// Tries the next delivery that is held, or the first of all. False when nothing is held, or that is
    /// under way.
    pub(super) fn try_now(&self, webhook: &WebhookId, from_first: bool) -> bool {
        let tried = self.known(webhook, |breaker| breaker.try_now(from_first, Instant::now()));
        if tried == Some(true) {
            self.ring();
        }
        tried == Some(true)
    }

    /// The holds that were not compared since the snapshot was replaced so many times.
    pub(super) fn to_compare(&self, replaced: u64) -> Vec<(WebhookId, Arc<Hold>)> {
        let mut by_webhook = self.lock();
        let entries = by_webhook.iter_mut().filter_map(|(webhook, entry)| {
            let hold = entry.breaker.hold()?;
            (entry.compared.replace(replaced) != Some(replaced))
                .then(|| (webhook.clone(), Arc::clone(hold)))
        });
        entries.collect()
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.lock().values().filter_map(|entry| entry.breaker.due()).min()
    }

    /// Begins all that is due; `took` or `put_off` follows for each. `room` says how many deliveries of a
    /// webhook can be taken in hand.
    pub(super) fn steps(&self, room: impl Fn(&WebhookId) -> usize) -> Vec<(WebhookId, Which)> {
        let now = Instant::now();
        let mut by_webhook = self.lock();
        let steps = by_webhook.iter_mut().filter_map(|(webhook, Entry { breaker, .. })| {
            breaker.due().filter(|due| *due <= now)?;
            let which = breaker.step(now, room(webhook), &self.0.config)?;
            Some((webhook.clone(), which))
        });
        steps.collect()
    }

    /// A step took so many deliveries in hand.
    pub(super) fn took(&self, webhook: &WebhookId, which: Which, taken: usize) -> Progress {
        let config = &self.0.config;
        let took = |breaker: &mut Breaker| breaker.took(which, taken, Instant::now(), config);
        let progress = self.known(webhook, took);
        // The keeper does not know yet when the next step is due.
        self.ring();
        progress.unwrap_or(Progress::Continues)
    }

    /// Puts the next step of a webhook off; by the time between probes if nothing is said.
    pub(super) fn put_off(&self, webhook: &WebhookId, by: Option<std::time::Duration>) {
        let until = Instant::now() + by.unwrap_or(self.0.config.probe);
        self.known(webhook, |breaker| breaker.put_off(until));
        self.ring();
    }

    /// How many failures in a row trip a breaker.
    pub(super) fn failures(&self) -> usize {
        self.0.config.failures
    }

    /// Waits until it rings, or finds that it has rung.
    pub(super) async fn rung(&self) {
        self.0.bell.notified().await;
    }

    fn ring(&self) {
        self.0.bell.notify_one();
    }

    fn joining(&self, webhook: &WebhookId) -> Joining {
        Joining { breakers: self.clone(), webhook: webhook.clone() }
    }

    /// Asks a webhook's breaker, if there is one, and forgets it once it has nothing to remember.
    fn known<T>(&self, webhook: &WebhookId, ask: impl FnOnce(&mut Breaker) -> T) -> Option<T> {
        if self.0.entries.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut by_webhook = self.lock();
        let entry = by_webhook.get_mut(webhook)?;
        let answer = ask(&mut entry.breaker);
        if entry.breaker.is_idle() {
            by_webhook.remove(webhook);
            self.0.entries.store(by_webhook.len(), Ordering::Release);
        }
        Some(answer)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WebhookId, Entry>> {
        self.0.by_webhook.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        self.breakers.known(&self.webhook, Breaker::has_joined);
    }
}
