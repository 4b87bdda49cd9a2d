//! The engine: compiled once configured, with a pool of instance slots and the clock that bounds calls.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::component::Linker;
use wasmtime::{Enabled, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::cache::Cache;
use super::call::State;
use super::{Config, contract, direct};

/// The length of a tick: how often a running call is interrupted to see whether it is over its limit,
/// and to let other tasks run.
const TICK: Duration = Duration::from_millis(1);

/// Ticks without a call after which the clock stops until there is one.
const IDLE_TICKS: u32 = 100;

/// Table elements that one plugin may have: Rust plugins need some hundred.
pub(super) const MAX_TABLE_ELEMENTS: usize = 20_000;

/// Everything that plugins share: nothing of it is visible to them. Cheap to clone.
#[derive(Clone)]
pub struct Runtime(Arc<Shared>);

struct Shared {
    engine: Engine,
    linker: Linker<State>,
    direct_linker: wasmtime::Linker<State>,
    cache: Cache,
    config: Config,
    turns: Semaphore,
    clock: Arc<Clock>,
}

impl Runtime {
    /// Sets up the engine and starts its clock.
    ///
    /// # Errors
    /// When the machine cannot give what the engine needs, or the cache folder cannot be made.
    pub fn new(config: Config) -> Result<Self, EngineError> {
        let engine = match Engine::new(&settings(&config, true)) {
            Ok(engine) => engine,
            Err(error) => {
                // The pool reserves address space, which some containers and emulators forbid.
                tracing::warn!(
                    %error,
                    "no pool of plugin instances can be made; calls will cost some 50 µs more"
                );
                Engine::new(&settings(&config, false)).map_err(EngineError::new)?
            }
        };
        let mut linker = Linker::new(&engine);
        contract::Plugin::add_to_linker::<_, wasmtime::component::HasSelf<_>>(
            &mut linker,
            |state| state,
        )
        .map_err(EngineError::new)?;
        let direct_linker = direct::linker(&engine).map_err(EngineError::new)?;
        let cache = Cache::open(&config.cache_dir, &engine).map_err(EngineError::new)?;
        let clock = Clock::start(engine.weak()).map_err(EngineError::new)?;
        let turns = Semaphore::new(usize::try_from(config.instances).unwrap_or(usize::MAX));
        Ok(Self(Arc::new(Shared { engine, linker, direct_linker, cache, config, turns, clock })))
    }

    /// The limits of plugins that bring none of their own.
    #[must_use]
    pub fn default_limits(&self) -> &super::Limits {
        &self.0.config.limits
    }

    /// The most memory any plugin may be granted, in bytes.
    #[must_use]
    pub fn max_memory_bytes(&self) -> usize {
        self.0.config.max_memory_bytes
    }

    /// The largest plugin file that is loaded, in bytes.
    #[must_use]
    pub fn max_file_bytes(&self) -> u64 {
        self.0.config.max_file_bytes
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(super) fn linker(&self) -> &Linker<State> {
        &self.0.linker
    }

    pub(super) fn direct_linker(&self) -> &wasmtime::Linker<State> {
        &self.0.direct_linker
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.0.cache
    }

    pub(super) fn turns(&self) -> &Semaphore {
        &self.0.turns
    }

    /// Keeps the clock running until the guard is dropped.
    pub(super) fn running(&self) -> Running<'_> {
        self.0.clock.begin()
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("config", &self.0.config).finish_non_exhaustive()
    }
}

/// Why the engine cannot be set up.
#[derive(Debug)]
pub struct EngineError(String);

impl EngineError {
    fn new(error: impl fmt::Display) -> Self {
        Self(format!("{error:#}"))
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the plugin engine cannot be set up: {}", self.0)
    }
}

impl std::error::Error for EngineError {}

fn settings(config: &Config, pooled: bool) -> wasmtime::Config {
    let mut settings = wasmtime::Config::new();
    settings
        .epoch_interruption(true)
        .memory_init_cow(true)
        // The contract has no async functions; supporting them would slow down each call.
        .concurrency_support(false)
        .max_wasm_stack(512 << 10)
        // Host functions run on what is left, so it has to be ample.
        .async_stack_size(1 << 20)
        // What no plugin needs is no way in.
        .wasm_memory64(false)
        .wasm_gc(false)
        .gc_support(false)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16));
    if pooled {
        settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config)));
    }
    settings
}

fn pool(config: &Config) -> PoolingAllocationConfig {
    let instances = config.instances;
    let scan = PoolingAllocationConfig::is_pagemap_scan_available();
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(4))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(2))
        .total_stacks(instances)
        .max_core_instances_per_component(8)
        .max_memories_per_component(1)
        .max_tables_per_component(4)
        .max_core_instance_size(1 << 20)
        .max_component_instance_size(1 << 20)
        .max_memory_size(config.max_memory_bytes)
        .table_elements(MAX_TABLE_ELEMENTS)
        // Resetting pages that a call has touched beats mapping new ones, as long as the kernel tells
        // which were touched; without, all that is kept has to be cleared at each call.
        .pagemap_scan(if scan { Enabled::Yes } else { Enabled::No })
        .linear_memory_keep_resident(if scan { 512 << 10 } else { 64 << 10 })
        .table_keep_resident(16 << 10)
        .max_unused_warm_slots(instances);
    pool
}

/// Advances the engine's epoch once a tick, from a thread of its own: a runtime's timer can be held
/// up by the very call that it should interrupt.
struct Clock {
    calls: AtomicUsize,
    stopped: AtomicBool,
    thread: OnceLock<thread::Thread>,
}

impl Clock {
    fn start(engine: EngineWeak) -> std::io::Result<Arc<Self>> {
        let clock = Arc::new(Self {
            calls: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        let weak = Arc::downgrade(&clock);
        let handle = thread::Builder::new().name("plugin-clock".to_owned()).spawn(move || {
            let mut idle = 0;
            while let (Some(engine), Some(clock)) = (engine.upgrade(), weak.upgrade()) {
                engine.increment_epoch();
                drop(engine);
                idle = clock.rest(idle);
            }
        })?;
        // The thread is set once, here.
        drop(clock.thread.set(handle.thread().clone()));
        Ok(clock)
    }

    /// Waits for the next tick, or, after enough idle ones, for the next call.
    #[expect(clippy::disallowed_methods, reason = "a thread of its own, not a runtime worker")]
    fn rest(&self, idle: u32) -> u32 {
        if self.calls.load(Ordering::SeqCst) > 0 {
            thread::sleep(TICK);
            return 0;
        }
        if idle < IDLE_TICKS {
            thread::sleep(TICK);
            return idle + 1;
        }
        self.stopped.store(true, Ordering::SeqCst);
        // A call that began before the store above did not see it, so look once more. The time limit
        // lets the thread notice that the engine is gone.
        if self.calls.load(Ordering::SeqCst) == 0 {
            thread::park_timeout(Duration::from_secs(1));
        }
        self.stopped.store(false, Ordering::SeqCst);
        idle
    }

    fn begin(&self) -> Running<'_> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.stopped.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
        Running(self)
    }
}

/// A call under way.
pub(super) struct Running<'a>(&'a Clock);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}
