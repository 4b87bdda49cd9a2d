//! Compiled code: from the cache or fresh from the compiler, loaded into the pool that it fits.

use std::path::Path;

use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

use super::Runtime;
use super::cache::Hold;
use super::load::LoadError;
use super::pool::Pool;
use crate::digest::Digest;

/// What compiled code is. The compiler decides; see `direct`.
pub(super) enum Form {
    Component(Component),
    Module(Module),
}

/// Code that is loaded into the pool that it fits, and stays in the cache as long as it is used.
pub(super) struct Compiled {
    pub(super) form: Form,
    pub(super) pool: Pool,
    pub(super) hold: Option<Hold>,
}

/// The code of the plugin with this content hash, if it was compiled before.
pub(super) fn from_cache(runtime: &Runtime, version: Digest) -> Option<Compiled> {
    let kept = runtime.cache().get(version)?;
    let placed = place(runtime, |engine| map(engine, &kept.path))
        .or_else(|_| place(runtime, |engine| deserialize(engine, &kept.compiled)));
    match placed {
        Ok((form, pool)) => Some(Compiled { form, pool, hold: Some(kept.hold) }),
        Err(error) => {
            tracing::warn!(%version, %error, "a cached compilation is unusable; compiling again");
            runtime.cache().remove(version);
            None
        }
    }
}

/// Puts new code into the cache, and loads it from there if that works.
///
/// # Errors
/// When it fits no pool.
pub(super) fn keep(runtime: &Runtime, version: Digest, code: &[u8]) -> Result<Compiled, LoadError> {
    if let Some((path, hold)) = runtime.cache().put(version, code)
        && let Ok((form, pool)) = place(runtime, |engine| map(engine, &path))
    {
        return Ok(Compiled { form, pool, hold: Some(hold) });
    }
    let (form, pool) = place(runtime, |engine| deserialize(engine, code))?;
    Ok(Compiled { form, pool, hold: None })
}

/// Loads code into the first pool that it fits.
///
/// # Errors
/// When it fits none.
pub(super) fn place(
    runtime: &Runtime,
    load: impl Fn(&Engine) -> wasmtime::Result<Form>,
) -> Result<(Form, Pool), LoadError> {
    let mut refusal = None;
    for pool in runtime.pools() {
        match load(pool.engine()) {
            Ok(form) => return Ok((form, pool.clone())),
            Err(error) => refusal = Some(error),
        }
    }
    // The last pool is the widest: what it says is what the plugin is too large in.
    let refusal = refusal.map(|error| format!("{error:#}")).unwrap_or_default();
    Err(LoadError::new(format!("it needs more than any plugin can have: {refusal}")))
}

/// Code that is mapped costs memory only where it runs. Not every file system lets code run from it.
#[expect(unsafe_code, reason = "a way to load compiled code; see the comment")]
fn map(engine: &Engine, path: &Path) -> wasmtime::Result<Form> {
    // SAFETY: the file stands in a folder that only the gateway's user can write. The cache has written it, or
    // has seen that its hash matches its content, and never changes a file in place.
    unsafe {
        match Engine::detect_precompiled_file(path)? {
            Some(Precompiled::Module) => Module::deserialize_file(engine, path).map(Form::Module),
            _ => Component::deserialize_file(engine, path).map(Form::Component),
        }
    }
}

#[expect(unsafe_code, reason = "a way to load compiled code; see the comment")]
pub(super) fn deserialize(engine: &Engine, compiled: &[u8]) -> wasmtime::Result<Form> {
    // SAFETY: these bytes come from the compiler, with a hash that matches them, or from a file of which
    // the same is true as above.
    unsafe {
        match Engine::detect_precompiled(compiled) {
            Some(Precompiled::Module) => Module::deserialize(engine, compiled).map(Form::Module),
            _ => Component::deserialize(engine, compiled).map(Form::Component),
        }
    }
}
