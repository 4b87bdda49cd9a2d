//! A gateway to measure: built, with a folder of its own, started and looked at from outside.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::process::Process;
use crate::{command, wasm, workspace};

/// It guards nothing but the benchmark, on this machine.
pub(super) const KEY: &str = "bench-key-0123456789abcdef";

/// How long a start may take: a cold one compiles every plugin.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A folder with a configuration and plugins, and the program to run on it.
pub(super) struct Bench {
    folder: PathBuf,
    profile: &'static str,
}

/// What a process takes of memory, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    /// What is in memory of all that it has.
    pub(super) rss: u64,
    /// The same, with what is shared divided by those who share it.
    pub(super) pss: u64,
}

/// Builds the plugins and the gateway, apart from all else, so that it is built as it is shipped.
pub(super) fn build(release: bool) -> Result<()> {
    wasm::build()?;
    build_package("build the gateway", &["--package", "hookmill"], release)
}

/// Builds the load generator.
pub(super) fn build_load(release: bool) -> Result<()> {
    let load = ["--package", "hookmill-tests", "--bin", "hookmill-load"];
    build_package("build the load generator", &load, release)
}

fn build_package(title: &str, package: &[&str], release: bool) -> Result<()> {
    let mut build = command::cargo(["build"]);
    build.args(package);
    if release {
        build.arg("--release");
    }
    command::step(title, &mut build)
}

/// The configuration's part for a tenant with a key, before its webhooks.
pub(super) fn tenant(name: &str, key: &str) -> String {
    format!("\n[[tenants]]\nname = \"{name}\"\nkeys = [\"{key}\"]\n")
}

impl Bench {
    /// An empty folder for what was built.
    pub(super) fn set_up(name: &str, release: bool) -> Result<Self> {
        let folder = workspace::target().join("bench").join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let plugins = folder.join("plugins");
        std::fs::create_dir_all(&plugins)
            .with_context(|| format!("cannot create {}", plugins.display()))?;
        let profile = if release { "release" } else { "debug" };
        Ok(Self { folder, profile })
    }

    /// Puts one of the workspace's plugins where the gateway looks for it.
    pub(super) fn install(&self, plugin: &str) -> Result<()> {
        workspace::install_plugin(plugin, &self.folder.join("plugins"))
    }

    /// Where the gateway looks for a plugin.
    pub(super) fn plugin_file(&self, name: &str) -> PathBuf {
        self.folder.join("plugins").join(format!("{name}.wasm"))
    }

    /// Writes the configuration: what all benchmarks need, what is logged, and the tenants.
    pub(super) fn configure(&self, log: &str, tenants: &str) -> Result<()> {
        let configuration = format!(
            r#"# Written by `cargo xtask bench`.
listen = "127.0.0.1:0"

[log]
filter = "{log}"

[plugins]
start_wait = "1h"

[delivery]
allow_http = true
allow_networks = ["127.0.0.0/8"]

{tenants}"#
        );
        let file = self.folder.join("hookmill.toml");
        std::fs::write(&file, configuration)
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// A command of the program.
    pub(super) fn hookmill(&self) -> Command {
        let mut command = Command::new(workspace::binary(self.profile, "hookmill"));
        command.current_dir(&self.folder);
        command
    }

    /// Starts the load generator: the process, and the URL of its receiver.
    pub(super) fn start_load(
        &self,
        arguments: impl IntoIterator<Item = String>,
    ) -> Result<(Process, String)> {
        let mut command = Command::new(workspace::binary(self.profile, "hookmill-load"));
        command.args(arguments);
        let log = self.folder.join("load.log");
        let load = Process::start("the load generator", &mut command, log)?;
        let receiver = load.address("{\"receiver\":\"", "\"")?;
        Ok((load, receiver))
    }

    /// Starts the load generator with many receivers: the process, and what it says of them.
    pub(super) fn start_many_receivers(
        &self,
        arguments: impl IntoIterator<Item = String>,
    ) -> Result<(Process, serde_json::Value)> {
        let mut command = Command::new(workspace::binary(self.profile, "hookmill-load"));
        command.args(arguments);
        let log = self.folder.join("load.log");
        let load = Process::start("the load generator", &mut command, log)?;
        let receivers = serde_json::from_str(&load.line(Duration::from_secs(30))?)?;
        Ok((load, receivers))
    }

    /// Removes what an earlier gateway kept, and writes the configuration of the next one.
    pub(super) fn configure_afresh(&self, log: &str, tenants: &str) -> Result<()> {
        let data = self.folder.join("data");
        if data.exists() {
            std::fs::remove_dir_all(&data)
                .with_context(|| format!("cannot remove {}", data.display()))?;
        }
        self.configure(log, tenants)
    }

    /// Starts the gateway: the process, its address, and how long it took until it listened.
    pub(super) fn start(&self) -> Result<(Process, String, Duration)> {
        let mut command = self.hookmill();
        command.args(["serve", "--config", "hookmill.toml"]);
        let began = Instant::now();
        let gateway = Process::start("the gateway", &mut command, self.log())?;
        let line = gateway.line(PATIENCE)?;
        let took = began.elapsed();
        let address = line.strip_prefix("listening on http://").context("an address")?;
        Ok((gateway, address.to_owned(), took))
    }

    /// What the gateway has logged: warnings and errors.
    pub(super) fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// How many bytes the gateway's database has on disk.
    pub(super) fn database_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(self.folder.join("data"))? {
            let metadata = entry?.metadata()?;
            bytes += if metadata.is_file() { metadata.len() } else { 0 };
        }
        Ok(bytes)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("gateway.log")
    }
}

/// How much of the processors a process has used since it began, to a hundredth of a second.
pub(super) fn processor_time(process: &Process) -> Result<Duration> {
    let path = format!("/proc/{}/stat", process.id());
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {path}; this benchmark needs Linux"))?;
    // The name of the program, in parentheses, is the second field, and may have spaces.
    let (_, rest) = text.rsplit_once(") ").with_context(|| format!("{path} has no name"))?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks = ticks.sum::<Result<u64, _>>().with_context(|| format!("{path} has no times"))?;
    // What the kernel calls USER_HZ is the same on every machine that this runs on.
    Ok(Duration::from_millis(10 * ticks))
}

/// What a process takes of memory now.
pub(super) fn memory(process: &Process) -> Result<Memory> {
    let path = format!("/proc/{}/smaps_rollup", process.id());
    let text = std::fs::read_to_string(Path::new(&path))
        .with_context(|| format!("cannot read {path}; this benchmark needs Linux"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("{path} has no {name}"))
    };
    Ok(Memory { rss: field("Rss:")?, pss: field("Pss:")? })
}
