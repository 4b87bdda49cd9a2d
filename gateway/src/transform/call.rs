//! One call: a fresh instance, its limits, its log, what it used, and what its failure means.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline, WasmBacktrace};

use super::contract::exports::hookmill::plugin::transformer as guest;
use super::contract::hookmill::plugin::log::{Host as LogHost, Level};
use super::contract::hookmill::plugin::types::{HeaderChange, Host as TypesHost, Outgoing};
use super::direct::TooMuch;
use super::host::{About, Session};
use super::meter::{HostCalls, Memory, Refused};
use super::pool::Pool;
use super::turns::Amount;
use super::usage::{LogLevel, LogLine, Usage};
use super::wasi::{Occasion, Wasi};
use super::{Code, Limits, Plugin, Runtime, description, text};
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

/// What a call came to. Log and usage are known whatever the result.
pub(super) struct Called<T> {
    pub(super) result: Result<T, Failure>,
    pub(super) log: Log,
    pub(super) usage: Usage,
}

/// What `transform` answers.
pub(super) type Answer = Result<guest::Verdict, guest::Failure>;

impl Plugin {
    /// Calls `transform`.
    pub(super) async fn call(
        &self,
        tenant: &Arc<str>,
        event: guest::Event<'_>,
        context: guest::Context<'_>,
        session: Option<Box<Session>>,
        occasion: impl FnOnce() -> Occasion,
    ) -> Called<Answer> {
        let run = async |store: &mut Store<State>| match &self.code {
            Code::Direct(direct) => direct.transform(store, event, context).await,
            Code::Component(component) => {
                store.data_mut().on_fibre();
                let instance = component.instantiate_async(&mut *store).await?;
                instance.hookmill_plugin_transformer().call_transform(store, event, context).await
            }
        };
        let _turn = match &session {
            Some(session) if self.grants.may_wait() => {
                self.runtime.waiting_turn(&session.about().tenant).await
            }
            _ => None,
        };
        let place = Place { runtime: &self.runtime, pool: &self.pool, tenant };
        let wasi = self.wasi.then(occasion);
        let state = State::new(&self.pool, &self.limits, session, wasi);
        bounded(place, &self.limits, state, run).await
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
    runtime: &Runtime,
    pool: &Pool,
    limits: &Limits,
    wasi: bool,
    code: &Code,
) -> Called<guest::Description> {
    let run = async |store: &mut Store<State>| match code {
        Code::Direct(direct) => direct.describe(store).await,
        Code::Component(component) => {
            store.data_mut().on_fibre();
            let instance = component.instantiate_async(&mut *store).await?;
            instance.hookmill_plugin_transformer().call_describe(store).await
        }
    };
    let limits = description::limits(limits);
    let place = Place { runtime, pool, tenant: &Arc::from(LOADING) };
    let state = State::new(pool, &limits, None, wasi.then(Occasion::of_describing));
    bounded(place, &limits, state, run).await
}

/// Where and for whom a call runs.
struct Place<'a> {
    runtime: &'a Runtime,
    pool: &'a Pool,
    tenant: &'a Arc<str>,
}

/// Runs one call under its limits, once it is its turn.
async fn bounded<T>(
    place: Place<'_>,
    limits: &Limits,
    state: State,
    run: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
) -> Called<T> {
    let Place { runtime, pool, tenant } = place;
    let amount = Amount::one(limits.memory_bytes);
    // The slots of its own pool come first, so that none waits for them while it holds a turn.
    let _slot = pool.slot(tenant).await;
    let Some(_turn) = runtime.turns().take(tenant, amount).await else {
        let failure = Failure::new(FailureKind::Internal, "the plugin engine has stopped");
        return Called { result: Err(failure), log: Log::new(limits), usage: Usage::default() };
    };
    let _running = pool.running();
    let mut store = Store::new(pool.engine(), state);
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(store.data().returnable);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| Ok(context.data_mut().budget.tick()));
    let call = async {
        store.data_mut().budget.begin();
        run(&mut store).await
    };
    let result = runtime.pace().run(tenant, call).await;
    store.data_mut().log_all_printed();
    let failure = |error| store.data().failure(runtime, limits, &error);
    let result = result.map_err(failure);
    let usage = store.data().usage(limits);
    Called { result, log: store.into_data().log, usage }
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
    /// What the gateway may spend at once on what the guest hands over, in bytes.
    returnable: usize,
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
            memory: Memory::new(limits, pool.shape()),
            budget: Budget::new(limits.time),
            host_calls: HostCalls::new(limits),
            log: Log::new(limits),
            returnable: most_handed_over(limits),
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
        self.count_host_call()?;
        self.session_again()
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

    /// Counts a call of one of the gateway's functions: each of them begins with this.
    pub(super) fn count_host_call(&mut self) -> wasmtime::Result<()> {
        self.host_calls.count()
    }

    fn usage(&self, limits: &Limits) -> Usage {
        Usage { time: self.budget.used(limits.time), memory_bytes: self.memory.bytes() }
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
        self.count_host_call()?;
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
    fn failure(&self, runtime: &Runtime, limits: &Limits, error: &wasmtime::Error) -> Failure {
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
        if self.host_calls.exceeded {
            let message = format!(
                "called the gateway's functions more often than its limit of {}",
                limits.host_calls
            );
            return Failure::new(FailureKind::PluginCalls, message + &place(error));
        }
        // The type of wasmtime's own error is private.
        if error.is::<TooMuch>()
            || error.root_cause().to_string().contains("fuel allocated for hostcalls")
        {
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
    /// The guest can be interrupted for a while, and not only for good.
    on_fibre: bool,
}

impl Budget {
    fn new(time: Duration) -> Self {
        let slice_began = Instant::now();
        Self { left: time, slice_began, resumed: None, exhausted: false, on_fibre: false }
    }

    /// The first slice begins: what came before was waiting for it.
    fn begin(&mut self) {
        self.slice_began = Instant::now();
    }

    /// How much is left at this moment.
    fn time_left(&self) -> Duration {
        self.left.saturating_sub(self.slice())
    }

    /// How long the slice has lasted that is not accounted for yet.
    fn slice(&self) -> Duration {
        let read =
            |resumed: &Arc<Mutex<Instant>>| *resumed.lock().unwrap_or_else(PoisonError::into_inner);
        self.resumed.as_ref().map_or(self.slice_began, read).elapsed()
    }

    /// The time used so far, of this much in the beginning.
    fn used(&self, limit: Duration) -> Duration {
        limit.saturating_sub(self.left) + self.slice()
    }

    /// Accounts for the slice that ends now, and lets others run if there is time left.
    fn tick(&mut self) -> UpdateDeadline {
        match self.left.checked_sub(self.slice()) {
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

    /// The messages, and how many more were left out.
    pub(super) fn into_lines(self) -> (Vec<LogLine>, usize) {
        let line = |(level, message)| LogLine { level: LogLevel::from_contract(level), message };
        (self.lines.into_iter().map(line).collect(), self.omitted)
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
        self.log_printed();
        // Before it is cut to size: half a secret would not be recognised.
        let message = self.redacted(message);
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
