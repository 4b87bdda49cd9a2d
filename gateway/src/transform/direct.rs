//! Direct calls: a core module that the SDK built, called as it is, without a component around it.
//!
//! A component around such a module holds two more core instances, just to hand the log to it, and passes
//! each string with a call into the guest of its own. For a small payload that is some four microseconds a call. So this
//! speaks the canonical ABI by hand, for the one world `hookmill:plugin/plugin@1.0.0`, whose layout is frozen: what a
//! guest sees and does is the same either way, and so is what it may do.
//!
//! The event and the context go over in one block, so the guest must not give parts of it back to an
//! allocator that would mind: it has to be the SDK's arena, which a custom section says. The block goes to the
//! module's inbox where it has one and the block fits, which spares a call to allocate it. A guest that lies about
//! either harms its own memory.
//!
//! Such a guest can do nothing that lasts before it answers. So a call is tried without a fibre first, which
//! most calls end too soon to need, and begun anew on one should it take long.

mod lift;
mod lower;
mod patience;

use std::sync::Arc;

use wasmparser::{Encoding, Export, Import, Parser, Payload};
use wasmtime::{
    Caller, Extern, ExternType, Instance, InstancePre, Linker, Memory, Module, ModuleExport, Store,
    TypedFunc,
};

use super::contract::exports::hookmill::plugin::transformer as guest;
use super::contract::hookmill::plugin::log::Level;
use super::state::State;
use lift::Reader;
use patience::Patience;

pub(super) use lift::TooMuch;
pub(super) use lower::Arguments;

/// The custom section with which the SDK says that the module's allocator is its arena.
const ARENA_SECTION: &str = "hookmill:arena";

/// The module that the log is imported from: with the name `log`, all that a direct module may import.
const LOG: &str = "hookmill:plugin/log@1.0.0";

/// The global whose value is the address of the inbox: room for [`INBOX_BYTES`] at a multiple of [`lower::ALIGN`],
/// which the module uses for nothing else.
const INBOX: &str = "hookmill:inbox";

/// What fits an inbox, in bytes.
const INBOX_BYTES: u32 = 16 << 10;

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
            // What a component calls before anything else; here nothing would.
            Ok(Payload::ExportSection(exports)) => {
                let initializes = |export: Export<'_>| export.name == "_initialize";
                if exports.into_iter().any(|export| !export.is_ok_and(|it| !initializes(it))) {
                    return false;
                }
            }
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
    inbox: Option<ModuleExport>,
    realloc: ModuleExport,
    describe: ModuleExport,
    transform: ModuleExport,
    patience: Arc<Patience>,
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
            inbox: module.get_export_index(INBOX),
            realloc: export(module, "cabi_realloc", 4)?,
            describe: export(module, DESCRIBE, 0)?,
            transform: export(module, TRANSFORM, 1)?,
            patience: Arc::default(),
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

    /// Calls `transform` in a fresh instance.
    pub(super) async fn transform(
        &self,
        store: &mut Store<State>,
        event: &guest::Event<'_>,
        context: &guest::Context<'_>,
    ) -> wasmtime::Result<Result<guest::Verdict, guest::Failure>> {
        let started = self.start(store)?;
        let arguments = Arguments::new(event, context)?;
        if store.data().may_be_brief() && self.patience.is_brief() {
            let answer = started.call_briefly(store, &arguments);
            if store.data().took_long() {
                self.patience.took_long();
            }
            return answer;
        }
        let answer = started.call(store, &arguments).await;
        if !store.data().took_long() {
            self.patience.was_brief();
        }
        answer
    }

    /// Makes an instance. No code of the guest runs here: a direct module has no start function.
    pub(super) fn start(&self, store: &mut Store<State>) -> wasmtime::Result<Started> {
        let instance = self.instance.instantiate(&mut *store)?;
        let inbox = self.inbox.as_ref().and_then(|it| instance.get_module_export(&mut *store, it));
        let inbox = inbox.and_then(Extern::into_global).and_then(|it| it.get(&mut *store).i32());
        Ok(Started {
            instance,
            memory: self.memory(instance, store)?,
            inbox: inbox.map(i32::cast_unsigned),
            realloc: self.realloc,
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
    instance: Instance,
    memory: Memory,
    /// Its address.
    inbox: Option<u32>,
    realloc: ModuleExport,
    transform: TypedFunc<(u32,), u32>,
}

impl Started {
    /// Calls `transform` on a fibre.
    pub(super) async fn call(
        &self,
        store: &mut Store<State>,
        arguments: &Arguments<'_>,
    ) -> wasmtime::Result<Result<guest::Verdict, guest::Failure>> {
        store.data_mut().on_fibre();
        let at = match self.inbox_for(arguments) {
            Some(inbox) => inbox,
            None => {
                let block = (0, 0, lower::ALIGN, arguments.len());
                self.realloc(store)?.call_async(&mut *store, block).await?
            }
        };
        arguments.write(self.memory.data_mut(&mut *store), at)?;
        let at = self.transform.call_async(&mut *store, (at,)).await?;
        reader(self.memory, store).result(at)
    }

    /// Calls `transform` on this thread's own stack. Nothing else runs here meanwhile, so one that takes long is
    /// stopped, and nothing came of it.
    pub(super) fn call_briefly(
        &self,
        store: &mut Store<State>,
        arguments: &Arguments<'_>,
    ) -> wasmtime::Result<Result<guest::Verdict, guest::Failure>> {
        let at = match self.inbox_for(arguments) {
            Some(inbox) => inbox,
            None => {
                let block = (0, 0, lower::ALIGN, arguments.len());
                self.realloc(store)?.call(&mut *store, block)?
            }
        };
        arguments.write(self.memory.data_mut(&mut *store), at)?;
        let at = self.transform.call(&mut *store, (at,))?;
        reader(self.memory, store).result(at)
    }

    fn inbox_for(&self, arguments: &Arguments<'_>) -> Option<u32> {
        self.inbox.filter(|_| arguments.len() <= INBOX_BYTES)
    }

    fn realloc(
        &self,
        store: &mut Store<State>,
    ) -> wasmtime::Result<TypedFunc<(u32, u32, u32, u32), u32>> {
        function(self.instance, store, &self.realloc)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(fields: &str) -> bool {
        let text = format!("(module {fields} (@custom \"hookmill:arena\" \"1\"))");
        is_direct(&wat::parse_str(text).unwrap())
    }

    #[test]
    fn a_module_is_called_directly_if_nothing_has_to_be_done_around_it() {
        let log = r#"(import "hookmill:plugin/log@1.0.0" "log" (func (param i32 i32 i32)))"#;
        assert!(direct(log));
        assert!(direct(&format!("{log} (func (export \"cabi_realloc\"))")));
        assert!(!is_direct(&wat::parse_str(format!("(module {log})")).unwrap()), "no arena");
        assert!(!direct(r#"(import "hookmill:plugin/clock@1.0.0" "now" (func (result i64)))"#));
        assert!(!direct("(func $begin) (start $begin)"));
        assert!(!direct(r#"(func (export "_initialize"))"#));
        assert!(!is_direct(b"no wasm"));
    }
}
