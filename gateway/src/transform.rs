//! The transform stage: runs an event through a chain of plugins, each call in a fresh sandbox.
//!
//! `engine` owns the two pools, a `pool` runs the plugins that fit it; `inspect` looks a file over and `load` makes a
//! plugin of it; `compile` does so in child processes, and `cache` keeps what they made; `turns` says which call
//! may begin and `pace` which may go on; `call` runs one call under its limits, with the empty `wasi` that some
//! languages need; `host` is what a call may ask for beyond that; `output` checks what came back; `chain` strings
//! calls together; `tally` counts them; `schema` checks configs.
//!
//! For a plugin's author, `trial` makes one call and tells everything about it, `fixture` compares a call with
//! what a file expects, with a `stand_in` for store and servers, `anatomy` tells what a file consists of, and
//! `shrink` leaves out what no gateway needs.

mod allowance;
mod anatomy;
mod blame;
mod budget;
mod cache;
mod call;
mod chain;
mod code;
mod compile;
mod description;
mod direct;
mod engine;
mod fixture;
mod host;
mod inspect;
mod limits;
mod load;
mod log;
mod output;
mod pace;
mod pool;
mod probe;
mod schema;
mod shrink;
mod stand_in;
mod state;
mod tally;
mod text;
mod trial;
mod turns;
mod usage;
mod wasi;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use self::schema::ConfigSchema;
use crate::digest::Digest;

pub use self::anatomy::{Anatomy, DamagedFile, Kind};
pub use self::chain::{Failed, Outcome, Recipient, Step, run};
pub use self::compile::{Bounds, COMMAND, Compilation, Compiler, compile_stdin};
pub use self::engine::{EngineError, Runtime};
pub use self::fixture::{Fixture, FixtureError, Judgement};
pub use self::host::{
    AllowedUrl, Capability, Fetch, FetchError, FetchRequest, FetchResponse, Grants, Keys, Manifest,
    Randomness, Secrets, Services,
};
pub use self::limits::Limits;
pub use self::load::{LoadError, Resources};
pub use self::probe::Reused;
pub use self::schema::Misfits;
pub use self::shrink::shrink;
pub use self::stand_in::{Exchange, Mocks, ScriptedAnswer, StandIn};
pub use self::tally::{Reading, Tally};
pub use self::trial::{Returned, Trial, trial};
pub use self::usage::{LogLevel, LogLine, Usage};

/// How plugins are run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Calls that can run at once; more wait for their turn.
    pub instances: u32,
    /// The same for plugins that need more of the engine than most: the runtimes of other languages.
    pub heavy_instances: u32,
    /// Calls of one tenant that can run at once; the others are for other tenants.
    pub tenant_instances: u32,
    /// The memory that all calls under way may take together, in bytes, each counted with its limit.
    pub total_memory_bytes: usize,
    /// The memory that those of one tenant may take together, in bytes.
    pub tenant_memory_bytes: usize,
    /// How deep the stack of a call may become, in bytes.
    pub max_stack_bytes: usize,
    /// The largest plugin file that is loaded, in bytes.
    pub max_file_bytes: u64,
    /// Limits of plugins that bring none of their own.
    pub limits: Limits,
    /// The most memory any plugin may be granted, in bytes: the size of a slot in the pool.
    pub max_memory_bytes: usize,
    /// Where compiled plugins are kept. Only the gateway may write there: it is native code.
    pub cache_dir: PathBuf,
    /// How plugins are compiled.
    pub compilation: Compilation,
}

impl Config {
    /// The defaults, with the compiled plugins in this folder, compiled in this process.
    #[must_use]
    pub fn new(cache_dir: PathBuf) -> Self {
        Self {
            instances: 256,
            heavy_instances: 16,
            tenant_instances: 128,
            total_memory_bytes: 2 << 30,
            tenant_memory_bytes: 1 << 30,
            max_stack_bytes: 512 << 10,
            max_file_bytes: 10 << 20,
            limits: Limits::default(),
            max_memory_bytes: 64 << 20,
            cache_dir,
            compilation: Compilation::default(),
        }
    }
}

/// The contract with plugins, from the WIT world that the SDK uses too.
mod contract {
    wasmtime::component::bindgen!({
        path: "../plugin-sdk/wit/since-v1.0",
        world: "plugin",
        // A call too many ends in a trap.
        imports: { default: trappable },
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

/// A plugin, loaded and ready to be called. Immutable: a changed file becomes another plugin.
#[derive(Clone)]
pub struct Plugin {
    name: Arc<str>,
    version: Digest,
    /// `name@version`, as it is recorded with each delivery.
    label: Arc<str>,
    description: Description,
    limits: Limits,
    grants: Arc<Grants>,
    tally: Arc<Tally>,
    runtime: Runtime,
    pool: pool::Pool,
    /// Whether its calls need a WASI context.
    wasi: bool,
    code: Code,
    /// Keeps the code that it runs from in the cache.
    _compiled: Option<cache::Hold>,
    config_schema: Option<Arc<ConfigSchema>>,
}

/// A plugin's code, linked: what each call instantiates.
#[derive(Clone)]
enum Code {
    /// A component: anything that fits the contract.
    Component(contract::PluginPre<state::State>),
    /// A core module that the SDK built, which is quicker.
    Direct(direct::Direct),
}

impl Plugin {
    /// The name that webhooks know it by: its file's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hash of its file's content.
    #[must_use]
    pub fn version(&self) -> Digest {
        self.version
    }

    /// `name@version`, as it is recorded with each delivery.
    #[must_use]
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// What it says of itself.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Checks a config, as JSON text, by the plugin's schema; without one, any will do.
    ///
    /// # Errors
    /// What of it does not fit.
    pub fn check_config(&self, config: &str) -> Result<(), Misfits> {
        self.config_schema.as_ref().map_or(Ok(()), |schema| schema.check(config))
    }

    /// What one call may use.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What it may do beside transforming.
    #[must_use]
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// What its calls came to.
    #[must_use]
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Goes on with the tally that the same version had before.
    pub fn continue_tally(&mut self, tally: Arc<Tally>) {
        self.tally = tally;
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// What a plugin says of itself.
#[derive(Debug, Clone, Default)]
pub struct Description {
    /// The name of its crate or package.
    pub name: String,
    /// Its own version, for people.
    pub version: String,
    /// What it does.
    pub description: String,
    /// A JSON Schema for its config.
    pub config_schema: Option<String>,
    /// The capabilities that it cannot work without.
    pub capabilities: Vec<String>,
}
