//! `cargo xtask demo`: the whole product at work, with real processes and real sockets.
//!
//! A receiver and a gateway run as children. Sample events show what plugins do; then a plugin is
//! replaced while events flow; then the gateway is killed in the middle of a stream and started again.
//! At the end every accepted event is accounted for: delivered and verified, or dropped by a plugin.

mod api;
mod columns;
mod crash;
mod interrupt;
mod ledger;
mod receiver;
mod samples;
mod stage;
mod stream;
mod swap;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use self::interrupt::Interrupt;
use self::ledger::{Ledger, Totals};
use self::stage::Stage;
use crate::arguments::Arguments;
use crate::{command, report, wasm};

/// Runs the demo.
pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let once = arguments.flag("--once");
    arguments.end()?;
    let started = Instant::now();
    wasm::build()?;
    command::step("build the gateway", &mut command::cargo(["build", "--package", "hookmill"]))?;

    let interrupt = Interrupt::watch()?;
    let mut stage = Stage::set_up(interrupt)?;
    let outcome = act(&mut stage, once);
    if outcome.is_err() && !stage.interrupt.is_set() {
        report::line(&format!("\n{}", stage.last_words()));
    }
    let totals = outcome?;
    report::line(&format!("\n{}", totals.verdict()));
    report::line(&format!("the demo took {}", report::seconds(started.elapsed())));
    if totals.is_flawless() { Ok(()) } else { bail!("not every event can be accounted for") }
}

/// The three acts and the reckoning.
fn act(stage: &mut Stage, once: bool) -> Result<Totals> {
    let mut rows = Vec::new();
    let mut play = |stage: &mut Stage, title, act: fn(&mut Stage, &mut Ledger) -> Result<()>| {
        report::heading(title);
        let mut ledger = Ledger::begin(&stage.receiver);
        act(stage, &mut ledger)?;
        rows.push((title, ledger.close(stage)?));
        anyhow::Ok(())
    };
    play(stage, "events in, plugins between, signed requests out", samples::show)?;
    play(stage, "a plugin is replaced while events flow", swap::show)?;
    play(stage, "the gateway is killed in the middle of a stream", crash::show)?;

    report::heading("every event accounted for");
    let totals = ledger::print(&rows);
    if !once {
        stay(stage)?;
    }
    Ok(totals)
}

/// Leaves everything running, and says how to go on by hand.
fn stay(stage: &mut Stage) -> Result<()> {
    report::heading("your turn");
    report::line("The gateway and the receiver go on. Send an event from another terminal:\n");
    report::line(&format!("  {}\n", stage.send_by_hand()));
    report::line(&format!(
        "Edit {} or replace a plugin beside it, and send again. Ctrl-C ends the demo.\n",
        stage.config_file().display()
    ));
    let mut seen = stage.receiver.count();
    while !stage.interrupt.is_set() {
        std::thread::sleep(Duration::from_millis(100));
        stage.check_processes()?;
        for arrival in stage.receiver.since(seen) {
            report::line(&arrival.describe());
            seen += 1;
        }
    }
    Ok(())
}
