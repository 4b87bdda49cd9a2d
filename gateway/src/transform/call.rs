//! One call: a fresh instance, its limits, its log, and what its failure means.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline, WasmBacktrace};

use super::contract::exports::hookmill::plugin::transformer as guest;
use super::contract::hookmill::plugin::log::{Host as LogHost, Level};
use super::contract::hookmill::plugin::types::Host as TypesHost;
use super::direct::TooMuch;
use super::engine::MAX_TABLE_ELEMENTS;
use super::{Code, Limits, Plugin, Runtime};
use crate::delivery::{DeliveryId, Failure, FailureKind};
use crate::event::Event;

/// Frames of a backtrace that go on record.
const MAX_FRAMES: usize = 5;

/// Bytes of text that a call may return beside its output: the reason, the message and the like.
const SLACK_BYTES: usize = 64 << 10;

impl Plugin {
    /// Calls `transform`. The log is given back whatever the result.
    pub(super) async fn call(
        &self,
        event: guest::Event<'_>,
        context: guest::Context<'_>,
    ) -> (Result<Result<guest::Verdict, guest::Failure>, Failure>, Log) {
        let run = async |store: &mut Store<State>| match &self.code {
            Code::Direct(direct) => direct.transform(store, event, context).await,
            Code::Component(component) => {
                store.data_mut().on_fibre();
                let instance = component.instantiate_async(&mut *store).await?;
                instance.hookmill_plugin_transformer().call_transform(store, event, context).await
            }
        };
        bounded(&self.runtime, &self.limits, run).await
    }
}

/// Calls `describe` on a plugin that is being loaded.
pub(super) async fn describe(
    runtime: &Runtime,
    limits: &Limits,
    code: &Code,
) -> (Result<guest::Description, Failure>, Log) {
    let run = async |store: &mut Store<State>| match code {
        Code::Direct(direct) => direct.describe(store).await,
        Code::Component(component) => {
            store.data_mut().on_fibre();
            let instance = component.instantiate_async(&mut *store).await?;
            instance.hookmill_plugin_transformer().call_describe(store).await
        }
    };
    bounded(runtime, limits, run).await
}

/// Runs one call under its limits, once it is its turn.
async fn bounded<T>(
    runtime: &Runtime,
    limits: &Limits,
    run: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
) -> (Result<T, Failure>, Log) {
    let Ok(_turn) = runtime.turns().acquire().await else {
        let failure = Failure::new(FailureKind::Internal, "the plugin engine has stopped");
        return (Err(failure), Log::new(limits));
    };
    let _running = runtime.running();
    let mut store = Store::new(runtime.engine(), State::new(limits));
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(store.data().returnable);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| Ok(context.data_mut().budget.tick()));
    let result = run(&mut store).await;
    let failure = |error| store.data().failure(limits, &error);
    let result = result.map_err(failure);
    (result, store.into_data().log)
}

/// What a call's host functions and limits work on.
pub(super) struct State {
    memory: Memory,
    budget: Budget,
    log: Log,
    /// What the gateway may spend on what the call returns, in bytes.
    returnable: usize,
}

impl State {
    fn new(limits: &Limits) -> Self {
        Self {
            memory: Memory { limit: limits.memory_bytes, used: 0, refused: false },
            budget: Budget::new(limits.time),
            log: Log::new(limits),
            returnable: limits.output_bytes.saturating_add(SLACK_BYTES),
        }
    }

    /// From here on the guest runs on a fibre of its own, which can yield.
    pub(super) fn on_fibre(&mut self) {
        self.budget.on_fibre = true;
    }

    /// What the gateway may spend on what the call returns, in bytes.
    pub(super) fn returnable(&self) -> usize {
        self.returnable
    }

