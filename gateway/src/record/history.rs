//! What is shown of an event: all that became of it.

use jiff::Timestamp;

use crate::delivery::{Attempt, DeliveryId, State, WebhookId};
use crate::event::Event;

/// An event with all that became of it.
#[derive(Debug, Clone)]
pub struct EventRecord {
    /// The event; its data is empty once it is removed.
    pub event: Event,
    /// Its deliveries, in order of webhook and part.
    pub deliveries: Vec<DeliveryRecord>,
}

/// A delivery with its attempts.
#[derive(Debug, Clone)]
pub struct DeliveryRecord {
    /// Its id.
    pub id: DeliveryId,
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
    /// Whether the gateway has it in hand, so that it waits for nothing in the store.
    pub in_hand: bool,
    /// The plugin versions that made it, as in [`Update::chain`](super::Update::chain).
    pub chain: String,
    /// Its attempts, in order.
    pub attempts: Vec<Attempt>,
}
