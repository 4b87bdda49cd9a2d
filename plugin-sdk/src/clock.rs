//! The time at which the gateway accepted the event. It stands still, so that a run that is repeated after a
//! crash makes the same bytes.
//!
//! The operator grants it in the plugin's manifest: `[grants] clock = true`.

#[cfg(target_arch = "wasm32")]
use crate::__guest::host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host;

/// The time in RFC 3339, in UTC, to the millisecond.
///
/// ```
/// # use hookmill_plugin::{clock, testing::Host};
/// # let now = Host::new().with_time("2026-05-06T07:08:09.010Z").enter(|| {
/// clock::now()
/// # });
/// # assert_eq!(now, "2026-05-06T07:08:09.010Z");
/// ```
pub fn now() -> String {
    host::now()
}

/// The time in milliseconds since 1970.
pub fn now_ms() -> u64 {
    host::now_ms()
}
