//! The backlog: how many deliveries are owed, in all and to each tenant, so that it can be bounded.
//!
//! The count is kept in memory. What an earlier process left is counted in the store while this one works.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::record::{Next, Store, StoreError};
use crate::snapshot::{Current, Tenant};

/// Counts what is owed.
#[derive(Debug)]
pub(super) struct Backlog {
    max: usize,
    all: AtomicI64,
    /// Of tenants that are owed something.
    tenants: Mutex<HashMap<Arc<str>, i64>>,
}

/// A backlog is over its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BacklogFull {
    /// That of the tenant; otherwise that of the gateway.
    pub of_tenant: bool,
    /// The limit, in deliveries.
    pub max: usize,
}

impl fmt::Display for BacklogFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.of_tenant { "the tenant" } else { "the gateway" };
        write!(f, "{} deliveries or more of {whose} wait to be made", self.max)
    }
}

impl Backlog {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, all: AtomicI64::new(0), tenants: Mutex::default() })
    }

    /// Counts what is owed from before, in the background. What begins after this returns counts as new.
    pub(super) async fn load(self: &Arc<Self>, store: Arc<dyn Store>, current: Current) {
        let (began, has_begun) = oneshot::channel();
        let backlog = Arc::clone(self);
        tokio::spawn(async move {
            match store.owed(began).await {
                Ok(owed) => {
                    for (webhook, deliveries) in owed {
                        let snapshot = current.load();
                        let tenant = snapshot.webhook(&webhook).map(|it| Arc::clone(&it.tenant));
                        let count = i64::try_from(deliveries).unwrap_or(i64::MAX);
                        backlog.change(tenant.as_ref(), count);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "what is owed from before cannot be counted; the limits of the backlog leave it out");
                }
            }
        });
        // An error says that it failed, which is logged.
        drop(has_begun.await);
    }

    /// Counts deliveries that are to be accepted.
    ///
    /// # Errors
    /// When a limit is reached already; they are not counted then.
    pub(super) fn reserve(
        self: &Arc<Self>,
        tenant: &Tenant,
        deliveries: usize,
    ) -> Result<Reserved, BacklogFull> {
        let is_over = |owed: i64, max: usize| usize::try_from(owed).is_ok_and(|owed| owed >= max);
        if deliveries > 0 {
            let max = tenant.max_backlog();
            let owed = self.tenants().get(tenant.name()).copied().unwrap_or(0);
            if is_over(owed, max) {
                return Err(BacklogFull { of_tenant: true, max });
            }
            if is_over(self.all.load(Ordering::Relaxed), self.max) {
                return Err(BacklogFull { of_tenant: false, max: self.max });
            }
        }
        self.more(tenant.name(), deliveries);
        Ok(Reserved { backlog: Arc::clone(self), tenant: Arc::clone(tenant.name()), deliveries })
    }

    /// More is owed.
    pub(super) fn more(&self, tenant: &Arc<str>, deliveries: usize) {
        self.change(Some(tenant), i64::try_from(deliveries).unwrap_or(i64::MAX));
    }

    /// Less is owed.
    pub(super) fn less(&self, tenant: &Arc<str>, deliveries: usize) {
        self.change(Some(tenant), -i64::try_from(deliveries).unwrap_or(i64::MAX));
    }

    fn change(&self, tenant: Option<&Arc<str>>, by: i64) {
        if by == 0 {
            return;
        }
        self.all.fetch_add(by, Ordering::Relaxed);
        let Some(tenant) = tenant else { return };
        let mut tenants = self.tenants();
        match tenants.get_mut(tenant) {
            Some(owed) => {
                *owed += by;
                if *owed == 0 {
                    tenants.remove(tenant);
                }
            }
            None => drop(tenants.insert(Arc::clone(tenant), by)),
        }
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<Arc<str>, i64>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deliveries that are counted; they are owed no more when this is dropped, but for those that were kept.
#[derive(Debug)]
pub(super) struct Reserved {
    backlog: Arc<Backlog>,
    tenant: Arc<str>,
    deliveries: usize,
}

impl Reserved {
    /// So many of them are on record.
    pub(super) fn kept(mut self, deliveries: usize) {
        self.deliveries = self.deliveries.saturating_sub(deliveries);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.backlog.less(&self.tenant, self.deliveries);
    }
}

/// Whether nothing is owed of a delivery after this.
pub(super) fn is_end(next: &Next) -> bool {
    matches!(next, Next::Delivered | Next::Dropped(_) | Next::Dead | Next::Blocks)
}

/// Why events are not accepted.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// The store cannot keep them.
    Store(StoreError),
    /// Too much is owed already.
    Backlog(BacklogFull),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Backlog(full) => full.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{PluginSet, Snapshot, TenantDefinition};

    fn tenant(name: &str, max_backlog: usize) -> Arc<Tenant> {
        let definition = TenantDefinition {
            name: name.to_owned(),
            keys: Vec::new(),
            plugins: Vec::new(),
            rate_limit: None,
            secrets: crate::transform::Secrets::default(),
            retention: crate::snapshot::Retention::default(),
            max_backlog,
            webhooks: Vec::new(),
            ad_hoc: None,
        };
        let snapshot = Snapshot::new(vec![definition], PluginSet::default());
        Arc::clone(snapshot.tenant(name).unwrap())
    }

    #[test]
    fn a_tenant_over_its_limit_is_refused_and_the_others_are_not() {
        let backlog = Backlog::new(100);
        let (acme, globex) = (tenant("acme", 5), tenant("globex", 5));
        backlog.reserve(&acme, 4).unwrap().kept(4);
        // It may go over by what is in one request.
        backlog.reserve(&acme, 4).unwrap().kept(4);
        let full = backlog.reserve(&acme, 1).unwrap_err();
        assert_eq!(full, BacklogFull { of_tenant: true, max: 5 });
        backlog.reserve(&acme, 0).unwrap().kept(0);
        backlog.reserve(&globex, 1).unwrap().kept(1);
        backlog.less(acme.name(), 4);
        backlog.reserve(&acme, 1).unwrap();
    }

    #[test]
    fn the_gateway_has_a_limit_of_its_own() {
        let backlog = Backlog::new(2);
        let (acme, globex) = (tenant("acme", 5), tenant("globex", 5));
        backlog.reserve(&acme, 2).unwrap().kept(2);
        let full = backlog.reserve(&globex, 1).unwrap_err();
        assert_eq!(full, BacklogFull { of_tenant: false, max: 2 });
    }

    #[test]
    fn what_was_not_kept_is_not_owed() {
        let backlog = Backlog::new(100);
        let acme = tenant("acme", 5);
        drop(backlog.reserve(&acme, 5).unwrap());
        backlog.reserve(&acme, 5).unwrap().kept(2);
        assert_eq!(backlog.all.load(Ordering::Relaxed), 2);
        backlog.less(acme.name(), 2);
        assert!(backlog.tenants().is_empty());
    }
}
