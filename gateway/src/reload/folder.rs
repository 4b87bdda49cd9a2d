//! What is in the plugins folder, told by names and stamps, and read whole when wanted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::OFlags;

use super::stamp::{FileState, Stamp};
use crate::config::{check_plugin_name, check_tenant_name};
use crate::snapshot::PluginKey;

/// The largest manifest, in bytes.
const MAX_MANIFEST_BYTES: u64 = 64 << 10;

/// A plugin's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    wasm: PathBuf,
    manifest: PathBuf,
    pub(super) state: FileState,
}

impl Found {
    /// The size of the files, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.state.wasm.len()
    }
}

/// What a look into the folder saw.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) found: BTreeMap<PluginKey, Found>,
    /// The folders of tenants.
    pub(super) tenants: BTreeMap<Arc<str>, PathBuf>,
    /// The folders of tenants that cannot be looked into, and why.
    pub(super) unreadable: BTreeMap<Arc<str>, String>,
    /// What can be no plugin because of its name, and why.
    pub(super) misnamed: BTreeMap<PathBuf, String>,
}

/// What a plugin's files hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The plugin itself.
    pub wasm: Bytes,
    /// The text of its manifest; empty when there is none.
    pub manifest: String,
}

/// The plugins in the folder and in the tenants' folders within.
///
/// Names that begin with a full stop are left out: editors keep temporary files under such names, and
/// mounted config maps keep the files there that the visible names link to.
pub(super) fn list(dir: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for path in entries(dir)? {
        if has_wasm_name(&path) {
            listing.add(None, path);
        } else if fs::metadata(&path).is_ok_and(|it| it.is_dir()) {
            listing.add_tenant(path);
        }
    }
    Ok(listing)
}

impl Listing {
    fn add_tenant(&mut self, folder: PathBuf) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let tenant: Arc<str> = name.as_str().into();
        let files = match entries(&folder) {
            Ok(files) => files,
            // It has vanished meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                self.unreadable.insert(Arc::clone(&tenant), error.to_string());
                self.tenants.insert(tenant, folder);
                return;
            }
        };
        let mut plugins = files.into_iter().filter(|path| has_wasm_name(path)).peekable();
        if let Err(problem) = check_tenant_name(&name) {
            // Other folders are nobody's business.
            if plugins.peek().is_some() {
                let reason = format!("no tenant can have that name: it {problem}");
                self.misnamed.insert(folder, reason);
            }
            return;
        }
        for path in plugins {
            self.add(Some(&tenant), path);
        }
        self.tenants.insert(tenant, folder);
    }

    fn add(&mut self, tenant: Option<&Arc<str>>, path: PathBuf) {
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else {
            let reason = "no plugin can have that name: it is not UTF-8".to_owned();
            self.misnamed.insert(path, reason);
            return;
        };
        if let Err(problem) = check_plugin_name(name) {
            let reason = format!("no plugin can have that name: it {problem}");
            self.misnamed.insert(path, reason);
            return;
        }
        let key = PluginKey { tenant: tenant.cloned(), name: name.to_owned() };
        let manifest = path.with_extension("toml");
        let state = FileState::of(&path, &manifest);
        self.found.insert(key, Found { wasm: path, manifest, state });
    }
}

/// The entries of a folder but those that are hidden.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().as_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

fn has_wasm_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wasm")
}

/// Reads a plugin's files; none when they are no longer those that were found.
///
/// # Errors
/// Why they cannot be read, or are too large.
pub(super) fn read(found: &Found, limit: u64) -> Result<Option<Content>, ReadError> {
    let wasm = read_file(&found.wasm, &found.state.wasm, limit)
        .map_err(|problem| problem.within("it", &over(limit)))?;
    let manifest = match &found.state.manifest {
        None => Ok(Vec::new()),
        Some(stamp) => read_file(&found.manifest, stamp, MAX_MANIFEST_BYTES),
    };
    let name = found.manifest.file_name().unwrap_or_default().to_string_lossy();
    let its = format!("its {name}");
    let manifest = manifest.map_err(|problem| {
        problem.within(&its, &format!("more than {MAX_MANIFEST_BYTES} bytes"))
    })?;
    if FileState::of(&found.wasm, &found.manifest) != found.state {
        return Ok(None);
    }
    let manifest = String::from_utf8(manifest)
        .map_err(|_| ReadError { reason: format!("{its} is not UTF-8 text"), passing: false })?;
    Ok(Some(Content { wasm: wasm.into(), manifest }))
}

/// What a file that is too large has.
pub(super) fn over(limit: u64) -> String {
    format!("more than {limit} bytes (`plugins.max_file_bytes`)")
}

