//! `cargo xtask wasm`: builds every plugin, and every guest of the tests, to WebAssembly.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{command, report, workspace};

const TARGET: &str = "wasm32-unknown-unknown";

/// Builds them, and says where they are.
pub(crate) fn run() -> Result<()> {
    build()?;
    for name in workspace::wasm_crates()? {
        let file = workspace::wasm_file(&name);
        let bytes = std::fs::metadata(&file)
            .with_context(|| format!("cargo has not built {}", file.display()))?
            .len();
        report::line(&format!("  {bytes:>8} bytes  {}", file.display()));
    }
    Ok(())
}

/// Builds them.
pub(crate) fn build() -> Result<()> {
    ensure_target()?;
    let mut arguments = vec!["build", "--profile", "plugin", "--target", TARGET];
    let names = workspace::wasm_crates()?;
    for name in &names {
        arguments.extend(["--package", name]);
    }
    command::step("build the plugins to wasm", &mut command::cargo(arguments))
}

/// Installs the target where it is missing.
pub(crate) fn ensure_target() -> Result<()> {
    if is_installed()? {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]).current_dir(workspace::root());
    if let Err(error) = command::step("install the wasm target", &mut rustup) {
        bail!(
            "the plugins need Rust's {TARGET} target, and it could not be installed ({error:#}); \
             install it as your Rust came, with `rustup target add {TARGET}` or your system's packages"
        );
    }
    Ok(())
}

/// Whether the compiler has a standard library for the target. Asking it, and not rustup, is right
/// for toolchains that did not come from rustup too.
fn is_installed() -> Result<bool> {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(workspace::root())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run rustc")?;
    let folder = String::from_utf8_lossy(&output.stdout);
    Ok(output.status.success() && Path::new(folder.trim()).is_dir())
}
