//! Held deliveries: why they are held, and what of them is taken in hand.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::delivery::{Delivery, DeliveryId, Failure, WebhookId};
use crate::digest::Digest;
use crate::event::Event;

/// Why the deliveries of a webhook are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What keeps failing: a plugin, as `name@sha256`, or by its name alone when it is not loaded.
    pub cause: Arc<str>,
    /// The hash of everything that decides whether it fails again.
    pub setup: Digest,
    /// How it failed last.
    pub failure: Failure,
    /// Since when deliveries have been held.
    pub since: Timestamp,
}

impl Hold {
    /// The name of what keeps failing, without its version.
    #[must_use]
    pub fn name(&self) -> &str {
        self.cause.split_once('@').map_or(&self.cause, |(name, _)| name)
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cause, failure, since, .. } = self;
        write!(f, "held since {since} because {cause} keeps failing, last with {failure}")
    }
}

/// A webhook's hold, and how much it holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// The webhook.
    pub webhook: WebhookId,
    /// Why.
    pub hold: Hold,
    /// It had begun to let go: what is held was on its way out.
    pub releasing: bool,
    /// How many deliveries are held.
    pub deliveries: u64,
}

/// Which held deliveries to take in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// One, to see whether it fails: the first that was accepted after that of this delivery, or, without
    /// one, the first of all.
    Trial(Option<DeliveryId>),
    /// The first so many of all. What is left is on its way out too, even if the process ends.
    Release(usize),
}

/// Held deliveries that were taken in hand.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// The deliveries, each with its event, in order of acceptance.
    pub deliveries: Vec<(Arc<Event>, Delivery)>,
    /// How many are still held.
    pub left: u64,
}
