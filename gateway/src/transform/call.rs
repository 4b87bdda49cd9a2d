//! One call: a fresh instance, its limits, its log, and what its failure means.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline, WasmBacktrace};

use super::contract::exports::hookmill::plugin::transformer as guest;
use super::contract::hookmill::plugin::log::{Host as LogHost, Level};
use super::contract::hookmill::plugin::types::{HeaderChange, Host as TypesHost, Outgoing};
use super::meter::{HostCalls, Memory, Refused};
use super::turns::Amount;
use super::{Limits, Plugin, Runtime, contract, description, text};
use crate::delivery::{DeliveryId, Failure, FailureKind, OneLine};
use crate::event::Event;

/// Frames of a backtrace that go on record.
const MAX_FRAMES: usize = 5;

/// The longest name of a function that goes on record, in bytes: the file says what it is.
const MAX_FRAME_BYTES: usize = 120;

/// Bytes of text that a call may hand over at once beside its output and the log.
const SLACK_BYTES: usize = 64 << 10;

/// Whose calls those are that load a plugin. No tenant has an empty name.
const LOADING: &str = "";

impl Plugin {
    /// Calls `transform`. The log is given back whatever the result.
    pub(super) async fn call(
        &self,
        tenant: &Arc<str>,
        event: guest::Event<'_>,
        context: guest::Context<'_>,
    ) -> (Result<Result<guest::Verdict, guest::Failure>, Failure>, Log) {
        let run = async |store: &mut Store<State>| {
            let instance = self.instance.instantiate_async(&mut *store).await?;
            instance.hookmill_plugin_transformer().call_transform(store, event, context).await
        };
        bounded(&self.runtime, tenant, &self.limits, run).await
    }
}

/// Calls `describe` on a plugin that is being loaded.
pub(super) async fn describe(
    runtime: &Runtime,
    limits: &Limits,
    instance: &contract::PluginPre<State>,
) -> (Result<guest::Description, Failure>, Log) {
    let run = async |store: &mut Store<State>| {
        let instance = instance.instantiate_async(&mut *store).await?;
        instance.hookmill_plugin_transformer().call_describe(store).await
    };
    bounded(runtime, &Arc::from(LOADING), &description::limits(limits), run).await
}

/// Runs one call under its limits, once it is its turn.
async fn bounded<T>(
    runtime: &Runtime,
    tenant: &Arc<str>,
    limits: &Limits,
    run: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
) -> (Result<T, Failure>, Log) {
    let amount = Amount::one(limits.memory_bytes);
    let Some(_turn) = runtime.turns().take(tenant, amount).await else {
        let failure = Failure::new(FailureKind::Internal, "the plugin engine has stopped");
        return (Err(failure), Log::new(limits));
    };
    let _running = runtime.running();
    let mut store = Store::new(runtime.engine(), State::new(limits));
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(most_handed_over(limits));
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| Ok(context.data_mut().budget.tick()));
    let call = async {
        store.data_mut().budget.begin();
        run(&mut store).await
    };
    let result = runtime.pace().run(tenant, call).await;
    let failure = |error| store.data().failure(runtime, limits, &error);
    let result = result.map_err(failure);
    (result, store.into_data().log)
}

/// How much a guest may make the gateway copy at once: all that its other limits leave room for, and the
/// gateway's own records of that many parts, headers and parameters.
fn most_handed_over(limits: &Limits) -> usize {
    let part = limits
        .headers
        .saturating_mul(size_of::<HeaderChange>())
        .saturating_add(limits.query_parameters.saturating_mul(size_of::<(String, String)>()))
        .saturating_add(size_of::<Outgoing>());
    limits
        .parts
        .saturating_mul(part)
        .saturating_add(limits.output_bytes)
        .saturating_add(limits.log_bytes)
        .saturating_add(SLACK_BYTES)
}

/// What a call's host functions and limits work on.
pub(super) struct State {
    memory: Memory,
    budget: Budget,
    host_calls: HostCalls,
    log: Log,
}

impl State {
    fn new(limits: &Limits) -> Self {
        Self {
            memory: Memory::new(limits),
            budget: Budget::new(limits.time),
            host_calls: HostCalls::new(limits),
            log: Log::new(limits),
        }
    }

