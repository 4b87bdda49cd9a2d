//! Puts a file in place so that nobody ever reads half of it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Problem;

/// Puts a plugin into a gateway's folder as `NAME.wasm`, and says where it is.
pub(super) fn install(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, Problem> {
    let shown = folder.display();
    if !folder.is_dir() {
        return Err(format!("cannot install into {shown}: there is no such folder"));
    }
    let path = folder.join(format!("{name}.wasm"));
    replace(&path, bytes).map_err(|error| format!("cannot install into {shown}: {error}"))?;
    Ok(path)
}

/// Writes the file beside and renames it over the old one, once it is on disk.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The gateway leaves out names that begin with a full stop.
    let aside = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = write_durably(&aside, bytes).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        // It may not exist, and what failed before is what matters.
        drop(fs::remove_file(&aside));
        return written;
    }
    // So that the new name survives a crash too, where folders can be synced.
    File::open(folder_or_here(folder)).and_then(|folder| folder.sync_all()).or(Ok(()))
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn folder_or_here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        for content in [&b"old"[..], b"new"] {
            let path = install(folder.path(), "a", content).unwrap();
            assert_eq!(fs::read(path).unwrap(), content);
        }
        assert_eq!(names(folder.path()), ["a.wasm"]);
    }

    #[test]
    fn what_cannot_be_put_in_place_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let problem = install(&missing, "a", b"x").unwrap_err();
        assert!(problem.contains("there is no such folder"), "{problem}");
        // A folder of that name cannot be replaced by a file.
        fs::create_dir_all(folder.path().join("a.wasm/x")).unwrap();
        let problem = install(folder.path(), "a", b"x").unwrap_err();
        assert!(problem.contains("cannot install into"), "{problem}");
        assert_eq!(names(folder.path()), ["a.wasm"]);
    }
}
