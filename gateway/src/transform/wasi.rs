//! An empty WASI, for plugins in languages whose runtimes cannot do without: no files, no environment, no
//! arguments, no network.
//!
//! Nothing that a plugin learns here varies when its run is repeated: the time is that of the event's
//! acceptance, a `clock` of its own stands still while it sleeps and is moved on instead, and what is
//! `random` follows from the delivery. What is printed goes to the plugin's log. The host does nothing
//! for a plugin that blocks, so there is nothing that could wait for ever.

mod absent;
mod clock;
mod print;
mod random;

use std::time::Duration;

use wasmtime::component::{Component, HasData, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, io, random as wasi_random};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use self::clock::{Clock, Polling, Time};
use self::print::Printed;
use self::random::Random;
use super::Limits;
use super::contract::hookmill::plugin::log::Level;
use super::state::State;
use crate::digest::Digest;

/// Handles that a call can hold at once: streams, timers and the like.
const MAX_HANDLES: usize = 1_000;

/// How much of standard error goes on record with a trap, in bytes.
const MAX_COMPLAINTS: usize = 500;

/// The part of an interface's name that tells WASI's second release, whose later versions only add.
const RELEASE: &str = "@0.2.";

/// What a call may know of time and chance: the same when it is repeated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Occasion {
    /// When the event was accepted, since 1970.
    pub(super) accepted_at: Duration,
    /// What everything random follows from.
    pub(super) seed: Digest,
}

impl Occasion {
    /// That of `describe`, which no event causes.
    pub(super) fn of_describing() -> Self {
        Self { accepted_at: Duration::ZERO, seed: Digest::of(b"describe") }
    }
}

/// Whether this is an interface of WASI. Those that are not linked end a call that uses them.
pub(super) fn is_known(import: &str) -> bool {
    import.starts_with("wasi:") && import.contains(RELEASE)
}

/// Whether a component imports anything of WASI.
pub(super) fn is_wanted_by(component: &Component) -> bool {
    component.component_type().imports(component.engine()).any(|(name, _)| is_known(name))
}

/// Links what plugins have of WASI; of everything else, each function traps with its name.
pub(super) fn add_to_linker(
    linker: &mut Linker<State>,
    component: &Component,
) -> wasmtime::Result<()> {
    io::error::add_to_linker::<_, Handles>(linker, handles)?;
    io::streams::add_to_linker::<_, Handles>(linker, handles)?;
    io::poll::add_to_linker::<_, Polling<'static>>(linker, polling)?;
    clocks::monotonic_clock::add_to_linker::<_, Polling<'static>>(linker, polling)?;
    clocks::wall_clock::add_to_linker::<_, Time>(linker, |state| state.wasi().time)?;
    wasi_random::random::add_to_linker::<_, Random>(linker, |state| &mut state.wasi().random)?;
    wasi_random::insecure::add_to_linker::<_, Random>(linker, |state| &mut state.wasi().random)?;
    wasi_random::insecure_seed::add_to_linker::<_, Random>(linker, |state| {
        &mut state.wasi().random
    })?;
    cli::environment::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::exit::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::stdin::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::stdout::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::stderr::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    // Runtimes import these whether they use them or not. Without a preopened folder there is no
    // descriptor, and without a descriptor no function to call.
    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(linker, State::filesystem)?;
    filesystem::types::add_to_linker::<_, WasiFilesystem>(linker, State::filesystem)?;
    absent::add_to_linker(linker, component)
}

/// A call's context.
pub(super) struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
    time: Time,
    clock: Clock,
    random: Random,
    printed: Printed,
    /// What went to standard error, in a line.
    complaints: String,
}

impl Wasi {
    pub(super) fn new(occasion: Occasion, limits: &Limits) -> Self {
        let printed = Printed::new(limits);
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        // All but the streams is empty as it is built; clocks and randomness are not those of the context.
        let ctx = WasiCtx::builder()
            .stdout(printed.stream(Level::Info))
            .stderr(printed.stream(Level::Warn))
            .build();
        Self {
            ctx,
            table,
            time: Time(occasion.accepted_at),
            clock: Clock::new(limits.time),
            random: Random::new(occasion.seed),
            printed,
            complaints: String::new(),
        }
    }

    /// Whether the call has slept longer than it may run.
    pub(super) fn has_overslept(&self) -> bool {
        self.clock.has_overslept()
    }

    /// What was printed since the last time, by line, and how many lines were left out.
    pub(super) fn take_printed(&mut self) -> (Vec<(Level, String)>, usize) {
        let (lines, omitted) = self.printed.take();
        for (_, line) in lines.iter().filter(|(level, _)| *level == Level::Warn) {
            if self.complaints.len() >= MAX_COMPLAINTS {
                break;
            }
            let separator = if self.complaints.is_empty() { "" } else { "; " };
            self.complaints.extend([separator, line.trim()]);
        }
        self.complaints.truncate(self.complaints.floor_char_boundary(MAX_COMPLAINTS));
        (lines, omitted)
    }

    /// Where a runtime says why it gives up: what was taken of standard error, in a line, cut where it is long.
    pub(super) fn complaints(&self) -> Option<&str> {
        Some(self.complaints.as_str()).filter(|complaints| !complaints.is_empty())
    }

    /// The same, at the end, when a line need not be whole.
    pub(super) fn finish_printing(&mut self) {
        self.printed.finish();
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView { ctx: &mut wasi.ctx, table: &mut wasi.table }
    }
}

/// Interfaces that work on the table of handles alone.
struct Handles;

impl HasData for Handles {
    type Data<'a> = &'a mut ResourceTable;
}

fn handles(state: &mut State) -> &mut ResourceTable {
    &mut state.wasi().table
}

fn polling(state: &mut State) -> Polling<'_> {
    let wasi = state.wasi();
    Polling { table: &mut wasi.table, clock: &wasi.clock }
}
