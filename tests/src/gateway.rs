//! A gateway: configured, started as a process, talked to over HTTP, stopped or killed.

use std::fs::{OpenOptions, read_to_string};
use std::future::Future;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use hookmill::failpoint::Point;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::files::{Plugins, wasm};
use crate::webhook::Webhook;

/// The key of the tenant `acme`.
pub(crate) const KEY: &str = "acme-key-0123456789abcdef";

/// The key of the tenant `globex`.
const OTHER_KEY: &str = "globex-key-0123456789abcdef";

/// How long a test waits for something that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a condition holds.
///
/// # Panics
/// When it does not hold in time.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let held = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(held.is_ok(), "waited {PATIENCE:?} in vain for {what}");
}

/// A gateway that is not running.
#[derive(Debug)]
pub struct Gateway {
    folder: TempDir,
    settings: Vec<String>,
    webhooks: Vec<Webhook>,
    other_webhooks: Vec<Webhook>,
    tenant: Vec<String>,
    binary: PathBuf,
}

impl Default for Gateway {
    fn default() -> Self {
        Self::new()
    }
}

impl Gateway {
    /// A gateway with folders of its own, that may deliver to this machine.
    #[must_use]
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            settings: Vec::new(),
            webhooks: Vec::new(),
            other_webhooks: Vec::new(),
            tenant: Vec::new(),
            binary: binary(),
        }
    }

    /// The same, run from another copy of the binary.
    #[must_use]
    pub fn run_from(mut self, binary: PathBuf) -> Self {
        self.binary = binary;
        self
    }

    /// The same with a plugin in its folder.
    #[must_use]
    pub fn plugin(self, name: &str) -> Self {
        self.plugins().write(name, &wasm(name));
        self
    }

    /// The same with a manifest beside a plugin.
    #[must_use]
    pub fn manifest(self, name: &str, text: &str) -> Self {
        std::fs::write(self.plugins().join(&format!("{name}.toml")), text).unwrap();
        self
    }

    /// The same with a webhook of the tenant `acme`.
    #[must_use]
    pub fn webhook(mut self, webhook: Webhook) -> Self {
        self.webhooks.push(webhook);
        self
    }

    /// The same with a webhook of the tenant `globex`.
    #[must_use]
    pub fn other_webhook(mut self, webhook: Webhook) -> Self {
        self.other_webhooks.push(webhook);
        self
    }

    /// The same with a line of configuration before the tenants, such as `delivery.timeout = "1s"`.
    #[must_use]
    pub fn setting(mut self, line: &str) -> Self {
        self.settings.push(line.to_owned());
        self
    }

    /// The same with a line of the tenant `acme`'s own, such as `plugins = ["redact"]`.
    #[must_use]
    pub fn tenant_setting(mut self, line: &str) -> Self {
        self.tenant.push(line.to_owned());
        self
    }

    /// Its plugins folder.
    #[must_use]
    pub fn plugins(&self) -> Plugins {
        Plugins::at(self.folder.path().join("plugins"))
    }

    /// The folder that all its files are in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where it writes its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("gateway.log")
    }

    /// Its configuration file, once it has been started.
    #[must_use]
    pub fn configuration_file(&self) -> PathBuf {
        self.folder.path().join("hookmill.toml")
    }

    /// Starts it and waits until it takes events.
    pub async fn start(self) -> Running {
        self.write_configuration();
        self.resume().await
    }

    /// Writes its configuration file, as [`Self::start`] does.
    pub fn write_configuration(&self) {
        std::fs::write(self.configuration_file(), self.configuration()).unwrap();
    }

    /// Starts it again with the configuration file as it was left.
    pub async fn resume(self) -> Running {
        let log = self.log();
        match self.spawn(None).await {
            Ok(running) => running,
            Err(_) => {
                panic!("the gateway ended before it listened:\n{}", read_to_string(log).unwrap())
            }
        }
    }

    /// Starts it so that it dies, as if by SIGKILL, when it comes to a point for the `time`th time; `Err` when
    /// that was before it took events.
    pub async fn start_to_die(self, point: Point, time: u32) -> Result<Running, Self> {
        std::fs::write(self.configuration_file(), self.configuration()).unwrap();
        self.spawn(Some(format!("{point}@{time}"))).await
    }

    async fn spawn(self, failpoint: Option<String>) -> Result<Running, Self> {
        let path = self.configuration_file();
        let (child, url) = spawn(&self.binary, &path, &self.log(), failpoint).await;
        match url {
            Some(url) => Ok(Running { gateway: self, client: client(), child, url }),
            None => Err(self),
        }
    }

    /// What stands in its configuration file, once it has been started.
    #[must_use]
    pub fn configuration(&self) -> String {
        let base = [
            "listen = \"127.0.0.1:0\"",
            "delivery.allow_http = true",
            "delivery.allow_networks = [\"127.0.0.0/8\"]",
            "plugins.settle = \"20ms\"",
        ];
        let key = |line: &str| line.split(" = ").next().map(str::to_owned);
        let is_set = |line: &&str| self.settings.iter().any(|set| key(set) == key(line));
        let mut lines: Vec<_> =
            base.into_iter().filter(|line| !is_set(line)).map(str::to_owned).collect();
        lines.extend(self.settings.iter().cloned());
        lines.push(format!("[[tenants]]\nname = \"acme\"\nkeys = [\"{KEY}\"]"));
        lines.extend(self.tenant.iter().cloned());
        lines.extend(self.webhooks.iter().map(Webhook::declared));
        lines.push(format!("[[tenants]]\nname = \"globex\"\nkeys = [\"{OTHER_KEY}\"]\n"));
        lines.extend(self.other_webhooks.iter().map(Webhook::declared));
        lines.join("\n")
    }
}

