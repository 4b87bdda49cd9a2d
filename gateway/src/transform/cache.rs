//! The cache of compiled plugins: what was compiled once is loaded in a millisecond ever after.
//!
//! A file's name is the plugin's content hash and a hash of everything about the engine that compiled code
//! depends on; it ends with a hash over both and its content, so that a torn, altered or renamed file counts
//! as missing. Files are mapped into memory and run from there: they are written aside, synced and renamed,
//! never changed in place. A cache that cannot be read or written only costs time.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use rustix::process::geteuid;
use wasmtime::Engine;

use crate::digest::Digest;

const HASH_LEN: usize = 32;

/// What the files are, so that another layout has other hashes.
const LAYOUT: &[u8] = b"hookmill compiled plugin 1";

/// The age at which a file that was begun and never finished is removed.
const ABANDONED: Duration = Duration::from_secs(600);

/// Compiled plugins in a folder that only the gateway may write.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    engine: u64,
    most_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The compilations that plugins run from.
    in_use: HashMap<Digest, Weak<Held>>,
    /// The bytes of all files, once they have been counted.
    bytes: Option<u64>,
    complained: bool,
}

/// A compilation that is in the cache.
pub(super) struct Kept {
    pub(super) path: PathBuf,
    /// What the file holds.
    pub(super) compiled: Vec<u8>,
    pub(super) hold: Hold,
}

/// Keeps a compilation in the cache until it is dropped.
#[derive(Debug, Clone)]
pub(super) struct Hold {
    _held: Arc<Held>,
}

#[derive(Debug)]
struct Held;

impl Cache {
    /// A cache in this folder, which is made when missing.
    pub(super) fn open(folder: &Path, engine: &Engine, most_bytes: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let cache = Self {
            folder: folder.to_owned(),
            engine: hasher.finish(),
            most_bytes,
            state: Mutex::default(),
        };
        if let Err(error) = cache.make_folder() {
            cache.complain(&error);
        }
        cache.remove_abandoned();
        cache
    }

    /// The compiled form of the plugin with this content hash.
    pub(super) fn get(&self, version: Digest) -> Option<Kept> {
        let path = self.path(version);
        let file = File::open(&path).ok()?;
        // Before anything is read, so that it is not removed meanwhile.
        let hold = self.hold(version);
        let compiled = self.read(&file, version)?;
        // What was used last is removed last. A folder that cannot be written stays as it is anyway.
        drop(file.set_modified(SystemTime::now()));
        Some(Kept { path, compiled, hold })
    }

    /// Keeps the compiled form of a plugin, and removes what was not used for longest when it is too much.
    /// None when it cannot be kept.
    pub(super) fn put(&self, version: Digest, compiled: &[u8]) -> Option<(PathBuf, Hold)> {
        let path = self.path(version);
        let hold = self.hold(version);
        match Self::write(&path, compiled, self.hash(version, compiled)) {
            Ok(()) => {
                self.make_room((compiled.len() + HASH_LEN) as u64);
                Some((path, hold))
            }
            Err(error) => {
                self.complain(&error);
                None
            }
        }
    }

    /// Removes a compilation that turned out not to load.
    pub(super) fn remove(&self, version: Digest) {
        // It will be replaced in any case.
        drop(fs::remove_file(self.path(version)));
    }

    fn path(&self, version: Digest) -> PathBuf {
        self.folder.join(format!("{version}-{:016x}.cwasm", self.engine))
    }

    fn hash(&self, version: Digest, compiled: &[u8]) -> Digest {
        Digest::of_parts(&[LAYOUT, version.as_bytes(), &self.engine.to_le_bytes(), compiled])
    }

    fn read(&self, file: &File, version: Digest) -> Option<Vec<u8>> {
        let metadata = file.metadata().ok()?;
        if !is_own(&metadata) {
            return None;
        }
        let mut content = Vec::with_capacity(usize::try_from(metadata.len()).ok()?);
        io::Read::read_to_end(&mut io::Read::take(file, metadata.len()), &mut content).ok()?;
        let hash = content.split_off(content.len().checked_sub(HASH_LEN)?);
        (hash == self.hash(version, &content).as_bytes()).then_some(content)
    }

