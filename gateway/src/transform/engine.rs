//! The runtime: the two pools, the cache of compiled code, and the clock that bounds calls.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::{Engine, EngineWeak};

use super::Config;
use super::cache::Cache;
use super::compile::Queue;
use super::host::Services;
use super::pace::Pace;
use super::pool::{self, HEAVY, LIGHT, Pool, Shape};
use super::turns::{Amount, Turn, Turns};

/// The length of a tick: how often a running call is interrupted to see whether it is over its limit,
/// and to let other tasks run.
const TICK: Duration = Duration::from_millis(1);

/// Ticks without a call after which the clock stops until there is one.
const IDLE_TICKS: u32 = 100;

/// Everything that plugins share: nothing of it is visible to them. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
    services: Option<Arc<Services>>,
}

struct Shared {
    light: Pool,
    heavy: Pool,
    cache: Cache,
    compiling: Queue,
    /// Bounds the work that is done on threads of its own.
    aside: Semaphore,
    config: Config,
    turns: Turns,
    waiting_turns: Turns,
    pace: Pace,
}

impl Runtime {
    /// Sets up the engines and starts their clock.
    ///
    /// # Errors
    /// When the machine cannot give what the engines need.
    pub fn new(config: Config) -> Result<Self, EngineError> {
        let (light, light_shape) = engine(&LIGHT, config.instances, &config)?;
        let (heavy, heavy_shape) = engine(&HEAVY, config.heavy_instances, &config)?;
        let cache = Cache::open(&config.cache_dir, &light, config.compilation.cache_bytes);
        let compiling = Queue::new(config.compilation.clone());
        let aside = Semaphore::new(thread::available_parallelism().map_or(1, NonZeroUsize::get));
        let clock = Clock::start(vec![light.weak(), heavy.weak()]).map_err(EngineError::new)?;
        let turns = Turns::new(
            Amount { bytes: config.total_memory_bytes, ..Amount::calls(config.instances) },
            Amount { bytes: config.tenant_memory_bytes, ..Amount::calls(config.tenant_instances) },
        );
        // Of the few slots of the heavy pool, too, one tenant gets no more than half.
        let slots = config.heavy_instances;
        let heavy_turns = Turns::new(Amount::calls(slots), Amount::calls(slots.div_ceil(2)));
        let light =
            Pool::new(light, light_shape, None, Arc::clone(&clock)).map_err(EngineError::new)?;
        let heavy =
            Pool::new(heavy, heavy_shape, Some(heavy_turns), clock).map_err(EngineError::new)?;
        let waiting_turns = Turns::to_wait(config.instances);
        let pace = Pace::new();
        let shared =
            Shared { light, heavy, cache, compiling, aside, config, turns, waiting_turns, pace };
        Ok(Self { shared: Arc::new(shared), services: None })
    }

    /// The same with something behind the capabilities, for the plugins that are loaded with it. Without, `kv`
    /// and `http` answer that they are not there.
    #[must_use]
    pub fn with_services(self, services: Services) -> Self {
        Self { services: Some(Arc::new(services)), ..self }
    }

    /// The limits of plugins that bring none of their own.
    #[must_use]
    pub fn default_limits(&self) -> &super::Limits {
        &self.shared.config.limits
    }

    /// The most memory any plugin may be granted, in bytes.
    #[must_use]
    pub fn max_memory_bytes(&self) -> usize {
        self.shared.config.max_memory_bytes
    }

    /// The largest plugin file that is loaded, in bytes.
    #[must_use]
    pub fn max_file_bytes(&self) -> u64 {
        self.shared.config.max_file_bytes
    }

    /// The engine that compiles; all run what it makes.
    pub(super) fn engine(&self) -> &Engine {
        self.shared.light.engine()
    }

    /// The pools, the one to be preferred first.
    pub(super) fn pools(&self) -> [&Pool; 2] {
        [&self.shared.light, &self.shared.heavy]
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.shared.cache
    }

    pub(super) fn compiling(&self) -> &Queue {
        &self.shared.compiling
    }

    /// Does work that would hold up a runtime's worker on a thread of its own, as much at once as there
    /// are processors.
    ///
    /// # Errors
    /// When the work panics.
    pub async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<T> {
        let _turn = self.shared.aside.acquire().await.map_err(std::io::Error::other)?;
        tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)
    }

    pub(super) fn services(&self) -> Option<Arc<Services>> {
        self.services.clone()
    }

    /// Who may begin.
    pub(super) fn turns(&self) -> &Turns {
        &self.shared.turns
    }

    /// A turn of a call that may wait for something outside.
    pub(super) async fn waiting_turn(&self, tenant: &Arc<str>) -> Option<Turn> {
        self.shared.waiting_turns.take(tenant, Amount::one(0)).await
    }

    /// Who may go on.
    pub(super) fn pace(&self) -> &Pace {
        &self.shared.pace
    }

    /// How deep a call's stack may become, in bytes.
    pub(super) fn max_stack_bytes(&self) -> usize {
        self.shared.config.max_stack_bytes
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("config", &self.shared.config).finish_non_exhaustive()
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

/// An engine with slots, or without where the machine cannot reserve them, and what fits into it.
fn engine(
    shape: &'static Shape,
    instances: u32,
    config: &Config,
) -> Result<(Engine, &'static Shape), EngineError> {
    let stack_bytes = config.max_stack_bytes;
    match pool::engine(shape, instances, config.max_memory_bytes, stack_bytes) {
        Ok(engine) => Ok((engine, shape)),
        Err(error) => {
            // Slots reserve address space, which some containers and emulators forbid.
            tracing::warn!(
                %error,
                pool = shape.name,
                "no pool of plugin instances can be made; calls will cost some 50 µs more"
            );
            let engine = pool::engine_without_slots(stack_bytes).map_err(EngineError::new)?;
            // Nothing but slots would tell what fits, so all that may run anywhere may run here.
            Ok((engine, &HEAVY))
        }
    }
}

/// Advances the engines' epochs once a tick, from a thread of its own: a runtime's timer can be held
/// up by the very call that it should interrupt.
pub(super) struct Clock {
    calls: AtomicUsize,
    stopped: AtomicBool,
    thread: OnceLock<thread::Thread>,
}

impl Clock {
    fn start(engines: Vec<EngineWeak>) -> std::io::Result<Arc<Self>> {
        let clock = Arc::new(Self {
            calls: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        let weak = Arc::downgrade(&clock);
        let handle = thread::Builder::new().name("plugin-clock".to_owned()).spawn(move || {
            let mut idle = 0;
            while let Some(clock) = weak.upgrade() {
                for engine in engines.iter().filter_map(EngineWeak::upgrade) {
                    engine.increment_epoch();
                }
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
        // lets the thread notice that the pools are gone.
        if self.calls.load(Ordering::SeqCst) == 0 {
            thread::park_timeout(Duration::from_secs(1));
        }
        self.stopped.store(false, Ordering::SeqCst);
        idle
    }

    /// Keeps the clock running until the guard is dropped.
    pub(super) fn begin(&self) -> Running<'_> {
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
