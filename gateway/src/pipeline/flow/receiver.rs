//! The breaker of a receiver: whether a webhook's requests may go out.
//!
//! A pure state machine, apart from the breaker of the plugins: here nothing is held in the store, deliveries are due and
//! wait.
//!
//! ```text
//! closed --failures in a row--> open --time--> probing --success--> recovering --time--> closed
//!                                 ^--- failure ---'                     |
//!                                 ^---------- failures in a row --------'
//! ```
//!
//! A probe is one delivery. The wait before it doubles with each that fails. What waited goes out at a rate that doubles
//! each second.

use std::time::Duration;

use tokio::time::Instant;

use super::Gate;
use super::bucket::{self, Bucket};
use crate::delivery::DeliveryId;
use crate::snapshot::RateLimit;

/// When receivers are left alone, and how they are tried again.
#[derive(Debug, Clone)]
pub struct Config {
    /// Off: every due delivery is sent.
    pub enabled: bool,
    /// Attempts that have to fail in a row.
    pub failures: u32,
    /// How long to wait before the first probe.
    pub probe: Duration,
    /// The longest wait between probes.
    pub max_probe: Duration,
    /// Deliveries in the first second after a probe that succeeded; the rate doubles each second for ten seconds, and
    /// then it is free.
    pub release_per_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            failures: 20,
            probe: Duration::from_secs(5),
            max_probe: Duration::from_secs(5 * 60),
            release_per_second: 10,
        }
    }
}

impl Config {
    /// The wait after this many failed probes, and the failures before them.
    fn wait(&self, times: u32) -> Duration {
        let factor = 2_u32.saturating_pow(times);
        self.probe.saturating_mul(factor).min(self.max_probe.max(self.probe))
    }
}

/// How long what waited is let go bit by bit.
const RECOVERY: Duration = Duration::from_secs(10);

/// What an outcome has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pipeline) enum Change {
    /// Nothing that others have to know.
    None,
    /// Nothing goes out any more until a probe in this time.
    Opened(Duration),
    /// What waits goes out again.
    Recovers,
}

