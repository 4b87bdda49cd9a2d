//! Flow: whether a webhook's deliveries may go out now, by its receiver's breaker, a pause that the receiver asked
//! for, and the rate limits of the webhook and its tenant. What may not go out waits, and uses no attempt.

mod bucket;
mod receiver;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Pipeline;
use super::waiting::WaitingFor;
use crate::delivery::{Attempt, DeliveryId, Fault, WebhookId};
use crate::shutdown::Drain;
use crate::snapshot::{Current, RateLimit, Webhook};
use bucket::Bucket;
use receiver::{Breaker, Change};

pub use self::receiver::Config as ReceiverBreakerConfig;

/// The longest time for which a receiver can ask not to be sent anything.
const MAX_PAUSE: Duration = Duration::from_secs(60 * 60);

/// How much of a webhook may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// All of it.
    Open,
    /// Bit by bit, so no more than this needs to be in hand.
    Narrow(usize),
    /// Nothing before this time, or before something else happens.
    Shut(Option<Instant>),
}

impl Gate {
    fn and(self, most: Option<usize>) -> Self {
        match (self, most) {
            (Self::Open, Some(most)) => Self::Narrow(most),
            (Self::Narrow(known), Some(most)) => Self::Narrow(known.min(most)),
            (gate, _) => gate,
        }
    }
}

/// What a delivery has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Its tenant may begin no other before this time.
    Tenant(Instant),
    /// Its webhook may not, or not before something else happens.
    Webhook(Option<Instant>),
}

/// The flow of all webhooks: those with something to remember, and no others, take memory.
pub(super) struct Flows {
    config: ReceiverBreakerConfig,
    current: Current,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    webhooks: Known<WebhookId, Flow>,
    tenants: Known<Arc<str>, Bucket>,
}

/// What is known of some, until it says nothing any more.
struct Known<K, V> {
    entries: HashMap<K, V>,
    /// How many there are when it is time to look for those to forget.
    full: usize,
}

impl<K, V> Default for Known<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), full: 1_024 }
    }
}

impl<K: Eq + Hash + Clone, V> Known<K, V> {
    fn entry(&mut self, key: &K, new: V, is_idle: impl Fn(&V) -> bool) -> &mut V {
        if self.entries.len() >= self.full {
            self.entries.retain(|_, value| !is_idle(value));
            self.full = (2 * self.entries.len()).max(1_024);
        }
        self.entries.entry(key.clone()).or_insert(new)
    }
}

struct Flow {
    breaker: Breaker,
    bucket: Bucket,
    paused_until: Option<Instant>,
}

impl Flow {
    fn new() -> Self {
        Self { breaker: Breaker::new(), bucket: Bucket::default(), paused_until: None }
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.breaker.is_idle(now) && self.bucket.is_full(now) && self.pause(now).is_none()
    }

    fn pause(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    fn gate(&self, now: Instant, config: &ReceiverBreakerConfig) -> Gate {
        match self.pause(now) {
            Some(until) => Gate::Shut(Some(until)),
            None => self.breaker.gate(now, config),
        }
    }

    fn may_start(
        &self,
        rate: Option<RateLimit>,
        now: Instant,
        config: &ReceiverBreakerConfig,
    ) -> Result<(), Option<Instant>> {
        if let Some(until) = self.pause(now) {
            return Err(Some(until));
        }
        self.breaker.may_start(now, config)?;
        rate.and_then(|rate| self.bucket.wait(rate, now)).map_or(Ok(()), |at| Err(Some(at)))
    }
}

impl Flows {
    pub(super) fn new(config: ReceiverBreakerConfig, current: Current) -> Self {
        Self { config, current, state: Mutex::default() }
    }

    /// How much of a webhook may go out now.
    pub(super) fn gate(&self, webhook: &WebhookId, now: Instant) -> Gate {
        let (rate, of_tenant) = self.rates(webhook);
        let most = [rate, of_tenant].into_iter().flatten().map(bucket::window).min();
        let state = self.state();
        let flow = state.webhooks.entries.get(webhook);
        flow.map_or(Gate::Open, |flow| flow.gate(now, &self.config)).and(most)
    }

