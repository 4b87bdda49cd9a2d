//! Where things are in the workspace.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        // A relative path is meant from where cargo is called, and the tasks call it from the root.
        Some(target) => root().join(target),
        None => root().join("target"),
    }
}

/// A binary as cargo builds it in `folder`, which is `debug` or `release`.
pub(crate) fn binary(folder: &str, name: &str) -> PathBuf {
    target().join(folder).join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// The names of the crates that are built to wasm: the plugins, the SDK's example and the guests of the
/// tests.
pub(crate) fn wasm_crates() -> Result<Vec<String>> {
    let mut names = crates_in("plugins")?;
    names.push("order-message".to_owned());
    names.extend(crates_in("tests/guests")?);
    Ok(names)
}

/// The crates of a folder; each stands in a folder of its own name.
fn crates_in(folder: &str) -> Result<Vec<String>> {
    let folder = root().join(folder);
    let entries =
        std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().join("Cargo.toml").exists() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The module that a plugin's crate builds to.
pub(crate) fn wasm_file(name: &str) -> PathBuf {
    let module = format!("{}.wasm", name.replace('-', "_"));
    target().join("wasm32-unknown-unknown/plugin").join(module)
}

/// Copies a built plugin into a gateway's plugins folder, under its own name.
pub(crate) fn install_plugin(name: &str, folder: &Path) -> Result<()> {
    let module = std::fs::read(wasm_file(name))
        .with_context(|| format!("cannot read {}", wasm_file(name).display()))?;
    replace_file(&folder.join(format!("{name}.wasm")), &module)
}

/// Writes a file beside the old one and renames it over that: nobody ever reads half a file.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> Result<()> {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, content)
        .and_then(|()| std::fs::rename(&fresh, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
