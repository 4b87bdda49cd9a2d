//! Rolling back: a kept version's file is put back into the plugins folder, which stays the one truth; a
//! gateway that runs takes it from there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Config;
use super::archive::{Archive, write_aside};
use super::folder::Content;
use super::loading::plugin;
use crate::digest::{Digest, DigestPrefix};
use crate::snapshot::{KeptVersion, PluginKey};
use crate::transform::Runtime;

/// What was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// What the folder held before, if anything.
    pub from: Option<Digest>,
    /// What it holds now.
    pub to: KeptVersion,
    /// Where it was put.
    pub path: PathBuf,
}

/// Puts a version back into the plugins folder: the one whose hash begins with `to`, or the one that was active
/// before what is there now. `with_manifest` puts the manifest back too that the version ran with.
///
/// Nothing is written unless the version loads.
///
/// # Errors
/// Why it cannot be done, and what can, in a sentence.
pub async fn roll_back(
    config: &Config,
    runtime: &Runtime,
    key: &PluginKey,
    to: Option<&DigestPrefix>,
    with_manifest: bool,
) -> Result<RolledBack, String> {
    let archive = Archive::at(config.archive_dir.clone());
    let folder = match &key.tenant {
        Some(tenant) => config.plugins_dir.join(&**tenant),
        None => config.plugins_dir.clone(),
    };
    let path = folder.join(format!("{}.wasm", key.name));
    let manifest_path = path.with_extension("toml");
    let from = fs::read(&path).ok().map(|bytes| Digest::of(&bytes));
    let kept = kept_versions(&archive, config, key)?;
    let to = target(kept, from, to).map_err(|reason| format!("`{key}` {reason}"))?;
    let content = archive.read(key, to.version)?;
    let beside = read_manifest(&manifest_path)?;
    let manifest = if with_manifest { &content.manifest } else { &beside };
    let tried = Content { wasm: content.wasm.clone(), manifest: manifest.clone() };
    plugin(runtime, key, tried, None).await.map_err(|refused| {
        let hint = match with_manifest || content.manifest == beside {
            true => "",
            false => "; `--with-manifest` puts the manifest back too that it ran with",
        };
        format!("`{key}` {} cannot be loaded: {}{hint}", to.version.brief(), refused.reason)
    })?;
    for path in [&path, &manifest_path] {
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()) {
            let what = format!("{} is a link, so something else fills the folder", path.display());
            return Err(format!("{what}; {}", pin_instead(key, to.version)));
        }
    }
    let written =
        write(&path, &manifest_path, &content, with_manifest && content.manifest != beside);
    written.map_err(|error| {
        let dir = folder.display();
        let what = format!("the plugins folder {dir} cannot be written: {error}");
        format!("{what}; {}", pin_instead(key, to.version))
    })?;
    Ok(RolledBack { from, to, path })
}

fn kept_versions(
    archive: &Archive,
    config: &Config,
    key: &PluginKey,
) -> Result<Vec<KeptVersion>, String> {
    let dir = config.archive_dir.display();
    let mut kept =
        archive.list().map_err(|error| format!("the kept versions in {dir}: {error}"))?;
    kept.remove(key).ok_or_else(|| {
        let known: Vec<_> = kept.keys().map(ToString::to_string).collect();
        let known = match known.is_empty() {
            true => "nothing".to_owned(),
            false => known.join(", "),
        };
        format!("no version of `{key}` is kept in {dir}, which has {known}")
    })
}

/// The version to go to, from what the folder holds.
fn target(
    kept: Vec<KeptVersion>,
    from: Option<Digest>,
    to: Option<&DigestPrefix>,
) -> Result<KeptVersion, String> {
    let Some(prefix) = to else {
        let mut earlier = kept.into_iter().filter(|kept| Some(kept.version) != from);
        return earlier.next().ok_or_else(|| "has no earlier version that is kept".to_owned());
    };
    let all: Vec<_> = kept.iter().map(|kept| kept.version.brief()).collect();
    let mut fitting = kept.into_iter().filter(|kept| prefix.fits(&kept.version));
    match (fitting.next(), fitting.next()) {
        (None, _) => Err(format!("has no kept version {prefix}; there are {}", all.join(", "))),
        (Some(one), None) if Some(one.version) == from => {
            Err(format!("{} is in the plugins folder already", one.version.brief()))
        }
        (Some(one), None) => Ok(one),
        (Some(one), Some(other)) => Err(format!(
            "has several kept versions that begin with {prefix}, as {} and {}; write more digits",
            one.version, other.version
        )),
    }
}

fn read_manifest(path: &Path) -> Result<String, String> {
    match fs::read_to_string(path) {
        Ok(manifest) => Ok(manifest),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

fn write(
    path: &Path,
    manifest_path: &Path,
    content: &Content,
    with_manifest: bool,
) -> io::Result<()> {
    // The manifest first: a gateway that looks between the two looks again after the second.
    match (with_manifest, content.manifest.is_empty()) {
        (false, _) => {}
        (true, true) => fs::remove_file(manifest_path)?,
        (true, false) => write_aside(manifest_path, content.manifest.as_bytes())?,
    }
    write_aside(path, &content.wasm)
}

fn pin_instead(key: &PluginKey, version: Digest) -> String {
    format!(
        "pin the version where it is used instead: `plugins = [{{ name = {:?}, version = {:?} }}]`",
        key.name,
        version.brief()
    )
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn kept(bytes: &[u8]) -> KeptVersion {
        KeptVersion {
            version: Digest::of(bytes),
            described: String::new(),
            size_bytes: 1,
            first_seen: Timestamp::UNIX_EPOCH,
            last_active: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_target_is_what_is_named_or_what_ran_before() {
        let (new, old) = (Digest::of(b"new"), Digest::of(b"old"));
        let target = |from: Option<Digest>, to: Option<&str>| {
            let to = to.map(|to| DigestPrefix::parse(to).unwrap());
            target(vec![kept(b"new"), kept(b"old")], from, to.as_ref()).map(|to| to.version)
        };
        assert_eq!(target(Some(new), None), Ok(old));
        assert_eq!(target(Some(old), None), Ok(new));
        // A file that was rejected, or is gone: back to what ran last.
        assert_eq!(target(Some(Digest::of(b"broken")), None), Ok(new));
        assert_eq!(target(None, None), Ok(new));
        assert_eq!(target(Some(new), Some(&old.brief())), Ok(old));
        let already = target(Some(old), Some(&old.brief())).unwrap_err();
        assert!(already.contains("already"), "{already}");
        let unknown = target(Some(new), Some("00000000")).unwrap_err();
        assert!(unknown.contains(&format!("{}, {}", new.brief(), old.brief())), "{unknown}");
        assert!(super::target(vec![kept(b"new")], Some(new), None).is_err());
    }
}
