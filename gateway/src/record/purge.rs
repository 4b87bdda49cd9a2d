//! Purges: what is removed because somebody asked for it, whatever its age and state.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::delivery::{DeliveryId, WebhookId};

/// How many purges of a tenant may be open at once.
pub const MAX_OPEN_PURGES: usize = 100;

/// The id of a purge, shown as `purge_` and a `UUIDv7` in 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PurgeId(Uuid);

impl PurgeId {
    /// A new id, later than all earlier ones of this process.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// Reads an id as it is shown.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("purge_").filter(|digits| digits.len() == 32)?;
        Uuid::try_parse(digits).ok().map(Self)
    }

    /// The id as it is stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id that `as_bytes` gave.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for PurgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "purge_{}", self.0.simple())
    }
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
