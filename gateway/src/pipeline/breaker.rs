//! A breaker: whether the plugins of one webhook may run, and how what was held meanwhile is let go.
//!
//! A pure state machine. It is told what happened and when, and says what follows:
//!
//! ```text
//! closed --failures in a row--> open --time, change or reset--> trial --success--> releasing --empty--> closed
//!                                 ^------------ failure ----------'                    |
//!                                 ^--------------------- failures in a row ------------'
//! ```
//!
//! Until it is closed again, whatever arrives joins what is held, so that the order of acceptance is kept.
//! A delivery that is held at this moment and not on record yet is counted too: a breaker that closed
//! between the two would strand it.

mod config;

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::delivery::{DeliveryId, Failure};
use crate::digest::Digest;
use crate::record::{Hold, Which};

pub use self::config::Config;

/// By which right a delivery runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is new, or its next attempt is due.
    Own,
    /// It was held, and is the one that shows whether the others can follow.
    Trial,
    /// It was held, and is one of those that follow.
    Released,
}

/// A delivery that failed in a plugin.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub(super) turn: Turn,
    pub(super) delivery: DeliveryId,
    /// The plugin, as in [`Hold::cause`].
    pub(super) cause: Arc<str>,
    /// What it ran with.
    pub(super) setup: Digest,
    /// Something else would run by now, so that this says nothing any more.
    pub(super) outdated: bool,
    pub(super) failure: Failure,
}

/// What follows when a delivery failed in a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is tried again by its schedule.
    Retry,
    /// It is held; that is nothing new.
    Hold(Arc<Hold>),
    /// It is held, and so is what follows from now on.
    Trip(Arc<Hold>),
}

/// What comes of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is more to do, now or later.
    Continues,
    /// Nothing is held any more: what it was held for, and how many were released.
    Closed(Arc<Hold>, u64),
}

/// The breaker of one webhook.
#[derive(Debug)]
pub(super) struct Breaker {
    phase: Phase,
    /// Deliveries that are held from now on and not on record yet.
    joining: usize,
    /// How many have been held in all.
    joined: u64,
}

#[derive(Debug)]
enum Phase {
    /// Everything runs. These have failed since the last success.
    Closed { setup: Digest, failed: Vec<DeliveryId> },
    /// Nothing runs until the next trial, which is of a delivery accepted after this one.
    Open { hold: Arc<Hold>, trial_at: Instant, after: Option<DeliveryId> },
    /// One delivery runs.
    Trial { hold: Arc<Hold>, joined_before: u64 },
    /// What was held runs, bit by bit.
    Releasing { hold: Arc<Hold>, failed: Vec<DeliveryId>, release: Release },
}

/// How far a release is.
#[derive(Debug)]
struct Release {
    /// When the next step is due; none while one is under way.
    next: Option<Instant>,
    /// How many have been released.
    released: u64,
    /// How many of those that joined have been made up for.
    made_up: u64,
    /// How many had joined when the step under way began.
    joined_before: u64,
}

impl Breaker {
    /// The breaker of a webhook without failures.
    pub(super) fn new() -> Self {
        Self::at(Phase::Closed { setup: Digest::of(b""), failed: Vec::new() })
    }

    /// The breaker of a webhook whose deliveries were held when the process started. A release that was
    /// under way begins again, with a trial.
    pub(super) fn restored(hold: Hold, releasing: bool, now: Instant, config: &Config) -> Self {
        let trial_at = if releasing { now } else { now + config.probe };
        Self::at(Phase::Open { hold: Arc::new(hold), trial_at, after: None })
    }

