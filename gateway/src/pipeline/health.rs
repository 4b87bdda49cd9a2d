//! The health of webhooks: since when each has failed, and which are disabled. Those that work take no memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Pipeline, operational};
use crate::delivery::{Attempt, DeliveryId, FailureKind, Fault, State, WebhookId};
use crate::event::to_microsecond;
use crate::record::{
    Action, Disabled, Filter, Job, JobId, NewJob, Selection, StoreError, WebhookState,
};
use crate::snapshot::Webhook;

/// What has failed for less time than this is not written down, so that a receiver that fails now and then
/// costs the store nothing. A crash forgets no more than this.
const GRAIN: SignedDuration = SignedDuration::from_mins(1);

/// The webhooks that fail or are disabled.
pub(super) struct Health {
    /// How long a webhook may fail before it is disabled; for ever if nothing is said.
    disable_after: Option<Duration>,
    by_webhook: Mutex<HashMap<WebhookId, Entry>>,
    /// How many entries there are, so that nobody takes the lock while all is well.
    entries: AtomicUsize,
}

#[derive(Default)]
struct Entry {
    failing_since: Option<Timestamp>,
    /// `failing_since` is in the store.
    written: bool,
    disabled: Option<Disabled>,
}

/// What to write down after an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Note {
    Nothing,
    Failing(Option<Timestamp>),
    Disable(Disabled),
}

impl Health {
    /// Begins with what an earlier process knew.
    pub(super) fn new(disable_after: Option<Duration>, known: Vec<WebhookState>) -> Self {
        let entries = known.into_iter().map(|state| {
            let WebhookState { webhook, failing_since, disabled } = state;
            (webhook, Entry { failing_since, written: failing_since.is_some(), disabled })
        });
        let by_webhook: HashMap<_, _> = entries.collect();
        let entries = AtomicUsize::new(by_webhook.len());
        Self { disable_after, by_webhook: Mutex::new(by_webhook), entries }
    }

    /// Whether nothing is to be sent to a webhook.
    pub(super) fn is_disabled(&self, webhook: &WebhookId) -> bool {
        self.entries.load(Ordering::Acquire) > 0
            && self.lock().get(webhook).is_some_and(|entry| entry.disabled.is_some())
    }

    /// An attempt was made.
    fn learn(&self, webhook: &WebhookId, attempt: &Attempt, now: Timestamp) -> Note {
        match &attempt.failure {
            None => self.succeeded(webhook),
            Some(failure) if is_telling(failure.kind.fault()) => {
                self.failed(webhook, failure.kind, now)
            }
            // That says nothing of the receiver.
            Some(_) => Note::Nothing,
        }
    }

    fn succeeded(&self, webhook: &WebhookId) -> Note {
        if self.entries.load(Ordering::Acquire) == 0 {
            return Note::Nothing;
        }
        let mut by_webhook = self.lock();
        let Some(entry) = by_webhook.get_mut(webhook) else {
            return Note::Nothing;
        };
        let written = entry.written;
        entry.failing_since = None;
        entry.written = false;
        if entry.disabled.is_none() {
            by_webhook.remove(webhook);
            self.entries.store(by_webhook.len(), Ordering::Release);
        }
        if written { Note::Failing(None) } else { Note::Nothing }
    }

    fn failed(&self, webhook: &WebhookId, kind: FailureKind, now: Timestamp) -> Note {
        let mut by_webhook = self.lock();
        let entry = by_webhook.entry(webhook.clone()).or_default();
        let since = *entry.failing_since.get_or_insert(now);
        let lasted = now.duration_since(since);
        let is_long = self.disable_after.is_some_and(|limit| {
            SignedDuration::try_from(limit).is_ok_and(|limit| lasted >= limit)
        });
        let note = if entry.disabled.is_some() {
            Note::Nothing
        } else if kind == FailureKind::Gone {
            let reason = "the receiver answered 410: it is gone".to_owned();
            Note::Disable(Disabled { since: now, reason })
        } else if is_long {
            let reason = format!("nothing has got through since {since}");
            Note::Disable(Disabled { since: now, reason })
        } else if lasted >= GRAIN && !entry.written {
            entry.written = true;
            Note::Failing(Some(since))
        } else {
            Note::Nothing
        };
        self.entries.store(by_webhook.len(), Ordering::Release);
        note
    }

