//! Purges: what is removed because somebody asked for it, whatever its age and state.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::delivery::{DeliveryId, WebhookId, uuid_id};

/// How many purges of a tenant may be open at once.
pub const MAX_OPEN_PURGES: usize = 100;

uuid_id! {
    /// The id of a purge, shown as `purge_` and a `UUIDv7` in 32 hexadecimal digits.
    PurgeId, "purge_"
}

/// What of a tenant a purge removes. The value that it is compared with is kept apart, since it goes as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Everything: events, idempotency keys, and what plugins keep.
    Tenant,
    /// Events with an attribute of this name that has the value.
    Attribute(String),
    /// Events whose data has the value where this JSON Pointer (RFC 6901) leads to.
    Pointer(String),
}

/// A purge to begin. It is about what was accepted before.
#[derive(Debug, Clone)]
pub struct NewPurge {
    /// Its id.
    pub id: PurgeId,
    /// Whose things.
    pub tenant: Arc<str>,
    /// What of them.
    pub target: Target,
    /// What the target is compared with; [`Value::Null`] for all of a tenant.
    pub value: Value,
    /// When it was asked for.
    pub created_at: Timestamp,
}

/// The answer to a new purge.
#[derive(Debug, Clone)]
pub enum PurgeBegun {
    /// It is durable and will be done.
    New(Purge),
    /// The same one is open, and goes on.
    Open(Purge),
    /// The tenant has [`MAX_OPEN_PURGES`] open.
    TooMany,
}

/// A purge, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// Its id.
    pub id: PurgeId,
    /// Whose things.
    pub tenant: Arc<str>,
    /// What of them.
    pub target: Target,
    /// Events that were found.
    pub matched: u64,
    /// Events that are gone.
    pub done: u64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When nothing was left.
    pub ended_at: Option<Timestamp>,
}

/// What a step of a purge came to.
#[derive(Debug, Clone)]
pub struct Purged {
    /// The purge after it.
    pub purge: Purge,
    /// Deliveries that are gone and were in hand: what comes of them is not kept.
    pub in_hand: Vec<DeliveryId>,
    /// How many deliveries are gone that were owed and not in hand.
    pub given_up: u64,
    /// Webhooks with queues whose next delivery is due now.
    pub moved: Vec<WebhookId>,
    /// There was nothing to do but to wait for others.
    pub waits: bool,
}
