//! Loading: from a file's bytes to a plugin that has shown that it fits.

use std::fmt;
use std::sync::Arc;

use wasmparser::{Encoding, Parser, Payload};
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wit_component::ComponentEncoder;

use super::schema::ConfigSchema;
use super::{Description, Limits, Plugin, Runtime, call, contract};
use crate::digest::Digest;

/// The custom section in which the SDK leaves the contract's version.
const WORLD_SECTION: &str = "hookmill:world";

/// The version of the contract that plugins are linked against.
const WORLD_VERSION: &str = "1.0.0";

/// What a plugin has to export.
const TRANSFORMER: &str = "hookmill:plugin/transformer@1.0.0";

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
        let instance = tokio::task::spawn_blocking(move || link(&runtime, version, &bytes))
            .await
            .map_err(|error| LoadError(format!("loading it failed: {error}")))??;
        let (described, log) = call::describe(self, &limits, &instance).await;
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
        let config_schema = compile_schema(described.config_schema.clone()).await?;
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
            instance,
            config_schema,
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

/// Compiles a plugin's schema, away from the tasks that serve.
async fn compile_schema(text: Option<String>) -> Result<Option<ConfigSchema>, LoadError> {
    let compile = move || text.map(|text| ConfigSchema::compile(&text)).transpose();
    tokio::task::spawn_blocking(compile)
        .await
        .map_err(|error| LoadError(format!("its config schema cannot be compiled: {error}")))?
        .map_err(|reason| LoadError(format!("its config schema {reason}")))
}

fn link(
    runtime: &Runtime,
    version: Digest,
    bytes: &[u8],
) -> Result<contract::PluginPre<call::State>, LoadError> {
    let component = compiled(runtime, version, bytes)?;
    check_interface(runtime, &component)?;
    let linked = runtime.linker().instantiate_pre(&component).and_then(contract::PluginPre::new);
    linked.map_err(|error| LoadError(format!("it does not fit the contract: {error:#}")))
}

fn compiled(runtime: &Runtime, version: Digest, bytes: &[u8]) -> Result<Component, LoadError> {
    if let Some(compiled) = runtime.cache().get(version) {
        match deserialize(runtime, &compiled) {
            Ok(component) => return Ok(component),
            Err(error) => {
                tracing::warn!(%version, %error, "a cached compilation is unusable; compiling again");
            }
        }
    }
    let component = as_component(bytes)?;
    let compiled = runtime
        .engine()
        .precompile_component(&component)
        .map_err(|error| LoadError(format!("it does not compile: {error:#}")))?;
    if let Err(error) = runtime.cache().put(version, &compiled) {
        tracing::warn!(%version, %error, "the compilation cannot be cached");
    }
    deserialize(runtime, &compiled)
        .map_err(|error| LoadError(format!("it does not load: {error:#}")))
}

#[expect(unsafe_code, reason = "the one way to load compiled code; see the comment")]
fn deserialize(runtime: &Runtime, compiled: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: these bytes come from `precompile_component` of this process, or from a cache file that
    // only the gateway's user can write and whose hash matches its content.
    unsafe { Component::deserialize(runtime.engine(), compiled) }
}

/// The component that the bytes are, or that the core module in them makes.
fn as_component(bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    let encoding = inspect(bytes)?;
    if encoding == Encoding::Component {
        return Ok(bytes.to_vec());
    }
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

/// Tells a component from a core module, and refuses other versions of the contract by name.
fn inspect(bytes: &[u8]) -> Result<Encoding, LoadError> {
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadError(
            "it is not WebAssembly: its first bytes are not `\\0asm`".to_owned(),
        ));
    }
    let mut outermost = None;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload =
            payload.map_err(|error| LoadError(format!("it is damaged or cut off: {error}")))?;
        match payload {
            Payload::Version { encoding, .. } => outermost = outermost.or(Some(encoding)),
            Payload::CustomSection(section) if section.name() == WORLD_SECTION => {
                let version = String::from_utf8_lossy(section.data());
                if version != WORLD_VERSION {
                    return Err(LoadError(format!(
                        "it was built for version {version} of the plugin contract; this gateway \
                         knows {WORLD_VERSION}"
                    )));
                }
            }
            _ => {}
        }
    }
    outermost.ok_or_else(|| LoadError("it is an empty file".to_owned()))
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
