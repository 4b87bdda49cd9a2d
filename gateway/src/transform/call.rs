//! One call: a fresh instance, its limits, its log, and what its failure means.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline, WasmBacktrace};

use super::contract::exports::hookmill::plugin::transformer as guest;
use super::contract::hookmill::plugin::log::{Host as LogHost, Level};
use super::contract::hookmill::plugin::types::Host as TypesHost;
use super::host::{About, Session};
use super::pool::{Pool, Shape};
use super::wasi::{Occasion, Wasi};
use super::{Limits, Plugin, contract};
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
        session: Option<Box<Session>>,
        occasion: impl FnOnce() -> Occasion,
    ) -> (Result<Result<guest::Verdict, guest::Failure>, Failure>, Log) {
        let run = async |store: &mut Store<State>| {
            let instance = self.instance.instantiate_async(&mut *store).await?;
            instance.hookmill_plugin_transformer().call_transform(store, event, context).await
        };
        let _turn = match &session {
            Some(session) if self.grants.may_wait() => {
                self.runtime.waiting_turn(&session.about().tenant).await
            }
            _ => None,
        };
        let wasi = self.wasi.then(occasion);
        let state = State::new(&self.pool, &self.limits, session, wasi);
        bounded(&self.pool, &self.limits, state, run).await
    }

    /// What a call may ask of the gateway; none when the plugin was granted nothing.
    pub(super) fn session(&self, about: impl FnOnce() -> About) -> Option<Box<Session>> {
        if self.grants.is_empty() {
            return None;
        }
        let (grants, services) = (Arc::clone(&self.grants), self.runtime.services());
        Some(Box::new(Session::new(about(), &self.name, grants, &self.limits, services)))
    }
}

/// Calls `describe` on a plugin that is being loaded.
pub(super) async fn describe(
    pool: &Pool,
    limits: &Limits,
    wasi: bool,
    instance: &contract::PluginPre<State>,
) -> (Result<guest::Description, Failure>, Log) {
    let run = async |store: &mut Store<State>| {
        let instance = instance.instantiate_async(&mut *store).await?;
        instance.hookmill_plugin_transformer().call_describe(store).await
    };
    let state = State::new(pool, limits, None, wasi.then(Occasion::of_describing));
    bounded(pool, limits, state, run).await
}

/// Runs one call under its limits, once it is its turn.
async fn bounded<T>(
    pool: &Pool,
    limits: &Limits,
    state: State,
    run: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
) -> (Result<T, Failure>, Log) {
    let Ok(_turn) = pool.turns().acquire().await else {
        let failure = Failure::new(FailureKind::Internal, "the plugin engine has stopped");
        return (Err(failure), Log::new(limits));
    };
    let _running = pool.running();
    let mut store = Store::new(pool.engine(), state);
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(limits.output_bytes.saturating_add(SLACK_BYTES));
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| Ok(context.data_mut().budget.tick()));
    let result = run(&mut store).await;
    store.data_mut().log_all_printed();
    let failure = |error| store.data().failure(limits, &error);
    let result = result.map_err(failure);
    (result, store.into_data().log)
}

/// What a call's host functions and limits work on.
pub(super) struct State {
    memory: Memory,
    budget: Budget,
    log: Log,
    session: Option<Box<Session>>,
    /// Boxed, as most plugins do without.
    wasi: Option<Box<Wasi>>,
}

impl State {
    fn new(
        pool: &Pool,
        limits: &Limits,
        session: Option<Box<Session>>,
        wasi: Option<Occasion>,
    ) -> Self {
        Self {
            memory: Memory::new(limits.memory_bytes, pool.shape()),
            budget: Budget::new(limits.time),
            log: Log::new(limits),
            session,
            wasi: wasi.map(|occasion| Box::new(Wasi::new(occasion, limits))),
        }
    }

    /// The context that WASI's functions work on, which are linked only where there is one.
    pub(super) fn wasi(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_with(|| {
            Box::new(Wasi::new(Occasion::of_describing(), &Limits::default()))
        })
    }

    /// Moves what was printed to the log, in its place among the messages.
    fn log_printed(&mut self) {
        let Some(wasi) = &mut self.wasi else {
            return;
        };
        let (lines, omitted) = wasi.take_printed();
        for (level, line) in lines {
            let line = self.redacted(line);
            self.log.push(level, line);
        }
        self.log.omitted += omitted;
    }

