//! Keys and values that outlive a call: durable, shared by all calls of the plugin for the same tenant, and
//! seen by nobody else.
//!
//! The operator grants them in the plugin's manifest: `[grants] kv = true`. A call that waits for the store
//! needs time for it: `[limits] time = "1s"`.
//!
//! # Once for each delivery
//!
//! A run may be repeated: after a crash, or because it failed and is tried again. Then the same operation on
//! the same key (its first, its second, …) gives the answer that it gave before and changes nothing. So this
//! drops a repeated event, and never an event whose first run was cut short:
//!
//! ```
//! use std::time::Duration;
//!
//! use hookmill_plugin::{Event, Result, Verdict, kv};
//!
//! const DAY: Duration = Duration::from_secs(24 * 60 * 60);
//!
//! fn first_of_its_day(event: Event<serde_json::Value>) -> Result<Verdict> {
//!     let order = event.payload["order"].as_str().unwrap_or_default();
//!     if kv::set_if_absent(order, "", Some(DAY))? {
//!         Ok(Verdict::unchanged())
//!     } else {
//!         Ok(Verdict::drop("seen within a day"))
//!     }
//! }
//!
//! # use hookmill_plugin::testing::Host;
//! let host = Host::new();
//! let run = || host.run(first_of_its_day, r#"{"order":"o_1"}"#, "{}");
//! assert!(matches!(run(), Ok(Verdict::Forward(_))));
//! assert_eq!(run(), Ok(Verdict::drop("seen within a day")));
//! host.advance(DAY);
//! assert!(matches!(run(), Ok(Verdict::Forward(_))));
//! ```

use std::fmt;
use std::time::Duration;

#[cfg(target_arch = "wasm32")]
use crate::__guest::host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host;

/// Why an operation did nothing. Through `?` it makes the delivery follow its retry schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The key is empty or too long, or the value is.
    TooLarge(String),
    /// The plugin's room for this tenant is used up, or what one call may move.
    Quota(String),
    /// [`add`] found a value that is no integer, or the sum is none of 64 bits.
    NotANumber(String),
    /// The store cannot answer now.
    Unavailable(String),
    /// What a later version of the gateway adds.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::TooLarge(message)
        | Self::Quota(message)
        | Self::NotANumber(message)
        | Self::Unavailable(message)
        | Self::Other(message)) = self;
        f.write_str(message)
    }
}

impl std::error::Error for Error {}

/// The value of a key.
///
/// # Errors
///
/// See [`Error`].
pub fn get(key: &str) -> Result<Option<String>, Error> {
    host::kv_get(key)
}

/// Sets the value of a key, and how long it is kept: for good when no time is given.
///
/// # Errors
///
/// See [`Error`].
pub fn set(key: &str, value: &str, ttl: Option<Duration>) -> Result<(), Error> {
    host::kv_set(key, value, ttl.map(seconds))
}

/// Sets the value of a key that has none. Says whether it did.
///
/// # Errors
///
/// See [`Error`].
pub fn set_if_absent(key: &str, value: &str, ttl: Option<Duration>) -> Result<bool, Error> {
    host::kv_set_if_absent(key, value, ttl.map(seconds))
}

/// Removes a key. Says whether it was there.
///
/// # Errors
///
/// See [`Error`].
pub fn delete(key: &str) -> Result<bool, Error> {
    host::kv_delete(key)
}

/// Adds to a value that is an integer in decimal digits, and gives the sum. A key without a value counts as 0
/// and is kept for this long; one that has a value keeps its time.
///
/// ```
/// use std::time::Duration;
///
/// use hookmill_plugin::kv;
///
/// const HOUR: Duration = Duration::from_secs(60 * 60);
///
/// /// Counts up to ten an hour for each key.
/// fn is_within_limit(key: &str) -> Result<bool, kv::Error> {
///     Ok(kv::add(key, 1, Some(HOUR))? <= 10)
/// }
/// # assert_eq!(is_within_limit("a"), Ok(true));
/// ```
///
/// # Errors
///
/// See [`Error`].
pub fn add(key: &str, delta: i64, ttl: Option<Duration>) -> Result<i64, Error> {
    host::kv_add(key, delta, ttl.map(seconds))
}

/// Whole seconds; a part of one counts as one, so that nothing is kept for no time at all.
fn seconds(ttl: Duration) -> u64 {
    ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0))
}