    /// Counts a call of one of the gateway's functions: each of them begins with this.
    pub(super) fn count_host_call(&mut self) -> wasmtime::Result<()> {
        self.host_calls.count()
    }

    /// What an error of the engine means. A limit that was hit is the cause of whatever came after.
    fn failure(&self, runtime: &Runtime, limits: &Limits, error: &wasmtime::Error) -> Failure {
        if self.budget.exhausted {
            let message = format!("ran longer than its limit of {:?}", limits.time);
            return Failure::new(FailureKind::PluginTimeout, message + &place(error));
        }
        if self.host_calls.exceeded {
            let message = format!(
                "called the gateway's functions more often than its limit of {}",
                limits.host_calls
            );
            return Failure::new(FailureKind::PluginCalls, message + &place(error));
        }
        // The error's type is private to wasmtime.
        if error.root_cause().to_string().contains("fuel allocated for hostcalls") {
            let message = format!(
                "handed over more at once than its limits of {} bytes and {} parts leave room for",
                limits.output_bytes, limits.parts
            );
            return Failure::new(FailureKind::PluginOutput, message + &place(error));
        }
        if let Some(refused) = self.memory.refused {
            let message = match refused {
                Refused::Memory => {
                    format!("needs more memory than its limit of {} bytes", limits.memory_bytes)
                }
                Refused::Table => format!(
                    "needs larger tables than its limit of {} elements",
                    limits.table_elements
                ),
            };
            return Failure::new(FailureKind::PluginMemory, message + &place(error));
        }
        if error.is::<PoolConcurrencyLimitError>() {
            let message = format!("the pool of instances cannot hold it now: {error}");
            return Failure::new(FailureKind::Internal, message);
        }
        let trap = error.downcast_ref::<Trap>();
        if trap.is_none() && error.downcast_ref::<WasmBacktrace>().is_none() {
            // The guest ran to its end, and what it left is not what the contract says.
            let message = format!("broke the contract: {:#}", error.root_cause());
            return Failure::new(FailureKind::PluginOutput, message);
        }
        let what = match (self.log.last_error(), trap) {
            (Some(panic), _) => panic.to_owned(),
            (None, Some(Trap::StackOverflow)) => {
                let bytes = runtime.max_stack_bytes();
                format!("went deeper than the limit of {bytes} bytes on its stack")
            }
            (None, Some(trap)) => trap.to_string(),
            (None, None) => format!("{:#}", error.root_cause()),
        };
        Failure::new(FailureKind::PluginTrap, what + &place(error))
    }
}

/// Where it happened, innermost function first.
fn place(error: &wasmtime::Error) -> String {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return String::new();
    };
    let names: Vec<_> = backtrace
        .frames()
        .iter()
        .filter_map(|frame| frame.func_name())
        .map(shown)
        .filter(|name| !is_machinery(name))
        .take(MAX_FRAMES)
        .collect();
    if names.is_empty() { String::new() } else { format!(" (in {})", names.join(" < ")) }
}

/// A function's name as people know it. One that is longer than any compiler's is not even looked into.
fn shown(name: &str) -> String {
    const LONGEST: usize = 4 << 10;
    let mut name = match name.len() <= LONGEST {
        // The alternate form leaves out the hash that ends each Rust name.
        true => format!("{:#}", rustc_demangle::demangle(name)),
        false => text::cut_to(name, MAX_FRAME_BYTES).into_owned(),
    };
    text::cut(&mut name, MAX_FRAME_BYTES);
    name
}

/// Functions on the way from a panic to the trap, which every panic shares.
fn is_machinery(name: &str) -> bool {
    ["rust_panic", "rust_begin_unwind", "__rust", "core::panicking", "std::panicking", "abort"]
        .iter()
        .any(|part| name.contains(part))
}

/// Running time: the slices in which the call had a thread, without the waits in between.
struct Budget {
    left: Duration,
    slice_began: Instant,
    resumed: Option<Arc<Mutex<Instant>>>,
    exhausted: bool,
}

