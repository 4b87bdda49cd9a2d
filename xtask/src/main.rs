//! The project's own tasks, in Rust so that they run wherever the project builds: `cargo xtask`.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tasks are plain threads: nothing here pauses a clock or blocks a runtime's worker"
)]

mod arguments;
mod bench;
mod check;
mod command;
mod demo;
mod languages;
mod process;
mod report;
mod soak;
mod test;
mod wasm;
mod workspace;

// The command line lays JSON out in the same way. To depend on the whole gateway for that would make
// every task wait for its build.
#[path = "../../gateway/src/cli/layout.rs"]
mod layout;

use std::process::ExitCode;

use arguments::Arguments;

const HELP: &str = "\
The project's tasks.

Usage: cargo xtask <TASK>

Tasks:
  check               formatting, lints (native and wasm32) and documentation
  test [ARGS]         build every plugin, then run every test; ARGS go to `cargo test --workspace`
  test --all-languages
                      build the example plugins in C, Go, JavaScript and Python with their own tools,
                      and run them through a gateway; what is missing is installed or named
    --only LANGUAGES    some of them, with commas between
    --release           measure an optimised gateway
    --json              print the figures as JSON, in the last line
  wasm                build every plugin and every guest of the tests
  demo [--once]       the whole product with real processes: events in, plugins between, signed
                      requests out; a plugin replaced while events flow; the gateway killed and
                      restarted. With --once it ends by itself, and with 0 only if nothing was lost
  soak                a gateway under load while it is killed, frozen, reconfigured and failed by plugins and
                      receivers at random; ends with 0 only if no promise was broken
    --minutes N         how long (20)
    --kills N           so many kills in a row instead, and how soon what was owed was out after each
    --seed N            the same faults again, as far as timing allows
    --release           with optimised builds
  bench plugin        the cost of one plugin call, beside the same natively
    --peers             beside another plugin runtime too, which is built first
    --json              print the figures as JSON, and nothing else, on standard output
  bench end-to-end    throughput and latency through the whole gateway
    --seconds N         how long each measurement runs (10)
    --connections N     connections of the load generator (128)
    --bytes N           size of an event's data (1024)
    --rate N            measure latency at this rate alone, in events a second (1000 and 5000)
    --no-plugin         a webhook without a plugin
    --json              print the figures as JSON, in the last line
  bench containment   a tenant's latency alone, and beside each kind of hostile plugin
    --seconds N         how long each measurement runs (10)
    --rate N            events a second of the healthy tenant (500)
    --hostile-rate N    events a second of the hostile one (200)
    --debug             with builds that are not optimised
    --json              print the figures as JSON, in the last line
  bench neighbours    the latency of good receivers alone, and beside dead, slow and failing ones
    --seconds N         how long each measurement runs (10)
    --rounds N          how often each kind is measured, in turn (5)
    --rate N            events a second to the good receivers together (1000)
    --receivers N       how many good ones there are (100)
    --debug             with builds that are not optimised
    --json              print the figures as JSON, in the last line
  bench backlog       the start, the memory and the cost of a delivery with few and with very many that wait
    --few N             how many deliveries wait in the first run (10000)
    --many N            and in the second (1000000)
    --debug             with builds that are not optimised
    --json              print the figures as JSON, in the last line
  bench plugins       the start with very many plugins, and the memory of an idle one
    --count N           how many (1000)
  bench reload        how soon a changed plugin is at work, compiled first and from the cache
    --rounds N          how often each (20)
    --dev               measure the development build, to try the benchmark itself; for both
    --json              as above; for both
";

fn main() -> ExitCode {
    let mut arguments = Arguments::of_process();
    let task = arguments.positional();
    let done = match task.as_deref() {
        None | Some("help" | "-h" | "--help") => {
            report::text(HELP);
            return ExitCode::SUCCESS;
        }
        Some("check") => arguments.end().and_then(|()| check::run()),
        Some("test") if arguments.flag("--all-languages") => languages::run(arguments),
        Some("test") => test::run(&arguments.rest()),
        Some("wasm") => arguments.end().and_then(|()| wasm::run()),
        Some("demo") => demo::run(arguments),
        Some("soak") => soak::run(arguments),
        Some("bench") => bench::run(arguments),
        Some(other) => Err(anyhow::anyhow!("there is no task {other:?}; `cargo xtask` lists them")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&error);
            ExitCode::FAILURE
        }
    }
}