/// The breaker of one webhook's receiver.
#[derive(Debug, Clone)]
pub(super) enum Breaker {
    /// Everything goes out. So many attempts have failed in a row.
    Closed { failures: u32 },
    /// Nothing goes out until then; so many probes have failed.
    Open { until: Instant, times: u32 },
    /// One delivery is out.
    Probing { delivery: DeliveryId, times: u32 },
    /// What waited goes out, bit by bit.
    Recovering { since: Instant, bucket: Bucket, failures: u32, times: u32 },
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self::Closed { failures: 0 }
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        match self {
            Self::Closed { failures } => *failures == 0,
            Self::Recovering { since, failures, .. } => *failures == 0 && now >= *since + RECOVERY,
            Self::Open { .. } | Self::Probing { .. } => false,
        }
    }

    /// How much may go out now.
    pub(super) fn gate(&self, now: Instant, config: &Config) -> Gate {
        match self {
            Self::Closed { .. } => Gate::Open,
            Self::Open { until, .. } if now < *until => Gate::Shut(Some(*until)),
            Self::Open { .. } => Gate::Narrow(1),
            Self::Probing { .. } => Gate::Shut(None),
            Self::Recovering { since, .. } => match recovery(*since, now, config) {
                Some(rate) => Gate::Narrow(bucket::window(rate)),
                None => Gate::Open,
            },
        }
    }

    /// Whether a delivery may go out now, or the time when the next one may, if it is known.
    pub(super) fn may_start(&self, now: Instant, config: &Config) -> Result<(), Option<Instant>> {
        match self {
            Self::Recovering { since, bucket, .. } => match recovery(*since, now, config) {
                Some(rate) => bucket.wait(rate, now).map_or(Ok(()), |at| Err(Some(at))),
                None => Ok(()),
            },
            _ => match self.gate(now, config) {
                Gate::Shut(until) => Err(until),
                Gate::Open | Gate::Narrow(_) => Ok(()),
            },
        }
    }

    /// A delivery that may go out does.
    pub(super) fn start(&mut self, delivery: DeliveryId, now: Instant, config: &Config) {
        match self {
            Self::Open { times, .. } => *self = Self::Probing { delivery, times: *times },
            Self::Recovering { since, bucket, .. } => {
                if let Some(rate) = recovery(*since, now, config) {
                    bucket.take(rate, now);
                }
            }
            Self::Closed { .. } | Self::Probing { .. } => {}
        }
    }

    /// The receiver took a delivery; it works, even if this was not the probe.
    pub(super) fn succeeded(&mut self, now: Instant) -> Change {
        match self {
            Self::Closed { failures } => *failures = 0,
            Self::Open { times, .. } | Self::Probing { times, .. } => {
                let (bucket, times) = (Bucket::default(), *times);
                *self = Self::Recovering { since: now, bucket, failures: 0, times };
                return Change::Recovers;
            }
            Self::Recovering { since, .. } if now >= *since + RECOVERY => *self = Self::new(),
            Self::Recovering { failures, .. } => *failures = 0,
        }
        Change::None
    }

    /// The receiver failed. What was on its way when it was given up says nothing new.
    pub(super) fn failed(&mut self, of: DeliveryId, now: Instant, config: &Config) -> Change {
        let (failures, times) = match self {
            Self::Closed { failures } => (failures, 0),
            Self::Recovering { since, failures, .. } if now >= *since + RECOVERY => (failures, 0),
            Self::Recovering { failures, times, .. } => (failures, times.saturating_add(1)),
            Self::Probing { delivery, times } if *delivery == of => {
                let times = times.saturating_add(1);
                return self.open(times, now, config);
            }
            Self::Probing { .. } | Self::Open { .. } => return Change::None,
        };
        *failures = failures.saturating_add(1);
        match *failures >= config.failures && config.enabled {
            true => self.open(times, now, config),
            false => Change::None,
        }
    }

    /// A delivery has ended. If it was the probe and nothing was learnt from it, the next one is.
    pub(super) fn ended(&mut self, of: DeliveryId, now: Instant) -> Change {
        match self {
            Self::Probing { delivery, times } if *delivery == of => {
                *self = Self::Open { until: now, times: *times };
                Change::Recovers
            }
            _ => Change::None,
        }
    }

    fn open(&mut self, times: u32, now: Instant, config: &Config) -> Change {
        let wait = config.wait(times);
        *self = Self::Open { until: now + wait, times };
        Change::Opened(wait)
    }
}

