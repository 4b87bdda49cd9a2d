//! What is asked of a store and what it gives when deliveries are taken in hand.

use std::sync::Arc;

use jiff::Timestamp;

use crate::delivery::{Delivery, DeliveryId, WebhookId};
use crate::event::Event;

/// A webhook with deliveries that are not in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The webhook.
    pub webhook: WebhookId,
    /// When the first of them falls due.
    pub next_due: Timestamp,
}

/// What to take in hand of a webhook.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The webhook.
    pub webhook: WebhookId,
    /// How many deliveries at most.
    pub limit: usize,
    /// Which of them come first: they get half of the limit, rounded up, and what the others leave.
    pub first: Kind,
}

/// The kinds of due deliveries; neither has to wait until there are none of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Those that had no attempt yet.
    Fresh,
    /// Those that had one.
    Retries,
}

/// Deliveries of a webhook taken in hand.
#[derive(Debug, Clone, Default)]
pub struct Claimed {
    /// The deliveries, each with its event.
    pub deliveries: Vec<(Arc<Event>, Delivery)>,
    /// When the next one of the webhook that is not in hand falls due.
    pub next_due: Option<Timestamp>,
}

/// What follows from a record.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// The next one of the queue of a delivery that is finished, in hand.
    pub follower: Option<(Arc<Event>, Delivery)>,
    /// How many deliveries there are of the events that tell of it.
    pub told: usize,
    /// The delivery was cancelled while it was in hand, so it was not owed any more.
    pub cancelled: bool,
    /// The delivery was purged, and nothing was recorded.
    pub purged: bool,
}

/// A dead delivery behind which the others wait no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its webhook.
    pub webhook: WebhookId,
    /// The delivery.
    pub delivery: DeliveryId,
}
