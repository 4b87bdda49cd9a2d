//! The cache of compiled plugins: what was compiled once is loaded in a millisecond ever after.
//!
//! A file's name is the plugin's content hash and a hash of everything about the engine that compiled code
//! depends on; its content begins with its own hash, so that a torn or altered file counts as missing.
//! Files are written aside and renamed, never changed in place.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};

use wasmtime::Engine;

use crate::digest::Digest;

const HASH_LEN: usize = 32;

/// Compiled plugins in a folder that only the gateway may write.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    engine: u64,
}

impl Cache {
    /// Opens the folder, creating it when missing.
    pub(super) fn open(folder: &Path, engine: &Engine) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(folder)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { folder: folder.to_owned(), engine: hasher.finish() })
    }

    /// The compiled form of the plugin with this content hash.
    pub(super) fn get(&self, version: Digest) -> Option<Vec<u8>> {
        let mut content = fs::read(self.path(version)).ok()?;
        let compiled = content.split_off(HASH_LEN.min(content.len()));
        (content == Digest::of(&compiled).as_bytes()).then_some(compiled)
    }

    /// Keeps the compiled form of a plugin.
    pub(super) fn put(&self, version: Digest, compiled: &[u8]) -> io::Result<()> {
        let path = self.path(version);
        let aside = path.with_extension(format!("{}.tmp", std::process::id()));
        fs::write(&aside, [Digest::of(compiled).as_bytes(), compiled].concat())?;
        fs::rename(&aside, &path)
    }

    fn path(&self, version: Digest) -> PathBuf {
        self.folder.join(format!("{version}-{:016x}.cwasm", self.engine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &Path) -> Cache {
        Cache::open(folder, &Engine::default()).unwrap()
    }

    #[test]
    fn gives_back_what_was_put() {
        let folder = tempfile::tempdir().unwrap();
        let version = Digest::of(b"wasm");
        cache(folder.path()).put(version, b"compiled").unwrap();
        assert_eq!(cache(folder.path()).get(version).as_deref(), Some(&b"compiled"[..]));
        assert_eq!(cache(folder.path()).get(Digest::of(b"other")), None);
    }

    #[test]
    fn a_torn_or_altered_file_counts_as_missing() {
        let folder = tempfile::tempdir().unwrap();
        let version = Digest::of(b"wasm");
        let cache = cache(folder.path());
        cache.put(version, b"compiled").unwrap();
        let path = cache.path(version);
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(cache.get(version), None, "{len} bytes");
        }
        let mut altered = whole.clone();
        *altered.last_mut().unwrap() ^= 1;
        fs::write(&path, altered).unwrap();
        assert_eq!(cache.get(version), None);
    }

    #[test]
    fn another_engine_does_not_see_it() {
        let folder = tempfile::tempdir().unwrap();
        let version = Digest::of(b"wasm");
        cache(folder.path()).put(version, b"compiled").unwrap();
        let mut other = wasmtime::Config::new();
        other.epoch_interruption(true);
        let other = Engine::new(&other).unwrap();
        assert_eq!(Cache::open(folder.path(), &other).unwrap().get(version), None);
    }
}