/// The path of the gateway's binary, built along with the tests.
#[must_use]
pub fn binary() -> PathBuf {
    // Cargo puts it one folder above the test's own binary.
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(2).unwrap().join("hookmill-under-test")
}

/// Starts the process; gives its address too, unless it ended before it listened.
async fn spawn(
    binary: &Path,
    configuration: &Path,
    log: &Path,
    failpoint: Option<String>,
) -> (Child, Option<String>) {
    let file = OpenOptions::new().create(true).append(true).open(log).unwrap();
    let mut command = Command::new(binary);
    for (variable, _) in std::env::vars_os() {
        // What is said to the tests is not meant for the gateway.
        if variable.to_string_lossy().starts_with("HOOKMILL_") {
            command.env_remove(variable);
        }
    }
    if let Some(failpoint) = failpoint {
        command.env("FAILPOINT", failpoint);
    }
    let mut child = command
        .arg("serve")
        .arg("--config")
        .arg(configuration)
        .stdout(Stdio::piped())
        .stderr(file)
        .kill_on_drop(true)
        .spawn()
        .expect("the gateway's binary");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
    let url = line.map(|line| line.strip_prefix("listening on ").expect("the address").to_owned());
    (child, url)
}

/// A client like a producer's.
pub(crate) fn client() -> reqwest::Client {
    // An error says that it is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Running {
    // Ends before the folder is removed under it.
    child: Child,
    gateway: Gateway,
    client: reqwest::Client,
    url: String,
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Value,
    /// The headers.
    pub headers: http::HeaderMap,
}

impl Running {
    /// Its plugins folder.
    #[must_use]
    pub fn plugins(&self) -> Plugins {
        self.gateway.plugins()
    }

