//! Failpoints: named moments in the life of an event at which a test lets the process die, as in a power cut.
//!
//! No variable and no setting reaches them, so nobody can make a gateway in service die: they are armed by a
//! call alone, which the tests' own binary makes and the shipped one does not. Until then, each costs one load
//! from memory, and both binaries run the same code.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Signal, getpid, kill_process};

/// A moment at which the process can be made to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A migration is applied, and not committed.
    MigrationApplied,
    /// A producer's request is read whole.
    BodyRead,
    /// Its events are written, and not committed.
    EventsWritten,
    /// They are committed, and nobody knows yet.
    EventsCommitted,
    /// They are accepted, and the producer is not answered.
    EventsAccepted,
    /// Due deliveries are marked as in hand, and are not.
    DeliveriesClaimed,
    /// A delivery's turn begins.
    DeliveryBegun,
    /// A plugin is being called, and has logged something.
    PluginCalled,
    /// The parts of a split are written, and not committed.
    PartsWritten,
    /// A request is about to be sent.
    RequestReady,
    /// The receiver's response is read, and nothing is recorded.
    ResponseRead,
    /// An outcome is written, among others, and not committed.
    OutcomeWritten,
    /// An outcome is recorded, and nobody knows yet.
    OutcomeRecorded,
    /// Held deliveries are marked as in hand, and are not.
    HeldTaken,
    /// A step of a job is done, and not committed.
    JobStepWritten,
    /// It is committed, and nobody knows yet.
    JobStepKept,
    /// A plugin or the configuration has changed, and the change is not in effect.
    ChangeAgreed,
    /// What is past its time is removed, and not committed.
    RemovalWritten,
    /// It is committed, and there is more.
    RemovalCommitted,
    /// A step of a purge is written, and not committed.
    PurgeWritten,
    /// It is committed, and nobody knows yet.
    PurgeCommitted,
}

impl Point {
    /// All of them, in the order of an event's path.
    pub const ALL: [Self; 21] = [
        Self::MigrationApplied,
        Self::BodyRead,
        Self::EventsWritten,
        Self::EventsCommitted,
        Self::EventsAccepted,
        Self::DeliveriesClaimed,
        Self::DeliveryBegun,
        Self::PluginCalled,
        Self::PartsWritten,
        Self::RequestReady,
        Self::ResponseRead,
        Self::OutcomeWritten,
        Self::OutcomeRecorded,
        Self::HeldTaken,
        Self::JobStepWritten,
        Self::JobStepKept,
        Self::ChangeAgreed,
        Self::RemovalWritten,
        Self::RemovalCommitted,
        Self::PurgeWritten,
        Self::PurgeCommitted,
    ];

    /// The point's name, as [`Plan::parse`] takes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MigrationApplied => "migration_applied",
            Self::BodyRead => "body_read",
            Self::EventsWritten => "events_written",
            Self::EventsCommitted => "events_committed",
            Self::EventsAccepted => "events_accepted",
            Self::DeliveriesClaimed => "deliveries_claimed",
            Self::DeliveryBegun => "delivery_begun",
            Self::PluginCalled => "plugin_called",
            Self::PartsWritten => "parts_written",
            Self::RequestReady => "request_ready",
            Self::ResponseRead => "response_read",
            Self::OutcomeWritten => "outcome_written",
            Self::OutcomeRecorded => "outcome_recorded",
            Self::HeldTaken => "held_taken",
            Self::JobStepWritten => "job_step_written",
            Self::JobStepKept => "job_step_kept",
            Self::ChangeAgreed => "change_agreed",
            Self::RemovalWritten => "removal_written",
            Self::RemovalCommitted => "removal_committed",
            Self::PurgeWritten => "purge_written",
            Self::PurgeCommitted => "purge_committed",
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the process is to die: when it comes to a point for the so manieth time.
#[derive(Debug)]
pub struct Plan {
    point: Point,
    /// How often the point is still to be passed.
    left: AtomicU32,
}

static PLAN: OnceLock<Plan> = OnceLock::new();

impl Plan {
    /// To die at the `time`th time, counted from 1.
    #[must_use]
    pub fn new(point: Point, time: u32) -> Self {
        Self { point, left: AtomicU32::new(time) }
    }

    /// Reads a plan written as `POINT@TIME`, such as `events_committed@20`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, time) = text.split_once('@')?;
        let point = Point::ALL.into_iter().find(|point| point.as_str() == name)?;
        Some(Self::new(point, time.parse().ok().filter(|time| *time > 0)?))
    }

    /// Counts a pass of a point; true when the process is to die of it.
    fn is_due(&self, point: Point) -> bool {
        self.point == point && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// Makes the process die by this plan. Only the first plan of a process counts.
pub fn arm(plan: Plan) {
    // An error says that there is a plan already.
    drop(PLAN.set(plan));
}

/// Marks a point.
#[inline]
pub(crate) fn hit(point: Point) {
    if let Some(plan) = PLAN.get()
        && plan.is_due(point)
    {
        // Nothing is flushed, dropped or told to others: that is what it is for.
        if kill_process(getpid(), Signal::KILL).is_err() {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_due_once_at_its_own_point() {
        let plan = Plan::parse("events_committed@2").unwrap();
        let passed = [Point::EventsCommitted, Point::BodyRead, Point::EventsCommitted];
        assert_eq!(passed.map(|point| plan.is_due(point)), [false, false, true]);
        assert!(!plan.is_due(Point::EventsCommitted));
    }

    #[test]
    fn every_point_has_a_name_of_its_own() {
        for point in Point::ALL {
            assert_eq!(Plan::parse(&format!("{point}@1")).unwrap().point, point);
        }
        for wrong in ["events_committed", "events_committed@0", "nowhere@1", "@1"] {
            assert!(Plan::parse(wrong).is_none(), "{wrong}");
        }
    }
}