/// Why files are not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReadError {
    pub(super) reason: String,
    /// It may be possible another time, though the file stays as it is.
    pub(super) passing: bool,
}

enum Problem {
    TooLarge,
    Other(String),
    Io(io::Error),
}

impl Problem {
    fn within(self, what: &str, limit: &str) -> ReadError {
        match self {
            Self::TooLarge => ReadError { reason: format!("{what} has {limit}"), passing: false },
            Self::Other(is) => ReadError { reason: format!("{what} {is}"), passing: true },
            Self::Io(error) => {
                ReadError { reason: format!("{what} cannot be read: {error}"), passing: true }
            }
        }
    }
}

fn read_file(path: &Path, stamp: &Stamp, limit: u64) -> Result<Vec<u8>, Problem> {
    let len = match stamp {
        Stamp::Other(what) => return Err(Problem::Other(what.clone())),
        Stamp::File { len, .. } => *len,
    };
    if len > limit {
        return Err(Problem::TooLarge);
    }
    // It may be something else by now, and opening a pipe would wait for somebody to write into it.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(Problem::Io)?;
    if !file.metadata().map_err(Problem::Io)?.is_file() {
        return Err(Problem::Other("is no regular file".to_owned()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or_default());
    // A file that grows meanwhile is not what was found, which shows afterwards.
    file.take(limit).read_to_end(&mut bytes).map_err(Problem::Io)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        list(dir).unwrap().found.keys().map(ToString::to_string).collect()
    }

    fn only(dir: &Path) -> Found {
        list(dir).unwrap().found.into_values().next().unwrap()
    }

    #[test]
    fn plugins_are_for_all_or_for_a_tenant() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        for path in [
            "b.wasm",
            "a.wasm",
            "a.toml",
            ".hidden.wasm",
            ".wasm",
            "c.txt",
            "acme/b.wasm",
            "..data/d.wasm",
        ] {
            write(path);
        }
        assert_eq!(names(dir.path()), ["a", "b", "acme/b"]);
    }

    #[test]
    fn what_no_plugin_or_tenant_can_be_called_is_named_with_the_rule() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a b.wasm", "Acme/a.wasm", "Notes/a.txt"] {
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            fs::write(dir.path().join(path), "x").unwrap();
        }
        let listing = list(dir.path()).unwrap();
        assert!(listing.found.is_empty());
        let misnamed: Vec<_> = listing.misnamed.into_iter().collect();
        let [(tenant, upper), (plugin, space)] = &misnamed[..] else { panic!("{misnamed:?}") };
        assert!(tenant.ends_with("Acme") && upper.contains("the character 'A'"), "{upper}");
        assert!(plugin.ends_with("a b.wasm") && space.contains("the character ' '"), "{space}");
    }

    #[test]
    fn every_way_to_replace_a_file_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let state = || list(dir.path()).unwrap().found.into_values().next().map(|it| it.state);
        let mut states = vec![state()];
        fs::write(path("a.wasm"), "1").unwrap();
        states.push(state());
        fs::write(path("a.toml"), "").unwrap();
        states.push(state());
        fs::write(path("aside"), "2").unwrap();
        fs::rename(path("aside"), path("a.wasm")).unwrap();
        states.push(state());
        fs::create_dir(path("..v1")).unwrap();
        fs::write(path("..v1").join("x"), "2").unwrap();
        fs::remove_file(path("a.wasm")).unwrap();
        symlink(path("..v1").join("x"), path("a.wasm")).unwrap();
        states.push(state());
        fs::remove_file(path("..v1").join("x")).unwrap();
        states.push(state());
        for (index, state) in states.iter().enumerate() {
            assert!(!states[..index].contains(state), "{index}: {states:?}");
        }
    }

    #[test]
    fn what_changes_while_it_is_read_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wasm");
        fs::write(&path, "whole").unwrap();
        let found = only(dir.path());
        let content = Content { wasm: Bytes::from_static(b"whole"), manifest: String::new() };
        assert_eq!(read(&found, 5).unwrap(), Some(content));
        let error = read(&found, 4).unwrap_err();
        assert!(error.reason.contains("it has more than 4 bytes") && !error.passing, "{error:?}");
        fs::write(&path, "longer than before").unwrap();
        assert_eq!(read(&found, 100).unwrap(), None);
        fs::write(dir.path().join("a.toml"), "").unwrap();
        assert_eq!(read(&found, 100).unwrap(), None);
    }

    #[test]
    fn what_became_a_pipe_since_it_was_seen_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wasm");
        fs::write(&path, "whole").unwrap();
        let found = only(dir.path());
        fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let error = read(&found, 100).unwrap_err();
        assert!(error.reason.contains("it is no regular file"), "{error:?}");
    }
}
