//! Loading: from a file's bytes to a plugin that has shown that it fits.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::code::{self, Compiled, Form};
use super::direct::Direct;
use super::host::NotGranted;
use super::pool::Pool;
use super::schema::ConfigSchema;
use super::{
    Capability, Code, Description, Grants, Limits, Manifest, Plugin, Runtime, call, contract,
    description, host, inspect, text, wasi,
};
use crate::delivery::OneLine;
use crate::digest::Digest;

/// What a plugin has to export.
pub(super) const TRANSFORMER: &str = "hookmill:plugin/transformer@1.0.0";

/// How much of a reason is shown, in bytes: what a file holds may be part of it.
const MAX_REASON_BYTES: usize = 1 << 10;

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
        let granted = Granted { plugin: name.to_owned(), grants: Arc::clone(&grants) };
        let Compiled { form, pool, hold } = compiled;
        let linked = self.apart(move || link(pool, &form, &granted)).await??;
        let description = describe(self, name, &limits, &grants, &linked).await?;
        let config_schema = self.config_schema(description.config_schema.clone()).await?;
        let Linked { pool, code, wasi } = linked;
        Ok(Plugin {
            name: Arc::from(name),
            version,
            label: format!("{name}@{version}").into(),
            description,
            limits,
            grants,
            tally: Arc::default(),
            runtime: self.clone(),
            pool,
            wasi,
            code,
            config_schema: config_schema.map(Arc::new),
            _compiled: hold,
        })
    }

    /// The code of a file's content: from the cache, or compiled now.
    async fn compiled(&self, version: Digest, bytes: Bytes) -> Result<Compiled, LoadError> {
        let runtime = self.clone();
        let content = bytes.clone();
        let found = self.apart(move || match code::from_cache(&runtime, version) {
            Some(compiled) => Ok(Some(compiled)),
            None => match inspect::inspect(&content) {
                Ok(_) => Ok(None),
                Err(refusal) => Err(LoadError::new(refusal.to_string())),
            },
        });
        if let Some(compiled) = found.await?? {
            return Ok(compiled);
        }
        self.compiling().run(self.compile(version, bytes)).await
    }

    async fn compile(&self, version: Digest, bytes: Bytes) -> Result<Compiled, LoadError> {
        // While this one waited for its turn, another file of the same content may have been compiled.
        let runtime = self.clone();
        if let Some(compiled) = self.apart(move || code::from_cache(&runtime, version)).await? {
            return Ok(compiled);
        }
        let code = self.compiling().compile(self.engine(), bytes).await?;
        let runtime = self.clone();
        self.apart(move || code::keep(&runtime, version, &code)).await?
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

/// What an instance of a plugin begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Linear memories.
    pub memories: u32,
    /// The bytes that the largest of them begins with.
    pub memory_bytes: u64,
    /// Tables.
    pub tables: u32,
    /// The elements that the largest of them begins with.
    pub table_elements: u64,
}

impl Plugin {
    /// What each instance begins with; none where that depends on what it imports.
    #[must_use]
    pub fn resources(&self) -> Option<Resources> {
        const PAGE_BYTES: u64 = 64 << 10;

        let required = match &self.code {
            Code::Component(component) => {
                component.instance_pre().component().resources_required()?
            }
            Code::Direct(direct) => direct.module().resources_required(),
        };
        Some(Resources {
            memories: required.num_memories,
            memory_bytes: required.max_initial_memory_size.unwrap_or_default() * PAGE_BYTES,
            tables: required.num_tables,
            table_elements: required.max_initial_table_size.unwrap_or_default(),
        })
    }
}

/// Why a file is no plugin that this gateway can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    reason: String,
    passing: bool,
    about_grants: bool,
}

impl LoadError {
    /// The file is at fault: loading it again would come to the same.
    pub(super) fn new(reason: String) -> Self {
        let mut reason = reason;
        text::cut(&mut reason, MAX_REASON_BYTES);
        Self { reason, passing: false, about_grants: false }
    }

    /// The machine is at fault: the file may load another time.
    pub(super) fn passing(reason: String) -> Self {
        Self { passing: true, ..Self::new(reason) }
    }

    /// It wants a capability that the operator did not grant.
    fn not_granted(reason: String) -> Self {
        Self { about_grants: true, ..Self::new(reason) }
    }

    /// Whether its manifest would have to grant it more.
    #[must_use]
    pub fn is_about_grants(&self) -> bool {
        self.about_grants
    }

    /// Whether the same file may load another time.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.passing
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        OneLine(&self.reason).fmt(f)
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
                return Err(LoadError::not_granted(format!(
                    "it cannot work without `{name}`, {why}"
                )));
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

/// A plugin's code, ready to be instantiated.
struct Linked {
    pool: Pool,
    code: Code,
    wasi: bool,
}

fn link(pool: Pool, form: &Form, granted: &Granted) -> Result<Linked, LoadError> {
    let misfit =
        |error: wasmtime::Error| LoadError::new(format!("it does not fit the contract: {error:#}"));
    let component = match form {
        Form::Component(component) => component,
        Form::Module(module) => {
            let code = Direct::new(pool.direct_linker(), module).map_err(misfit)?;
            return Ok(Linked { pool, code: Code::Direct(code), wasi: false });
        }
    };
    check_interface(component, granted)?;
    let linker = pool.linker(component).map_err(misfit)?;
    let with_grants = host::linker(&linker, &granted.grants).map_err(misfit)?;
    let instance = with_grants.as_ref().unwrap_or(&linker).instantiate_pre(component);
    let code = instance.and_then(contract::PluginPre::new).map(Code::Component).map_err(misfit)?;
    Ok(Linked { pool, code, wasi: wasi::is_wanted_by(component) })
}

/// Asks the plugin to describe itself.
async fn describe(
    runtime: &Runtime,
    name: &str,
    limits: &Limits,
    grants: &Grants,
    linked: &Linked,
) -> Result<Description, LoadError> {
    let Linked { pool, code, wasi } = linked;
    let described = call::describe(runtime, pool, limits, *wasi, code).await;
    described.log.emit(name, None);
    let described = described.result.map_err(|failure| {
        LoadError::new(format!(
            "its `describe` failed: {}: {}",
            failure.kind.as_str(),
            failure.message
        ))
    })?;
    description::check(&described).map_err(LoadError::new)?;
    check_capabilities(name, &described.capabilities, grants)?;
    Ok(Description {
        name: described.name,
        version: described.version,
        description: described.description,
        config_schema: described.config_schema,
        capabilities: described.capabilities,
    })
}

/// Names what is missing or too much, in the plugin author's terms.
fn check_interface(component: &Component, granted: &Granted) -> Result<(), LoadError> {
    let engine = component.engine();
    let types = component.component_type();
    if !types.exports(engine).any(|(name, _)| name == TRANSFORMER) {
        let exports: Vec<_> = types.exports(engine).map(|(name, _)| name).collect();
        return Err(LoadError::new(format!(
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
        if provided || just_types {
            continue;
        }
        match Capability::of_import(name) {
            Some(capability) if granted.grants.has(capability) => {}
            Some(capability) => {
                let why = NotGranted { plugin: &granted.plugin, capability };
                return Err(LoadError::not_granted(format!("it imports `{name}`, {why}")));
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

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::pool::{HEAVY, LIGHT};
    use super::*;

    fn runtime(folder: &tempfile::TempDir) -> Runtime {
        Runtime::new(Config { max_memory_bytes: 16 << 20, ..Config::new(folder.path().to_owned()) })
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
        match code::place(runtime, |engine| code::deserialize(engine, &compiled)) {
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
