//! The keys and values that plugins keep: operations, what they answer, and why they are refused.
//!
//! An operation belongs to a run: a step of the chain, for one delivery. A run may be repeated, after a crash
//! or because it failed, and its operations have to happen once. So each is known by its run, its kind, its
//! key and how many of the same came before it, and its answer is remembered until the run's outcome is
//! recorded.

mod decide;

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::delivery::DeliveryId;

pub use self::decide::{Decision, Held, Kept};

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;

/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 64 << 10;

/// Whose keys they are. Nobody else sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The tenant's name.
    pub tenant: Arc<str>,
    /// The plugin's name; its versions share their keys.
    pub plugin: Arc<str>,
}

/// The run that an operation is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The delivery that is transformed.
    pub delivery: DeliveryId,
    /// The plugin's place in the chain.
    pub step: u32,
    /// Which of the bodies that the step before it made.
    pub part: u32,
}

/// An operation, with all that it takes to answer it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose keys.
    pub scope: Scope,
    /// In which run.
    pub run: Run,
    /// What to do.
    pub operation: Operation,
    /// With which key.
    pub key: String,
    /// How many operations of the same kind on the same key came before it in the run.
    pub occurrence: u32,
    /// What the run has read since its last change, to be remembered along with this one: by then,
    /// what it does may follow from what it read. Empty when the operation changes nothing.
    pub observed: Vec<Observed>,
    /// The room that the scope has.
    pub quota: Quota,
    /// The time by which keys expire.
    pub now: Timestamp,
}

/// What an operation does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Reads the value.
    Get,
    /// Sets the value.
    Set(Entry),
    /// Sets the value if there is none.
    SetIfAbsent(Entry),
    /// Removes the key.
    Delete,
    /// Adds to the value.
    Add {
        /// What to add.
        delta: i64,
        /// How long a key that had no value is kept; for good when absent.
        ttl_seconds: Option<u64>,
    },
}

impl Operation {
    /// The name by which the operation is remembered.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set(_) => "set",
            Self::SetIfAbsent(_) => "set-if-absent",
            Self::Delete => "delete",
            Self::Add { .. } => "add",
        }
    }
}

/// A value to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: String,
    /// How long it is kept; for good when absent.
    pub ttl_seconds: Option<u64>,
}

/// A read that is yet to be remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The key.
    pub key: String,
    /// How many reads of the same key came before it in the run.
    pub occurrence: u32,
    /// What it gave.
    pub value: Option<String>,
}

/// The room that a plugin has for a tenant's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Keys.
    pub keys: u64,
    /// The bytes of keys and values.
    pub bytes: u64,
}

/// What an operation came to.
pub type Outcome = Result<Answer, Refusal>;

/// What an operation that was done answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The value, of a `get`.
    Value(Option<String>),
    /// It is done, of a `set`.
    Done,
    /// Whether something changed, of a `set-if-absent` or a `delete`.
    Changed(bool),
    /// The sum, of an `add`.
    Sum(i64),
}

/// Why an operation was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The scope's room is used up.
    Quota(String),
    /// The value is no integer, or the sum does not fit one.
    NotANumber(String),
}
