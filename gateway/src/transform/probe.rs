//! For benchmarks: the parts of a call on their own. The gateway itself only makes whole calls.

use wasmtime::Store;

use super::contract::exports::hookmill::plugin::transformer as guest;
use super::direct::{Arguments, Started};
use super::state::State;
use super::{Code, Plugin};

/// An instance that is called again and again, which the gateway never does: nothing isolates one call from the
/// next, and the SDK's arena takes nothing back. Shows what a fresh instance costs beside the call itself.
pub struct Reused {
    store: Store<State>,
    started: Started,
}

impl std::fmt::Debug for Reused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reused").finish_non_exhaustive()
    }
}

impl Plugin {
    /// Makes an instance and gives it up again. None where the plugin is not called directly.
    #[must_use]
    pub fn instantiate_alone(&self) -> Option<()> {
        let Code::Direct(direct) = &self.code else { return None };
        direct.start(&mut self.store()).map(drop).ok()
    }

    /// An instance to be called more than once. None where the plugin is not called directly.
    #[must_use]
    pub fn reuse(&self) -> Option<Reused> {
        let Code::Direct(direct) = &self.code else { return None };
        let mut store = self.store();
        let started = direct.start(&mut store).ok()?;
        Some(Reused { store, started })
    }

    fn store(&self) -> Store<State> {
        let state = State::new(&self.pool, &self.limits, None, None);
        let mut store = Store::new(self.pool.engine(), state);
        store.limiter(|state| &mut state.memory);
        store.epoch_deadline_trap();
        store.set_epoch_deadline(u64::from(u32::MAX));
        store
    }
}

impl Reused {
    /// Calls `transform`; whether it forwarded something.
    pub fn call(&mut self, payload: &str, config: &str) -> bool {
        let event = guest::Event {
            id: "evt_0198a3c27f407a6b8c9d0e1f2a3b4c5f",
            type_: "order.paid",
            tenant: "acme",
            timestamp: "1970-01-01T00:00:00Z",
            payload,
            attributes: &[],
            extensions: &[],
        };
        let context = guest::Context {
            webhook_id: "wh_bench",
            webhook_name: "bench",
            webhook_metadata: &[],
            delivery_id: "dlv_0198a3c27f407a6b8c9d0e1f2a3b4c5f",
            config,
            extensions: &[],
        };
        let Ok(arguments) = Arguments::new(&event, &context) else { return false };
        let answer = self.started.call_briefly(&mut self.store, &arguments);
        matches!(answer, Ok(Ok(guest::Verdict::Forward(_))))
    }
}
