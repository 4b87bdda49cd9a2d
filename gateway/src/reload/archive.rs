//! The archive: versions of plugins as they ran, kept on disk by their content, to go back to.
//!
//! `all/NAME/` and `tenants/TENANT/NAME/` hold `HASH.wasm`, the plugin's file, and `HASH.json`, the record
//! with the manifest that it ran with. The record is written last and removed first, so that a version with
//! a record is whole. Files are written aside and renamed, and a plugin is read only if its hash is right.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::folder::Content;
use crate::digest::Digest;
use crate::snapshot::{KeptVersion, PluginKey};

/// Versions of plugins in a folder that only the gateway may write.
#[derive(Debug, Clone)]
pub struct Archive {
    folder: PathBuf,
}

/// What is known of a version beside its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The version that it describes itself as.
    described: String,
    size_bytes: u64,
    first_seen: Timestamp,
    last_active: Timestamp,
    /// The text of the manifest that it ran with last; empty for none.
    manifest: String,
}

impl Archive {
    /// The archive in this folder, which need not exist.
    #[must_use]
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The versions there are of each plugin, the one that was active last coming first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> io::Result<BTreeMap<PluginKey, Vec<KeptVersion>>> {
        let mut found = BTreeMap::new();
        for plugin in subfolders(&self.folder.join("all"))? {
            let key = name_of(&plugin).map(|name| PluginKey { tenant: None, name });
            found.extend(key.and_then(|key| self.versions(key)));
        }
        for tenant in subfolders(&self.folder.join("tenants"))? {
            for plugin in subfolders(&tenant.path())? {
                let names = name_of(&tenant).zip(name_of(&plugin));
                let key =
                    names.map(|(tenant, name)| PluginKey { tenant: Some(tenant.into()), name });
                found.extend(key.and_then(|key| self.versions(key)));
            }
        }
        Ok(found)
    }

    /// A version's content, if it is what its name says.
    ///
    /// # Errors
    /// Why it cannot be used, in a phrase.
    pub fn read(&self, key: &PluginKey, version: Digest) -> Result<Content, String> {
        let path = self.path(key, version, "wasm");
        let refusal = |error: &dyn std::fmt::Display| {
            format!("its kept file {} cannot be read: {error}", path.display())
        };
        let record = self.record(key, version).map_err(|error| refusal(&error))?;
        let metadata = fs::metadata(&path).map_err(|error| refusal(&error))?;
        let damaged = || {
            format!(
                "its kept file {} was changed: its content is not what its name says; put the right file \
                 back, into the plugins folder or there",
                path.display()
            )
        };
        if metadata.len() != record.size_bytes {
            return Err(damaged());
        }
        let bytes = fs::read(&path).map_err(|error| refusal(&error))?;
        if Digest::of(&bytes) != version {
            return Err(damaged());
        }
        Ok(Content { wasm: bytes.into(), manifest: record.manifest })
    }

    /// Keeps a version that is active from now on. `first_seen` is when it was first kept, if it was.
    pub(super) fn put(
        &self,
        key: &PluginKey,
        described: &str,
        content: &Content,
        first_seen: Option<Timestamp>,
    ) -> io::Result<KeptVersion> {
        self.make_folder(key)?;
        let version = Digest::of(&content.wasm);
        let now = Timestamp::now();
        let record = Record {
            described: described.to_owned(),
            size_bytes: content.wasm.len() as u64,
            first_seen: first_seen.unwrap_or(now),
            last_active: now,
            manifest: content.manifest.clone(),
        };
        // What is there already is not written again, unless it was damaged.
        if self.read(key, version).is_err() {
            write_aside(&self.path(key, version, "wasm"), &content.wasm)?;
        }
        write_aside(&self.path(key, version, "json"), &serde_json::to_vec_pretty(&record)?)?;
        File::open(self.folder_of(key))?.sync_all()?;
        Ok(record.into_kept(version))
    }

    /// Whether a version was kept with this manifest.
    pub(super) fn has_manifest(&self, key: &PluginKey, version: Digest, manifest: &str) -> bool {
        self.record(key, version).is_ok_and(|record| record.manifest == manifest)
    }

    /// Forgets a version.
    pub(super) fn remove(&self, key: &PluginKey, version: Digest) -> io::Result<()> {
        fs::remove_file(self.path(key, version, "json"))?;
        fs::remove_file(self.path(key, version, "wasm"))
    }

    /// The versions of one plugin; none when there are none. What cannot be read is left out.
    fn versions(&self, key: PluginKey) -> Option<(PluginKey, Vec<KeptVersion>)> {
        let entries = fs::read_dir(self.folder_of(&key)).ok()?;
        let versions = entries.filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let version = Digest::parse(name.to_str()?.strip_suffix(".json")?)?;
            match self.record(&key, version) {
                Ok(record) => Some(record.into_kept(version)),
                Err(error) => {
                    tracing::warn!(plugin = %key, %version, %error, "the record of a kept version cannot be read");
                    None
                }
            }
        });
        let mut versions: Vec<_> = versions.collect();
        versions.sort_by_key(|kept| std::cmp::Reverse(kept.last_active));
        (!versions.is_empty()).then_some((key, versions))
    }

    fn record(&self, key: &PluginKey, version: Digest) -> io::Result<Record> {
        Ok(serde_json::from_slice(&fs::read(self.path(key, version, "json"))?)?)
    }

    fn make_folder(&self, key: &PluginKey) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).recursive(true).create(self.folder_of(key))
    }

    fn folder_of(&self, key: &PluginKey) -> PathBuf {
        match &key.tenant {
            Some(tenant) => self.folder.join("tenants").join(&**tenant).join(&key.name),
            None => self.folder.join("all").join(&key.name),
        }
    }

    fn path(&self, key: &PluginKey, version: Digest, extension: &str) -> PathBuf {
        self.folder_of(key).join(format!("{version}.{extension}"))
    }
}

