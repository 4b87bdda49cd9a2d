//! One call: its turn, a fresh instance, and what came of it.

use std::sync::Arc;

use wasmtime::Store;

use super::contract::exports::hookmill::plugin::transformer as guest;
use super::host::{About, Session};
use super::log::Log;
use super::pool::Pool;
use super::state::State;
use super::turns::Amount;
use super::usage::Usage;
use super::wasi::Occasion;
use super::{Code, Limits, Plugin, Runtime, description};
use crate::delivery::{Failure, FailureKind};

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
        let transform = Transform { code: &self.code, event, context };
        let _turn = match &session {
            Some(session) if self.grants.may_wait() => {
                self.runtime.waiting_turn(&session.about().tenant).await
            }
            _ => None,
        };
        let place = Place { runtime: &self.runtime, pool: &self.pool, tenant };
        let wasi = self.wasi.then(occasion);
        let state = State::new(&self.pool, &self.limits, session, wasi);
        bounded(place, &self.limits, state, transform).await
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
    let limits = description::limits(limits);
    let place = Place { runtime, pool, tenant: &Arc::from(LOADING) };
    let state = State::new(pool, &limits, None, wasi.then(Occasion::of_describing));
    bounded(place, &limits, state, Describe { code }).await
}

/// What is called in an instance made for it.
trait Function: Sync {
    type Answer: Send;

    fn call(
        &self,
        store: &mut Store<State>,
    ) -> impl Future<Output = wasmtime::Result<Self::Answer>> + Send;
}

struct Transform<'a> {
    code: &'a Code,
    event: guest::Event<'a>,
    context: guest::Context<'a>,
}

impl Function for Transform<'_> {
    type Answer = Answer;

    async fn call(&self, store: &mut Store<State>) -> wasmtime::Result<Answer> {
        let Self { code, event, context } = self;
        match code {
            Code::Direct(direct) => direct.transform(store, event, context).await,
            Code::Component(component) => {
                store.data_mut().on_fibre();
                let instance = component.instantiate_async(&mut *store).await?;
                let guest = instance.hookmill_plugin_transformer();
                guest.call_transform(store, event.clone(), context.clone()).await
            }
        }
    }
}

struct Describe<'a> {
    code: &'a Code,
}

impl Function for Describe<'_> {
    type Answer = guest::Description;

    async fn call(&self, store: &mut Store<State>) -> wasmtime::Result<guest::Description> {
        match self.code {
            Code::Direct(direct) => direct.describe(store).await,
            Code::Component(component) => {
                store.data_mut().on_fibre();
                let instance = component.instantiate_async(&mut *store).await?;
                instance.hookmill_plugin_transformer().call_describe(store).await
            }
        }
    }
}

/// Where and for whom a call runs.
struct Place<'a> {
    runtime: &'a Runtime,
    pool: &'a Pool,
    tenant: &'a Arc<str>,
}

/// Runs one call under its limits, once it is its turn.
async fn bounded<F: Function>(
    place: Place<'_>,
    limits: &Limits,
    state: State,
    function: F,
) -> Called<F::Answer> {
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
    let call = async {
        prepare(&mut store);
        let result = function.call(&mut store).await;
        let Some(anew) = store.data_mut().anew(pool, limits) else {
            return result;
        };
        store = Store::new(pool.engine(), anew);
        prepare(&mut store);
        function.call(&mut store).await
    };
    let result = runtime.pace().run(tenant, call).await;
    store.data_mut().log_all_printed();
    let failure = |error| store.data().failure(runtime, limits, &error);
    let result = result.map_err(failure);
    let usage = store.data().usage(limits);
    Called { result, log: store.into_data().log, usage }
}

/// Puts the limits into force; the call's time begins.
fn prepare(store: &mut Store<State>) {
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(store.data().returnable());
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| Ok(context.data_mut().budget.tick()));
    store.data_mut().budget.begin();
}
