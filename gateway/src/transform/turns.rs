//! Turns: which call may begin, and which has to wait, so that no tenant can take what all share.
//!
//! What is shared is counted in calls and in bytes of memory. A tenant may hold no more than its share;
//! those that wait get their turns tenant by tenant, each tenant's in order. One whose turn it is and for
//! whom there is too little yet is not overtaken, so that many small calls never keep out a large one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Calls, and the memory that they may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) calls: usize,
    pub(super) bytes: usize,
}

impl Amount {
    /// One call.
    pub(super) fn one(bytes: usize) -> Self {
        Self { calls: 1, bytes }
    }

    /// So many calls, whatever memory they take.
    pub(super) fn calls(calls: u32) -> Self {
        Self { calls: usize::try_from(calls).unwrap_or(usize::MAX), bytes: usize::MAX }
    }

    fn plus(self, other: Self) -> Self {
        let add = usize::saturating_add;
        Self { calls: add(self.calls, other.calls), bytes: add(self.bytes, other.bytes) }
    }

    fn minus(self, other: Self) -> Self {
        let take = usize::saturating_sub;
        Self { calls: take(self.calls, other.calls), bytes: take(self.bytes, other.bytes) }
    }

    fn fits(self, limit: Self) -> bool {
        self.calls <= limit.calls && self.bytes <= limit.bytes
    }

    /// No more than the limit in either.
    fn within(self, limit: Self) -> Self {
        Self { calls: self.calls.min(limit.calls), bytes: self.bytes.min(limit.bytes) }
    }
}

/// Hands out turns. Cheap to clone.
#[derive(Clone)]
pub(super) struct Turns(Arc<Shared>);

struct Shared {
    lanes: Mutex<Lanes>,
    in_all: Amount,
    per_tenant: Amount,
}

#[derive(Default)]
struct Lanes {
    taken: Amount,
    by_tenant: HashMap<Arc<str>, Lane>,
    /// Tenants that have a call waiting and room for it in their share, in turn.
    rotation: VecDeque<Arc<str>>,
}

#[derive(Default)]
struct Lane {
    taken: Amount,
    waiting: VecDeque<Waiting>,
    /// It stands in the rotation.
    queued: bool,
}

struct Waiting {
    amount: Amount,
    grant: oneshot::Sender<Turn>,
}

/// A turn. Dropping it gives it back.
pub(super) struct Turn {
    turns: Turns,
    tenant: Arc<str>,
    amount: Amount,
}

impl Turns {
    /// So much for all tenants together, and so much for each.
    pub(super) fn new(in_all: Amount, per_tenant: Amount) -> Self {
        let per_tenant = per_tenant.within(in_all);
        Self(Arc::new(Shared { lanes: Mutex::default(), in_all, per_tenant }))
    }

    /// Turns of calls that may wait for a store or a server, in a pool of this many instances.
    ///
    /// A call keeps its instance while it waits. So those that may have half of the pool at most, and those of one
    /// tenant a quarter of that: a server that is slow to answer one tenant's plugin holds up that tenant's plugins
    /// alone. What finds no turn waits outside the pool, and that time is not charged to the call.
    pub(super) fn to_wait(instances: u32) -> Self {
        let in_all = instances.div_ceil(2);
        Self::new(Amount::calls(in_all), Amount::calls(in_all.div_ceil(4)))
    }

    /// Waits for a turn. What is asked for beyond a tenant's whole share counts as all of it.
    ///
    /// None when there will not be any more.
    pub(super) async fn take(&self, tenant: &Arc<str>, amount: Amount) -> Option<Turn> {
        let amount = amount.within(self.0.per_tenant);
        let granted = {
            let mut lanes = self.lanes();
            if lanes.is_free(tenant, amount, &self.0) {
                lanes.start(tenant, amount);
                return Some(self.turn(tenant, amount));
            }
            let (grant, granted) = oneshot::channel();
            let lane = lanes.by_tenant.entry(Arc::clone(tenant)).or_default();
            lane.waiting.push_back(Waiting { amount, grant });
            lanes.queue(tenant, self.0.per_tenant);
            granted
        };
        granted.await.ok()
    }

