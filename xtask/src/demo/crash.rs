//! The third act: the gateway is killed with SIGKILL in the middle of a stream, and started again.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::ledger::Ledger;
use super::stage::{ACME, Stage};
use super::stream::Stream;
use crate::report;

/// Events that are acknowledged before the gateway is killed, and again after each time.
const EVENTS: usize = 150;

/// How often it is killed.
const KILLS: usize = 2;

/// How long so many events may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn show(stage: &mut Stage, ledger: &mut Ledger) -> Result<()> {
    let stream = Stream::begin("crash", ACME, stage.api.clone(), stage.interrupt.clone());
    let survived = survive(stage, &stream);
    // The producer's own error tells more than what followed from it.
    let ids = stream.end()?;
    survived?;
    report::line(&format!("{} events were acknowledged in all", ids.len()));
    for id in ids {
        ledger.accepted(ACME, id);
    }
    Ok(())
}

fn survive(stage: &mut Stage, stream: &Stream) -> Result<()> {
    let before = stage.receiver.count();
    for kill in 1..=KILLS {
        wait_for(stage, stream, kill * EVENTS)?;
        let id = stage.gateway.id();
        stage.kill_gateway()?;
        report::line(&format!(
            "kill -9 {id} after {} acknowledged events, {} of them received",
            stream.accepted(),
            stage.receiver.count() - before
        ));
        let began = Instant::now();
        stage.restart_gateway()?;
        report::line(&format!(
            "started again as process {}, ready after {} ms",
            stage.gateway.id(),
            began.elapsed().as_millis()
        ));
    }
    wait_for(stage, stream, (KILLS + 1) * EVENTS)
}

fn wait_for(stage: &mut Stage, stream: &Stream, events: usize) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while stream.accepted() < events {
        stage.check()?;
        if stream.has_failed() || Instant::now() > until {
            bail!("{} events of {events} were acknowledged", stream.accepted());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
