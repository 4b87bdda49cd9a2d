//! Loading: from a file's bytes to a plugin that has shown that it fits.

use std::fmt;
use std::sync::Arc;

use wasmparser::{BinaryReaderError, Encoding, Parser, Payload};
use wasmtime::Module;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wit_component::ComponentEncoder;

use super::direct::{self, Direct};
use super::{Code, Description, Limits, Plugin, Runtime, call, contract};
use crate::digest::Digest;

/// The custom section in which the SDK leaves the contract's version.
const WORLD_SECTION: &str = "hookmill:world";

/// The version of the contract that plugins are linked against.
const WORLD_VERSION: &str = "1.0.0";

/// What a plugin has to export.
const TRANSFORMER: &str = "hookmill:plugin/transformer@1.0.0";

/// The longest schema that a plugin may describe its config with, in bytes.
const MAX_SCHEMA_BYTES: usize = 64 << 10;

impl Runtime {
    /// Makes a plugin of a file's content: a component, or a core module that `wit-bindgen` made.
    /// Compiles it unless the cache has it, links it, and asks it to describe itself.
    ///
    /// # Errors
    /// Why the file is no plugin that this gateway can run.
    pub async fn load(
        &self,
        name: &str,
        bytes: Vec<u8>,
        limits: Limits,
    ) -> Result<Plugin, LoadError> {
        let version = Digest::of(&bytes);
        let runtime = self.clone();
        let code = tokio::task::spawn_blocking(move || link(&runtime, version, &bytes))
            .await
            .map_err(|error| LoadError(format!("loading it failed: {error}")))??;
        let (described, log) = call::describe(self, &limits, &code).await;
        log.emit(name, None);
        let described = described.map_err(|failure| {
            LoadError(format!(
                "its `describe` failed: {}: {}",
                failure.kind.as_str(),
                failure.message
            ))
        })?;
        if let Some(wanted) = described.capabilities.first() {
            return Err(LoadError(format!(
                "it cannot work without the capability {wanted:?}, which is not granted"
            )));
        }
        if described.config_schema.as_ref().is_some_and(|schema| schema.len() > MAX_SCHEMA_BYTES) {
            return Err(LoadError(format!("its config schema is over {MAX_SCHEMA_BYTES} bytes")));
        }
        Ok(Plugin {
            name: Arc::from(name),
            version,
            label: format!("{name}@{version}").into(),
            description: Description {
                name: described.name,
                version: described.version,
                description: described.description,
                config_schema: described.config_schema,
            },
            limits,
            runtime: self.clone(),
            code,
        })
    }
}

/// Why a file is no plugin that this gateway can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError(pub(super) String);

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoadError {}

/// What a file is, and so how it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A component.
    Component,
    /// A core module that becomes a component.
    Module,
    /// A core module of the SDK's that is called as it is.
    Direct,
}

fn link(runtime: &Runtime, version: Digest, bytes: &[u8]) -> Result<Code, LoadError> {
    let form = inspect(bytes)?;
    let unfit = |error| LoadError(format!("it does not fit the contract: {error:#}"));
    match compiled(runtime, version, form, bytes)? {
        Compiled::Module(module) => {
            Direct::new(runtime.direct_linker(), &module).map(Code::Direct).map_err(unfit)
        }
        Compiled::Component(component) => {
            check_interface(runtime, &component)?;
            let linked = runtime.linker().instantiate_pre(&component);
            linked.and_then(contract::PluginPre::new).map(Code::Component).map_err(unfit)
        }
    }
}

enum Compiled {
    Module(Module),
    Component(Component),
}

fn compiled(
    runtime: &Runtime,
    version: Digest,
    form: Form,
    bytes: &[u8],
) -> Result<Compiled, LoadError> {
    if let Some(compiled) = runtime.cache().get(version) {
        match deserialize(runtime, form, &compiled) {
            Ok(compiled) => return Ok(compiled),
            Err(error) => {
                tracing::warn!(%version, %error, "a cached compilation is unusable; compiling again");
            }
        }
    }
    let engine = runtime.engine();
    let compiled = match form {
        Form::Direct => engine.precompile_module(bytes),
        Form::Component => engine.precompile_component(bytes),
        Form::Module => engine.precompile_component(&as_component(bytes)?),
    };
    let compiled =
        compiled.map_err(|error| LoadError(format!("it does not compile: {error:#}")))?;
    if let Err(error) = runtime.cache().put(version, &compiled) {
        tracing::warn!(%version, %error, "the compilation cannot be cached");
    }
    deserialize(runtime, form, &compiled)
        .map_err(|error| LoadError(format!("it does not load: {error:#}")))
}

