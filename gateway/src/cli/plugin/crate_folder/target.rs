//! The compiler's part for WebAssembly, which Rust does not come with.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::cli::plugin::Problem;

/// The target that plugins are built for.
pub(super) const TARGET: &str = "wasm32-unknown-unknown";

/// Installs the target where it is missing, for the toolchain that builds in this folder.
pub(super) async fn ensure(folder: &Path) -> Result<(), Problem> {
    if is_installed(folder).await {
        return Ok(());
    }
    let added = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(folder)
        .stdin(Stdio::null())
        // What rustup says is no result of ours.
        .stdout(Stdio::null())
        .status()
        .await;
    if added.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(format!(
        "plugins need Rust's target {TARGET}, and it could not be installed; install it as your Rust came, \
         with `rustup target add {TARGET}` or your system's packages"
    ))
}

/// Whether the compiler has a standard library for the target. Asking it, and not rustup, is right for
/// toolchains that did not come from rustup too.
async fn is_installed(folder: &Path) -> bool {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .await;
    // What the compiler complains of, cargo will say again.
    output.is_ok_and(|output| {
        let libraries = String::from_utf8_lossy(&output.stdout);
        output.status.success() && Path::new(libraries.trim()).is_dir()
    })
}
