//! What a call works on: its limits as they are used up, its log, and what it was granted.

use std::time::Duration;

use tokio::time::Instant;

use super::Limits;
use super::allowance::{HostCalls, Memory};
use super::budget::{Budget, Stand};
use super::contract::hookmill::plugin::log::{Host as LogHost, Level};
use super::contract::hookmill::plugin::types::{HeaderChange, Host as TypesHost, Outgoing};
use super::host::Session;
use super::log::Log;
use super::pool::Pool;
use super::usage::Usage;
use super::wasi::{Occasion, Wasi};

/// Bytes of text that a call may hand over at once beside its output and the log.
const SLACK_BYTES: usize = 64 << 10;

/// What a call's host functions and limits work on.
pub(super) struct State {
    pub(super) memory: Memory,
    pub(super) budget: Budget,
    pub(super) host_calls: HostCalls,
    pub(super) log: Log,
    /// What the gateway may spend at once on what the guest hands over, in bytes.
    returnable: usize,
    pub(super) session: Option<Box<Session>>,
    /// Boxed, as most plugins do without.
    pub(super) wasi: Option<Box<Wasi>>,
}

impl State {
    pub(super) fn new(
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

    pub(super) fn log_all_printed(&mut self) {
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
    pub(super) fn time_left(&mut self) -> Duration {
        self.budget.pause()
    }

    /// Waits for something outside, no longer than the call may take.
    pub(super) async fn wait<T>(
        &mut self,
        outside: impl Future<Output = T>,
    ) -> wasmtime::Result<T> {
        let left = self.budget.pause();
        let began = Instant::now();
        let ended = tokio::time::timeout(left, outside).await;
        let waited = began.elapsed();
        self.budget.resume(waited);
        if let Some(session) = &mut self.session {
            session.waited += waited;
        }
        ended.map_err(|error| {
            self.budget.exhausted = true;
            error.into()
        })
    }

    /// Counts a call of one of the gateway's functions: each of them begins with this.
    pub(super) fn count_host_call(&mut self) -> wasmtime::Result<()> {
        self.host_calls.count()
    }

    pub(super) fn usage(&self, limits: &Limits) -> Usage {
        Usage {
            time: self.budget.used(limits.time),
            memory_bytes: self.memory.bytes(),
            table_elements: self.memory.elements(),
            host_calls: self.host_calls.made(limits),
            fetches: self.session.as_ref().map_or(0, |session| session.fetches()),
        }
    }

    /// From here on the guest runs on a fibre of its own, which can yield.
    pub(super) fn on_fibre(&mut self) {
        self.budget.stand = Stand::Fibre;
    }

    /// Whether the call may be tried without a fibre.
    pub(super) fn may_be_brief(&self) -> bool {
        self.budget.stand == Stand::Brief
    }

    /// Whether the call took longer than one may that is tried without a fibre.
    pub(super) fn took_long(&self) -> bool {
        self.budget.took_long()
    }

    /// The state of the same call, begun anew on a fibre, if it was stopped for that.
    pub(super) fn anew(&mut self, pool: &Pool, limits: &Limits) -> Option<Self> {
        if self.budget.stand != Stand::Long {
            return None;
        }
        let mut state = Self::new(pool, limits, self.session.take(), None);
        state.on_fibre();
        Some(state)
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