/// The rate of a recovery, until it is over.
fn recovery(since: Instant, now: Instant, config: &Config) -> Option<RateLimit> {
    let elapsed = now.saturating_duration_since(since);
    let doublings = u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX);
    (elapsed < RECOVERY).then(|| {
        let per_second = config.release_per_second.saturating_mul(2_u32.saturating_pow(doublings));
        RateLimit { per_second, burst: (per_second / 10).max(1) }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> Config {
        Config { failures: 3, max_probe: Duration::from_secs(30), ..Config::default() }
    }

    fn id() -> DeliveryId {
        DeliveryId::generate()
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new();
        for _ in 0..2 {
            assert_eq!(breaker.failed(id(), now, &config()), Change::None);
        }
        let wait = Duration::from_secs(5);
        assert_eq!(breaker.failed(id(), now, &config()), Change::Opened(wait));
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..10 {
            assert_eq!(breaker.failed(id(), now, &config()), Change::None);
            assert_eq!(breaker.failed(id(), now, &config()), Change::None);
            assert_eq!(breaker.succeeded(now), Change::None);
        }
        assert!(breaker.is_idle(now));
        let breaker = opened(now);
        assert_eq!(breaker.gate(now, &config()), Gate::Shut(Some(now + config().probe)));
        let off = Config { enabled: false, ..config() };
        let mut breaker = Breaker::new();
        for _ in 0..10 {
            assert_eq!(breaker.failed(id(), now, &off), Change::None);
        }
        assert_eq!(breaker.gate(now, &off), Gate::Open);
    }

    #[test]
    fn one_probe_at_a_time_goes_out_and_the_wait_grows_to_its_cap() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for seconds in [5, 10, 20, 30, 30] {
            now += Duration::from_secs(seconds) - Duration::from_millis(1);
            assert!(breaker.may_start(now, &config()).is_err());
            now += Duration::from_millis(1);
            assert_eq!(breaker.gate(now, &config()), Gate::Narrow(1));
            let probe = id();
            assert_eq!(breaker.may_start(now, &config()), Ok(()));
            breaker.start(probe, now, &config());
            assert_eq!(breaker.may_start(now, &config()), Err(None));
            assert_eq!(breaker.failed(id(), now, &config()), Change::None, "a straggler");
            assert!(matches!(breaker.failed(probe, now, &config()), Change::Opened(_)));
            assert_eq!(breaker.ended(probe, now), Change::None);
        }
    }

    #[test]
    fn a_success_lets_what_waited_go_bit_by_bit_and_then_freely() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        now += config().probe;
        let probe = id();
        breaker.start(probe, now, &config());
        assert_eq!(breaker.succeeded(now), Change::Recovers);
        let mut started = 0;
        for _ in 0..1_000 {
            if breaker.may_start(now, &config()).is_ok() {
                breaker.start(id(), now, &config());
                started += 1;
            }
            now += Duration::from_millis(1);
        }
        assert!((9..=12).contains(&started), "{started} in the first second");
        now += RECOVERY;
        assert_eq!(breaker.gate(now, &config()), Gate::Open);
        assert!(breaker.is_idle(now));
    }

    #[test]
    fn a_probe_that_shows_nothing_is_followed_by_another_at_once() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        now += config().probe;
        let probe = id();
        breaker.start(probe, now, &config());
        assert_eq!(breaker.ended(id(), now), Change::None);
        assert_eq!(breaker.ended(probe, now), Change::Recovers);
        assert_eq!(breaker.gate(now, &config()), Gate::Narrow(1));
    }

    proptest! {
        /// Whatever happens: what is out while it is open is one probe, and it always ends up letting things go.
        #[test]
        fn it_neither_floods_nor_sticks(steps in prop::collection::vec((0u64..20_000, any::<bool>()), 1..200)) {
            let config = config();
            let mut now = Instant::now();
            let mut breaker = Breaker::new();
            let mut in_a_row = 0;
            for (pause, fails) in steps {
                now += Duration::from_millis(pause);
                let was_open = matches!(breaker, Breaker::Open { .. });
                if let Err(until) = breaker.may_start(now, &config) {
                    let until = until.expect("only a probe has no time, and none is out");
                    prop_assert!(until > now && until <= now + config.max_probe);
                    now = until;
                    prop_assert_eq!(breaker.may_start(now, &config), Ok(()));
                }
                let delivery = id();
                breaker.start(delivery, now, &config);
                if was_open {
                    prop_assert_eq!(breaker.may_start(now, &config), Err(None));
                }
                let change = match fails {
                    true => breaker.failed(delivery, now, &config),
                    false => breaker.succeeded(now),
                };
                breaker.ended(delivery, now);
                in_a_row = if fails { in_a_row + 1 } else { 0 };
                let is_open = matches!(breaker, Breaker::Open { .. });
                prop_assert_eq!(matches!(change, Change::Opened(_)), is_open);
                prop_assert!(in_a_row < config.failures || is_open);
                let is_probing = matches!(breaker, Breaker::Probing { .. });
                prop_assert!(!is_probing);
            }
        }
    }
}