    /// A delivery goes out, if it may.
    pub(super) fn start(
        &self,
        tenant: &Arc<str>,
        webhook: &WebhookId,
        delivery: DeliveryId,
        now: Instant,
    ) -> Result<(), Wait> {
        let (rate, of_tenant) = self.rates(webhook);
        let mut state = self.state();
        let State { webhooks, tenants } = &mut *state;
        if let Some(flow) = webhooks.entries.get(webhook) {
            flow.may_start(rate, now, &self.config).map_err(Wait::Webhook)?;
        }
        if let Some(limit) = of_tenant {
            let bucket = tenants.entry(tenant, Bucket::default(), |bucket| bucket.is_full(now));
            bucket.wait(limit, now).map_or(Ok(()), |at| Err(Wait::Tenant(at)))?;
            bucket.take(limit, now);
        }
        if let Some(rate) = rate {
            let flow = webhooks.entry(webhook, Flow::new(), |flow| flow.is_idle(now));
            flow.bucket.take(rate, now);
        }
        if let Some(flow) = webhooks.entries.get_mut(webhook) {
            flow.breaker.start(delivery, now, &self.config);
        }
        Ok(())
    }

    /// What keeps a webhook's deliveries from going out now, if anything does, and until when at least.
    pub(super) fn obstacle(
        &self,
        webhook: &WebhookId,
        now: Instant,
    ) -> Option<(WaitingFor, Option<Instant>)> {
        let snapshot = self.current.load();
        let state = self.state();
        let flow = state.webhooks.entries.get(webhook);
        if let Some(Err(until)) = flow.map(|flow| flow.may_start(None, now, &self.config)) {
            return Some((WaitingFor::Receiver, until));
        }
        let webhook = snapshot.webhook(webhook)?;
        let token = |bucket: &Bucket, rate: RateLimit| bucket.wait(rate, now);
        let of_webhook = webhook.definition.rate_limit.zip(flow);
        let of_webhook = of_webhook.and_then(|(rate, flow)| token(&flow.bucket, rate));
        let of_tenant = webhook.tenant_rate_limit.zip(state.tenants.entries.get(&webhook.tenant));
        let of_tenant = of_tenant.and_then(|(rate, bucket)| token(bucket, rate));
        let until = of_webhook.max(of_tenant)?;
        Some((WaitingFor::RateLimit, Some(until)))
    }

    /// What the outcome of an attempt at a webhook's receiver changes.
    fn learn(&self, webhook: &WebhookId, delivery: DeliveryId, failed: bool) -> Change {
        let now = Instant::now();
        let mut state = self.state();
        let webhooks = &mut state.webhooks;
        if failed && self.config.enabled {
            let flow = webhooks.entry(webhook, Flow::new(), |flow| flow.is_idle(now));
            return flow.breaker.failed(delivery, now, &self.config);
        }
        let Some(flow) = webhooks.entries.get_mut(webhook) else {
            return Change::None;
        };
        let change = flow.breaker.succeeded(now);
        if flow.is_idle(now) {
            webhooks.entries.remove(webhook);
        }
        change
    }

    fn ended(&self, webhook: &WebhookId, delivery: DeliveryId) -> Change {
        let mut state = self.state();
        let flow = state.webhooks.entries.get_mut(webhook);
        flow.map_or(Change::None, |flow| flow.breaker.ended(delivery, Instant::now()))
    }

    fn pause(&self, webhook: &WebhookId, pause: Duration) {
        let now = Instant::now();
        let until = now + pause.min(MAX_PAUSE);
        let mut state = self.state();
        let flow = state.webhooks.entry(webhook, Flow::new(), |flow| flow.is_idle(now));
        flow.paused_until = flow.paused_until.max(Some(until));
    }

