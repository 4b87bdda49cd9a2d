//! Cargo, asked and told in its own formats.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde::Deserialize;
use tokio::process::Command;

use super::target::TARGET;
use crate::cli::plugin::Problem;

/// Cargo, to be run in this folder: its toolchain and its `.cargo/config.toml` count.
fn cargo(folder: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs cargo to its end, with its standard output as what it says for programs; what it says for people goes
/// to standard error.
async fn output(command: &mut Command) -> Result<Output, Problem> {
    // `Command::output` would take standard error too.
    let child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
    let ended = match child {
        Ok(child) => child.wait_with_output().await,
        Err(error) => Err(error),
    };
    ended.map_err(|error| {
        format!("cannot run cargo: {error}; plugins are built with Rust, which https://rustup.rs installs")
    })
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

impl Target {
    fn is_cdylib(&self) -> bool {
        self.crate_types.iter().any(|kind| kind == "cdylib")
    }
}

/// The name of the crate in a folder, which has to be one that builds to a plugin, and the folder that cargo
/// builds it in.
pub(super) async fn describe(folder: &Path) -> Result<(String, PathBuf), Problem> {
    let arguments = ["metadata", "--format-version", "1", "--no-deps"];
    let output = output(cargo(folder).args(arguments)).await?;
    let shown = folder.display();
    if !output.status.success() {
        return Err(format!("cargo cannot read the crate in {shown}"));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo's description of {shown} cannot be read: {error}"))?;
    let package =
        metadata.packages.into_iter().find(|package| is_of(&package.manifest_path, folder));
    let Some(package) = package else {
        return Err(format!(
            "{shown} is a workspace and no crate; give the folder of one of its crates"
        ));
    };
    if !package.targets.iter().any(Target::is_cdylib) {
        return Err(format!(
            "{} builds to no plugin: its Cargo.toml needs\n\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]\n",
            package.name
        ));
    }
    Ok((package.name, metadata.target_directory))
}

/// A line of what `cargo build` says for programs.
#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        manifest_path: PathBuf,
        target: Target,
        filenames: Vec<PathBuf>,
    },
    #[serde(other)]
    Other,
}

/// Builds the crate in a folder to wasm; the file that cargo made of it.
pub(super) async fn build(folder: &Path, profile: &str) -> Result<PathBuf, Problem> {
    let mut command = cargo(folder);
    command
        .args(["build", "--target", TARGET, "--profile", profile])
        .args(["--message-format", "json-render-diagnostics"]);
    let output = output(&mut command).await?;
    if !output.status.success() {
        return Err(format!("cargo could not build {}", folder.display()));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    artifact(&said, folder)
        .ok_or_else(|| format!("cargo built no wasm file of {}", folder.display()))
}

/// The wasm file among the artifacts of the crate in a folder.
fn artifact(said: &str, folder: &Path) -> Option<PathBuf> {
    let messages = said.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    messages
        .filter_map(|message| match message {
            Message::CompilerArtifact { manifest_path, target, filenames } => {
                let is_plugin = target.is_cdylib() && is_of(&manifest_path, folder);
                is_plugin.then_some(filenames)
            }
            Message::Other => None,
        })
        .flatten()
        .find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
}

/// Whether this is the manifest of the crate in a folder.
fn is_of(manifest: &Path, folder: &Path) -> bool {
    let parent = manifest.parent().and_then(|parent| std::fs::canonicalize(parent).ok());
    parent.as_deref() == Some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crates_own_wasm_is_found_among_what_cargo_says() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::fs::canonicalize(folder.path()).unwrap();
        let said = format!(
            "not JSON\n{}\n{}\n{}\n",
            r#"{"reason":"build-script-executed","package_id":"x"}"#,
            r#"{"reason":"compiler-artifact","manifest_path":"/other/Cargo.toml","target":{"crate_types":["cdylib"]},"filenames":["/t/other.wasm"]}"#,
            serde_json::json!({
                "reason": "compiler-artifact",
                "manifest_path": own.join("Cargo.toml"),
                "target": { "crate_types": ["cdylib", "rlib"] },
                "filenames": ["/t/libown.rlib", "/t/own.wasm"],
            })
        );
        assert_eq!(artifact(&said, &own), Some(PathBuf::from("/t/own.wasm")));
        assert_eq!(artifact(r#"{"reason":"build-finished","success":true}"#, &own), None);
    }
}
