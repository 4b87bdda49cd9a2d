//! The load generator: a producer and a receiver in one process, with a gateway between them.
//!
//! It is meant to cost little beside the gateway: HTTP/1.1 over plain TCP with requests prepared in
//! advance and parsing that knows what to expect. `cargo xtask bench end-to-end` runs it so:
//!
//! 1. It prints `{"receiver":"http://127.0.0.1:PORT"}`, measures its own raw rate, without a gateway,
//!    and prints the result.
//! 2. It reads a line `ADDRESS KEY` from standard input: a gateway that sends `order.*` events to the
//!    receiver. Without one, it ends here.
//! 3. It prints a line of JSON for each measurement through the gateway.
//!
//! With `--steady` it skips what goes as fast as it can: for each gateway that it reads, it measures the latency
//! at each rate. `cargo xtask bench containment` runs it so. With `--neighbours` there are many receivers, some of
//! them bad ones (`neighbours.rs`). With `--receive` it sends nothing: for each line that it reads, it says how many
//! requests have come.

mod board;
mod connection;
mod measure;
mod neighbours;
mod order;
mod receiver;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use board::Board;
use measure::{Load, Measurement, Pace};
use order::Target;

/// What is measured, and how.
struct Options {
    seconds: u64,
    connections: usize,
    bytes: usize,
    rates: Vec<u64>,
    /// Only what goes at these rates.
    steady: bool,
    /// So many good receivers, and bad ones beside them.
    neighbours: Option<usize>,
    /// Nothing is sent.
    receive: bool,
}

/// Events that may be under way in the gateway before the producer pauses: enough to fill its batches,
/// few enough that all stay in its memory.
const MAX_UNDELIVERED: usize = 2_000;

fn main() -> ExitCode {
    let done = options().and_then(|options| {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .and_then(|runtime| runtime.block_on(run(&options)))
            .map_err(|error| error.to_string())
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "hookmill-load: {error}"));
            ExitCode::FAILURE
        }
    }
}

impl Options {
    /// Those of a receiver that nothing is sent to from here.
    fn receiver() -> Self {
        let (seconds, connections, bytes, rates) = (0, 0, 0, Vec::new());
        Self { seconds, connections, bytes, rates, steady: false, neighbours: None, receive: true }
    }
}

/// Reads `SECONDS CONNECTIONS BYTES [RATE…]`; the tool that starts this one has the friendly options.
fn options() -> Result<Options, String> {
    let usage = "usage: hookmill-load [--steady] SECONDS CONNECTIONS BYTES [RATE…]\n       \
                 hookmill-load --neighbours SECONDS CONNECTIONS BYTES RATE RECEIVERS\n       hookmill-load --receive";
    let mut words = std::env::args().skip(1).peekable();
    if words.next_if_eq("--receive").is_some() {
        return Ok(Options::receiver());
    }
    let steady = words.next_if_eq("--steady").is_some();
    let neighbours = !steady && words.next_if_eq("--neighbours").is_some();
    let numbers: Result<Vec<u64>, _> = words.map(|word| word.parse()).collect();
    let numbers = numbers.map_err(|error| format!("{usage}: {error}"))?;
    let [seconds, connections, bytes, rates @ ..] = numbers.as_slice() else {
        return Err(usage.to_owned());
    };
    let size = |number: &u64| usize::try_from(*number).map_err(|error| error.to_string());
    let (rates, neighbours) = match (neighbours, rates) {
        (false, rates) => (rates, None),
        (true, [rate, receivers]) if *rate > 0 && *receivers > 0 => {
            (std::slice::from_ref(rate), Some(size(receivers)?))
        }
        (true, _) => return Err(usage.to_owned()),
    };
    Ok(Options {
        seconds: *seconds,
        connections: size(connections)?,
        bytes: size(bytes)?,
        rates: rates.to_vec(),
        steady,
        neighbours,
        receive: false,
    })
}

impl Options {
    fn measurement(&self, board: Arc<Board>) -> Measurement {
        Measurement {
            board,
            connections: self.connections,
            bytes: self.bytes,
            duration: Duration::from_secs(self.seconds),
        }
    }
}

async fn run(options: &Options) -> io::Result<()> {
    let board = Arc::new(Board::default());
    if let Some(receivers) = options.neighbours {
        return neighbours::run(options, board, receivers).await;
    }
    let receiver = receiver::start(Arc::clone(&board)).await?;
    print(&json!({ "receiver": format!("http://{receiver}") }))?;

    if options.receive {
        return run_receiver(&board);
    }
    let measurement = options.measurement(board);
    if options.steady {
        return run_steady(options, &measurement).await;
    }
    let at_once = Pace::AtOnce { max_undelivered: MAX_UNDELIVERED };
    let raw = Load::of(Target::receiver(receiver), "order.paid", true, at_once);
    print(&measurement.take("raw", &raw).await?)?;

    let Some(gateway) = gateway()? else {
        return Ok(());
    };
    let unwanted = Load::of(gateway.clone(), "unwanted", false, at_once);
    print(&measurement.take("acknowledge", &unwanted).await?)?;
    let through = Load::of(gateway, "order.paid", true, at_once);
    print(&measurement.take("end-to-end", &through).await?)?;
    at_rates(options, &measurement, &through).await
}

/// Says how many requests have come whenever it is asked.
fn run_receiver(board: &Board) -> io::Result<()> {
    let mut line = String::new();
    while io::stdin().read_line(&mut line)? > 0 {
        print(&json!({ "received": board.arrived() + board.repeated() }))?;
    }
    Ok(())
}

/// Measures at each rate, through each gateway that standard input names.
async fn run_steady(options: &Options, measurement: &Measurement) -> io::Result<()> {
    while let Some(gateway) = gateway()? {
        let load = Load::of(gateway, "order.paid", true, Pace::Steady { rate: 1 });
        at_rates(options, measurement, &load).await?;
    }
    Ok(())
}

async fn at_rates(options: &Options, measurement: &Measurement, load: &Load) -> io::Result<()> {
    for rate in &options.rates {
        let steady = Load { pace: Pace::Steady { rate: *rate }, ..load.clone() };
        print(&measurement.take(&format!("steady {rate}/s"), &steady).await?)?;
    }
    Ok(())
}

/// The gateway that standard input names.
fn gateway() -> io::Result<Option<Target>> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(address), Some(key)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    Ok(Some(Target::gateway(address, key)))
}

fn print(line: &serde_json::Value) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