    /// The limits of a webhook and of its tenant.
    fn rates(&self, webhook: &WebhookId) -> (Option<RateLimit>, Option<RateLimit>) {
        let snapshot = self.current.load();
        snapshot.webhook(webhook).map_or((None, None), |webhook| {
            (webhook.definition.rate_limit, webhook.tenant_rate_limit)
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts what had to wait for its time, until the drain begins.
pub(super) async fn run(pipeline: Pipeline, drain: Drain) {
    loop {
        let next = pipeline.0.ready.resume(Instant::now());
        pipeline.pump();
        let delayed = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = drain.begun() => return,
            () = pipeline.0.ready.delayed() => {}
            () = delayed => {}
        }
    }
}

impl Pipeline {
    /// Learns from an attempt what may go out to its receiver now.
    pub(super) fn learn_flow(&self, webhook: &Webhook, delivery: DeliveryId, attempt: &Attempt) {
        let change = match &attempt.failure {
            None => self.0.flows.learn(&webhook.id, delivery, false),
            // Whatever keeps requests from a receiver, they do not get there for now.
            Some(failure) if matches!(failure.kind.fault(), Fault::Receiver | Fault::Network) => {
                self.0.flows.learn(&webhook.id, delivery, true)
            }
            // It says nothing of the receiver.
            Some(_) => Change::None,
        };
        let (tenant, name) = (&webhook.tenant, &webhook.definition.name);
        match change {
            Change::None => {}
            Change::Opened(wait) => {
                let last = attempt.failure.as_ref().map(ToString::to_string);
                tracing::warn!(
                    %tenant, webhook = name, last, probe_in = ?wait,
                    "the receiver fails again and again; its deliveries wait"
                );
                self.hand_back(&webhook.id);
            }
            Change::Recovers => {
                tracing::info!(%tenant, webhook = name, "the receiver works again; what waited follows");
                self.resume(&webhook.id);
            }
        }
        // The receiver asks not to be sent anything for so long.
        if let Some(pause) = attempt.retry_after {
            self.0.flows.pause(&webhook.id, pause);
            self.hand_back(&webhook.id);
        }
    }

    /// A delivery has ended, whatever was learnt from it.
    pub(super) fn ended(&self, webhook: &WebhookId, delivery: DeliveryId) {
        if self.0.flows.ended(webhook, delivery) == Change::Recovers {
            self.resume(webhook);
        }
    }

    /// Forgets how a webhook's receiver has fared, and tries it now.
    pub(super) fn begin_afresh(&self, webhook: &WebhookId) {
        self.0.flows.state().webhooks.entries.remove(webhook);
        self.resume(webhook);
    }

    /// Something of a webhook may go out again.
    fn resume(&self, webhook: &WebhookId) {
        self.0.ready.resume_lane(webhook);
        self.0.alarm.due(webhook, Timestamp::now());
    }

    /// Gives what waits in memory back to the store, so that it takes no room there while it may not go out.
    fn hand_back(&self, webhook: &WebhookId) {
        self.give_back(self.0.ready.take_waiting(webhook), Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{PluginSet, Snapshot};

    fn flows() -> Flows {
        let current = Current::new(Snapshot::new(Vec::new(), PluginSet::default()));
        let config = ReceiverBreakerConfig { failures: 2, ..ReceiverBreakerConfig::default() };
        Flows::new(config, current)
    }

    #[test]
    fn a_pause_shuts_a_webhook_and_no_other_for_its_time_and_no_longer_than_an_hour() {
        let flows = flows();
        let (paused, other) = (WebhookId("wh_a".into()), WebhookId("wh_b".into()));
        let (tenant, id) = ("acme".into(), DeliveryId::generate());
        flows.pause(&paused, Duration::from_secs(1 << 40));
        flows.pause(&paused, Duration::from_secs(1));
        let now = Instant::now();
        let Gate::Shut(Some(until)) = flows.gate(&paused, now) else { panic!("it is paused") };
        assert!(until > now + MAX_PAUSE / 2 && until <= now + MAX_PAUSE, "not the shorter one");
        assert_eq!(flows.start(&tenant, &paused, id, now), Err(Wait::Webhook(Some(until))));
        assert_eq!(flows.gate(&other, now), Gate::Open);
        assert_eq!(flows.start(&tenant, &other, id, now), Ok(()));
        assert_eq!(flows.gate(&paused, now + MAX_PAUSE), Gate::Open);
    }

    #[test]
    fn what_works_is_forgotten() {
        let flows = flows();
        let webhook = WebhookId("wh_a".into());
        let id = DeliveryId::generate();
        assert_eq!(flows.learn(&webhook, id, true), Change::None);
        assert_eq!(flows.learn(&webhook, id, false), Change::None);
        assert!(flows.state().webhooks.entries.is_empty());
        flows.learn(&webhook, id, true);
        assert!(matches!(flows.learn(&webhook, id, true), Change::Opened(_)));
        assert!(matches!(flows.gate(&webhook, Instant::now()), Gate::Shut(Some(_))));
    }
}
