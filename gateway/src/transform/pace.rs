//! The pace: calls that take long run slice by slice and only a few at a time, so that those that
//! take microseconds do not queue for a thread behind them.
//!
//! A call that is over before it has run for two ticks, as nearly all are, meets nothing of this. One that is
//! not needs a turn for each further slice, of which there are half as many as processors; tenants take
//! turns here too. While a tenant has such calls, its fresh ones need a turn as well: many that begin at
//! once would otherwise each get their two ticks for nothing.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::ready;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::turns::{Amount, Turns};

/// How long a call runs before it counts as one that takes long: the first tick that it meets may come
/// at once.
const SHORT: Duration = Duration::from_millis(2);

/// Knows which tenants have calls that take long.
pub(super) struct Pace {
    slices: Turns,
    /// How many such calls there are, so that the usual case, none, costs no lock.
    long: AtomicUsize,
    by_tenant: Mutex<HashMap<Arc<str>, usize>>,
}

impl Pace {
    /// For the processors of this machine.
    pub(super) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let slices = Amount { calls: (processors / 2).max(1), bytes: 0 };
        let slices = Turns::new(slices, slices);
        Self { slices, long: AtomicUsize::new(0), by_tenant: Mutex::default() }
    }

    /// Runs a call of this tenant to its end.
    pub(super) async fn run<F: Future>(&self, tenant: &Arc<str>, call: F) -> F::Output {
        let mut call = pin!(call);
        let mut ran = Duration::ZERO;
        let mut long = None;
        let mut needs_turn = self.has_long(tenant);
        let mut waiting = None;
        std::future::poll_fn(move |context| {
            let turn = match needs_turn {
                false => None,
                true => {
                    let wait = || Box::pin(self.slices.take(tenant, Amount::one(0)));
                    let turn = ready!(waiting.get_or_insert_with(wait).as_mut().poll(context));
                    waiting = None;
                    turn
                }
            };
            let began = Instant::now();
            let polled = call.as_mut().poll(context);
            // Whether it made way to others or waits for something: a slice ends here.
            drop(turn);
            if polled.is_pending() {
                ran += began.elapsed();
                if ran >= SHORT && long.is_none() {
                    long = Some(self.begin_long(tenant));
                    needs_turn = true;
                }
            }
            polled
        })
        .await
    }

    fn has_long(&self, tenant: &Arc<str>) -> bool {
        self.long.load(Ordering::Relaxed) > 0
            && self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner).contains_key(tenant)
    }

    fn begin_long<'a>(&'a self, tenant: &'a Arc<str>) -> Long<'a> {
        let mut by_tenant = self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner);
        *by_tenant.entry(Arc::clone(tenant)).or_default() += 1;
        self.long.fetch_add(1, Ordering::Relaxed);
        Long { pace: self, tenant }
    }
}

/// A call that takes long.
struct Long<'a> {
    pace: &'a Pace,
    tenant: &'a Arc<str>,
}

impl Drop for Long<'_> {
    fn drop(&mut self) {
        let mut by_tenant = self.pace.by_tenant.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_tenant.get_mut(self.tenant) {
            *count -= 1;
            if *count == 0 {
                by_tenant.remove(self.tenant);
            }
        }
        self.pace.long.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use super::*;

    fn spin(duration: Duration) {
        let began = Instant::now();
        while began.elapsed() < duration {
            std::hint::spin_loop();
        }
    }

    /// A call of some slices of a millisecond and a half each; counts in `running` while it runs.
    async fn call(slices: u32, running: &AtomicUsize, most: &AtomicUsize) {
        for slice in 0..slices {
            // By the third it is known to take long.
            if slice >= 2 {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            }
            spin(Duration::from_micros(1_500));
            if slice >= 2 {
                running.fetch_sub(1, Ordering::SeqCst);
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 8)]
    async fn few_long_calls_run_at_once() {
        let pace = Arc::new(Pace::new());
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let calls: Vec<_> = (0..16)
            .map(|n| {
                let (pace, running, most) = (pace.clone(), running.clone(), most.clone());
                let tenant = format!("tenant-{}", n % 3).into();
                tokio::spawn(async move { pace.run(&tenant, call(8, &running, &most)).await })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        let processors = thread::available_parallelism().unwrap().get();
        assert!((1..=(processors / 2).max(1)).contains(&most.load(Ordering::SeqCst)));
        assert_eq!(pace.long.load(Ordering::SeqCst), 0);
        assert!(pace.by_tenant.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_short_call_needs_no_turn_unless_its_tenant_has_long_ones() {
        let pace = Pace::new();
        let (busy, other): (Arc<str>, Arc<str>) = ("busy".into(), "other".into());
        let mut turns = Vec::new();
        let long = pace.begin_long(&busy);
        while let Some(turn) = pace.slices.take(&busy, Amount::one(0)).await {
            turns.push(turn);
            if turns.len() == (thread::available_parallelism().unwrap().get() / 2).max(1) {
                break;
            }
        }
        let mut held_up = pin!(pace.run(&busy, async { 1 }));
        let mut waits = |context: &mut Context<'_>| held_up.as_mut().poll(context).is_pending();
        assert!(std::future::poll_fn(move |context| Poll::Ready(waits(context))).await);
        assert_eq!(pace.run(&other, async { 2 }).await, 2);
        turns.clear();
        assert_eq!(held_up.await, 1);
        drop(long);
        assert_eq!(pace.run(&busy, async { 3 }).await, 3);
    }
}