    fn write(path: &Path, compiled: &[u8], hash: Digest) -> io::Result<()> {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let aside = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
        let write = || {
            let mut options = File::options();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&aside)?;
            file.write_all(compiled)?;
            file.write_all(hash.as_bytes())?;
            // A page that the system fails to write later would be missing from running code.
            file.sync_all()?;
            fs::rename(&aside, path)
        };
        write().inspect_err(|_| drop(fs::remove_file(&aside)))
    }

    fn make_folder(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let metadata = fs::metadata(&self.folder)?;
        if metadata.mode() & 0o077 != 0 {
            fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    }

    fn hold(&self, version: Digest) -> Hold {
        let mut state = self.state();
        if let Some(held) = state.in_use.get(&version).and_then(Weak::upgrade) {
            return Hold { _held: held };
        }
        let held = Arc::new(Held);
        state.in_use.insert(version, Arc::downgrade(&held));
        Hold { _held: held }
    }

    /// Counts what was added, and removes files down to the bound: of those that nobody uses, the one that was
    /// used longest ago first.
    fn make_room(&self, added: u64) {
        let mut state = self.state();
        let bytes = state.bytes.map(|bytes| bytes + added);
        if bytes.is_some_and(|bytes| bytes <= self.most_bytes) {
            state.bytes = bytes;
            return;
        }
        state.in_use.retain(|_, held| held.strong_count() > 0);
        let in_use: Vec<_> = state.in_use.keys().map(|version| self.path(*version)).collect();
        let mut files = self.files("cwasm");
        files.sort_by_key(|(_, metadata)| metadata.modified().ok());
        let mut bytes: u64 = files.iter().map(|(_, metadata)| metadata.len()).sum();
        for (path, metadata) in files {
            if bytes <= self.most_bytes {
                break;
            }
            if !in_use.contains(&path) && fs::remove_file(&path).is_ok() {
                bytes -= metadata.len();
            }
        }
        state.bytes = Some(bytes);
    }

    /// Removes what a gateway that was killed had begun.
    fn remove_abandoned(&self) {
        for (path, metadata) in self.files("tmp") {
            let age = metadata.modified().ok().and_then(|modified| modified.elapsed().ok());
            if age.is_some_and(|age| age > ABANDONED) {
                // The next start tries again.
                drop(fs::remove_file(path));
            }
        }
    }

    fn files(&self, extension: &str) -> Vec<(PathBuf, Metadata)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten();
        let files = entries.filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.path(), entry.metadata().ok()?))
        });
        files.filter(|(path, _)| path.extension().is_some_and(|it| it == extension)).collect()
    }

    /// Says once that the cache does not work.
    fn complain(&self, error: &io::Error) {
        if !std::mem::replace(&mut self.state().complained, true) {
            let folder = self.folder.display();
            tracing::warn!(
                %error,
                "compiled plugins cannot be kept in {folder}; they are compiled again at each start"
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nobody but the gateway's own user can have written the file.
fn is_own(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u64 = 1 << 30;

    fn cache(folder: &Path) -> Cache {
        Cache::open(folder, &Engine::default(), MANY)
    }

    fn get(cache: &Cache, version: Digest) -> Option<Vec<u8>> {
        cache.get(version).map(|kept| kept.compiled)
    }

    #[test]
    fn gives_back_what_was_put() {
        let folder = tempfile::tempdir().unwrap();
        let version = Digest::of(b"wasm");
        cache(folder.path()).put(version, b"compiled").unwrap();
        assert_eq!(get(&cache(folder.path()), version).as_deref(), Some(&b"compiled"[..]));
        assert_eq!(get(&cache(folder.path()), Digest::of(b"other")), None);
    }

    #[test]
    fn a_torn_or_altered_file_counts_as_missing_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let version = Digest::of(b"wasm");
        let cache = cache(folder.path());
        let (path, _hold) = cache.put(version, b"compiled").unwrap();
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(get(&cache, version), None, "{len} bytes");
        }
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            fs::write(&path, altered).unwrap();
            assert_eq!(get(&cache, version), None, "byte {at}");
        }
        cache.put(version, b"compiled").unwrap();
        assert!(get(&cache, version).is_some());
    }

    #[test]
    fn a_file_of_another_plugin_counts_as_missing() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let cache = cache(folder.path());
        cache.put(one, b"compiled").unwrap();
        fs::rename(cache.path(one), cache.path(other)).unwrap();
        assert_eq!(get(&cache, other), None);
    }

    #[test]
    fn a_file_that_others_may_write_counts_as_missing() {
        let folder = tempfile::tempdir().unwrap();
        let version = Digest::of(b"wasm");
        let cache = cache(folder.path());
        let (path, _hold) = cache.put(version, b"compiled").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(get(&cache, version), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(get(&cache, version).is_some());
        let mode = fs::metadata(folder.path()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_file_is_never_changed_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let version = Digest::of(b"wasm");
        let cache = cache(folder.path());
        let (path, _hold) = cache.put(version, b"compiled").unwrap();
        let mapped = File::open(&path).unwrap();
        cache.put(version, b"otherwise").unwrap();
        assert_eq!(cache.read(&mapped, version).as_deref(), Some(&b"compiled"[..]));
        assert_eq!(get(&cache, version).as_deref(), Some(&b"otherwise"[..]));
    }

    #[test]
    fn another_engine_does_not_see_it() {
        let folder = tempfile::tempdir().unwrap();
        let version = Digest::of(b"wasm");
        cache(folder.path()).put(version, b"compiled").unwrap();
        let mut other = wasmtime::Config::new();
        other.epoch_interruption(true);
        let other = Engine::new(&other).unwrap();
        assert_eq!(get(&Cache::open(folder.path(), &other, MANY), version), None);
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_what_is_in_use_stays() {
        let folder = tempfile::tempdir().unwrap();
        let versions: Vec<_> = (0..6_u8).map(|n| Digest::of(&[n])).collect();
        let one = 100 + HASH_LEN as u64;
        let cache = Cache::open(folder.path(), &Engine::default(), 4 * one);
        let mut holds = Vec::new();
        for (age, version) in (0..4).rev().zip(&versions) {
            let (path, hold) = cache.put(*version, &[0; 100]).unwrap();
            let file = File::options().append(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(100 + age)).unwrap();
            holds.push(hold);
        }
        // The first is in use; the second was used just now.
        holds.truncate(1);
        assert!(get(&cache, versions[1]).is_some());
        cache.put(versions[4], &[0; 100]).unwrap();
        cache.put(versions[5], &[0; 100]).unwrap();
        let left: Vec<_> = versions.iter().map(|version| get(&cache, *version).is_some()).collect();
        assert_eq!(left, [true, true, false, false, true, true]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_time_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let cache = cache(&file.join("cache"));
        let version = Digest::of(b"wasm");
        assert!(cache.put(version, b"compiled").is_none());
        assert!(cache.get(version).is_none());
    }

    #[test]
    fn what_was_begun_and_never_finished_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (old, young) = (folder.path().join("old.tmp"), folder.path().join("young.tmp"));
        fs::write(&young, "").unwrap();
        let file = File::create(&old).unwrap();
        file.set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        cache(folder.path());
        assert!(young.exists() && !old.exists());
    }
}
