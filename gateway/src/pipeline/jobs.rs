//! Jobs: replays and cancellations of many deliveries, done in small steps beside the work of the day.
//!
//! All open jobs take turns. After each step as much time is left to others as it took, and a replay waits for
//! the deliveries that it made before it makes more, so that it never stands in the way of what arrives.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Pipeline;
use crate::record::{Begun, Job, JobId, NewJob, Pace, StoreError};
use crate::shutdown::Drain;

/// A step is some milliseconds of the store's time.
const PACE: Pace = Pace { batch: 100, looks: 2_000, pending: 500 };

/// How long to leave jobs alone when each of them waits for what it has made.
const WAIT: Duration = Duration::from_millis(100);

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
        loop {
            match turn(&pipeline).await {
                Ok(Turn::Worked) => {}
                Ok(Turn::Waits) => tokio::time::sleep(WAIT).await,
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
    let stepped = pipeline.0.store.step_job(id, Timestamp::now(), PACE).await?;
    if stepped.due > 0 {
        pipeline.0.alarm.ring();
    }
    // What waits in memory is not begun with. What is under way already may still arrive.
    drop(pipeline.0.ready.take_out(&stepped.in_hand));
    if let Some(Job { matched, done, failed, .. }) = stepped.ended {
        tracing::info!(job = %id, matched, done, failed, "the job is through");
    }
    Ok(!stepped.waits)
}

impl Pipeline {
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
