//! `rate_limit` of webhooks and tenants, and `[delivery.breaker]`.

use super::pipeline::ReceiverBreakerConfig;
use super::section::Section;
use super::values::{DAY, MILLISECOND, count, duration, flag};
use crate::snapshot::RateLimit;

/// The most that a limit can allow in a second, or at once.
const MAX_RATE: u32 = 1_000_000;

/// Reads `rate_limit`; the burst is what one second allows when left out.
pub(super) fn rate_limit(section: &mut Section<'_>) -> Option<RateLimit> {
    section.optional_section("rate_limit", |section| {
        let per_second = section.required("per_second", "10", count(1..=MAX_RATE));
        let burst = section.optional("burst", count(1..=MAX_RATE));
        let (per_second, _) = per_second?;
        Some(RateLimit { per_second, burst: burst.unwrap_or(per_second) })
    })?
}

/// Reads when a receiver that fails is left alone.
pub(super) fn receiver_breaker(section: &mut Section<'_>) -> ReceiverBreakerConfig {
    let default = ReceiverBreakerConfig::default();
    let waits = 10 * MILLISECOND..=DAY;
    ReceiverBreakerConfig {
        enabled: section.optional("enabled", flag).unwrap_or(default.enabled),
        failures: section.optional("failures", count(1..=1_000_000)).unwrap_or(default.failures),
        probe: section.optional("probe", duration(waits.clone())).unwrap_or(default.probe),
        max_probe: section.optional("max_probe", duration(waits)).unwrap_or(default.max_probe),
        release_per_second: section
            .optional("release_per_second", count(1..=100_000))
            .unwrap_or(default.release_per_second),
    }
}