    /// Takes a message of the guest.
    ///
    /// # Errors
    /// When it is not UTF-8, as far as there is room for it.
    pub(super) fn log(&mut self, level: Level, message: &[u8]) -> wasmtime::Result<()> {
        // A character that is cut by the end of the room is left out.
        let kept = message.get(..self.log.bytes_left).unwrap_or(message);
        let text = match std::str::from_utf8(kept) {
            Ok(text) => text,
            Err(error) if error.error_len().is_none() && kept.len() < message.len() => {
                kept.get(..error.valid_up_to()).map_or(Ok(""), std::str::from_utf8)?
            }
            Err(error) => return Err(error.into()),
        };
        self.log.push(level, text.to_owned());
        Ok(())
    }

    /// What an error of the engine means. A limit that was hit is the cause of whatever came after.
    fn failure(&self, limits: &Limits, error: &wasmtime::Error) -> Failure {
        if self.budget.exhausted {
            let message = format!("ran longer than its limit of {:?}", limits.time);
            return Failure::new(FailureKind::PluginTimeout, message + &place(error));
        }
        // The type of wasmtime's own error is private.
        if error.is::<TooMuch>()
            || error.root_cause().to_string().contains("fuel allocated for hostcalls")
        {
            let message = format!("returned more than its limit of {} bytes", limits.output_bytes);
            return Failure::new(FailureKind::PluginOutput, message);
        }
        if self.memory.refused {
            let message =
                format!("needs more memory than its limit of {} bytes", limits.memory_bytes);
            return Failure::new(FailureKind::PluginMemory, message + &place(error));
        }
        let what = match (self.log.last_error(), error.downcast_ref::<Trap>()) {
            (Some(panic), _) => panic.to_owned(),
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
        // The alternate form leaves out the hash that ends each Rust name.
        .map(|name| format!("{:#}", rustc_demangle::demangle(name)))
        .filter(|name| !is_machinery(name))
        .take(MAX_FRAMES)
        .collect();
    if names.is_empty() { String::new() } else { format!(" (in {})", names.join(" < ")) }
}

/// Functions on the way from a panic to the trap, which every panic shares.
fn is_machinery(name: &str) -> bool {
    ["rust_panic", "rust_begin_unwind", "__rust", "core::panicking", "std::panicking", "abort"]
        .iter()
        .any(|part| name.contains(part))
}

/// Linear memory and tables.
struct Memory {
    limit: usize,
    used: usize,
    refused: bool,
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.used.saturating_sub(current).saturating_add(desired);
        if total > self.limit {
            self.refused = true;
            return Ok(false);
        }
        self.used = total;
        // An allocator that was refused a large step may go on with a smaller one.
        self.refused = false;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }
}

/// Running time: the slices in which the call had a thread, without the waits in between.
struct Budget {
    left: Duration,
    slice_began: Instant,
    resumed: Option<Arc<Mutex<Instant>>>,
    exhausted: bool,
    /// The guest can be interrupted for a while, and not only for good.
    on_fibre: bool,
}

impl Budget {
    fn new(time: Duration) -> Self {
        let slice_began = Instant::now();
        Self { left: time, slice_began, resumed: None, exhausted: false, on_fibre: false }
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
            // The slice goes on, so its time is not taken off yet.
            Some(_) if !self.on_fibre => UpdateDeadline::Continue(1),
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
                Level::Trace => emit!(trace, "{message}"),
                Level::Debug => emit!(debug, "{message}"),
                Level::Info => emit!(info, "{message}"),
                Level::Warn => emit!(warn, "{message}"),
                Level::Error => emit!(error, "{message}"),
            }
        }
        if self.omitted > 0 {
            emit!(warn, omitted = self.omitted, "the plugin's log limit is reached");
        }
    }
}

impl TypesHost for State {}

impl LogHost for State {
    fn log(&mut self, level: Level, message: String) {
        self.log.push(level, message);
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

    #[test]
    fn memory_counts_all_memories_together() {
        let mut memory = Memory { limit: 100, used: 0, refused: false };
        assert!(memory.memory_growing(0, 60, None).unwrap());
        assert!(memory.memory_growing(0, 40, None).unwrap());
        assert!(!memory.memory_growing(60, 61, None).unwrap());
        assert!(memory.refused);
    }
}
