//! Direct calls: a core module that the SDK built, called as it is, without a component around it.
//!
//! A component around such a module holds two more core instances, just to hand the log to it, and passes
//! each string with a call into the guest of its own. For a small payload that is some four microseconds a call. So this
//! speaks the canonical ABI by hand, for the one world `hookmill:plugin/plugin@1.0.0`, whose layout is frozen: what a
//! guest sees and does is the same either way, and so is what it may do.
//!
//! The event and the context go over in one block, so the guest must not give parts of it back to an
//! allocator that would mind: it has to be the SDK's arena, which a custom section says. A guest that lies there
//! harms its own memory.

mod lift;
mod lower;

use wasmparser::{Encoding, Import, Parser, Payload};
use wasmtime::{
    Caller, Extern, ExternType, Instance, InstancePre, Linker, Memory, Module, ModuleExport, Store,
    TypedFunc,
};

use super::contract::exports::hookmill::plugin::transformer as guest;
use super::contract::hookmill::plugin::log::Level;
use super::state::State;
use lift::Reader;

pub(super) use lift::TooMuch;

/// The custom section with which the SDK says that the module's allocator is its arena.
const ARENA_SECTION: &str = "hookmill:arena";

/// The module that the log is imported from: with the name `log`, all that a direct module may import.
const LOG: &str = "hookmill:plugin/log@1.0.0";

const DESCRIBE: &str = "hookmill:plugin/transformer@1.0.0#describe";
const TRANSFORM: &str = "hookmill:plugin/transformer@1.0.0#transform";

/// Whether this is a module that can be called directly. What does not parse is none.
pub(super) fn is_direct(wasm: &[u8]) -> bool {
    let mut arena = false;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload {
            Ok(Payload::CustomSection(section)) => arena |= section.name() == ARENA_SECTION,
            Ok(Payload::ImportSection(imports)) => {
                let provided = |import: &Import<'_>| (import.module, import.name) == (LOG, "log");
                if !imports.into_imports().all(|import| import.is_ok_and(|it| provided(&it))) {
                    return false;
                }
            }
            // It would run where nothing can interrupt it for a while.
            Ok(Payload::StartSection { .. }) => return false,
            Ok(Payload::Version { encoding: Encoding::Component, .. }) | Err(_) => return false,
            Ok(_) => {}
        }
    }
    arena
}

/// The log as a core function, in a linker that has nothing else.
pub(super) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap(LOG, "log", log)?;
    Ok(linker)
}

fn log(mut caller: Caller<'_, State>, level: u32, at: u32, len: u32) -> wasmtime::Result<()> {
    let level = match level {
        0 => Level::Trace,
        1 => Level::Debug,
        2 => Level::Info,
        3 => Level::Warn,
        4 => Level::Error,
        _ => wasmtime::bail!("the log's level {level} does not exist"),
    };
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        wasmtime::bail!("the module exports no memory");
    };
    let (memory, state) = memory.data_and_store_mut(&mut caller);
    let text = Reader::new(memory, usize::MAX).bytes(at, len)?;
    // What is over the limit is not even looked at.
    state.log(level, text)
}

/// A module that can be called directly, linked.
#[derive(Clone)]
pub(super) struct Direct {
    instance: InstancePre<State>,
    memory: ModuleExport,
    realloc: ModuleExport,
    describe: ModuleExport,
    transform: ModuleExport,
}

impl Direct {
    /// Links a module.
    ///
    /// # Errors
    /// What the module lacks or wants too much.
    pub(super) fn new(linker: &Linker<State>, module: &Module) -> wasmtime::Result<Self> {
        let memory = module.get_export_index("memory");
        Ok(Self {
            instance: linker.instantiate_pre(module)?,
            memory: memory.ok_or_else(|| wasmtime::format_err!("it exports no memory"))?,
            realloc: export(module, "cabi_realloc", 4)?,
            describe: export(module, DESCRIBE, 0)?,
            transform: export(module, TRANSFORM, 1)?,
        })
    }

