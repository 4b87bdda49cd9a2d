//! What is in the plugins folder, told by names and file states, and read whole when wanted.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

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

/// Changes whenever a plugin's files change: written in place, replaced, or led elsewhere by a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileState {
    wasm: Stamp,
    manifest: Option<Stamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    /// Device and inode where there are such, and the time of the last change to the inode.
    inode: [i128; 3],
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let inode = {
            use std::os::unix::fs::MetadataExt as _;
            let changed = i128::from(metadata.ctime()) * 1_000_000_000;
            [
                i128::from(metadata.dev()),
                i128::from(metadata.ino()),
                changed + i128::from(metadata.ctime_nsec()),
            ]
        };
        #[cfg(not(unix))]
        let inode = [0; 3];
        Self { len: metadata.len(), modified: metadata.modified().ok(), inode }
    }
}

/// The plugins in the folder and in the tenants' folders within.
///
/// Names that begin with a full stop are left out: editors keep temporary files under such names, and
/// mounted config maps keep the files there that the visible names link to.
pub(super) fn list(dir: &Path) -> io::Result<BTreeMap<PluginKey, Found>> {
    let mut found = BTreeMap::new();
    for (name, path, metadata) in entries(dir)? {
        if metadata.is_file() {
            found.extend(plugin(None, &name, &path, &metadata));
        } else if metadata.is_dir() {
            for (file, path, metadata) in entries(&path)?.filter(|(.., it)| it.is_file()) {
                found.extend(plugin(Some(&name), &file, &path, &metadata));
            }
        }
    }
    Ok(found)
}

/// The entries of a folder, links followed. What vanishes meanwhile is not there.
fn entries(dir: &Path) -> io::Result<impl Iterator<Item = (String, PathBuf, Metadata)>> {
    Ok(fs::read_dir(dir)?.filter_map(|entry| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?.to_owned();
        let metadata = fs::metadata(&path).ok()?;
        (!name.starts_with('.')).then_some((name, path, metadata))
    }))
}

fn plugin(
    tenant: Option<&str>,
    file: &str,
    path: &Path,
    metadata: &Metadata,
) -> Option<(PluginKey, Found)> {
    let name = file.strip_suffix(".wasm").filter(|name| !name.is_empty())?;
    let manifest = path.with_extension("toml");
    let state = FileState {
        wasm: Stamp::of(metadata),
        manifest: fs::metadata(&manifest).ok().as_ref().map(Stamp::of),
    };
    let key = PluginKey { tenant: tenant.map(Into::into), name: name.to_owned() };
    Some((key, Found { wasm: path.to_owned(), manifest, state }))
}

/// The content of a plugin's file and of its manifest, which is empty when there is none; none when the files
/// are no longer those that were found.
pub(super) fn read(found: &Found, limit: u64) -> io::Result<Option<(Vec<u8>, String)>> {
    let len = found.state.wasm.len;
    if len > limit {
        return Err(io::Error::other(too_large(len, limit)));
    }
    if found.state.manifest.as_ref().is_some_and(|manifest| manifest.len > MAX_MANIFEST_BYTES) {
        return Err(io::Error::other(format!(
            "its manifest has more than {MAX_MANIFEST_BYTES} bytes"
        )));
    }
    let bytes = fs::read(&found.wasm)?;
    let manifest = match found.state.manifest {
        Some(_) => fs::read_to_string(&found.manifest)?,
        None => String::new(),
    };
    let now = FileState {
        wasm: Stamp::of(&fs::metadata(&found.wasm)?),
        manifest: fs::metadata(&found.manifest).ok().as_ref().map(Stamp::of),
    };
    Ok((now == found.state).then_some((bytes, manifest)))
}

/// Why a file of this size is not loaded.
pub(super) fn too_large(len: u64, limit: u64) -> String {
    format!("it has {len} bytes; at most {limit} are loaded (`plugins.max_file_bytes`)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        list(dir).unwrap().keys().map(ToString::to_string).collect()
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

    #[cfg(unix)]
    #[test]
    fn every_way_to_replace_a_file_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let state = || list(dir.path()).unwrap().into_values().next().map(|found| found.state);
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
        std::os::unix::fs::symlink(path("..v1").join("x"), path("a.wasm")).unwrap();
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
        let found = list(dir.path()).unwrap().into_values().next().unwrap();
        assert_eq!(read(&found, 5).unwrap(), Some((b"whole".to_vec(), String::new())));
        assert!(read(&found, 4).unwrap_err().to_string().contains("it has 5 bytes"));
        fs::write(&path, "longer than before").unwrap();
        assert_eq!(read(&found, 100).unwrap(), None);
    }
}
