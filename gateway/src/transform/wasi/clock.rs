//! The clocks of one call, and what waits for them.
//!
//! A call that sleeps does not wait: when nothing but a timer is left to wait for, the clock is moved on
//! to where that is due. So a repeated run sees the same times, and a call that sleeps longer than it may run
//! ends at once.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::io::poll;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

/// What each look at the clock adds, in nanoseconds, so that a loop that waits for a time comes to it.
const LOOK: u64 = 1_000;

/// The time of day: that of the event's acceptance, at every look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time(pub(super) Duration);

impl HasData for Time {
    type Data<'a> = Self;
}

impl wall_clock::Host for Time {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let Self(time) = self;
        Ok(wall_clock::Datetime { seconds: time.as_secs(), nanoseconds: time.subsec_nanos() })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: 1_000 })
    }
}

/// A monotonic clock that begins at zero with the call.
#[derive(Debug, Clone)]
pub(super) struct Clock(Arc<Mutex<Hands>>);

#[derive(Debug)]
struct Hands {
    /// Nanoseconds.
    now: u64,
    /// The nanoseconds in `now` that were slept.
    slept: u64,
    /// How many may be.
    may_sleep: u64,
    /// The earliest timer that was found not to be due since the last look for it.
    next: Option<u64>,
    overslept: bool,
}

impl Clock {
    pub(super) fn new(may_sleep: Duration) -> Self {
        let may_sleep = u64::try_from(may_sleep.as_nanos()).unwrap_or(u64::MAX);
        Self(Arc::new(Mutex::new(Hands {
            now: 0,
            slept: 0,
            may_sleep,
            next: None,
            overslept: false,
        })))
    }

    pub(super) fn has_overslept(&self) -> bool {
        self.hands().overslept
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what waits for timers and for what is always ready, without waiting.
    async fn wait<T>(
        &self,
        waiting: impl Future<Output = wasmtime::Result<T>>,
    ) -> wasmtime::Result<T> {
        let mut waiting = pin!(waiting);
        poll_fn(|context| {
            loop {
                self.hands().next = None;
                if let Poll::Ready(done) = waiting.as_mut().poll(context) {
                    return Poll::Ready(done);
                }
                if let Err(error) = self.hands().sleep() {
                    return Poll::Ready(Err(error));
                }
            }
        })
        .await
    }
}

impl Hands {
    /// Moves on to the earliest timer.
    fn sleep(&mut self) -> wasmtime::Result<()> {
        let until = self.next.unwrap_or(u64::MAX);
        self.slept = self.slept.saturating_add(until.saturating_sub(self.now));
        if self.slept > self.may_sleep || self.next.is_none() {
            self.overslept = true;
            wasmtime::bail!("slept longer than it may run");
        }
        self.now = until;
        Ok(())
    }
}

/// The interfaces that read the clock or wait for it.
pub(super) struct Polling<'a> {
    pub(super) table: &'a mut ResourceTable,
    pub(super) clock: &'a Clock,
}

impl HasData for Polling<'static> {
    type Data<'a> = Polling<'a>;
}

impl monotonic_clock::Host for Polling<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        let mut hands = self.clock.hands();
        hands.now = hands.now.saturating_add(LOOK);
        Ok(hands.now)
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(LOOK)
    }

    fn subscribe_instant(&mut self, due: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let timer = self.table.push(Timer { due, clock: self.clock.clone() })?;
        subscribe(self.table, timer)
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let due = self.clock.hands().now.saturating_add(duration);
        self.subscribe_instant(due)
    }
}

impl poll::Host for Polling<'_> {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        self.clock.wait(self.table.poll(pollables)).await
    }
}

impl poll::HostPollable for Polling<'_> {
    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        self.table.ready(pollable).await
    }

    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.clock.wait(self.table.block(pollable)).await
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        poll::HostPollable::drop(self.table, pollable)
    }
}

/// What is ready from a moment on.
struct Timer {
    due: u64,
    clock: Clock,
}

#[async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        poll_fn(|_| {
            let mut hands = self.clock.hands();
            if hands.now >= self.due {
                return Poll::Ready(());
            }
            hands.next = Some(hands.next.map_or(self.due, |next| next.min(self.due)));
            // Nobody has to wake this: `Clock::wait` looks again.
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::monotonic_clock::Host as _;
    use super::poll::{Host as _, HostPollable as _};
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    #[tokio::test]
    async fn the_earliest_timer_moves_the_clock() {
        let mut table = ResourceTable::new();
        let clock = Clock::new(Duration::from_millis(50));
        let mut polling = Polling { table: &mut table, clock: &clock };
        let late = polling.subscribe_duration(30 * MILLISECOND).unwrap();
        let soon = polling.subscribe_duration(20 * MILLISECOND).unwrap();
        let borrowed =
            [&late, &soon].map(|pollable| Resource::<DynPollable>::new_borrow(pollable.rep()));
        assert_eq!(polling.poll(borrowed.into()).await.unwrap(), [1]);
        assert_eq!(clock.hands().now, 20 * MILLISECOND);
        polling.block(late).await.unwrap();
        assert_eq!(clock.hands().now, 30 * MILLISECOND);
        assert!(!clock.has_overslept());
    }

    #[tokio::test]
    async fn sleeps_are_added_up_and_bounded() {
        let mut table = ResourceTable::new();
        let clock = Clock::new(Duration::from_millis(50));
        let mut polling = Polling { table: &mut table, clock: &clock };
        for _ in 0..2 {
            let nap = polling.subscribe_duration(25 * MILLISECOND).unwrap();
            polling.block(nap).await.unwrap();
        }
        let nap = polling.subscribe_duration(1).unwrap();
        assert!(polling.block(nap).await.is_err());
        assert!(clock.has_overslept());
    }

    #[test]
    fn a_loop_that_waits_for_a_time_comes_to_it() {
        let mut table = ResourceTable::new();
        let clock = Clock::new(Duration::from_millis(50));
        let mut polling = Polling { table: &mut table, clock: &clock };
        let until = polling.now().unwrap() + MILLISECOND;
        let looks = (0..2_000).take_while(|_| polling.now().unwrap() < until).count();
        assert!(looks < 2_000);
        assert!(!clock.has_overslept(), "looking is not sleeping");
    }
}