    pub(super) fn module(&self) -> &Module {
        self.instance.module()
    }

    pub(super) async fn describe(
        &self,
        store: &mut Store<State>,
    ) -> wasmtime::Result<guest::Description> {
        let instance = self.instance.instantiate(&mut *store)?;
        let describe: TypedFunc<(), u32> = function(instance, store, &self.describe)?;
        store.data_mut().on_fibre();
        let at = describe.call_async(&mut *store, ()).await?;
        reader(self.memory(instance, store)?, store).description(at)
    }

    pub(super) async fn transform(
        &self,
        store: &mut Store<State>,
        event: guest::Event<'_>,
        context: guest::Context<'_>,
    ) -> wasmtime::Result<Result<guest::Verdict, guest::Failure>> {
        self.start(store)?.call(store, &event, &context).await
    }

    /// Makes an instance. No code of the guest runs here: a direct module has no start function.
    pub(super) fn start(&self, store: &mut Store<State>) -> wasmtime::Result<Started> {
        let instance = self.instance.instantiate(&mut *store)?;
        Ok(Started {
            memory: self.memory(instance, store)?,
            realloc: function(instance, store, &self.realloc)?,
            transform: function(instance, store, &self.transform)?,
        })
    }

    fn memory(&self, instance: Instance, store: &mut Store<State>) -> wasmtime::Result<Memory> {
        let memory = instance.get_module_export(&mut *store, &self.memory);
        memory
            .and_then(Extern::into_memory)
            .ok_or_else(|| wasmtime::format_err!("the module exports no memory"))
    }
}

/// An instance of a direct module.
pub(super) struct Started {
    memory: Memory,
    realloc: TypedFunc<(u32, u32, u32, u32), u32>,
    transform: TypedFunc<(u32,), u32>,
}

impl Started {
    /// Calls `transform`.
    pub(super) async fn call(
        &self,
        store: &mut Store<State>,
        event: &guest::Event<'_>,
        context: &guest::Context<'_>,
    ) -> wasmtime::Result<Result<guest::Verdict, guest::Failure>> {
        store.data_mut().on_fibre();
        let arguments = lower::Arguments::new(event, context)?;
        let block = (0, 0, lower::ALIGN, arguments.len());
        let at = self.realloc.call_async(&mut *store, block).await?;
        arguments.write(self.memory.data_mut(&mut *store), at)?;
        let at = self.transform.call_async(&mut *store, (at,)).await?;
        reader(self.memory, store).result(at)
    }
}

fn reader(memory: Memory, store: &mut Store<State>) -> Reader<'_> {
    let (memory, state) = memory.data_and_store_mut(store);
    Reader::new(memory, state.returnable())
}

/// A function that takes this many numbers of 32 bits and gives one.
fn export(module: &Module, name: &str, parameters: usize) -> wasmtime::Result<ModuleExport> {
    let Some(ExternType::Func(exported)) = module.get_export(name) else {
        wasmtime::bail!("it does not export the function `{name}`");
    };
    let fits = (exported.params().len(), exported.results().len()) == (parameters, 1)
        && exported.params().chain(exported.results()).all(|it| it.is_i32());
    match module.get_export_index(name).filter(|_| fits) {
        Some(export) => Ok(export),
        None => wasmtime::bail!("its function `{name}` has another type than the contract's"),
    }
}

fn function<P, R>(
    instance: Instance,
    store: &mut Store<State>,
    export: &ModuleExport,
) -> wasmtime::Result<TypedFunc<P, R>>
where
    P: wasmtime::WasmParams,
    R: wasmtime::WasmResults,
{
    instance
        .get_module_export(&mut *store, export)
        .and_then(Extern::into_func)
        .ok_or_else(|| wasmtime::format_err!("the module exports no such function"))?
        .typed(store)
}
