//! `hookmill plugin bench`: what a call costs, in a fresh sandbox each, as in production.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::figures::{self, table};
use super::input::{Call, CallArgs};
use super::{Problem, print, sandbox};
use crate::cli::terminal::Paint;
use crate::transform;

/// Measure what a call of a plugin costs.
///
/// Runs the plugin on one event again and again, one call after the other, each in a fresh sandbox, checked and
/// bounded as in the gateway. A tenth of the time goes before, to warm up. Exits with 1 if a call
/// fails.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    call: CallArgs,

    /// How long to measure.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,

    /// Print the figures as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// The times of all calls that were measured.
struct Measured {
    /// In ascending order.
    times: Vec<Duration>,
    elapsed: Duration,
    memory_bytes: usize,
}

/// Measures.
pub(super) async fn run(args: Args) -> Result<ExitCode, Problem> {
    let input = args.call.read()?;
    sandbox::with(async |sandbox| {
        let call = input.load(sandbox).await?;
        let measured = measure(&call, Duration::from_secs(args.seconds)).await?;
        print(&match args.json {
            true => measured.json(),
            false => measured.human(Paint::for_stdout()),
        })?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn measure(call: &Call, length: Duration) -> Result<Measured, Problem> {
    let first = transform::trial(&call.event, call.recipient(), call.step()).await;
    first.outcome.map_err(|failure| format!("the plugin fails on this event: {failure}"))?;
    repeat(call, length / 10).await?;
    let (times, elapsed) = repeat(call, length).await?;
    Ok(Measured::new(times, elapsed, first.usage.memory_bytes))
}

/// Calls for this long, at least once.
async fn repeat(call: &Call, length: Duration) -> Result<(Vec<Duration>, Duration), Problem> {
    let began = Instant::now();
    let mut times = Vec::new();
    loop {
        let recipient = call.recipient();
        let call_began = Instant::now();
        let outcome = transform::run(&call.event, recipient, &call.steps).await;
        times.push(call_began.elapsed());
        outcome.map_err(|failed| format!("a call failed: {}", failed.failure))?;
        if began.elapsed() >= length {
            return Ok((times, began.elapsed()));
        }
    }
}

impl Measured {
    fn new(mut times: Vec<Duration>, elapsed: Duration, memory_bytes: usize) -> Self {
        times.sort_unstable();
        Self { times, elapsed, memory_bytes }
    }

    /// The time that this many per cent of the calls kept within.
    fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.times.len() * percent).div_ceil(100).max(1);
        self.times.get(rank - 1).copied().unwrap_or_default()
    }

    fn mean(&self) -> Duration {
        let calls = u32::try_from(self.times.len()).unwrap_or(u32::MAX);
        self.times.iter().sum::<Duration>().checked_div(calls).unwrap_or_default()
    }

    fn per_second(&self) -> u128 {
        self.times.len() as u128 * 1_000_000 / self.elapsed.as_micros().max(1)
    }

    fn human(&self, paint: Paint) -> String {
        let per_second = usize::try_from(self.per_second()).unwrap_or(usize::MAX);
        let title = paint.strong(&format!("{} calls/s", figures::grouped(per_second)));
        let calls = figures::grouped(self.times.len());
        let elapsed = figures::time(self.elapsed);
        let row = |name: &str, value: String| [name.to_owned(), value];
        let rows = [
            row("mean", figures::time(self.mean())),
            row("p50", figures::time(self.percentile(50))),
            row("p90", figures::time(self.percentile(90))),
            row("p99", figures::time(self.percentile(99))),
            row("max", figures::time(self.percentile(100))),
            row("memory", figures::bytes(self.memory_bytes)),
        ];
        format!("{title}, {calls} in {elapsed}, one after the other\n{}", table(&rows))
    }

    fn json(&self) -> String {
        let report = json!({
            "calls": self.times.len(),
            "seconds": self.elapsed.as_secs_f64(),
            "calls_per_second": u64::try_from(self.per_second()).unwrap_or(u64::MAX),
            "mean_us": figures::micros(self.mean()),
            "p50_us": figures::micros(self.percentile(50)),
            "p90_us": figures::micros(self.percentile(90)),
            "p99_us": figures::micros(self.percentile(99)),
            "max_us": figures::micros(self.percentile(100)),
            "memory_bytes": self.memory_bytes,
        });
        format!("{report}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times = (1..=200).rev().map(Duration::from_micros).collect();
        let measured = Measured::new(times, Duration::from_secs(2), 0);
        let micros = |percent| measured.percentile(percent).as_micros();
        assert_eq!([micros(50), micros(90), micros(99), micros(100)], [100, 180, 198, 200]);
        assert_eq!(measured.per_second(), 100);
        assert_eq!(measured.mean(), Duration::from_nanos(100_500));
        let one = Measured::new(vec![Duration::from_micros(7)], Duration::from_micros(7), 0);
        assert_eq!(one.percentile(50), one.percentile(100));
    }
}
