//! What an error of the engine means, for the plugin's author and for the operator.

use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use super::allowance::Refused;
use super::direct::TooMuch;
use super::state::State;
use super::{Limits, Runtime, text};
use crate::delivery::{Failure, FailureKind};

/// Frames of a backtrace that go on record.
const MAX_FRAMES: usize = 5;

/// The longest name of a function that goes on record, in bytes: the file says what it is.
const MAX_FRAME_BYTES: usize = 120;

impl State {
    /// What an error of the engine means. A limit that was hit is the cause of whatever came after.
    pub(super) fn failure(
        &self,
        runtime: &Runtime,
        limits: &Limits,
        error: &wasmtime::Error,
    ) -> Failure {
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
