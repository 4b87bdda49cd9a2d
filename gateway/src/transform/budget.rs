//! The time that a call may run.
//!
//! What counts is the processor's time of the thread that runs the call, and the time that the call waits in one of
//! the gateway's functions. Waiting for its turn does not count, and neither does a machine that is busy
//! with something else: a guest is not to blame for that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;
use wasmtime::UpdateDeadline;

/// The most that a call's first slice counts for, which is two ticks. Most calls end before their first tick, so
/// the clock that tells the processor's time, a system call, is only asked from then on. It is as long as a brief
/// call may take, too.
const FIRST_SLICE: Duration = Duration::from_millis(2);

/// What is left of the time that a call may run.
pub(super) struct Budget {
    left: Duration,
    slice: Slice,
    pub(super) exhausted: bool,
    pub(super) stand: Stand,
}

/// What can become of a call when it is time for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// It goes on only while it is brief: then it is stopped, to be begun anew on a fibre.
    Brief,
    /// It took longer than that.
    Long,
    /// It is on a fibre, so it can be interrupted for a while.
    Fibre,
}

/// The time since the budget was last charged.
enum Slice {
    /// Since the call began.
    First(Instant),
    /// Since the call went on: the processor's time of its thread by then.
    Later(Arc<Mutex<Duration>>),
}

impl Slice {
    fn length(&self) -> Duration {
        match self {
            Self::First(began) => began.elapsed().min(FIRST_SLICE),
            Self::Later(began) => {
                let began = *began.lock().unwrap_or_else(PoisonError::into_inner);
                processor_time().saturating_sub(began)
            }
        }
    }

    /// A slice begins on the thread that this is called from.
    fn begin(&mut self) {
        match self {
            Self::First(_) => *self = Self::Later(Arc::new(Mutex::new(processor_time()))),
            Self::Later(began) => now(began),
        }
    }
}

fn now(began: &Mutex<Duration>) {
    *began.lock().unwrap_or_else(PoisonError::into_inner) = processor_time();
}

/// The time that the processor has spent on this thread.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

impl Budget {
    pub(super) fn new(time: Duration) -> Self {
        let slice = Slice::First(Instant::now());
        Self { left: time, slice, exhausted: false, stand: Stand::Brief }
    }

    /// Whether it took longer than a brief call may.
    pub(super) fn took_long(&self) -> bool {
        self.stand == Stand::Long || matches!(self.slice, Slice::Later(_))
    }

    /// The first slice begins: what came before was waiting for it.
    pub(super) fn begin(&mut self) {
        self.slice = Slice::First(Instant::now());
    }

    /// The time used so far, of this much in the beginning.
    pub(super) fn used(&self, limit: Duration) -> Duration {
        limit.saturating_sub(self.left) + self.slice.length()
    }

    /// The call is about to wait in one of the gateway's functions: how long it may.
    pub(super) fn pause(&mut self) -> Duration {
        self.left = self.left.saturating_sub(self.slice.length());
        self.slice.begin();
        self.left
    }

    /// The call goes on after it has waited for so long.
    pub(super) fn resume(&mut self, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
        self.slice.begin();
    }

    /// Accounts for the slice that ends now, and lets others run if there is time left.
    pub(super) fn tick(&mut self) -> UpdateDeadline {
        let length = self.slice.length();
        match self.left.checked_sub(length) {
            None => {
                self.exhausted = true;
                UpdateDeadline::Interrupt
            }
            Some(_) if self.stand != Stand::Fibre => {
                if length < FIRST_SLICE {
                    return UpdateDeadline::Continue(1);
                }
                self.stand = Stand::Long;
                UpdateDeadline::Interrupt
            }
            Some(left) => {
                self.left = left;
                self.slice.begin();
                match &self.slice {
                    Slice::Later(began) => {
                        let began = Arc::clone(began);
                        UpdateDeadline::YieldCustom(
                            1,
                            Box::pin(async move {
                                tokio::task::yield_now().await;
                                // Perhaps on another thread.
                                now(&began);
                            }),
                        )
                    }
                    Slice::First(_) => UpdateDeadline::Continue(1),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps the processor busy for this long.
    fn spin(time: Duration) {
        let began = processor_time();
        while processor_time() - began < time {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn the_processors_time_is_charged_and_that_of_others_is_not() {
        let mut budget = Budget::new(Duration::from_millis(20));
        budget.stand = Stand::Fibre;
        let goes_on =
            |budget: &mut Budget| matches!(budget.tick(), UpdateDeadline::YieldCustom(..));
        assert!(goes_on(&mut budget));
        std::thread::park_timeout(Duration::from_millis(30));
        assert!(goes_on(&mut budget));
        spin(Duration::from_millis(5));
        assert!(goes_on(&mut budget));
        assert!(budget.used(Duration::from_millis(20)) >= Duration::from_millis(5));
        spin(Duration::from_millis(20));
        assert!(matches!(budget.tick(), UpdateDeadline::Interrupt));
        assert!(budget.exhausted);
    }

    #[test]
    fn without_a_fibre_a_call_is_stopped_when_it_is_brief_no_longer() {
        let mut budget = Budget::new(Duration::from_millis(20));
        assert!(matches!(budget.tick(), UpdateDeadline::Continue(1)));
        assert!(!budget.took_long());
        spin(FIRST_SLICE);
        assert!(matches!(budget.tick(), UpdateDeadline::Interrupt));
        assert!(budget.took_long() && !budget.exhausted);
    }

    #[test]
    fn waiting_in_the_gateways_functions_is_charged() {
        let mut budget = Budget::new(Duration::from_secs(1));
        let left = budget.pause();
        assert!(left > Duration::from_millis(900));
        budget.resume(Duration::from_millis(700));
        let left = budget.pause();
        assert!(left < Duration::from_millis(301), "{left:?}");
        budget.resume(Duration::from_millis(700));
        assert_eq!(budget.pause(), Duration::ZERO);
    }
}