    /// The folder that all its files are in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.gateway.folder()
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        read_to_string(self.gateway.log()).unwrap()
    }

    /// Its configuration file.
    #[must_use]
    pub fn configuration_file(&self) -> PathBuf {
        self.gateway.configuration_file()
    }

    /// The address of the API.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends one event and gives its id, once it is accepted.
    pub async fn send(&self, event_type: &str, data: Value) -> String {
        self.post(&json!({ "type": event_type, "data": data })).await
    }

    /// Sends one event as the tenant `globex` and gives its id, once it is accepted.
    pub async fn send_as_other(&self, event_type: &str, data: Value) -> String {
        let event = json!({ "type": event_type, "data": data });
        let answer = self.request_as(OTHER_KEY, event.to_string(), &[]).await.expect("an answer");
        assert_eq!(answer.status, 202, "{event}: {}", answer.body);
        answer.body["events"][0]["id"].as_str().unwrap().to_owned()
    }

    /// Sends one event as it is and gives its id, once it is accepted.
    pub async fn post(&self, event: &Value) -> String {
        let answer = self.request(event.to_string(), &[]).await.expect("the gateway's answer");
        assert_eq!(answer.status, 202, "{event}: {}", answer.body);
        answer.body["events"][0]["id"].as_str().unwrap().to_owned()
    }

    /// Posts a body to `/v1/events` as the tenant `acme`, with more headers.
    ///
    /// # Errors
    /// When there is no answer, as from a gateway that was killed.
    pub async fn request(
        &self,
        body: impl Into<reqwest::Body>,
        headers: &[(&str, &str)],
    ) -> reqwest::Result<Answer> {
        self.request_as(KEY, body, headers).await
    }

    async fn request_as(
        &self,
        key: &str,
        body: impl Into<reqwest::Body>,
        headers: &[(&str, &str)],
    ) -> reqwest::Result<Answer> {
        let mut request = self
            .client
            .post(format!("{}/v1/events", self.url))
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(body);
        for (name, value) in headers {
            let headers = [(name.parse().unwrap(), value.parse().unwrap())];
            request = request.headers(headers.into_iter().collect());
        }
        answer(request.send().await?).await
    }

    /// Posts nothing to a path as the tenant `acme`.
    pub async fn command(&self, path: &str) -> Answer {
        self.command_as(KEY, path).await
    }

    /// Posts nothing to a path as the tenant `globex`.
    pub async fn command_as_other(&self, path: &str) -> Answer {
        self.command_as(OTHER_KEY, path).await
    }

    /// Lets files of the process grow to this size, or without a limit.
    ///
    /// # Panics
    /// When the system does not let it.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let pid = Pid::from_raw(i32::try_from(self.id()).unwrap()).unwrap();
        prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    }

    /// Posts JSON to a path as the tenant `acme`, with an idempotency key unless that is empty.
    pub async fn ask(&self, path: &str, body: &Value, key: &str) -> Answer {
        self.ask_as(KEY, path, body, key).await.unwrap()
    }

    /// The same without a key, of a gateway that may end meanwhile.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_ask(&self, path: &str, body: &Value) -> reqwest::Result<Answer> {
        self.ask_as(KEY, path, body, "").await
    }

    /// Posts JSON to a path as the tenant `globex`.
    pub async fn ask_as_other(&self, path: &str, body: &Value) -> Answer {
        self.ask_as(OTHER_KEY, path, body, "").await.unwrap()
    }

    async fn ask_as(
        &self,
        tenant: &str,
        path: &str,
        body: &Value,
        key: &str,
    ) -> reqwest::Result<Answer> {
        let mut request = self
            .client
            .post(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {tenant}"))
            .header("content-type", "application/json")
            .body(body.to_string());
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        answer(request.send().await?).await
    }

    async fn command_as(&self, key: &str, path: &str) -> Answer {
        let request = self
            .client
            .post(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {key}"));
        answer(request.send().await.unwrap()).await.unwrap()
    }

    /// Gets a path as the tenant `acme`.
    pub async fn get(&self, path: &str) -> Answer {
        self.get_as(KEY, path).await
    }

    /// Gets a path as the tenant `globex`.
    pub async fn get_as_other(&self, path: &str) -> Answer {
        self.get_as(OTHER_KEY, path).await
    }

    async fn get_as(&self, key: &str, path: &str) -> Answer {
        let request = self
            .client
            .get(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {key}"));
        answer(request.send().await.unwrap()).await.unwrap()
    }

    /// The deliveries of an event, once none of them is still to be made.
    pub async fn settled(&self, id: &str) -> Vec<Value> {
        let path = format!("/v1/events/{id}");
        let open =
            |delivery: &Value| matches!(delivery["state"].as_str(), Some("pending" | "retrying"));
        eventually(&format!("the deliveries of {id}"), || async {
            let answer = self.get(&path).await;
            !answer.body["deliveries"].as_array().unwrap().iter().any(open)
        })
        .await;
        self.get(&path).await.body["deliveries"].as_array().unwrap().clone()
    }

    /// Its number in the system.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Waits until the only delivery of an event is in this state, and gives it.
    pub async fn delivery_in(&self, state: &str, id: &str) -> Value {
        let path = format!("/v1/events/{id}");
        let get = async || self.get(&path).await.body["deliveries"][0].clone();
        eventually(&format!("{id} to be {state}"), || async { get().await["state"] == state })
            .await;
        get().await
    }

    /// Kills the process with SIGKILL.
    pub async fn kill(mut self) -> Gateway {
        self.child.kill().await.unwrap();
        self.take()
    }

    /// Waits for a process that was to die.
    ///
    /// # Panics
    /// When it does not, or not of SIGKILL.
    pub async fn died(mut self) -> Gateway {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let ended = ended.expect("the gateway lives on").unwrap();
        assert_eq!(ended.signal(), Some(9), "{ended}");
        self.take()
    }

    /// Ends the process with SIGTERM and waits for it.
    pub async fn stop(self) -> Gateway {
        self.signal("TERM").await;
        self.ended().await
    }

    /// Sends the process a signal.
    pub async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().await.unwrap();
        assert!(sent.success());
    }

    /// Waits for a process that was told to stop.
    ///
    /// # Panics
    /// When it does not end by itself, or not with success.
    pub async fn ended(mut self) -> Gateway {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        assert!(ended.success(), "{ended}");
        self.take()
    }

    fn take(&mut self) -> Gateway {
        std::mem::take(&mut self.gateway)
    }
}

impl Drop for Running {
    /// Shows the log of a test that failed.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(log) = read_to_string(self.gateway.log())
        {
            eprintln!("the gateway's log:\n{log}");
        }
    }
}

pub(crate) async fn answer(response: reqwest::Response) -> reqwest::Result<Answer> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.bytes().await?;
    Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null), headers })
}