    fn at(phase: Phase) -> Self {
        Self { phase, joining: 0, joined: 0 }
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_idle(&self) -> bool {
        matches!(&self.phase, Phase::Closed { failed, .. } if failed.is_empty())
            && self.joining == 0
    }

    /// Why deliveries are held, if they are.
    pub(super) fn hold(&self) -> Option<&Arc<Hold>> {
        match &self.phase {
            Phase::Closed { .. } => None,
            Phase::Open { hold, .. }
            | Phase::Trial { hold, .. }
            | Phase::Releasing { hold, .. } => Some(hold),
        }
    }

    /// Lets a delivery run, or gives the reason to hold it; [`Self::has_joined`] follows then.
    pub(super) fn admit(&mut self, turn: Turn) -> Result<(), Arc<Hold>> {
        let admitted = match (&self.phase, turn) {
            (Phase::Closed { .. }, _)
            | (Phase::Trial { .. }, Turn::Trial)
            | (Phase::Releasing { .. }, Turn::Trial | Turn::Released) => Ok(()),
            (Phase::Open { hold, .. }, _)
            | (Phase::Trial { hold, .. }, Turn::Own | Turn::Released)
            | (Phase::Releasing { hold, .. }, Turn::Own) => Err(Arc::clone(hold)),
        };
        self.joining += usize::from(admitted.is_err());
        admitted
    }

    /// A delivery that is to be held is on record, or will never be.
    pub(super) fn has_joined(&mut self) {
        self.joining = self.joining.saturating_sub(1);
        self.joined += 1;
    }

    /// A delivery went through the plugins. True when that begins a release.
    pub(super) fn passed(&mut self, turn: Turn, now: Instant) -> bool {
        match (&mut self.phase, turn) {
            (Phase::Closed { failed, .. }, _)
            | (Phase::Releasing { failed, .. }, Turn::Trial | Turn::Released) => failed.clear(),
            (Phase::Trial { hold, .. }, Turn::Trial) => {
                let release = Release {
                    next: Some(now),
                    released: 1,
                    made_up: self.joined,
                    joined_before: self.joined,
                };
                let hold = Arc::clone(hold);
                self.phase = Phase::Releasing { hold, failed: Vec::new(), release };
                return true;
            }
            // One that was under way when the breaker tripped, or a late one.
            (Phase::Open { .. } | Phase::Trial { .. } | Phase::Releasing { .. }, _) => {}
        }
        false
    }

    /// A delivery failed in a plugin. When it is held, [`Self::has_joined`] follows.
    pub(super) fn failed(
        &mut self,
        finding: Finding,
        config: &Config,
        now: Instant,
        since: Timestamp,
    ) -> Verdict {
        let verdict = self.judge(finding, config, now, since);
        self.joining += usize::from(verdict != Verdict::Retry);
        verdict
    }

    fn judge(
        &mut self,
        finding: Finding,
        config: &Config,
        now: Instant,
        since: Timestamp,
    ) -> Verdict {
        match (&mut self.phase, finding.turn) {
            (Phase::Closed { .. }, _) if finding.outdated => Verdict::Retry,
            (Phase::Closed { setup, failed }, _) => {
                if *setup != finding.setup {
                    *setup = finding.setup;
                    failed.clear();
                }
                match is_last(failed, finding.delivery, config) {
                    true => Verdict::Trip(self.open(finding, since, now + config.probe, None)),
                    false => Verdict::Retry,
                }
            }
            (Phase::Trial { hold, .. }, Turn::Trial) => {
                let (since, delivery) = (hold.since, finding.delivery);
                // What runs now has not been tried yet.
                let trial_at = if finding.outdated { now } else { now + config.probe };
                let after = Some(delivery).filter(|_| !finding.outdated);
                Verdict::Hold(self.open(finding, since, trial_at, after))
            }
            (Phase::Releasing { hold, failed, .. }, Turn::Trial | Turn::Released)
                if !finding.outdated =>
            {
                let since = hold.since;
                match is_last(failed, finding.delivery, config) {
                    true => Verdict::Trip(self.open(finding, since, now + config.probe, None)),
                    false => Verdict::Retry,
                }
            }
            (
                Phase::Open { hold, .. }
                | Phase::Trial { hold, .. }
                | Phase::Releasing { hold, .. },
                _,
            ) => Verdict::Hold(Arc::clone(hold)),
        }
    }

    fn open(
        &mut self,
        finding: Finding,
        since: Timestamp,
        trial_at: Instant,
        after: Option<DeliveryId>,
    ) -> Arc<Hold> {
        let Finding { cause, setup, failure, .. } = finding;
        let hold = Arc::new(Hold { cause, setup, failure, since });
        self.phase = Phase::Open { hold: Arc::clone(&hold), trial_at, after };
        hold
    }

    /// The trial ended. If it neither passed nor failed, as with an event that can never be transformed,
    /// another one has to show what it did not.
    pub(super) fn tried(&mut self, delivery: DeliveryId, now: Instant, config: &Config) {
        if let Phase::Trial { hold, .. } = &self.phase {
            let hold = Arc::clone(hold);
            let trial_at = now + config.interval();
            self.phase = Phase::Open { hold, trial_at, after: Some(delivery) };
        }
    }

    /// Tries the next held delivery, or the first of all, without waiting any longer. True when it had been
    /// waiting.
    pub(super) fn try_now(&mut self, from_first: bool, now: Instant) -> bool {
        let Phase::Open { trial_at, after, .. } = &mut self.phase else {
            return false;
        };
        *trial_at = now;
        *after = after.filter(|_| !from_first);
        true
    }

    /// Puts the next trial or step off.
    pub(super) fn put_off(&mut self, until: Instant) {
        match &mut self.phase {
            Phase::Trial { hold, .. } => {
                let hold = Arc::clone(hold);
                self.phase = Phase::Open { hold, trial_at: until, after: None };
            }
            Phase::Open { trial_at, .. } => *trial_at = until,
            Phase::Releasing { release, .. } => release.next = Some(until),
            Phase::Closed { .. } => {}
        }
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Open { trial_at, .. } => Some(*trial_at),
            Phase::Releasing { release, .. } => release.next,
            Phase::Closed { .. } | Phase::Trial { .. } => None,
        }
    }

