//! Compiling: from wasm to native code, where hostile bytes can do no more than waste what they were given.
//!
//! A compiler is no sandbox: a small file can make it run for minutes or take all memory. So the gateway
//! compiles in child processes, which are itself with other arguments: `child` starts one and bounds it
//! from outside, `program` is what runs inside and bounds itself.

mod child;
mod program;

use std::future::Future;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::Parser;
use wasmtime::Engine;
use wit_component::ComponentEncoder;

use super::direct;
use super::load::LoadError;

pub use self::program::{Bounds, compile_stdin};

/// The hidden command that makes a process a compiler.
pub const COMMAND: &str = "compile-plugin";

/// How long a compilation counts as quick. A slow one gives its place to others.
const QUICK: Duration = Duration::from_secs(2);

/// Slow compilations that run beside the quick ones.
const SLOW_PLACES: usize = 2;

/// How plugins are compiled, and what is kept of it.
#[derive(Debug, Clone)]
pub struct Compilation {
    /// What compiles.
    pub by: Compiler,
    /// The processor time that compiling one plugin may take, in whole seconds.
    pub time: Duration,
    /// The memory that compiling one plugin may take, in bytes: address space, all of the process.
    pub memory_bytes: u64,
    /// The bytes of compiled code that are kept in the cache. What is in use stays in any case.
    pub cache_bytes: u64,
}

impl Default for Compilation {
    fn default() -> Self {
        Self {
            by: Compiler::InProcess,
            time: Duration::from_secs(30),
            memory_bytes: 2 << 30,
            cache_bytes: 1 << 30,
        }
    }
}

/// What compiles plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// This process, without a bound: for tests, benchmarks and plugins that are trusted.
    InProcess,
    /// A child process that runs this program, which has to know [`COMMAND`].
    Child(PathBuf),
}

impl Compiler {
    /// A child process that runs the same program as this one.
    #[must_use]
    pub fn this_program() -> Self {
        // The link leads to the program that runs, even when its file has been replaced by another
        // version meanwhile, whose compiled code this one could not load.
        let itself = PathBuf::from("/proc/self/exe");
        if itself.exists() {
            return Self::Child(itself);
        }
        Self::Child(std::env::current_exe().unwrap_or_else(|_| PathBuf::from("hookmill")))
    }
}

/// Runs compilations, a few at a time.
pub(super) struct Queue {
    settings: Compilation,
    patience: Duration,
    quick: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

impl Queue {
    pub(super) fn new(settings: Compilation) -> Self {
        // The rest of the machine is for events.
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            settings,
            patience: QUICK,
            quick: Arc::new(Semaphore::new(cores.div_ceil(2))),
            slow: Arc::new(Semaphore::new(SLOW_PLACES)),
        }
    }

    /// Does the work once it is its turn. Work that turns out slow moves aside, so that it takes more than
    /// one slow plugin to delay the others.
    pub(super) async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let quick = self.quick.acquire().await;
        let mut work = pin!(work);
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(self.patience) => {}
        }
        let slow = tokio::select! {
            done = &mut work => return done,
            slow = self.slow.acquire() => slow,
        };
        drop(quick);
        let done = work.await;
        drop(slow);
        done
    }

    /// Compiles a component or a core module.
    pub(super) async fn compile(&self, engine: &Engine, wasm: Bytes) -> Result<Vec<u8>, LoadError> {
        match &self.settings.by {
            Compiler::Child(program) => child::compile(program, &self.settings, &wasm).await,
            Compiler::InProcess => {
                let engine = engine.clone();
                let compiled =
                    tokio::task::spawn_blocking(move || compile_here(&engine, &wasm)).await;
                match compiled {
                    Ok(compiled) => compiled.map_err(|error| LoadError::new(error.message())),
                    Err(error) => Err(LoadError::new(format!("compiling it failed: {error}"))),
                }
            }
        }
    }
}

/// Why there is no compiled code, in the compiler's own words.
enum Refusal {
    NotAComponent { error: wasmtime::Error, why: String },
    NotCompiled(wasmtime::Error),
}

impl Refusal {
    fn message(&self) -> String {
        match self {
            Self::NotAComponent { why, .. } => format!(
                "it is a core module that cannot be made a component; build it with the plugin SDK \
                 or another `wit-bindgen`: {why}"
            ),
            Self::NotCompiled(error) => format!("it does not compile: {error:#}"),
        }
    }

    fn error(&self) -> &wasmtime::Error {
        match self {
            Self::NotAComponent { error, .. } | Self::NotCompiled(error) => error,
        }
    }
}

/// Compiles in this process: validates, makes a component of a core module, and generates code.
fn compile_here(engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>, Refusal> {
    if direct::is_direct(wasm) {
        return engine.precompile_module(wasm).map_err(Refusal::NotCompiled);
    }
    let encoded;
    let component = if Parser::is_component(wasm) {
        wasm
    } else {
        encoded = ComponentEncoder::default()
            .validate(true)
            .module(wasm)
            // Taken in only where the module imports it.
            .and_then(|encoder| {
                encoder.adapter(
                    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
                )
            })
            .and_then(|mut encoder| encoder.encode())
            .map_err(|error| Refusal::NotAComponent {
                why: format!("{error:#}"),
                error: wasmtime::Error::from_boxed(error.into()),
            })?;
        &encoded
    };
    engine.precompile_component(component).map_err(Refusal::NotCompiled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        Queue {
            settings: Compilation::default(),
            patience: Duration::from_millis(1),
            quick: Arc::new(Semaphore::new(1)),
            slow: Arc::new(Semaphore::new(2)),
        }
    }

    #[tokio::test]
    async fn slow_compilations_move_aside_for_quick_ones() {
        let queue = queue();
        let slow = || queue.run(std::future::pending::<()>());
        let mut two_slow = pin!(async { tokio::join!(slow(), slow()) });
        tokio::select! {
            _ = &mut two_slow => unreachable!("they never end"),
            done = queue.run(async { "quick" }) => assert_eq!(done, "quick"),
        }
        // Their number is bounded: a third one holds on to its place, and the next one waits.
        let mut third = pin!(slow());
        let wait = tokio::time::sleep(Duration::from_millis(50));
        tokio::select! {
            _ = &mut two_slow => unreachable!("they never end"),
            () = &mut third => unreachable!("it never ends"),
            () = async { tokio::task::yield_now().await; queue.run(async {}).await } => {
                unreachable!("there is no place")
            }
            () = wait => {}
        }
    }

    #[tokio::test]
    async fn what_cannot_be_compiled_says_why() {
        let engine = Engine::default();
        for (wasm, why) in [
            ("(module (import \"env\" \"out\" (func)))", "cannot be made a component"),
            ("(component (core module (func (result i32))))", "it does not compile"),
        ] {
            let wasm = Bytes::from(wat::parse_str(wasm).unwrap());
            let error = queue().compile(&engine, wasm).await.err().unwrap();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
