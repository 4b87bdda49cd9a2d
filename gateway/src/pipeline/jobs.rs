//! Jobs: replays and cancellations of many deliveries, done in small steps beside the work of the day.
//!
//! All open jobs take turns. After each step as much time is left to others as it took, and a replay waits for
//! the deliveries that it made before it makes more, so that it never stands in the way of what arrives.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Inner, Pipeline};
use crate::failpoint::{self, Point};
use crate::record::{
    Action, Begun, Filter, Job, JobId, NewJob, Pace, Selection, StoreError, Waiting,
};
use crate::shutdown::Drain;

/// A step is some milliseconds of the store's time.
const PACE: Pace = Pace { batch: 100, looks: 2_000, pending: 500 };

/// How long to leave jobs alone when each of them waits for what it has made: longer each time, up to the second.
const WAIT: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(5);

/// How long to leave a store alone that failed.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// What came of a turn.
enum Turn {
    /// There was something to do.
    Worked,
    /// Every open job waits.
    Waits,
    /// No job is open.
    Idle,
}

/// Does jobs until the drain begins; what is left of them goes on after the next start.
pub(super) async fn run(pipeline: Pipeline, drain: Drain) {
    let working = async {
        let mut wait = WAIT;
        loop {
            let turn = turn(&pipeline).await;
            wait = match turn {
                Ok(Turn::Waits) => (wait * 2).min(MAX_WAIT),
                _ => WAIT,
            };
            match turn {
                Ok(Turn::Worked) => {}
                Ok(Turn::Waits) => {
                    // A new job need not wait for the others.
                    drop(tokio::time::timeout(wait, pipeline.0.new_job.notified()).await);
                }
                Ok(Turn::Idle) => pipeline.0.new_job.notified().await,
                Err(error) => {
                    tracing::error!(%error, "jobs cannot be read; trying again");
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        }
    };
    tokio::select! {
        () = working => {}
        () = drain.begun() => {}
    }
}

/// One step of each open job.
async fn turn(pipeline: &Pipeline) -> Result<Turn, StoreError> {
    let open = pipeline.0.store.open_jobs().await?;
    let mut turn = Turn::Idle;
    for id in open {
        let began = Instant::now();
        match step(pipeline, id).await {
            Ok(true) => turn = Turn::Worked,
            Ok(false) => {}
            // The others are not kept from going on by one that cannot.
            Err(error) => {
                tracing::error!(%error, job = %id, "a step of a job cannot be done; trying again");
                tokio::time::sleep(AFTER_ERROR).await;
            }
        }
        if matches!(turn, Turn::Idle) {
            turn = Turn::Waits;
        }
        tokio::time::sleep(began.elapsed()).await;
    }
    Ok(turn)
}

/// One step of a job; false when it waits.
async fn step(pipeline: &Pipeline, id: JobId) -> Result<bool, StoreError> {
    let Inner { store, backlog, alarm, ready, .. } = &*pipeline.0;
    let stepped = match store.step_job(id, Timestamp::now(), PACE).await {
        Ok(stepped) => stepped,
        Err(error) => {
            // It may have been done all the same.
            for Waiting { webhook, next_due } in store.waiting().await? {
                alarm.due(&webhook, next_due);
            }
            return Err(error);
        }
    };
    failpoint::hit(Point::JobStepKept);
    backlog.more(&stepped.tenant, stepped.made);
    backlog.less(&stepped.tenant, stepped.cancelled);
    let now = Timestamp::now();
    stepped.due.iter().for_each(|webhook| alarm.due(webhook, now));
    // What waits in memory is not begun with. What is under way already may still arrive.
    pipeline.give_back(ready.take_out(&stepped.in_hand), Vec::new());
    if let Some(Job { action, selection, matched, done, failed, .. }) = stepped.ended {
        tracing::info!(job = %id, matched, done, failed, "the job is through");
        if let (Action::Discard, Selection::Filter(Filter { webhook: Some(webhook), .. })) =
            (action, selection)
        {
            pipeline.begin_afresh(&webhook);
        }
    }
    Ok(!stepped.waits)
}

impl Pipeline {
    /// How long idempotency keys are remembered.
    #[must_use]
    pub fn idempotency(&self) -> Duration {
        self.0.idempotency
    }

    /// Keeps a job, which then begins.
    ///
    /// # Errors
    /// When the store cannot keep it.
    pub async fn begin_job(&self, job: NewJob) -> Result<Begun, StoreError> {
        let begun = self.0.store.begin_job(job).await?;
        self.0.new_job.notify_one();
        Ok(begun)
    }
}