    /// Begins what is due; [`Self::took`] or [`Self::put_off`] follows. `room` is how many deliveries of the
    /// webhook can be taken in hand.
    pub(super) fn step(&mut self, now: Instant, room: usize, config: &Config) -> Option<Which> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        match &mut self.phase {
            Phase::Open { hold, after, .. } => {
                let (hold, after) = (Arc::clone(hold), *after);
                self.phase = Phase::Trial { hold, joined_before: self.joined };
                Some(Which::Trial(after))
            }
            Phase::Releasing { release, .. } => {
                // What joined since is let go beside: what is held shrinks, however much arrives.
                let joined = self.joined - release.made_up;
                let wanted = u64::from(config.batch()) + joined;
                let limit = usize::try_from(wanted).unwrap_or(usize::MAX).min(room);
                if limit == 0 {
                    release.next = Some(now + config.interval());
                    return None;
                }
                release.next = None;
                release.made_up += joined.min(limit as u64);
                release.joined_before = self.joined;
                Some(Which::Release(limit))
            }
            Phase::Closed { .. } | Phase::Trial { .. } => None,
        }
    }

    /// The step that began took so many deliveries in hand.
    pub(super) fn took(
        &mut self,
        which: Which,
        taken: usize,
        now: Instant,
        config: &Config,
    ) -> Progress {
        match (&mut self.phase, which) {
            (Phase::Trial { hold, joined_before }, Which::Trial(_)) if taken == 0 => {
                let hold = Arc::clone(hold);
                if self.joining == 0 && self.joined == *joined_before {
                    return self.close(hold, 0);
                }
                let trial_at = now + config.interval();
                self.phase = Phase::Open { hold, trial_at, after: None };
                Progress::Continues
            }
            (Phase::Releasing { release, hold, .. }, Which::Release(limit)) => {
                release.released += taken as u64;
                let quiet = self.joining == 0 && self.joined == release.joined_before;
                if taken < limit && quiet {
                    let (hold, released) = (Arc::clone(hold), release.released);
                    return self.close(hold, released);
                }
                release.next = Some(now + config.interval());
                Progress::Continues
            }
            // It tripped again meanwhile.
            _ => Progress::Continues,
        }
    }

    fn close(&mut self, hold: Arc<Hold>, released: u64) -> Progress {
        *self = Self::new();
        Progress::Closed(hold, released)
    }
}

/// Remembers a delivery that failed. True when enough have, each of them counted once.
fn is_last(failed: &mut Vec<DeliveryId>, delivery: DeliveryId, config: &Config) -> bool {
    if !failed.contains(&delivery) {
        failed.push(delivery);
    }
    failed.len() >= config.failures
}

#[cfg(test)]
mod tests;