#[expect(unsafe_code, reason = "the one way to load compiled code; see the comment")]
fn deserialize(runtime: &Runtime, form: Form, compiled: &[u8]) -> wasmtime::Result<Compiled> {
    let engine = runtime.engine();
    // SAFETY: these bytes come from the same engine's compiler, in this process or through a cache file that only
    // the gateway's user can write and whose hash matches its content.
    unsafe {
        match form {
            Form::Direct => Module::deserialize(engine, compiled).map(Compiled::Module),
            Form::Component | Form::Module => {
                Component::deserialize(engine, compiled).map(Compiled::Component)
            }
        }
    }
}

/// The component that a core module makes.
fn as_component(bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    ComponentEncoder::default()
        .validate(true)
        .module(bytes)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| {
            LoadError(format!(
                "it is a core module that cannot be made a component; build it with the plugin SDK \
                 or another `wit-bindgen`: {error:#}"
            ))
        })
}

/// Tells what a file is, and refuses other versions of the contract by name.
fn inspect(bytes: &[u8]) -> Result<Form, LoadError> {
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadError(
            "it is not WebAssembly: its first bytes are not `\\0asm`".to_owned(),
        ));
    }
    let mut outermost = None;
    let (mut arena, mut plain) = (false, true);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(damaged)? {
            Payload::Version { encoding, .. } => outermost = outermost.or(Some(encoding)),
            Payload::CustomSection(section) if section.name() == WORLD_SECTION => {
                check_world(section.data())?;
            }
            Payload::CustomSection(section) => arena |= section.name() == direct::ARENA_SECTION,
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    plain &= direct::provides(&import.map_err(damaged)?);
                }
            }
            Payload::StartSection { .. } => plain = false,
            _ => {}
        }
    }
    match outermost {
        Some(Encoding::Component) => Ok(Form::Component),
        Some(Encoding::Module) if arena && plain => Ok(Form::Direct),
        Some(Encoding::Module) => Ok(Form::Module),
        None => Err(LoadError("it is an empty file".to_owned())),
    }
}

fn damaged(error: BinaryReaderError) -> LoadError {
    LoadError(format!("it is damaged or cut off: {error}"))
}

fn check_world(version: &[u8]) -> Result<(), LoadError> {
    let version = String::from_utf8_lossy(version);
    if version == WORLD_VERSION {
        return Ok(());
    }
    Err(LoadError(format!(
        "it was built for version {version} of the plugin contract; this gateway knows {WORLD_VERSION}"
    )))
}

/// Names what is missing or too much, in the plugin author's terms.
fn check_interface(runtime: &Runtime, component: &Component) -> Result<(), LoadError> {
    let engine = runtime.engine();
    let types = component.component_type();
    if !types.exports(engine).any(|(name, _)| name == TRANSFORMER) {
        let exports: Vec<_> = types.exports(engine).map(|(name, _)| name).collect();
        return Err(LoadError(format!(
            "it does not export `{TRANSFORMER}`; it exports [{}]",
            exports.join(", ")
        )));
    }
    for (name, item) in types.imports(engine) {
        let provided = matches!(name, "hookmill:plugin/log@1.0.0" | "hookmill:plugin/types@1.0.0");
        // An instance that holds nothing but types needs nothing from the host.
        let just_types = matches!(&item.ty, ComponentItem::ComponentInstance(instance)
            if instance.exports(engine).all(|(_, item)| matches!(item.ty, ComponentItem::Type(_))));
        if !provided && !just_types {
            return Err(LoadError(format!("it imports `{name}`, which is not granted")));
        }
    }
    Ok(())
}