    fn set_disabled(&self, webhook: &WebhookId, disabled: Option<Disabled>) {
        let mut by_webhook = self.lock();
        match disabled {
            Some(disabled) => {
                by_webhook.entry(webhook.clone()).or_default().disabled = Some(disabled);
            }
            // It begins afresh.
            None => drop(by_webhook.remove(webhook)),
        }
        self.entries.store(by_webhook.len(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WebhookId, Entry>> {
        self.by_webhook.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether failures of this kind are a webhook's. One that nobody can reach fails as much as one that answers so.
fn is_telling(fault: Fault) -> bool {
    match fault {
        Fault::Receiver | Fault::Network => true,
        Fault::Proxy | Fault::Plugin | Fault::Configuration | Fault::Gateway => false,
    }
}

/// What becomes of the deliveries that waited for a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEnable {
    /// They are delivered.
    Deliver,
    /// They are cancelled.
    Discard,
}

impl Pipeline {
    /// Learns from an attempt. True when its webhook is disabled from now on.
    pub(super) async fn learn(
        &self,
        webhook: &Webhook,
        delivery: DeliveryId,
        attempt: &Attempt,
    ) -> bool {
        self.learn_flow(webhook, delivery, attempt);
        // Where each event says itself where it goes, one receiver says nothing of the others.
        if webhook.definition.url.is_none() {
            return false;
        }
        let now = to_microsecond(Timestamp::now());
        match self.0.health.learn(&webhook.id, attempt, now) {
            Note::Nothing => false,
            Note::Failing(since) => {
                let noted = self.0.store.note_failing(webhook.id.clone(), since).await;
                if let Err(error) = noted {
                    tracing::warn!(%error, webhook = webhook.definition.name, "its failing is not on record");
                }
                false
            }
            Note::Disable(disabled) => match self.disable(webhook, disabled).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::error!(%error, webhook = webhook.definition.name, "it cannot be disabled; its next failure tries again");
                    false
                }
            },
        }
    }

    /// Disables a webhook, unless it is: what it is owed waits.
    ///
    /// # Errors
    /// When the store cannot keep that.
    pub async fn disable(&self, webhook: &Webhook, disabled: Disabled) -> Result<(), StoreError> {
        let told = operational::of_disabled(&self.0.current.load(), webhook, &disabled);
        let (id, told_too) = (webhook.id.clone(), told.clone());
        let changed = self.0.store.disable_webhook(id, disabled.clone(), told_too).await;
        self.told(told.as_slice(), changed.as_ref().map_or(0, |changed| changed.told));
        if changed?.is_new {
            let Webhook { tenant, definition, .. } = webhook;
            let (webhook_name, reason) = (&definition.name, &disabled.reason);
            tracing::error!(%tenant, webhook = webhook_name, reason, "the webhook is disabled; its deliveries wait");
        }
        self.0.health.set_disabled(&webhook.id, Some(disabled));
        Ok(())
    }

    /// Enables a webhook; gives the job that sees to what waited.
    ///
    /// # Errors
    /// When the store cannot keep that.
    pub async fn enable(&self, webhook: &Webhook, waiting: OnEnable) -> Result<Job, StoreError> {
        let (action, state) = match waiting {
            OnEnable::Deliver => (Action::Resume, Some(State::Paused)),
            OnEnable::Discard => (Action::Discard, None),
        };
        let filter = Filter { webhook: Some(webhook.id.clone()), state, ..Filter::default() };
        let job = NewJob {
            id: JobId::generate(),
            tenant: Arc::clone(&webhook.tenant),
            action,
            selection: Selection::Filter(filter),
            // What is newer is not discarded.
            until: DeliveryId::generate(),
            created_at: to_microsecond(Timestamp::now()),
            idempotency: None,
        };
        // After the job, so that a discard leaves what tells of it.
        let told = operational::of_enabled(&self.0.current.load(), webhook, job.created_at);
        let enabled = self.0.store.enable_webhook(webhook.id.clone(), job, told.clone()).await;
        if enabled.is_ok() {
            self.0.health.set_disabled(&webhook.id, None);
        }
        self.told(told.as_slice(), enabled.as_ref().map_or(0, |enabled| enabled.told));
        let job = enabled?.made;
        // Who enables it knows better than its breaker. What is to be discarded is not to be sent before that.
        if waiting == OnEnable::Deliver {
            self.begin_afresh(&webhook.id);
        }
        let Webhook { tenant, definition, .. } = webhook;
        tracing::info!(%tenant, webhook = definition.name, ?waiting, job = %job.id, "the webhook is enabled");
        self.0.new_job.notify_one();
        Ok(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{Failure, Timings};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn attempt(status: u16, kind: Option<FailureKind>) -> Attempt {
        Attempt {
            started_at: at(0),
            duration_us: 1,
            status: Some(status),
            failure: kind.map(|kind| Failure::new(kind, "")),
            excerpt: String::new(),
            retry_after: None,
            timings: Timings::default(),
        }
    }

    #[test]
    fn lasting_failure_disables_and_a_success_begins_afresh() {
        let health = Health::new(Some(Duration::from_secs(600)), Vec::new());
        let id = WebhookId("wh_a".into());
        let fails =
            |second| health.learn(&id, &attempt(500, Some(FailureKind::Status)), at(second));
        assert_eq!(fails(0), Note::Nothing);
        assert_eq!(fails(59), Note::Nothing);
        assert_eq!(fails(60), Note::Failing(Some(at(0))));
        assert_eq!(fails(61), Note::Nothing, "it is written once");
        assert_eq!(health.learn(&id, &attempt(200, None), at(62)), Note::Failing(None));
        assert_eq!(health.learn(&id, &attempt(200, None), at(63)), Note::Nothing);
        assert!(health.lock().is_empty());
        let plugin = attempt(0, Some(FailureKind::PluginTrap));
        assert_eq!(health.learn(&id, &plugin, at(64)), Note::Nothing);
        assert_eq!(fails(100), Note::Nothing);
        assert_eq!(fails(699), Note::Failing(Some(at(100))));
        assert!(matches!(fails(700), Note::Disable(_)));
        health.set_disabled(&id, Some(Disabled { since: at(700), reason: String::new() }));
        assert!(health.is_disabled(&id));
        assert_eq!(fails(701), Note::Nothing, "it is disabled already");
        health.set_disabled(&id, None);
        assert!(!health.is_disabled(&id));
        assert_eq!(fails(702), Note::Nothing);
    }

    #[test]
    fn a_receiver_that_is_gone_is_believed_at_once_and_never_can_be_chosen() {
        let id = WebhookId("wh_a".into());
        let health = Health::new(None, Vec::new());
        let failed = attempt(500, Some(FailureKind::Status));
        assert_eq!(health.learn(&id, &failed, at(0)), Note::Nothing);
        let year = health.learn(&id, &failed, at(365 * 86_400));
        assert_eq!(year, Note::Failing(Some(at(0))));
        let gone = attempt(410, Some(FailureKind::Gone));
        assert!(matches!(health.learn(&id, &gone, at(1)), Note::Disable(_)));
    }

    #[test]
    fn what_an_earlier_process_knew_counts() {
        let id = WebhookId("wh_a".into());
        let (webhook, failing_since) = (id.clone(), Some(at(0)));
        let known = vec![WebhookState { webhook, failing_since, disabled: None }];
        let health = Health::new(Some(Duration::from_secs(600)), known);
        let failed = attempt(500, Some(FailureKind::Status));
        assert!(matches!(health.learn(&id, &failed, at(600)), Note::Disable(_)));
    }
}
