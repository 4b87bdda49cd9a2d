//! The stage: a folder under `target/demo` with a configuration and plugins, and the two processes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::api::Api;
use super::interrupt::Interrupt;
use super::receiver::Receiver;
use crate::process::Process;
use crate::{report, workspace};

/// A tenant of the demo, and the secret that all its webhooks sign with. They guard nothing but the
/// demo, on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tenant {
    pub(super) name: &'static str,
    pub(super) key: &'static str,
    secret: &'static str,
}

pub(super) const ACME: Tenant = Tenant {
    name: "acme",
    key: "acme-demo-key-0123456789abcdef",
    secret: "whsec_YWNtZS1kZW1vLXNlY3JldC0wMTIzNDU2Nzg5YWJjZGVm",
};

pub(super) const GLOBEX: Tenant = Tenant {
    name: "globex",
    key: "globex-demo-key-0123456789abcdef",
    secret: "whsec_Z2xvYmV4LWRlbW8tc2VjcmV0LTAxMjM0NTY3ODlhYmNk",
};

/// The plugin that is replaced while it is in use.
pub(super) const STAMP: &str = "stamp";

const PLUGINS: [&str; 7] = [
    "order-summary",
    "tenant-filter",
    "redact",
    "slack-message",
    "job-status-envelope",
    "line-items",
    STAMP,
];

/// Everything the acts need.
pub(super) struct Stage {
    folder: PathBuf,
    pub(super) interrupt: Interrupt,
    // The gateway goes first when all of this is dropped: it should not see its receiver go.
    pub(super) gateway: Process,
    pub(super) api: Api,
    pub(super) receiver: Receiver,
}

impl Stage {
    /// Sets up a fresh stage; nothing is left of an earlier one.
    pub(super) fn set_up(interrupt: Interrupt) -> Result<Self> {
        report::heading("start a receiver and a gateway");
        let folder = workspace::target().join("demo");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let plugins = folder.join("plugins");
        std::fs::create_dir_all(&plugins)
            .with_context(|| format!("cannot create {}", plugins.display()))?;
        for name in PLUGINS {
            workspace::install_plugin(name, &plugins)?;
        }
        let log = folder.join("receiver.log");
        let receiver = Receiver::start(&hookmill(), &[ACME.secret, GLOBEX.secret], log)?;
        std::fs::write(folder.join("hookmill.toml"), configuration(&receiver.url))?;
        let (gateway, url) = start_gateway(&folder)?;
        report::line(&format!("  receiver  {}", receiver.url));
        report::line(&format!("  gateway   {url}, process {}", gateway.id()));
        report::line(&format!("  files     {}", folder.display()));
        Ok(Self { interrupt, gateway, api: Api::new(url), receiver, folder })
    }

    /// Kills the gateway with SIGKILL.
    pub(super) fn kill_gateway(&mut self) -> Result<()> {
        self.gateway.kill()
    }

    /// Starts the gateway again, on the same data; its address is another one.
    pub(super) fn restart_gateway(&mut self) -> Result<()> {
        let (gateway, url) = start_gateway(&self.folder)?;
        self.gateway = gateway;
        self.api.move_to(url);
        Ok(())
    }

    /// Fails if a process has ended by itself, or the demo is to end.
    pub(super) fn check(&mut self) -> Result<()> {
        self.interrupt.check()?;
        self.check_processes()
    }

    /// Fails if a process has ended by itself.
    pub(super) fn check_processes(&mut self) -> Result<()> {
        self.gateway.check()?;
        self.receiver.process.check()
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.folder.join("hookmill.toml")
    }

    /// Where the gateway looks for a plugin.
    pub(super) fn plugin_file(&self, name: &str) -> PathBuf {
        self.folder.join("plugins").join(format!("{name}.wasm"))
    }

    /// What to type to send an event.
    pub(super) fn send_by_hand(&self) -> String {
        format!(
            "{} send {} --url {} --key {} --wait",
            hookmill().display(),
            workspace::root().join("xtask/samples/order.json").display(),
            self.api.url(),
            ACME.key
        )
    }

    /// The end of the gateway's log.
    pub(super) fn last_words(&self) -> String {
        self.gateway.last_words()
    }
}

fn hookmill() -> PathBuf {
    workspace::binary("debug", "hookmill")
}

fn start_gateway(folder: &Path) -> Result<(Process, String)> {
    let mut command = Command::new(hookmill());
    command.args(["serve", "--config", "hookmill.toml"]).current_dir(folder);
    let gateway = Process::start("the gateway", &mut command, folder.join("gateway.log"))?;
    let url = gateway.address("listening on ", " ")?;
    Ok((gateway, url))
}

/// The demo's `hookmill.toml`. Paths in it are relative to it.
fn configuration(receiver: &str) -> String {
    let Tenant { key, secret, .. } = ACME;
    let globex = GLOBEX;
    format!(
        r#"# Written by `cargo xtask demo`, for its own gateway.
listen = "127.0.0.1:0"
data_dir = "data"
plugins_dir = "plugins"

[delivery]
# The receiver is on this machine; deliveries go to public addresses over HTTPS otherwise.
allow_http = true
allow_networks = ["127.0.0.0/8"]

[[tenants]]
name = "acme"
keys = ["{key}"]

[[tenants.webhooks]]
name = "jobs"
url = "{receiver}/acme/jobs"
event_types = ["job.*"]
plugins = ["job-status-envelope"]
secrets = ["{secret}"]

[[tenants.webhooks]]
name = "chat"
url = "{receiver}/acme/chat"
event_types = ["transcript.*"]
secrets = ["{secret}"]
plugins = [
    {{ name = "redact", config = {{ remove = ["/chunks"], mask = [{{ path = "/speaker/email" }}] }} }},
    {{ name = "slack-message", config = {{ title = "Transcript by {{/speaker/name}}", template = "{{/text}} ({{/speaker/email}})" }} }},
]

[[tenants.webhooks]]
name = "orders"
url = "{receiver}/acme/orders"
event_types = ["order.*"]
plugins = ["order-summary"]
secrets = ["{secret}"]

[[tenants.webhooks]]
name = "warehouse"
url = "{receiver}/acme/warehouse"
event_types = ["order.*"]
plugins = ["line-items"]
secrets = ["{secret}"]

# Where the stream of the later acts goes. The receiver takes its time, so that many deliveries are
# under way at any moment.
[[tenants.webhooks]]
name = "stream"
url = "{receiver}/acme/stream/delay/20ms"
event_types = ["tick"]
plugins = ["stamp"]
secrets = ["{secret}"]
retry = ["200ms", "1s", "2s", "5s"]

[[tenants]]
name = "globex"
keys = ["{}"]

# Before the plugins of each webhook: only what this tenant wants at all.
plugins = [
    {{ name = "tenant-filter", config = {{ default = {{ any = [{{ field = "type", prefix = "extraction." }}, {{ field = "/total", gte = 100 }}] }} }} }},
]

[[tenants.webhooks]]
name = "everything"
url = "{receiver}/globex/everything"
event_types = ["*"]
secrets = ["{}"]
"#,
        globex.key, globex.secret
    )
}
