//! The tally of a plugin's version: for each tenant, how often it was called, what came of it, and how long
//! it took.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::{Failed, Outcome};
use crate::delivery::FailureKind;

/// Counts calls for each tenant, from when the version was first loaded by this process. What it keeps is a
/// few hundred bytes for each tenant that used it.
#[derive(Debug, Default)]
pub struct Tally {
    tenants: RwLock<HashMap<Arc<str>, Arc<Counters>>>,
}

#[derive(Debug, Default)]
struct Counters {
    forwarded: AtomicU64,
    dropped: AtomicU64,
    /// By the failure's kind, in the order of [`FailureKind::ALL`].
    failed: [AtomicU64; FailureKind::ALL.len()],
    nanos: AtomicU64,
    max_nanos: AtomicU64,
}

/// What a tally shows for one tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Calls that gave something to send.
    pub forwarded: u64,
    /// Calls that decided that nothing is to be sent.
    pub dropped: u64,
    /// Calls that failed, by kind; none is zero.
    pub failed: Vec<(FailureKind, u64)>,
    /// The time of all calls together.
    pub time: Duration,
    /// The time of the longest call.
    pub max_time: Duration,
}

impl Tally {
    /// Counts one call.
    pub(super) fn record(
        &self,
        tenant: &Arc<str>,
        outcome: &Result<Outcome, Box<Failed>>,
        time: Duration,
    ) {
        let counters = self.counters(tenant);
        // Counters are read alone, and nothing else hangs on them.
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(Outcome::Forward(_)) => add(&counters.forwarded),
            Ok(Outcome::Drop(_)) => add(&counters.dropped),
            Err(failed) => counters.failed.get(failed.failure.kind as usize).map_or(0, add),
        };
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        counters.nanos.fetch_add(nanos, Ordering::Relaxed);
        counters.max_nanos.fetch_max(nanos, Ordering::Relaxed);
    }

    /// What it shows for a tenant; none when it was never called for it.
    #[must_use]
    pub fn reading(&self, tenant: &str) -> Option<Reading> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        let counters = tenants.get(tenant)?;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let failed = FailureKind::ALL.iter().copied().zip(counters.failed.iter().map(read));
        Some(Reading {
            forwarded: read(&counters.forwarded),
            dropped: read(&counters.dropped),
            failed: failed.filter(|(_, count)| *count > 0).collect(),
            time: Duration::from_nanos(read(&counters.nanos)),
            max_time: Duration::from_nanos(read(&counters.max_nanos)),
        })
    }

    fn counters(&self, tenant: &Arc<str>) -> Arc<Counters> {
        let known = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counters) = known.get(tenant) {
            return Arc::clone(counters);
        }
        drop(known);
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tenants.entry(Arc::clone(tenant)).or_default())
    }
}

impl Reading {
    /// How many calls there were.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.forwarded + self.dropped + self.failures()
    }

    /// How many of them failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Failure;

    #[test]
    fn calls_are_counted_by_tenant_and_by_what_came_of_them() {
        let tally = Tally::default();
        let (acme, globex): (Arc<str>, Arc<str>) = ("acme".into(), "globex".into());
        let failed = |kind| {
            let failure = Failure::new(kind, "it failed");
            Err(Box::new(Failed { plugin: "stamp".into(), failure }))
        };
        let millis = Duration::from_millis;
        tally.record(&acme, &Ok(Outcome::Forward(Vec::new())), millis(3));
        tally.record(&acme, &Ok(Outcome::Drop(String::new())), millis(1));
        tally.record(&acme, &failed(FailureKind::PluginTrap), millis(8));
        tally.record(&acme, &failed(FailureKind::Internal), millis(2));
        tally.record(&acme, &failed(FailureKind::PluginTrap), millis(2));
        tally.record(&globex, &Ok(Outcome::Drop(String::new())), millis(1));
        let reading = tally.reading("acme").unwrap();
        assert_eq!(
            reading,
            Reading {
                forwarded: 1,
                dropped: 1,
                failed: vec![(FailureKind::PluginTrap, 2), (FailureKind::Internal, 1)],
                time: millis(16),
                max_time: millis(8),
            }
        );
        assert_eq!((reading.calls(), reading.failures()), (5, 3));
        assert_eq!(tally.reading("globex").unwrap().calls(), 1);
        assert_eq!(tally.reading("nobody"), None);
    }

    #[test]
    fn every_kind_of_failure_has_its_counter() {
        for (index, kind) in FailureKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index);
        }
    }
}
