//! A pool: an engine with slots for instances, and the turns in which calls use them.
//!
//! There are two, alike but for their slots, so code that was compiled once runs in either. Nearly all
//! plugins fit the light one's; the runtimes of languages such as Python need the heavy one's, which thus
//! loosen no limit for the others. A pool that is not used costs nothing but address space.

use std::num::NonZeroUsize;
use std::sync::Arc;

use wasmtime::component::{Component, Linker};
use wasmtime::{Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::engine::{Clock, Running};
use super::state::State;
use super::turns::{Amount, Turn, Turns};
use super::{contract, direct, wasi};

/// How much of each kind one plugin may have, whatever its own limits say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// The pool's name, for people.
    pub(super) name: &'static str,
    /// Core modules that are instantiated: a component can be made of many.
    pub(super) core_instances: u32,
    /// Linear memories. How large they may be together is one of the plugin's own limits.
    pub(super) memories: u32,
    /// Tables of functions.
    pub(super) tables: u32,
    /// The elements of each table.
    pub(super) table_elements: usize,
    /// The bytes that the host needs for all that an instance consists of.
    pub(super) instance_bytes: usize,
}

/// For plugins in Rust and C, which need one core module, one memory and some hundred table elements.
pub(super) static LIGHT: Shape = Shape {
    name: "light",
    core_instances: 8,
    memories: 1,
    tables: 4,
    table_elements: 20_000,
    instance_bytes: 1 << 20,
};

/// For language runtimes: CPython comes as 38 core modules that are linked when instantiated.
pub(super) static HEAVY: Shape = Shape {
    name: "heavy",
    core_instances: 100,
    memories: 4,
    tables: 16,
    table_elements: 100_000,
    instance_bytes: 8 << 20,
};

/// What host functions have of a stack beside the guest's own share.
const HOST_STACK_BYTES: usize = 512 << 10;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    engine: Engine,
    shape: &'static Shape,
    linker: Linker<State>,
    direct_linker: wasmtime::Linker<State>,
    /// Where it has fewer slots than calls may be under way.
    turns: Option<Turns>,
    clock: Arc<Clock>,
}

impl Pool {
    /// A pool around an engine that [`engine`] made.
    pub(super) fn new(
        engine: Engine,
        shape: &'static Shape,
        turns: Option<Turns>,
        clock: Arc<Clock>,
    ) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(&engine);
        contract::Plugin::add_to_linker::<_, wasmtime::component::HasSelf<_>>(
            &mut linker,
            |state| state,
        )?;
        let direct_linker = direct::linker(&engine)?;
        Ok(Self(Arc::new(Inner { engine, shape, linker, direct_linker, turns, clock })))
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(super) fn shape(&self) -> &'static Shape {
        self.0.shape
    }

    /// What a component is linked with: WASI only if it asks for it.
    pub(super) fn linker(&self, component: &Component) -> wasmtime::Result<Linker<State>> {
        let mut linker = self.0.linker.clone();
        if wasi::is_wanted_by(component) {
            wasi::add_to_linker(&mut linker, component)?;
        }
        Ok(linker)
    }

    /// What a core module is linked with that is called as it is.
    pub(super) fn direct_linker(&self) -> &wasmtime::Linker<State> {
        &self.0.direct_linker
    }

    /// Waits for a slot, where there may be none left.
    pub(super) async fn slot(&self, tenant: &Arc<str>) -> Option<Turn> {
        match &self.0.turns {
            Some(turns) => turns.take(tenant, Amount::one(0)).await,
            None => None,
        }
    }

    /// Keeps the clock running until the guard is dropped.
    pub(super) fn running(&self) -> Running<'_> {
        self.0.clock.begin()
    }
}

/// An engine with slots of this shape, for as many instances at once, each memory up to `memory_bytes`, each
/// stack up to `stack_bytes`.
pub(super) fn engine(
    shape: &Shape,
    instances: u32,
    memory_bytes: usize,
    stack_bytes: usize,
) -> wasmtime::Result<Engine> {
    Engine::new(settings(stack_bytes).allocation_strategy(InstanceAllocationStrategy::Pooling(
        slots(shape, instances, memory_bytes),
    )))
}

/// An engine that makes room for each instance when it is needed.
pub(super) fn engine_without_slots(stack_bytes: usize) -> wasmtime::Result<Engine> {
    Engine::new(settings(stack_bytes).allocation_strategy(InstanceAllocationStrategy::OnDemand))
}

fn settings(stack_bytes: usize) -> wasmtime::Config {
    let mut settings = wasmtime::Config::new();
    settings
        .epoch_interruption(true)
        .memory_init_cow(true)
        // The contract has no async functions; supporting them would slow down each call.
        .concurrency_support(false)
        .max_wasm_stack(stack_bytes)
        // Host functions run on what is left, so it has to be ample.
        .async_stack_size(stack_bytes.saturating_add(HOST_STACK_BYTES))
        // What no plugin needs is no way in.
        .wasm_memory64(false)
        .wasm_gc(false)
        .gc_support(false)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16));
    settings
}

fn slots(shape: &Shape, instances: u32, memory_bytes: usize) -> PoolingAllocationConfig {
    let scan = PoolingAllocationConfig::is_pagemap_scan_available();
    let mut slots = PoolingAllocationConfig::new();
    // As much as so many of the largest components need: the slots must not run out before the turns do, or one
    // tenant's large ones could take from all others.
    slots
        .total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(shape.core_instances))
        .total_memories(instances.saturating_mul(shape.memories))
        .total_tables(instances.saturating_mul(shape.tables))
        .total_stacks(instances)
        .max_core_instances_per_component(shape.core_instances)
        .max_memories_per_component(shape.memories)
        .max_tables_per_component(shape.tables)
        .max_core_instance_size(shape.instance_bytes)
        .max_component_instance_size(shape.instance_bytes)
        .max_memory_size(memory_bytes)
        .table_elements(shape.table_elements)
        // Resetting pages that a call has touched beats mapping new ones, as long as the kernel tells
        // which were touched; without, all that is kept has to be cleared at each call.
        .pagemap_scan(if scan { Enabled::Yes } else { Enabled::No })
        .linear_memory_keep_resident(if scan { 512 << 10 } else { 64 << 10 })
        .table_keep_resident(16 << 10)
        .max_unused_warm_slots(instances);
    slots
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    use super::*;

    #[test]
    fn code_compiled_by_one_engine_runs_in_all() {
        let hash = |engine: Engine| {
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let light = hash(engine(&LIGHT, 4, 64 << 20, 512 << 10).unwrap());
        assert_eq!(light, hash(engine(&HEAVY, 2, 64 << 20, 1 << 20).unwrap()));
        assert_eq!(light, hash(engine_without_slots(64 << 10).unwrap()));
    }
}
