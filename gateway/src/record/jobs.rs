//! Jobs: what is done to many deliveries, step by step, beside the work of the day; and the filter and the pages
//! by which deliveries are found.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::Idempotency;
use crate::delivery::{Attempt, DeliveryId, State, WebhookId, uuid_id};
use crate::event::{EventId, EventType};

/// How many jobs of a tenant may be open at once.
pub const MAX_OPEN_JOBS: usize = 100;

uuid_id! {
    /// The id of a job, shown as `job_` and a `UUIDv7` in 32 hexadecimal digits.
    JobId, "job_"
}

/// What a job does to each delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Repeats a finished delivery: a new one of the same event to the same webhook, which goes through the
    /// plugins as they are now.
    Replay,
    /// The same, with the request that is still stored for it.
    ReplaySameBytes,
    /// Ends a delivery that is not finished.
    Cancel,
    /// Goes on with a delivery that is paused.
    Resume,
    /// Ends what the webhook of the filter is owed from before the job, and all that is paused.
    Discard,
}

impl Action {
    /// Whether a delivery in this state is one for it.
    #[must_use]
    pub fn takes(self, state: State) -> bool {
        match self {
            Self::Replay | Self::ReplaySameBytes => state.is_finished(),
            Self::Cancel | Self::Discard => !state.is_finished(),
            Self::Resume => state == State::Paused,
        }
    }
}

/// Which deliveries of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Deliveries(Vec<DeliveryId>),
    /// All of this event that the action takes.
    Event(EventId),
    /// All that fit and that the action takes.
    Filter(Filter),
}

/// What a delivery has to be like; what is absent does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// It goes to this webhook.
    pub webhook: Option<WebhookId>,
    /// Its event is of this type.
    pub event_type: Option<EventType>,
    /// It is in this state.
    pub state: Option<State>,
    /// Its event was accepted then or later.
    pub accepted_after: Option<Timestamp>,
    /// Its event was accepted before then.
    pub accepted_before: Option<Timestamp>,
    /// Its last attempt failed, and began then or later.
    pub failed_since: Option<Timestamp>,
}

/// A job to begin.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// Whose deliveries.
    pub tenant: Arc<str>,
    /// What to do.
    pub action: Action,
    /// To which.
    pub selection: Selection,
    /// Deliveries from this id on are newer than the job, and not its concern.
    pub until: DeliveryId,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Makes repeating the request harmless.
    pub idempotency: Option<Idempotency>,
}

/// The answer to a new job.
#[derive(Debug, Clone)]
pub enum Begun {
    /// It is durable and will be done.
    New(Job),
    /// The same request was made before; this is its job.
    Repeated(Job),
    /// The idempotency key was used for another request. Nothing was begun.
    KeyReused,
    /// The tenant has [`MAX_OPEN_JOBS`] that have not ended. Nothing was begun.
    TooMany,
    /// The tenant has no such delivery. Nothing was begun.
    NoDelivery(DeliveryId),
    /// The tenant has no such event. Nothing was begun.
    NoEvent(EventId),
}

/// A job and how far it is.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What it does.
    pub action: Action,
    /// To which deliveries.
    pub selection: Selection,
    /// Where it stands.
    pub state: JobState,
    /// How many deliveries it has found so far.
    pub matched: u64,
    /// How many of those it has replayed or cancelled.
    pub done: u64,
    /// How many of those it could not.
    pub failed: u64,
    /// Why it could not, for the last one.
    pub failure: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it was through, or stopped.
    pub ended_at: Option<Timestamp>,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// It has not begun.
    Waiting,
    /// It is under way.
    Running,
    /// It has been through all.
    Completed,
    /// It was stopped. What it had done stays done.
    Cancelled,
}

impl JobState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Running, Self::Completed, Self::Cancelled];

    /// The state's name in the API and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// How much of a job to do in one go.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Deliveries to act on at most.
    pub batch: usize,
    /// Deliveries to look at at most.
    pub looks: usize,
    /// Of the latest deliveries that a replay made, how many may be due without an attempt. It waits for them
    /// rather than make more that stand in the way of others.
    pub pending: usize,
}

/// What a step of a job did.
#[derive(Debug, Clone, Default)]
pub struct Stepped {
    /// Whose deliveries they are.
    pub tenant: Arc<str>,
    /// The webhooks that have deliveries which are due now and were not.
    pub due: BTreeSet<WebhookId>,
    /// How many deliveries it made.
    pub made: usize,
    /// How many it cancelled.
    pub cancelled: usize,
    /// Deliveries that were cancelled while in hand.
    pub in_hand: Vec<(WebhookId, DeliveryId)>,
    /// How the job ended, if it did.
    pub ended: Option<Job>,
    /// It waits for what it has made.
    pub waits: bool,
}

/// Some of the deliveries that a filter finds, newest first.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The deliveries. There may be fewer than were asked for before the end is reached.
    pub deliveries: Vec<Listed>,
    /// Where the next page begins; absent at the end.
    pub next: Option<DeliveryId>,
}

/// A delivery in a list.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its id.
    pub id: DeliveryId,
    /// Its event.
    pub event: EventId,
    /// The event's type.
    pub event_type: EventType,
    /// When the event was accepted.
    pub accepted_at: Timestamp,
    /// The webhook that it goes to.
    pub webhook: WebhookId,
    /// Which part of the event it is, counted from 1.
    pub part: u32,
    /// Where it stands.
    pub state: State,
    /// Why it was dropped or cancelled, is held or paused, or waits for others.
    pub reason: Option<String>,
    /// When the next attempt is due, unless it is finished, held, paused, or waits for others.
    pub due_at: Option<Timestamp>,
    /// The delivery that it repeats.
    pub replay_of: Option<DeliveryId>,
    /// How many attempts were made.
    pub attempts: u32,
    /// The last of them.
    pub last_attempt: Option<Attempt>,
}

/// What is known of a webhook that fails or is disabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookState {
    /// The webhook.
    pub webhook: WebhookId,
    /// The first failure after the last success.
    pub failing_since: Option<Timestamp>,
    /// Nothing is sent to it.
    pub disabled: Option<Disabled>,
}

/// That a webhook is disabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disabled {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: String,
}

/// What came of disabling or enabling a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed<T> {
    /// What was made.
    pub made: T,
    /// Whether it was not so before.
    pub is_new: bool,
    /// How many deliveries there are of the event that tells of it.
    pub told: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_what_they_name() {
        let id = JobId::generate();
        assert_eq!(JobId::parse(&id.to_string()), Some(id));
        assert_eq!(JobId::parse("dlv_0198a3c27f407a6b8c9d0e1f2a3b4c5f"), None);
        for state in JobState::ALL {
            assert_eq!(JobState::parse(state.as_str()), Some(state));
        }
    }

    #[test]
    fn what_is_replayed_is_finished_and_what_is_cancelled_is_not() {
        for state in State::ALL {
            assert_eq!(Action::Replay.takes(state), Action::ReplaySameBytes.takes(state));
            assert_ne!(Action::Replay.takes(state), Action::Cancel.takes(state), "{state:?}");
        }
    }
}
