//! The sandbox of the command line: the gateway's own, with its default settings and a cache of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::Problem;
use crate::cli::interrupt;
use crate::config::{Config, Environment, parse_manifest};
use crate::event::EventId;
use crate::transform::{self, Manifest, Plugin, Runtime};

/// Calls run one after the other here; the rest of the gateway's pool would only cost address space.
const INSTANCES: u32 = 4;

/// What a shell calls a command that SIGINT has ended.
const INTERRUPTED: u8 = 130;

/// Runs a command that needs a sandbox. A signal ends it, and what it keeps on disk goes away all the same.
pub(super) async fn with(
    command: impl AsyncFnOnce(&Sandbox) -> Result<ExitCode, Problem>,
) -> Result<ExitCode, Problem> {
    let sandbox = Sandbox::new()?;
    tokio::select! {
        done = command(&sandbox) => done,
        () = interrupt::interrupted() => Ok(ExitCode::from(INTERRUPTED)),
    }
}

/// Runs plugins as the gateway does.
#[derive(Debug)]
pub(super) struct Sandbox {
    runtime: Runtime,
    // Removed when the runtime is done with it.
    _cache: CacheFolder,
}

/// A plugin's file, and the manifest that it would run under.
#[derive(Debug)]
pub(super) struct PluginFile {
    /// The name that webhooks would know it by.
    pub(super) name: String,
    /// Its content.
    pub(super) bytes: Vec<u8>,
    /// Its limits and grants: what the manifest says over the defaults.
    pub(super) manifest: Manifest,
    /// Where the manifest is, or would be.
    manifest_path: PathBuf,
}

impl Sandbox {
    /// Sets the sandbox up.
    pub(super) fn new() -> Result<Self, Problem> {
        let cache = CacheFolder::create()
            .map_err(|error| format!("cannot make a folder for compiled plugins: {error}"))?;
        let defaults = Config::parse("", Path::new(""), &Environment::default());
        let transform = defaults.map_err(|error| error.to_string())?.transform;
        let config =
            transform::Config { instances: INSTANCES, cache_dir: cache.0.clone(), ..transform };
        let runtime = Runtime::new(config).map_err(|error| error.to_string())?;
        Ok(Self { runtime, _cache: cache })
    }

    /// Reads `NAME.wasm`, and `NAME.toml` beside it where there is one.
    pub(super) fn read(&self, path: &Path) -> Result<PluginFile, Problem> {
        let shown = path.display();
        let problem = |error: io::Error| format!("cannot read {shown}: {error}");
        let metadata = fs::metadata(path).map_err(problem)?;
        if metadata.is_dir() {
            return Err(format!(
                "{shown} is a folder; give the built file, which `hookmill plugin build` names"
            ));
        }
        let limit = self.runtime.max_file_bytes();
        if metadata.len() > limit {
            let bytes = metadata.len();
            return Err(format!(
                "{shown} has {bytes} bytes; a gateway loads at most {limit} (`plugins.max_file_bytes`)"
            ));
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = fs::read(path).map_err(problem)?;
        self.file(name, bytes, path.with_extension("toml"))
    }

    /// A plugin that was read or built, with what the file of its manifest says.
    pub(super) fn file(
        &self,
        name: String,
        bytes: Vec<u8>,
        manifest_path: PathBuf,
    ) -> Result<PluginFile, Problem> {
        let manifest = self.manifest(&manifest_path)?;
        Ok(PluginFile { name, bytes, manifest, manifest_path })
    }

    /// What a manifest's file says; the defaults when there is none.
    fn manifest(&self, manifest: &Path) -> Result<Manifest, Problem> {
        let defaults = self.runtime.default_limits();
        let text = match fs::read_to_string(manifest) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(defaults.clone().into());
            }
            Err(error) => return Err(format!("cannot read {}: {error}", manifest.display())),
        };
        parse_manifest(&text, defaults, self.runtime.max_memory_bytes())
            .map_err(|errors| errors.in_file(manifest).to_string())
    }

    /// Compiles and loads a plugin.
    pub(super) async fn load(&self, file: PluginFile) -> Result<Arc<Plugin>, Problem> {
        let PluginFile { name, bytes, manifest, manifest_path } = file;
        let loaded = self.runtime.load(&name, bytes, manifest).await;
        loaded.map(Arc::new).map_err(|error| {
            let place = match error.is_about_grants() {
                true => format!(" (here that is {})", manifest_path.display()),
                false => String::new(),
            };
            format!("the plugin {name} does not load: {error}{place}")
        })
    }
}

/// A folder that exists as long as this value does. What is in it is native code, so nobody else may have
/// made it or may write to it.
#[derive(Debug)]
struct CacheFolder(PathBuf);

impl CacheFolder {
    fn create() -> io::Result<Self> {
        // The random digits of an id, so that nobody can take the name first and keep us from working.
        let id = EventId::generate();
        let unique = id.as_str().trim_start_matches("evt_");
        let path = std::env::temp_dir().join(format!("hookmill-plugin-{unique}"));
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for CacheFolder {
    fn drop(&mut self) {
        // What is left behind is in the folder for temporary files.
        drop(fs::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_private_and_goes_away() {
        let cache = CacheFolder::create().unwrap();
        let path = cache.0.clone();
        fs::write(path.join("x"), "y").unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        }
        drop(cache);
        assert!(!path.exists());
    }
}
