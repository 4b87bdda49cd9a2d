//! `cargo xtask check`: formatting, lints and documentation, with every warning an error.

use anyhow::Result;

use crate::{command, wasm, workspace};

/// Checks.
pub(crate) fn run() -> Result<()> {
    command::step("formatting", &mut command::cargo(["fmt", "--all", "--check"]))?;
    let lint = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    command::step("lints", &mut command::cargo(lint))?;
    wasm::ensure_target()?;
    command::step("lints of what runs as wasm", &mut wasm_lints()?)?;
    let mut doc = command::cargo(["doc", "--workspace", "--no-deps", "--document-private-items"]);
    command::step("documentation", doc.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Clippy for the target that plugins are built for: the code behind its `cfg` is seen only there.
fn wasm_lints() -> Result<std::process::Command> {
    let mut arguments = vec!["clippy", "--target", "wasm32-unknown-unknown"];
    arguments.extend(["--package", "hookmill-plugin"]);
    let names = workspace::wasm_crates()?;
    for name in &names {
        arguments.extend(["--package", name]);
    }
    arguments.extend(["--", "-D", "warnings"]);
    Ok(command::cargo(arguments))
}