    /// Without the secrets that the plugin was given.
    fn redacted(&self, text: String) -> String {
        match &self.session {
            Some(session) => session.about().secrets.redact(text),
            None => text,
        }
    }

    fn log_all_printed(&mut self) {
        if let Some(wasi) = &mut self.wasi {
            wasi.finish_printing();
            self.log_printed();
        }
    }

    /// What the call may ask of the gateway, counting that it asks.
    pub(super) fn session(&mut self) -> wasmtime::Result<&mut Session> {
        let session = self.session_again()?;
        session.count()?;
        Ok(session)
    }

    /// The same within one question.
    pub(super) fn session_again(&mut self) -> wasmtime::Result<&mut Session> {
        let none =
            || wasmtime::Error::msg("`describe` can use no capability; only `transform` can");
        self.session.as_deref_mut().ok_or_else(none)
    }

    /// How long the call may still take.
    pub(super) fn time_left(&self) -> Duration {
        self.budget.time_left()
    }

    /// Waits for something outside, no longer than the call may take.
    pub(super) async fn wait<T>(
        &mut self,
        outside: impl Future<Output = T>,
    ) -> wasmtime::Result<T> {
        let began = Instant::now();
        let waited = tokio::time::timeout(self.time_left(), outside).await;
        if let Some(session) = &mut self.session {
            session.waited += began.elapsed();
        }
        waited.map_err(|error| {
            self.budget.exhausted = true;
            error.into()
        })
    }

    /// What an error of the engine means. A limit that was hit is the cause of whatever came after.
    fn failure(&self, limits: &Limits, error: &wasmtime::Error) -> Failure {
        if self.wasi.as_ref().is_some_and(|wasi| wasi.has_overslept()) {
            let message = format!("slept longer than its limit of {:?}", limits.time);
            return Failure::new(FailureKind::PluginTimeout, message + &place(error));
        }
        if self.budget.exhausted {
            let mut message = format!("ran longer than its limit of {:?}", limits.time);
            if let Some(session) = &self.session
                && !session.waited.is_zero()
            {
                let waited = session.waited.as_millis();
                message += &format!(
                    ", {waited} ms of it waiting for `kv` or `http`; set a larger `time` under `[limits]` \
                     in {}.toml",
                    session.plugin()
                );
            }
            return Failure::new(FailureKind::PluginTimeout, message + &place(error));
        }
        if let Some(reason) = self.session.as_ref().and_then(|session| session.stopped.as_ref()) {
            return Failure::new(FailureKind::PluginTrap, reason.clone() + &place(error));
        }
        // The error's type is private to wasmtime.
        if error.root_cause().to_string().contains("fuel allocated for hostcalls") {
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
        // A runtime of another language says on standard error what went wrong.
        let complaints = self.wasi.as_ref().and_then(|wasi| wasi.complaints());
        let said = complaints.map(|text| format!("; it printed: {text}")).unwrap_or_default();
        Failure::new(FailureKind::PluginTrap, what + &place(error) + &said)
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
    shape: &'static Shape,
}

impl Memory {
    fn new(limit: usize, shape: &'static Shape) -> Self {
        Self { limit, used: 0, refused: false, shape }
    }
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
        Ok(desired <= self.shape.table_elements)
    }

    fn instances(&self) -> usize {
        self.shape.core_instances as usize
    }

    fn tables(&self) -> usize {
        self.shape.tables as usize
    }

    fn memories(&self) -> usize {
        self.shape.memories as usize
    }
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

    /// How much is left at this moment.
    fn time_left(&self) -> Duration {
        self.left.saturating_sub(self.slice_began().elapsed())
    }

    fn slice_began(&self) -> Instant {
        let read =
            |resumed: &Arc<Mutex<Instant>>| *resumed.lock().unwrap_or_else(PoisonError::into_inner);
        self.resumed.as_ref().map_or(self.slice_began, read)
    }

    /// Accounts for the slice that ends now, and lets others run if there is time left.
    fn tick(&mut self) -> UpdateDeadline {
        match self.left.checked_sub(self.slice_began().elapsed()) {
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
        self.log_printed();
        // Before it is cut to size: half a secret would not be recognised.
        let message = self.redacted(message);
        self.log.push(level, message);
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::LIGHT;
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
        let mut memory = Memory::new(100, &LIGHT);
        assert!(memory.memory_growing(0, 60, None).unwrap());
        assert!(memory.memory_growing(0, 40, None).unwrap());
        assert!(!memory.memory_growing(60, 61, None).unwrap());
        assert!(memory.refused);
    }
}
