//! The soak: a gateway under load while things go wrong at random, and a reckoning at the end.
//!
//! `cargo xtask soak` runs it, with friendlier options:
//!
//! - `hookmill-soak minutes N SEED`: every kind of fault, for so long;
//! - `hookmill-soak kills N SEED`: so many kills in a row, and how long it takes after each until everything that
//!   was owed has arrived.
//!
//! The gateway is the `hookmill-under-test` beside this binary. The exit code is 0 when no promise was broken.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool of the tests: it prints, and ends when it cannot go on"
)]

mod fault;
mod stage;

use std::process::ExitCode;
use std::time::Duration;

use hookmill_tests::Dice;
use tokio::time::Instant;

use fault::Fault;
use stage::Stage;

const USAGE: &str = "usage: hookmill-soak minutes|kills N SEED";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [mode, count, seed] = words.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let (Ok(count), Ok(seed)) = (count.parse::<u64>(), seed.parse::<u64>()) else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("seed {seed}");
    let dice = Dice::of(seed);
    let kept = runtime.block_on(async {
        match mode.as_str() {
            "minutes" => Some(minutes(count, dice).await),
            "kills" => Some(kills(count, dice).await),
            _ => None,
        }
    });
    match kept {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => {
            eprintln!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}

/// Faults of every kind, one after the other, with pauses between them.
async fn minutes(minutes: u64, dice: Dice) -> bool {
    // Everything is remembered until the end.
    let mut stage = Stage::set_up(dice, Duration::from_millis(100)).await;
    let began = Instant::now();
    let mut counts = Fault::ALL.map(|fault| (fault, 0_usize));
    while began.elapsed() < Duration::from_secs(60 * minutes) {
        stage.pause(500..3_000).await;
        let at = usize::try_from(stage.dice.below(counts.len() as u64)).unwrap();
        if let Some((fault, count)) = counts.get_mut(at) {
            println!("{:>6} s  {fault}", began.elapsed().as_secs());
            stage.suffer(*fault).await;
            *count += 1;
        }
    }
    let faults: Vec<_> = counts.iter().map(|(fault, count)| format!("{count} x {fault}")).collect();
    println!("faults: {}", faults.join(", "));
    stage.reckon().await
}

/// Kills alone, each at a moment of its own; prints how soon what was owed was out.
async fn kills(kills: u64, dice: Dice) -> bool {
    let mut stage = Stage::set_up(dice, Duration::from_millis(15)).await;
    // So that much is under way at any moment.
    stage.slow_down(Duration::from_millis(30));
    let mut times = Vec::new();
    for kill in 1..=kills {
        stage.pause(50..600).await;
        let (owed, took) = stage.kill_and_recover().await;
        println!(
            "kill {kill}: {owed} messages owed, all out {} ms after the start",
            took.as_millis()
        );
        times.push(took);
    }
    times.sort();
    let at = |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100);
    let shown = [50, 90, 100].map(|percent| at(percent).map_or(0, Duration::as_millis));
    println!(
        "from a start until what was owed is out: p50 {}, p90 {}, max {} ms",
        shown[0], shown[1], shown[2]
    );
    stage.reckon().await
}
