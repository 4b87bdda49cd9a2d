//! Random numbers: unpredictable outside the gateway, different for each delivery and step of its chain, and
//! the same again when a run is repeated.
//!
//! The operator grants them in the plugin's manifest: `[grants] random = true`.

#[cfg(target_arch = "wasm32")]
use crate::__guest::host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host;

/// This many random bytes. More than 65,536 at once end the call.
pub fn bytes(len: u32) -> Vec<u8> {
    host::random_bytes(len)
}

/// A random number, all of them equally likely.
///
/// ```
/// use hookmill_plugin::random;
///
/// /// Picks one event in a hundred.
/// fn is_sample() -> bool {
///     random::number() % 100 == 0
/// }
/// # is_sample();
/// ```
pub fn number() -> u64 {
    host::random_number()
}