impl Budget {
    fn new(time: Duration) -> Self {
        Self { left: time, slice_began: Instant::now(), resumed: None, exhausted: false }
    }

    /// The first slice begins: what came before was waiting for it.
    fn begin(&mut self) {
        self.slice_began = Instant::now();
    }

    /// Accounts for the slice that ends now, and lets others run if there is time left.
    fn tick(&mut self) -> UpdateDeadline {
        let read =
            |resumed: &Arc<Mutex<Instant>>| *resumed.lock().unwrap_or_else(PoisonError::into_inner);
        let began = self.resumed.as_ref().map_or(self.slice_began, read);
        match self.left.checked_sub(began.elapsed()) {
            None => {
                self.exhausted = true;
                UpdateDeadline::Interrupt
            }
            Some(left) => {
                self.left = left;
                let resumed =
                    self.resumed.get_or_insert_with(|| Arc::new(Mutex::new(Instant::now())));
                let resumed = Arc::clone(resumed);
                UpdateDeadline::YieldCustom(
                    1,
                    Box::pin(async move {
                        tokio::task::yield_now().await;
                        *resumed.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    }),
                )
            }
        }
    }
}

/// The messages of one call, up to its limits.
#[derive(Debug)]
pub(super) struct Log {
    lines: Vec<(Level, String)>,
    lines_left: usize,
    bytes_left: usize,
    omitted: usize,
}

impl Log {
    fn new(limits: &Limits) -> Self {
        Self {
            lines: Vec::new(),
            lines_left: limits.log_lines,
            bytes_left: limits.log_bytes,
            omitted: 0,
        }
    }

    fn push(&mut self, level: Level, mut message: String) {
        if self.lines_left == 0 || self.bytes_left == 0 {
            self.omitted += 1;
            return;
        }
        message.truncate(message.floor_char_boundary(self.bytes_left));
        self.lines_left -= 1;
        self.bytes_left -= message.len().min(self.bytes_left);
        self.lines.push((level, message));
    }

    /// The last error, which is where a panic's message stands.
    fn last_error(&self) -> Option<&str> {
        let mut errors = self.lines.iter().rev().filter(|(level, _)| *level == Level::Error);
        errors.next().map(|(_, message)| message.as_str())
    }

    /// Passes the messages on to the gateway's own log, with what they were about.
    pub(super) fn emit(self, plugin: &str, about: Option<(&Event, DeliveryId)>) {
        if self.lines.is_empty() {
            return;
        }
        let tenant = about.map(|(event, _)| &*event.tenant);
        let event = about.map(|(event, _)| event.id.as_str());
        let delivery = about.map(|(_, delivery)| delivery.to_string());
        // The level of a message has to be known when the gateway is compiled.
        macro_rules! emit {
            ($level:ident, $($field:tt)*) => {
                tracing::$level!(target: "hookmill::plugin", plugin, tenant, event, delivery, $($field)*)
            };
        }
        for (level, message) in self.lines {
            match level {
                Level::Trace => emit!(trace, "{}", OneLine(&message)),
                Level::Debug => emit!(debug, "{}", OneLine(&message)),
                Level::Info => emit!(info, "{}", OneLine(&message)),
                Level::Warn => emit!(warn, "{}", OneLine(&message)),
                Level::Error => emit!(error, "{}", OneLine(&message)),
            }
        }
        if self.omitted > 0 {
            emit!(warn, omitted = self.omitted, "the plugin's log limit is reached");
        }
    }
}

impl TypesHost for State {}

impl LogHost for State {
    fn log(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.count_host_call()?;
        self.log.push(level, message);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_and_says_what_it_left_out() {
        let limits = Limits { log_lines: 3, log_bytes: 8, ..Limits::default() };
        let mut log = Log::new(&limits);
        log.push(Level::Info, "abc".to_owned());
        log.push(Level::Error, "defgéxx".to_owned());
        for _ in 0..5 {
            log.push(Level::Info, "more".to_owned());
        }
        let lines: Vec<_> = log.lines.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(lines, ["abc", "defg", "m"]);
        assert_eq!(log.last_error(), Some("defg"));
        assert_eq!(log.omitted, 4);
    }
}
