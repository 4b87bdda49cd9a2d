//! Waiting: what a delivery that is not finished waits for. Asked by people, so it is found out when they ask, from what
//! is in memory anyway.

use jiff::Timestamp;
use tokio::time::Instant;

use super::Pipeline;
use crate::delivery::State;
use crate::record::DeliveryRecord;

/// What keeps a delivery from going out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitingFor {
    /// Its time: the retry schedule, or a longer wait that the receiver asked for.
    Schedule,
    /// Others of its queue that are before it.
    Order,
    /// Its receiver, which fails again and again or has asked to be left alone for a while.
    Receiver,
    /// The rate limit of its webhook or of its tenant.
    RateLimit,
    /// The plugins of its webhook, which fail again and again.
    Plugin,
    /// Its webhook, which is disabled.
    Webhook,
    /// Its turn, among what is under way for its webhook, its tenant and the gateway.
    Slot,
}

impl WaitingFor {
    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Order => "order",
            Self::Receiver => "receiver",
            Self::RateLimit => "rate_limit",
            Self::Plugin => "plugin",
            Self::Webhook => "webhook",
            Self::Slot => "slot",
        }
    }
}

impl Pipeline {
    /// What a delivery waits for, and the time before which that cannot end, where it is known. None when it is
    /// finished or an attempt is under way.
    ///
    /// The record may be older than what is in memory by the time that it took to read it.
    #[must_use]
    pub fn waiting_for(
        &self,
        delivery: &DeliveryRecord,
    ) -> Option<(WaitingFor, Option<Timestamp>)> {
        match delivery.state {
            State::Held => return Some((WaitingFor::Plugin, None)),
            State::Paused => return Some((WaitingFor::Webhook, None)),
            State::Pending | State::Retrying => {}
            _ => return None,
        }
        let Some(due_at) = delivery.due_at else {
            return Some((WaitingFor::Order, None));
        };
        if delivery.in_hand && !self.0.ready.is_waiting(&delivery.webhook, delivery.id) {
            return None;
        }
        let (now, instant) = (Timestamp::now(), Instant::now());
        let at = |until: Instant| {
            // What is past the end of time is not known.
            now.checked_add(until.saturating_duration_since(instant)).ok()
        };
        let is_due = due_at <= now;
        match self.0.flows.obstacle(&delivery.webhook, instant) {
            // What ends before it is due keeps nobody waiting.
            Some((what, until)) if is_due || until.and_then(at) > Some(due_at) => {
                Some((what, until.and_then(at)))
            }
            _ if is_due => Some((WaitingFor::Slot, None)),
            _ => Some((WaitingFor::Schedule, Some(due_at))),
        }
    }
}
