//! Loading: from a file's bytes to a plugin that has shown that it fits.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use wasmparser::{Parser, Payload};
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::cache::Hold;
use super::host::NotGranted;
use super::schema::ConfigSchema;
use super::{
    Capability, Description, Grants, Limits, Manifest, Plugin, Runtime, call, contract, host,
};
use crate::digest::Digest;

/// The custom section in which the SDK leaves the contract's version.
const WORLD_SECTION: &str = "hookmill:world";

/// The version of the contract that plugins are linked against.
const WORLD_VERSION: &str = "1.0.0";

/// What a plugin has to export.
const TRANSFORMER: &str = "hookmill:plugin/transformer@1.0.0";

/// The longest reason that is given for a refusal, in bytes: hostile files are quoted in it.
const MAX_REASON_BYTES: usize = 2 << 10;

impl Runtime {
    /// Makes a plugin of a file's content: a component, or a core module that `wit-bindgen` made.
    /// Compiles it unless the cache has it, links it, and asks it to describe itself.
    ///
    /// # Errors
    /// Why the file is no plugin that this gateway can run.
    pub async fn load(
        &self,
        name: &str,
        bytes: impl Into<Bytes>,
        manifest: impl Into<Manifest>,
    ) -> Result<Plugin, LoadError> {
        let Manifest { limits, grants } = manifest.into();
        let grants = Arc::new(grants);
        let bytes = bytes.into();
        let content = bytes.clone();
        let version = self.apart(move || Digest::of(&content)).await?;
        let compiled = self.compiled(version, bytes).await?;
        let runtime = self.clone();
        let component = compiled.component;
        let granted = Granted { plugin: name.to_owned(), grants: Arc::clone(&grants) };
        let instance = self.apart(move || link(&runtime, &component, &granted)).await??;
        let description = describe(self, name, &limits, &grants, &instance).await?;
        let config_schema = self.config_schema(description.config_schema.clone()).await?;
        Ok(Plugin {
            name: Arc::from(name),
            version,
            label: format!("{name}@{version}").into(),
            description,
            limits,
            grants,
            tally: Arc::default(),
            runtime: self.clone(),
            instance,
            config_schema,
            _compiled: compiled.hold,
        })
    }

    /// The code of a file's content: from the cache, or compiled now.
    async fn compiled(&self, version: Digest, bytes: Bytes) -> Result<Compiled, LoadError> {
        let runtime = self.clone();
        let content = bytes.clone();
        let found = self.apart(move || match from_cache(&runtime, version) {
            Some(compiled) => Ok(Some(compiled)),
            None => inspect(&content).map(|()| None),
        });
        if let Some(compiled) = found.await?? {
            return Ok(compiled);
        }
        self.compiling().run(self.compile(version, bytes)).await
    }

    async fn compile(&self, version: Digest, bytes: Bytes) -> Result<Compiled, LoadError> {
        // While this one waited for its turn, another file of the same content may have been compiled.
        let runtime = self.clone();
        if let Some(compiled) = self.apart(move || from_cache(&runtime, version)).await? {
            return Ok(compiled);
        }
        let code = self.compiling().compile(self.engine(), bytes).await?;
        let runtime = self.clone();
        self.apart(move || keep(&runtime, version, &code)).await?
    }

    /// Compiles a plugin's schema, away from the tasks that serve.
    async fn config_schema(&self, text: Option<String>) -> Result<Option<ConfigSchema>, LoadError> {
        let compile = move || text.map(|text| ConfigSchema::compile(&text)).transpose();
        let compiled = self.apart(compile).await?;
        compiled.map_err(|reason| LoadError::new(format!("its config schema {reason}")))
    }

    /// As [`Runtime::aside`], with a panic as a refusal.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LoadError> {
        let done = self.aside(work).await;
        done.map_err(|error| LoadError::new(format!("loading it failed: {error}")))
    }
}

/// Why a file is no plugin that this gateway can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    reason: String,
    passing: bool,
}

impl LoadError {
    /// The file is at fault: loading it again would come to the same.
    pub(super) fn new(reason: String) -> Self {
        let mut reason = reason;
        if reason.len() > MAX_REASON_BYTES {
            reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
            reason.push('…');
        }
        Self { reason, passing: false }
    }

    /// The machine is at fault: the file may load another time.
    pub(super) fn passing(reason: String) -> Self {
        Self { passing: true, ..Self::new(reason) }
    }