impl Record {
    fn into_kept(self, version: Digest) -> KeptVersion {
        KeptVersion {
            version,
            described: self.described,
            size_bytes: self.size_bytes,
            first_seen: self.first_seen,
            last_active: self.last_active,
        }
    }
}

/// Writes a file whole or not at all, and durably.
pub(super) fn write_aside(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Whoever scans the folder leaves out names that begin with a full stop.
    let aside = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = File::create(&aside)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        // The first error is the one that matters.
        drop(fs::remove_file(&aside));
    }
    written
}

/// The folders in a folder; none when it is not there.
fn subfolders(folder: &Path) -> io::Result<Vec<DirEntry>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let is_folder = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    Ok(entries.filter_map(Result::ok).filter(is_folder).collect())
}

fn name_of(entry: &DirEntry) -> Option<String> {
    entry.file_name().into_string().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn key(tenant: Option<&str>) -> PluginKey {
        PluginKey { tenant: tenant.map(Into::into), name: "redact".to_owned() }
    }

    fn content(bytes: &[u8]) -> Content {
        Content { wasm: bytes.to_vec().into(), manifest: "[limits]\n".to_owned() }
    }

    #[test]
    fn versions_are_listed_and_read_back_from_a_folder_that_is_the_gateways_own() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::at(dir.path().join("plugins"));
        assert_eq!(archive.list().unwrap(), BTreeMap::new());
        let first = archive.put(&key(None), "1.0.0", &content(b"one"), None).unwrap();
        let second = archive.put(&key(None), "1.1.0", &content(b"two"), None).unwrap();
        let own = archive.put(&key(Some("acme")), "9.0.0", &content(b"two"), None).unwrap();
        assert_eq!(first.version, Digest::of(b"one"));
        assert_eq!((first.size_bytes, &*first.described), (3, "1.0.0"));
        let expected =
            [(key(None), vec![second, first.clone()]), (key(Some("acme")), vec![own.clone()])];
        assert_eq!(archive.list().unwrap(), expected.into());
        assert_eq!(archive.read(&key(None), first.version), Ok(content(b"one")));
        assert_eq!(archive.read(&key(Some("acme")), own.version), Ok(content(b"two")));
        assert!(archive.read(&key(Some("acme")), first.version).is_err());
        let mode = fs::metadata(dir.path().join("plugins")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_version_that_comes_back_is_the_newest_and_keeps_when_it_was_first_seen() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::at(dir.path().to_owned());
        let first = archive.put(&key(None), "", &content(b"one"), None).unwrap();
        archive.put(&key(None), "", &content(b"two"), None).unwrap();
        let again = archive.put(&key(None), "", &content(b"one"), Some(first.first_seen)).unwrap();
        assert_eq!(again.first_seen, first.first_seen);
        assert_eq!(archive.list().unwrap()[&key(None)][0], again);
        archive.remove(&key(None), first.version).unwrap();
        let left = &archive.list().unwrap()[&key(None)];
        assert_eq!(left.iter().map(|kept| kept.version).collect::<Vec<_>>(), [Digest::of(b"two")]);
        assert!(archive.remove(&key(None), first.version).is_err());
    }

    #[test]
    fn a_damaged_version_is_refused_until_it_is_kept_again() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::at(dir.path().to_owned());
        let kept = archive.put(&key(None), "", &content(b"plugin"), None).unwrap();
        let path = archive.path(&key(None), kept.version, "wasm");
        for damage in [&b"plugIn"[..], b"plug", b"plugin and more", b""] {
            fs::write(&path, damage).unwrap();
            let error = archive.read(&key(None), kept.version).unwrap_err();
            assert!(error.contains("its content is not what its name says"), "{error}");
        }
        archive.put(&key(None), "", &content(b"plugin"), Some(kept.first_seen)).unwrap();
        assert_eq!(archive.read(&key(None), kept.version), Ok(content(b"plugin")));
        fs::write(archive.path(&key(None), kept.version, "json"), "{").unwrap();
        assert!(archive.read(&key(None), kept.version).is_err());
        assert_eq!(archive.list().unwrap(), BTreeMap::new());
    }

    #[test]
    fn the_manifest_is_part_of_what_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::at(dir.path().to_owned());
        let version = archive.put(&key(None), "", &content(b"plugin"), None).unwrap().version;
        assert!(archive.has_manifest(&key(None), version, "[limits]\n"));
        assert!(!archive.has_manifest(&key(None), version, ""));
    }
}
