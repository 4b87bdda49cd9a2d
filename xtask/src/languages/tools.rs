//! The tools that the languages need: found, or installed from the registry that they come from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command;

/// The generator of bindings, in the release that the SDK uses.
const WIT_BINDGEN: &str = "0.61.1";

/// Writes the contract's types into a module, in the release that the gateway uses.
const WASM_TOOLS: &str = "1.254.0";

/// Debian's compiler for C to WebAssembly, with its C library.
const DEBIAN_PACKAGES: &[&str] = &["clang-19", "lld-19", "libclang-rt-19-dev-wasm32", "wasi-libc"];

/// Where tools are installed that the machine does not have.
#[derive(Debug)]
pub(super) struct Tools {
    folder: PathBuf,
}

impl Tools {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.join("tools") }
    }

    /// Sees to what a language needs, or says what is missing.
    pub(super) fn ensure(&self, language: &str) -> Result<()> {
        match language {
            "c" => {
                ensure_clang()?;
                self.ensure_crate("wit-bindgen", "wit-bindgen-cli", WIT_BINDGEN, "c,go")
            }
            "go" => {
                need("go", &["version"], "Go 1.25 or later, from https://go.dev/dl")?;
                self.ensure_crate("wit-bindgen", "wit-bindgen-cli", WIT_BINDGEN, "c,go")?;
                self.ensure_crate("wasm-tools", "wasm-tools", WASM_TOOLS, "component")
            }
            "javascript" => need("npm", &["--version"], "Node.js 18 or later with npm"),
            "python" => {
                need("python3", &["-m", "venv", "--help"], "Python 3.10 or later with venv")
            }
            other => bail!("no tools are known for {other}"),
        }
    }

    /// The variable `PATH` with what is installed here before the machine's own.
    pub(super) fn path(&self) -> Result<OsString> {
        let own = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.folder.join("bin")).chain(std::env::split_paths(&own));
        std::env::join_paths(folders).context("the variable PATH cannot be extended")
    }

    /// The package that Go bindings import, as the generator's crate brings it: the same release for both,
    /// also where Go's module proxy does not have it.
    pub(super) fn go_package() -> Option<PathBuf> {
        let home = std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))?;
        let crates = std::fs::read_dir(home.join("registry/src")).ok()?;
        crates
            .filter_map(Result::ok)
            .map(|registry| registry.path().join(format!("wit-bindgen-go-{WIT_BINDGEN}/src/pkg")))
            .find(|package| package.join("go.mod").exists())
    }

    /// Installs a program of a crate, unless it is there in that version.
    fn ensure_crate(&self, program: &str, name: &str, version: &str, features: &str) -> Result<()> {
        let mut ask = Command::new(self.folder.join("bin").join(program));
        let output = ask.arg("--version").stderr(Stdio::null()).output();
        let is_there =
            output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(version));
        if is_there {
            return Ok(());
        }
        let mut install = command::cargo(["install", "--locked", "--no-default-features"]);
        install.args(["--features", features, "--version", version, name, "--root"]);
        install.arg(&self.folder).env("CARGO_TARGET_DIR", self.folder.join("build"));
        command::step(&format!("install {program}"), &mut install)
    }
}

/// Fails with what to install, unless the program runs.
fn need(program: &str, arguments: &[&str], what: &str) -> Result<()> {
    let mut command = Command::new(program);
    let status = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if status.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    bail!("`{program}` cannot be run; install {what}")
}

fn ensure_clang() -> Result<()> {
    let library = Path::new("/usr/lib/wasm32-wasi/libc.a");
    let found = need("clang-19", &["--version"], "clang")
        .and_then(|()| need("wasm-ld-19", &["--version"], "lld"));
    if found.is_ok() && library.exists() {
        return Ok(());
    }
    let packages = DEBIAN_PACKAGES.join(" ");
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--no-install-recommends"]).args(DEBIAN_PACKAGES);
    command::step("install clang for WebAssembly", &mut install).with_context(|| {
        format!("C needs Debian's packages {packages}; install them, which takes root")
    })
}
