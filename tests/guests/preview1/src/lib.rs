//! A guest that calls the functions of the first WASI, as the runtimes of other languages do.
//!
//! The payload says what to do: `{"do": "print"}`.

mod wasi;

use hookmill_plugin::{Event, Result, Verdict, log, transform};
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize)]
struct Order {
    r#do: Deed,
    /// Milliseconds to sleep.
    #[serde(default)]
    milliseconds: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Deed {
    /// Prints to both streams around a message to the log.
    Print,
    /// Prints 200 lines.
    PrintFlood,
    /// Sleeps, and says what the clocks show.
    Sleep,
    /// Says what is random, and what stands around it.
    Look,
    /// Complains on standard error and exits with 3.
    Exit,
}

#[derive(Debug, Serialize)]
struct Seen {
    random: Vec<u8>,
    /// Nanoseconds since 1970.
    time: u64,
    /// Nanoseconds that sleeping took.
    slept: u64,
    arguments: u32,
    variables: u32,
    /// The error of asking for the first preopened folder.
    folder: u32,
}

/// Does what it is told, and forwards what it has seen.
#[transform]
fn preview1(event: Event<Order>) -> Result<Verdict> {
    let before = wasi::monotonic();
    match event.payload.r#do {
        Deed::Print => {
            wasi::print(wasi::STDOUT, "one li");
            wasi::print(wasi::STDERR, "a warning\n");
            wasi::print(wasi::STDOUT, "ne\n");
            log::info("a message");
            wasi::print(wasi::STDOUT, "without an end");
        }
        Deed::PrintFlood => (0..200).for_each(|_| wasi::print(wasi::STDOUT, "more\n")),
        Deed::Sleep => wasi::sleep(event.payload.milliseconds.saturating_mul(1_000_000)),
        Deed::Look => {}
        Deed::Exit => {
            wasi::print(wasi::STDERR, "Traceback:\n  out of tea\n");
            wasi::exit(3)
        }
    }
    let (arguments, variables) = (wasi::arguments(), wasi::variables());
    Verdict::forward(&Seen {
        random: wasi::random().to_vec(),
        time: wasi::time(),
        slept: wasi::monotonic().saturating_sub(before),
        arguments,
        variables,
        folder: wasi::folder(),
    })
}
