//! Loading: from a file's bytes to a plugin that has shown that it fits.

use std::fmt;
use std::sync::Arc;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Encoding, Parser, Payload};
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wit_component::ComponentEncoder;

use super::pool::Pool;
use super::{Description, Limits, Plugin, Runtime, call, contract, wasi};
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
        let linked = tokio::task::spawn_blocking(move || link(&runtime, version, &bytes))
            .await
            .map_err(|error| LoadError(format!("loading it failed: {error}")))??;
        let Linked { pool, instance, wasi } = linked;
        let (described, log) = call::describe(&pool, &limits, wasi, &instance).await;
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
            pool,
            wasi,
            instance,
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

/// A component that is ready to be instantiated.
struct Linked {
    pool: Pool,
    instance: contract::PluginPre<call::State>,
    wasi: bool,
}

fn link(runtime: &Runtime, version: Digest, bytes: &[u8]) -> Result<Linked, LoadError> {
    let (component, pool) = compiled(runtime, version, bytes)?;
    check_interface(&component)?;
    let linked = pool
        .linker(&component)
        .and_then(|linker| linker.instantiate_pre(&component))
        .and_then(contract::PluginPre::new);
    match linked {
        Ok(instance) => Ok(Linked { pool, instance, wasi: wasi::is_wanted_by(&component) }),
        Err(error) => Err(LoadError(format!("it does not fit the contract: {error:#}"))),
    }
}

fn compiled(
    runtime: &Runtime,
    version: Digest,
    bytes: &[u8],
) -> Result<(Component, Pool), LoadError> {
    if let Some(compiled) = runtime.cache().get(version) {
        match place(runtime, &compiled) {
            Ok(placed) => return Ok(placed),
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
    let placed = place(runtime, &compiled)?;
    if let Err(error) = runtime.cache().put(version, &compiled) {
        tracing::warn!(%version, %error, "the compilation cannot be cached");
    }
    Ok(placed)
}

/// Loads compiled code into the first pool that it fits.
fn place(runtime: &Runtime, compiled: &[u8]) -> Result<(Component, Pool), LoadError> {
    let mut refusal = None;
    for pool in runtime.pools() {
        match deserialize(pool.engine(), compiled) {
            Ok(component) => return Ok((component, pool.clone())),
            Err(error) => refusal = Some(error),
        }
    }
    // The last pool is the widest: what it says is what the component is too large in.
    let refusal = refusal.map(|error| format!("{error:#}")).unwrap_or_default();
    Err(LoadError(format!("it needs more than any plugin can have: {refusal}")))
}

#[expect(unsafe_code, reason = "the one way to load compiled code; see the comment")]
fn deserialize(engine: &Engine, compiled: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: these bytes come from `precompile_component` of this process, or from a cache file that
    // only the gateway's user can write and whose hash matches its content.
    unsafe { Component::deserialize(engine, compiled) }
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
        // Taken in only where the module imports it.
        .and_then(|encoder| {
            encoder.adapter(
                WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            )
        })
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
fn check_interface(component: &Component) -> Result<(), LoadError> {
    let engine = component.engine();
    let types = component.component_type();
    if !types.exports(engine).any(|(name, _)| name == TRANSFORMER) {
        let exports: Vec<_> = types.exports(engine).map(|(name, _)| name).collect();
        return Err(LoadError(format!(
            "it does not export `{TRANSFORMER}`; it exports [{}]",
            exports.join(", ")
        )));
    }
    for (name, item) in types.imports(engine) {
        let provided = matches!(name, "hookmill:plugin/log@1.0.0" | "hookmill:plugin/types@1.0.0")
            || wasi::is_known(name);
        // An instance that holds nothing but types needs nothing from the host.
        let just_types = matches!(&item.ty, ComponentItem::ComponentInstance(instance)
            if instance.exports(engine).all(|(_, item)| matches!(item.ty, ComponentItem::Type(_))));
        if !provided && !just_types {
            return Err(LoadError(format!("it imports `{name}`, which is not granted")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::pool::{HEAVY, LIGHT};
    use super::*;

    fn runtime(folder: &tempfile::TempDir) -> Runtime {
        Runtime::new(Config {
            instances: 2,
            heavy_instances: 1,
            max_file_bytes: 1 << 20,
            limits: Limits::default(),
            max_memory_bytes: 16 << 20,
            cache_dir: folder.path().to_owned(),
        })
        .unwrap()
    }

    /// Compiles a component of so many core modules and memories, and says where it would run.
    fn placed(runtime: &Runtime, instances: u32, memories: u32) -> Result<&'static str, String> {
        let empty = "(core instance (instantiate $empty))".repeat(instances as usize);
        let with_memory = "(core instance (instantiate $memory))".repeat(memories as usize);
        let text = format!(
            "(component (core module $empty) (core module $memory (memory 1)) {empty} {with_memory})"
        );
        let component = wat::parse_str(text).unwrap();
        let compiled = runtime.engine().precompile_component(&component).unwrap();
        match place(runtime, &compiled) {
            Ok((_, pool)) => Ok(pool.shape().name),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_plugin_runs_in_the_first_pool_that_it_fits() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = runtime(&folder);
        assert_eq!(placed(&runtime, 3, 1).as_deref(), Ok(LIGHT.name));
        assert_eq!(placed(&runtime, 38, 1).as_deref(), Ok(HEAVY.name));
        assert_eq!(placed(&runtime, 3, 2).as_deref(), Ok(HEAVY.name));
    }

    #[test]
    fn what_fits_no_pool_is_refused_with_what_and_how_many() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = runtime(&folder);
        for (instances, memories, message) in [
            (
                300,
                0,
                "contains 300 core module instances, which exceeds the configured maximum of 100",
            ),
            (0, 40, "contains 40 Wasm linear memories, which exceeds the configured maximum of 4"),
        ] {
            let refusal = placed(&runtime, instances, memories).unwrap_err();
            assert!(refusal.contains(message), "{refusal}");
        }
    }
}
