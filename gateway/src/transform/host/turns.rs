//! Turns of calls that may wait: how many of them hold an instance at once.
//!
//! A call keeps its instance while it waits for a store or a server. So those that may wait have half of the
//! pool at most, and those of one tenant a quarter of that: a server that is slow to answer one tenant's
//! plugin holds up that tenant's plugins alone. What finds no turn waits outside the pool, and that time is
//! not charged to the call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Turns of calls that may wait.
pub(in crate::transform) struct Turns {
    all: Arc<Semaphore>,
    per_tenant: usize,
    tenants: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
}

/// A turn, until it is dropped.
pub(in crate::transform) struct Turn {
    _all: OwnedSemaphorePermit,
    _tenant: OwnedSemaphorePermit,
}

impl Turns {
    /// Turns for a pool of this many instances.
    pub(in crate::transform) fn new(instances: u32) -> Self {
        let all = usize::try_from(instances).unwrap_or(usize::MAX).div_ceil(2);
        Self {
            all: Arc::new(Semaphore::new(all)),
            per_tenant: all.div_ceil(4),
            tenants: Mutex::default(),
        }
    }

    /// Waits for a turn; none when the semaphores are closed, which nobody does.
    pub(in crate::transform) async fn take(&self, tenant: &Arc<str>) -> Option<Turn> {
        // The tenant's own first: whoever waits for that holds nothing that others need.
        let tenant = self.of(tenant).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Turn { _all: all, _tenant: tenant })
    }

    fn of(&self, tenant: &Arc<str>) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = tenants.get(tenant) {
            return Arc::clone(known);
        }
        // Tenants come and go with the configuration; those without a call under way are not kept.
        tenants.retain(|_, turns| Arc::strong_count(turns) > 1);
        let turns = Arc::new(Semaphore::new(self.per_tenant));
        tenants.insert(Arc::clone(tenant), Arc::clone(&turns));
        turns
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_tenant_that_waits_leaves_turns_to_others() {
        let turns = Turns::new(16);
        let (acme, globex): (Arc<str>, Arc<str>) = ("acme".into(), "globex".into());
        let first = turns.take(&acme).now_or_never().unwrap();
        let second = turns.take(&acme).now_or_never().unwrap();
        assert!(turns.take(&acme).now_or_never().is_none(), "two of eight for a tenant");
        assert!(turns.take(&globex).now_or_never().is_some());
        drop(first);
        assert!(turns.take(&acme).now_or_never().is_some());
        drop(second);
    }

    #[tokio::test]
    async fn all_of_them_leave_half_of_the_pool() {
        let turns = Turns::new(4);
        let tenants: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).to_vec();
        let held: Vec<_> =
            tenants.iter().filter_map(|tenant| turns.take(tenant).now_or_never()).collect();
        assert_eq!(held.len(), 2);
    }

    #[tokio::test]
    async fn tenants_without_calls_are_forgotten() {
        let turns = Turns::new(16);
        for n in 0..100 {
            drop(turns.take(&n.to_string().into()).await);
        }
        assert_eq!(turns.tenants.lock().unwrap().len(), 1);
    }
}