    /// Whether the same file may load another time.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.passing
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for LoadError {}

/// A plugin's name, and what it was granted.
struct Granted {
    plugin: String,
    grants: Arc<Grants>,
}

/// What a plugin says that it cannot work without has to be granted.
fn check_capabilities(plugin: &str, named: &[String], grants: &Grants) -> Result<(), LoadError> {
    for name in named {
        match Capability::parse(name) {
            Some(capability) if grants.has(capability) => {}
            Some(capability) => {
                let why = NotGranted { plugin, capability };
                return Err(LoadError::new(format!("it cannot work without `{name}`, {why}")));
            }
            None => {
                return Err(LoadError::new(format!(
                    "it cannot work without `{name}`, which this gateway does not know"
                )));
            }
        }
    }
    Ok(())
}

/// Code that is loaded, and stays in the cache as long as it is used.
struct Compiled {
    component: Component,
    hold: Option<Hold>,
}

fn from_cache(runtime: &Runtime, version: Digest) -> Option<Compiled> {
    let kept = runtime.cache().get(version)?;
    let mapped = map(runtime, &kept.path).or_else(|_| deserialize(runtime, &kept.compiled));
    match mapped {
        Ok(component) => Some(Compiled { component, hold: Some(kept.hold) }),
        Err(error) => {
            tracing::warn!(%version, %error, "a cached compilation is unusable; compiling again");
            runtime.cache().remove(version);
            None
        }
    }
}

/// Puts new code into the cache, and loads it from there if that works.
fn keep(runtime: &Runtime, version: Digest, code: &[u8]) -> Result<Compiled, LoadError> {
    if let Some((path, hold)) = runtime.cache().put(version, code)
        && let Ok(component) = map(runtime, &path)
    {
        return Ok(Compiled { component, hold: Some(hold) });
    }
    let component = deserialize(runtime, code)
        .map_err(|error| LoadError::new(format!("it does not load: {error:#}")))?;
    Ok(Compiled { component, hold: None })
}

/// Code that is mapped costs memory only where it runs. Not every file system lets code run from it.
#[expect(unsafe_code, reason = "the one way to load compiled code; see the comment")]
fn map(runtime: &Runtime, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file stands in a folder that only the gateway's user can write. The cache has written it, or
    // has seen that its hash matches its content, and never changes a file in place.
    unsafe { Component::deserialize_file(runtime.engine(), path) }
}

#[expect(unsafe_code, reason = "the one way to load compiled code; see the comment")]
fn deserialize(runtime: &Runtime, compiled: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: these bytes come from the compiler, with a hash that matches them, or from a file of which
    // the same is true as above.
    unsafe { Component::deserialize(runtime.engine(), compiled) }
}

fn link(
    runtime: &Runtime,
    component: &Component,
    granted: &Granted,
) -> Result<contract::PluginPre<call::State>, LoadError> {
    check_interface(runtime, component, granted)?;
    let misfit =
        |error: wasmtime::Error| LoadError::new(format!("it does not fit the contract: {error:#}"));
    let with_grants = host::linker(runtime.linker(), &granted.grants).map_err(misfit)?;
    let linker = with_grants.as_ref().unwrap_or(runtime.linker());
    linker.instantiate_pre(component).and_then(contract::PluginPre::new).map_err(misfit)
}

/// Asks the plugin to describe itself.
async fn describe(
    runtime: &Runtime,
    name: &str,
    limits: &Limits,
    grants: &Grants,
    instance: &contract::PluginPre<call::State>,
) -> Result<Description, LoadError> {
    let (described, log) = call::describe(runtime, limits, instance).await;
    log.emit(name, None);
    let described = described.map_err(|failure| {
        LoadError::new(format!(
            "its `describe` failed: {}: {}",
            failure.kind.as_str(),
            failure.message
        ))
    })?;
    check_capabilities(name, &described.capabilities, grants)?;
    Ok(Description {
        name: described.name,
        version: described.version,
        description: described.description,
        config_schema: described.config_schema,
    })
}

/// Refuses what is no WebAssembly, and other versions of the contract by name. Looks at each byte at most once,
/// so that it can be done here, before a compiler is bothered.
fn inspect(bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::new("it is an empty file".to_owned()));
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadError::new(
            "it is not WebAssembly: its first bytes are not `\\0asm`".to_owned(),
        ));
    }
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload
            .map_err(|error| LoadError::new(format!("it is damaged or cut off: {error}")))?;
        if let Payload::CustomSection(section) = payload
            && section.name() == WORLD_SECTION
        {
            let version = String::from_utf8_lossy(section.data());
            if version != WORLD_VERSION {
                return Err(LoadError::new(format!(
                    "it was built for version {version} of the plugin contract; this gateway \
                     knows {WORLD_VERSION}"
                )));
            }
        }
    }
    Ok(())
}

/// Names what is missing or too much, in the plugin author's terms.
fn check_interface(
    runtime: &Runtime,
    component: &Component,
    granted: &Granted,
) -> Result<(), LoadError> {
    let engine = runtime.engine();
    let types = component.component_type();
    if !types.exports(engine).any(|(name, _)| name == TRANSFORMER) {
        let exports: Vec<_> = types.exports(engine).map(|(name, _)| name).collect();
        return Err(LoadError::new(format!(
            "it does not export `{TRANSFORMER}`; it exports [{}]",
            exports.join(", ")
        )));
    }
    for (name, item) in types.imports(engine) {
        let provided = matches!(name, "hookmill:plugin/log@1.0.0" | "hookmill:plugin/types@1.0.0");
        // An instance that holds nothing but types needs nothing from the host.
        let just_types = matches!(&item.ty, ComponentItem::ComponentInstance(instance)
            if instance.exports(engine).all(|(_, item)| matches!(item.ty, ComponentItem::Type(_))));
        if provided || just_types {
            continue;
        }
        match Capability::of_import(name) {
            Some(capability) if granted.grants.has(capability) => {}
            Some(capability) => {
                let why = NotGranted { plugin: &granted.plugin, capability };
                return Err(LoadError::new(format!("it imports `{name}`, {why}")));
            }
            None => {
                return Err(LoadError::new(format!(
                    "it imports `{name}`, which no gateway gives to a plugin"
                )));
            }
        }
    }
    Ok(())
}