    fn turn(&self, tenant: &Arc<str>, amount: Amount) -> Turn {
        Turn { turns: self.clone(), tenant: Arc::clone(tenant), amount }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    /// Whether a call may begin at once: there is room, and it overtakes nobody.
    fn is_free(&self, tenant: &str, amount: Amount, shared: &Shared) -> bool {
        self.rotation.is_empty()
            && self.taken.plus(amount).fits(shared.in_all)
            && self.by_tenant.get(tenant).is_none_or(|lane| {
                lane.waiting.is_empty() && lane.taken.plus(amount).fits(shared.per_tenant)
            })
    }

    fn start(&mut self, tenant: &Arc<str>, amount: Amount) {
        self.taken = self.taken.plus(amount);
        let lane = self.by_tenant.entry(Arc::clone(tenant)).or_default();
        lane.taken = lane.taken.plus(amount);
    }

    /// Puts a tenant into the rotation if it has something waiting and room for it in its share.
    fn queue(&mut self, tenant: &Arc<str>, per_tenant: Amount) {
        if let Some(lane) = self.by_tenant.get_mut(tenant)
            && !lane.queued
            && let Some(next) = lane.waiting.front()
            && lane.taken.plus(next.amount).fits(per_tenant)
        {
            lane.queued = true;
            self.rotation.push_back(Arc::clone(tenant));
        }
    }

    /// Takes the next call that may begin now out of its queue.
    fn next(&mut self, shared: &Shared) -> Option<(Arc<str>, Waiting)> {
        loop {
            let tenant = Arc::clone(self.rotation.front()?);
            let lane = self.by_tenant.get_mut(&tenant)?;
            // Those that gave up waiting are in nobody's way.
            while lane.waiting.front().is_some_and(|next| next.grant.is_closed()) {
                lane.waiting.pop_front();
            }
            let room = |next: &Waiting| self.taken.plus(next.amount).fits(shared.in_all);
            if lane.waiting.front().is_some_and(|next| !room(next)) {
                return None;
            }
            lane.queued = false;
            self.rotation.pop_front();
            // What is now in front may be larger than what was.
            let fits = |next: &Waiting| lane.taken.plus(next.amount).fits(shared.per_tenant);
            let Some(next) = (match lane.waiting.front() {
                Some(next) if fits(next) => lane.waiting.pop_front(),
                _ => None,
            }) else {
                self.forget(&tenant);
                continue;
            };
            self.start(&tenant, next.amount);
            self.queue(&tenant, shared.per_tenant);
            return Some((tenant, next));
        }
    }

    /// A tenant that has nothing here takes no memory.
    fn forget(&mut self, tenant: &str) {
        let is_idle = |lane: &Lane| lane.taken.calls == 0 && lane.waiting.is_empty();
        if self.by_tenant.get(tenant).is_some_and(is_idle) {
            self.by_tenant.remove(tenant);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut granted = Vec::new();
        let mut lanes = self.turns.lanes();
        lanes.taken = lanes.taken.minus(self.amount);
        if let Some(lane) = lanes.by_tenant.get_mut(&self.tenant) {
            lane.taken = lane.taken.minus(self.amount);
        }
        lanes.queue(&self.tenant, self.turns.0.per_tenant);
        while let Some((tenant, next)) = lanes.next(&self.turns.0) {
            granted.push((next.grant, self.turns.turn(&tenant, next.amount)));
        }
        lanes.forget(&self.tenant);
        drop(lanes);
        for (grant, turn) in granted {
            // One that gave up just now drops its turn, and the next one gets it.
            drop(grant.send(turn));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn turns(in_all: (usize, usize), per_tenant: (usize, usize)) -> Turns {
        let amount = |(calls, bytes)| Amount { calls, bytes };
        Turns::new(amount(in_all), amount(per_tenant))
    }

    type Take = Pin<Box<dyn Future<Output = Option<Turn>>>>;

    fn take(turns: &Turns, tenant: &str, bytes: usize) -> Take {
        let (turns, tenant) = (turns.clone(), tenant.into());
        Box::pin(async move { turns.take(&tenant, Amount::one(bytes)).await })
    }

    fn polled(take: &mut Take) -> Option<Turn> {
        match take.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => turn,
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_tenant_that_waits_leaves_turns_to_others() {
        let turns = Turns::to_wait(16);
        let first = polled(&mut take(&turns, "acme", 0)).unwrap();
        let second = polled(&mut take(&turns, "acme", 0)).unwrap();
        assert!(polled(&mut take(&turns, "acme", 0)).is_none(), "two of eight for a tenant");
        assert!(polled(&mut take(&turns, "globex", 0)).is_some());
        drop(first);
        assert!(polled(&mut take(&turns, "acme", 0)).is_some());
        drop(second);
    }

    #[test]
    fn all_that_may_wait_leave_half_of_the_pool() {
        let turns = Turns::to_wait(4);
        let held: Vec<_> =
            ["a", "b", "c"].iter().filter_map(|name| polled(&mut take(&turns, name, 0))).collect();
        assert_eq!(held.len(), 2);
    }

    #[test]
    fn tenants_without_calls_are_forgotten() {
        let turns = Turns::to_wait(16);
        for n in 0..100 {
            drop(polled(&mut take(&turns, &n.to_string(), 0)).unwrap());
        }
        assert!(turns.lanes().by_tenant.is_empty());
    }

    #[test]
    fn a_tenant_gets_no_more_than_its_share() {
        let turns = turns((4, 100), (2, 100));
        let first = polled(&mut take(&turns, "a", 0)).unwrap();
        let _second = polled(&mut take(&turns, "a", 0)).unwrap();
        let mut third = take(&turns, "a", 0);
        assert!(polled(&mut third).is_none());
        let _other = polled(&mut take(&turns, "b", 0)).unwrap();
        drop(first);
        assert!(polled(&mut third).is_some());
    }

    #[test]
    fn who_waits_gets_a_turn_after_one_of_each_other_tenant() {
        let turns = turns((1, 100), (1, 100));
        let mut running = polled(&mut take(&turns, "a", 0));
        let mut waiting: Vec<_> =
            ["a", "a", "a", "b", "c", "b"].map(|name| (name, take(&turns, name, 0))).into();
        assert!(waiting.iter_mut().all(|(_, take)| polled(take).is_none()));
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(running.take());
            let granted = |(at, waiting): (usize, &mut (&'static str, Take))| {
                polled(&mut waiting.1).map(|turn| (at, turn))
            };
            let (at, turn) = waiting.iter_mut().enumerate().find_map(granted).unwrap();
            order.push(waiting.remove(at).0);
            running = Some(turn);
        }
        // At first only `a` held a turn, and `b` and `c` came before its second one.
        assert_eq!(order, ["b", "c", "a", "b", "a", "a"]);
        drop(running);
        assert!(turns.lanes().by_tenant.is_empty(), "nothing is kept of tenants that are done");
        assert_eq!(turns.lanes().taken, Amount::default());
    }

    #[test]
    fn memory_is_shared_like_calls_and_a_large_call_is_not_overtaken() {
        let turns = turns((10, 100), (10, 60));
        let small = polled(&mut take(&turns, "a", 50)).unwrap();
        let mut over_its_share = take(&turns, "a", 20);
        assert!(polled(&mut over_its_share).is_none());
        let mut large = take(&turns, "b", 60);
        assert!(polled(&mut large).is_none(), "50 of 100 are taken");
        let mut after = take(&turns, "c", 10);
        assert!(polled(&mut after).is_none(), "it would overtake the large one");
        drop(small);
        let large = polled(&mut large).unwrap();
        assert!(polled(&mut after).is_some());
        assert!(polled(&mut over_its_share).is_some());
        drop(large);
    }

    #[test]
    fn more_than_a_whole_share_is_that_share() {
        let turns = turns((10, 100), (10, 60));
        let turn = polled(&mut take(&turns, "a", 1000)).unwrap();
        assert_eq!(turn.amount.bytes, 60);
    }

    #[test]
    fn who_gives_up_waiting_is_skipped() {
        let turns = turns((1, 100), (1, 100));
        let running = polled(&mut take(&turns, "a", 0)).unwrap();
        let mut gone: Vec<_> = (0..100).map(|_| take(&turns, "b", 0)).collect();
        assert!(gone.iter_mut().all(|take| polled(take).is_none()));
        let mut last = take(&turns, "c", 0);
        assert!(polled(&mut last).is_none());
        drop(gone);
        drop(running);
        assert!(polled(&mut last).is_some());
    }

    #[test]
    fn a_turn_that_was_granted_and_not_fetched_is_passed_on() {
        let turns = turns((1, 100), (1, 100));
        let running = polled(&mut take(&turns, "a", 0)).unwrap();
        let mut granted = take(&turns, "b", 0);
        let mut next = take(&turns, "c", 0);
        assert!(polled(&mut granted).is_none() && polled(&mut next).is_none());
        drop(running);
        drop(granted);
        let turn = pin!(next).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(turn, Poll::Ready(Some(_))));
    }
}
