//! The configuration: `hookmill.toml` and the environment, parsed into what each stage takes.
//!
//! `hookmill.example.toml` shows every setting. Each stage owns its part as a value that is always
//! complete; this module alone knows the file.
//!
//! - **Paths** are relative to the file's folder. Durations are strings (`"500ms"`, `"15s"`, `"5m"`,
//!   `"2h"`, `"1d"`); sizes are numbers of bytes or strings (`"64 KiB"`, `"1 MiB"`).
//! - **Secrets** (API keys, signing secrets, headers) are `"…"`, `{ env = "VARIABLE" }` or
//!   `{ file = "path" }`, whose newline at the end is left out.
//! - **Variables** override the file: `HOOKMILL_` and the path of a setting, in upper case, with `__`
//!   between its levels and `_` for `-`, such as `HOOKMILL_DELIVERY__TIMEOUT`. Elements of a list go by
//!   their `name` or their index: `HOOKMILL_TENANTS__ACME__WEBHOOKS__ORDERS__URL`; the index behind
//!   the last one adds an element. A string is taken as it stands, anything else is read as TOML,
//!   so `HOOKMILL_TENANTS` can hold the whole list. A plugin's `config` is one value.
//! - **Problems** are reported all at once, each with its line or its variable.

mod auth;
mod connection;
mod environment;
mod errors;
mod flow;
mod grants;
mod headers;
mod item;
mod json;
mod named_file;
mod reader;
mod retention;
mod secret;
mod section;
mod suggest;
mod tenants;
mod tree;
mod values;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::environment::Environment;
pub use self::errors::Errors;
pub use self::named_file::NamedFile;
pub use self::values::{check_plugin_name, check_tenant_name};

use self::reader::Reader;
use self::section::Section;
use self::tenants::{Surroundings, tenants};
use self::tree::Node;
use self::values::{
    DAY, GIB, HOUR, KIB, MIB, MILLISECOND, MINUTE, SECOND, choice, count, duration, flag, host,
    network, non_empty, parsed, show_size, size, socket_address, unless_never,
};
use crate::snapshot::TenantDefinition;
use crate::{deliver, ingest, pipeline, record, reload, shutdown, telemetry, transform};

/// The most of anything that runs at once.
const MAX_CONCURRENCY: usize = 1_000_000;

/// The most deliveries that a backlog can be allowed to have.
const MAX_BACKLOG: usize = 1_000_000_000;

/// The smallest memory of a plugin: one page of WebAssembly.
const MIN_MEMORY_BYTES: u64 = 64 * KIB;

/// What a first file may look like.
const STARTER: &str = r#"[[tenants]]
name = "acme"
keys = [{ env = "ACME_KEY" }]

[[tenants.webhooks]]
name = "orders"
url = "https://example.com/hook"
event_types = ["order.*"]"#;

/// Everything that is configured.
#[derive(Debug, Clone)]
pub struct Config {
    /// What is logged, and how.
    pub telemetry: telemetry::Config,
    /// How the process ends.
    pub shutdown: shutdown::Config,
    /// What is taken, and from where.
    pub ingest: ingest::Config,
    /// Where and how events are kept.
    pub record: record::Config,
    /// How plugins are run.
    pub transform: transform::Config,
    /// How requests are sent.
    pub deliver: deliver::Config,
    /// How much work is under way at once.
    pub pipeline: pipeline::Config,
    /// Which plugins are watched, and how.
    pub reload: reload::Config,
    /// The tenants, in the order of the file.
    pub tenants: Vec<TenantDefinition>,
    /// The files that settings name, as they were read.
    pub files: Vec<NamedFile>,
}

impl Config {
    /// Reads a file, and what the environment overrides.
    ///
    /// # Errors
    /// Everything that is wrong, each with its line or its variable.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, Errors> {
        let base_dir = path.parent().unwrap_or(Path::new(""));
        read_file(path)
            .and_then(|text| Self::parse(&text, base_dir, environment))
            .map_err(|errors| errors.in_file(path))
    }

    /// Reads the text of a file whose folder is `base_dir`, and what the environment overrides.
    ///
    /// # Errors
    /// Everything that is wrong, each with its line or its variable.
    pub fn parse(text: &str, base_dir: &Path, environment: &Environment) -> Result<Self, Errors> {
        Reader::new(base_dir, environment).read(text, config)
    }
}

/// Reads the manifest beside a plugin, `NAME.toml`: a table `limits`, as in `[plugins.limits]`, and a table
/// `grants`.
///
/// # Errors
/// Everything that is wrong, each with its line; [`Errors::in_file`] adds the file's name.
pub fn parse_manifest(
    text: &str,
    defaults: &transform::Limits,
    max_memory_bytes: usize,
) -> Result<transform::Manifest, Errors> {
    Reader::new(Path::new(""), &Environment::default()).read(text, |root| transform::Manifest {
        limits: root.section("limits", |section| limits(section, defaults, max_memory_bytes)),
        grants: root.section("grants", grants::grants),
    })
}

fn read_file(path: &Path) -> Result<String, Errors> {
    let bytes = std::fs::read(path).map_err(|error| {
        Errors::of_file(if error.kind() == std::io::ErrorKind::NotFound {
            format!("there is no such file; write one that begins like this:\n\n{STARTER}\n")
        } else {
            format!("cannot be read: {error}")
        })
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        Errors::of_file(format!("is not UTF-8 text: byte {good} is not part of any character"))
    })
}

fn config(root: &mut Section<'_>) -> Config {
    let data_dir = path(root, "data_dir", "data");
    let plugins_dir = path(root, "plugins_dir", "plugins");
    let shutdown = shutdown(root);
    let telemetry = root.section("log", telemetry);
    let (mut ingest, max_backlog) = ingest(root);
    let (deliver, mut pipeline) = root.section("delivery", delivery);
    let (transform, reload) = root.section("plugins", |section| {
        pipeline.breaker = section.section("breaker", breaker);
        plugins(section, plugins_dir, &data_dir)
    });
    (pipeline.max_backlog, pipeline.tenant_max_backlog) = max_backlog;
    pipeline.retention = root.section("retention", retention::for_all);
    ingest.idempotency = pipeline.retention.idempotency;
    let record = root.section("store", |section| store(section, data_dir));
    let around = Surroundings { deliver: &deliver, pipeline: &pipeline };
    let tenants = tenants(root, &around);
    let files = root.reader.files();
    Config {
        telemetry,
        shutdown,
        ingest,
        record,
        transform,
        deliver,
        pipeline,
        reload,
        tenants,
        files,
    }
}

fn path(section: &mut Section<'_>, key: &'static str, default: &str) -> PathBuf {
    let path = section.optional(key, non_empty);
    let path = path.as_deref().unwrap_or(default);
    section.reader.base_dir().join(path)
}

fn shutdown(root: &mut Section<'_>) -> shutdown::Config {
    let default = shutdown::Config::default();
    let grace = root.optional("shutdown_grace", duration(Duration::ZERO..=DAY));
    shutdown::Config { grace: grace.unwrap_or(default.grace) }
}

fn telemetry(log: &mut Section<'_>) -> telemetry::Config {
    const FORMATS: &[(&str, telemetry::Format)] =
        &[("human", telemetry::Format::Human), ("json", telemetry::Format::Json)];
    let filter = |text: &str| match telemetry::check_filter(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "is not a filter ({error}); write one such as \"info\" or \"info,hookmill::deliver=debug\""
        )),
    };
    let default = telemetry::Config::default();
    telemetry::Config {
        format: log.optional("format", choice(FORMATS)).unwrap_or(default.format),
        filter: log.optional("filter", parsed(filter)).unwrap_or(default.filter),
    }
}

fn store(section: &mut Section<'_>, data_dir: PathBuf) -> record::Config {
    let default = record::Config::new(data_dir);
    let max_wait = section.optional("max_wait", duration(10 * MILLISECOND..=HOUR));
    let min_free_bytes = section.optional("min_free_bytes", size(0..=1024 * 1024 * GIB));
    record::Config {
        max_wait: max_wait.unwrap_or(default.max_wait),
        min_free_bytes: min_free_bytes.unwrap_or(default.min_free_bytes),
        ..default
    }
}

/// What is taken; and how much may be owed, in all and to a tenant.
fn ingest(root: &mut Section<'_>) -> (ingest::Config, (usize, usize)) {
    let listen = root.optional("listen", parsed(socket_address));
    root.section("ingest", |section| (taken(section, listen), backlog(section)))
}

fn backlog(section: &mut Section<'_>) -> (usize, usize) {
    let default = pipeline::Config::default().max_backlog;
    let all = section.optional("max_backlog", count(1..=MAX_BACKLOG)).unwrap_or(default);
    let tenant = section.optional("tenant_max_backlog", count(1..=all));
    (all, tenant.unwrap_or(all.div_ceil(2)))
}

fn taken(section: &mut Section<'_>, listen: Option<SocketAddr>) -> ingest::Config {
    let default = ingest::Config::default();
    ingest::Config {
        listen: listen.unwrap_or(default.listen),
        max_body_bytes: section
            .optional("max_body_bytes", size(1..=GIB))
            .unwrap_or(default.max_body_bytes),
        max_events: section
            .optional("max_events", count(1..=1_000_000))
            .unwrap_or(default.max_events),
        // Plugins parse by recursion, most of them with serde_json, which gives up at 128.
        max_depth: section.optional("max_depth", count(1..=127)).unwrap_or(default.max_depth),
        // Stands with what else is kept for a time.
        idempotency: default.idempotency,
    }
}

fn delivery(section: &mut Section<'_>) -> (deliver::Config, pipeline::Config) {
    let default = deliver::Config::default();
    let networks =
        section.list("allow_networks", "strings", |item| Some(item.read(parsed(network))?.0));
    let hosts = section.list("allow_hosts", "strings", |item| Some(item.read(parsed(host))?.0));
    let deliver = deliver::Config {
        timeout: section
            .optional("timeout", duration(MILLISECOND..=HOUR))
            .unwrap_or(default.timeout),
        connect_timeout: section
            .optional("connect_timeout", duration(MILLISECOND..=HOUR))
            .unwrap_or(default.connect_timeout),
        max_response_bytes: section
            .optional("max_response_bytes", size(1..=16 * MIB))
            .unwrap_or(default.max_response_bytes),
        max_retry_after: section
            .optional("max_retry_after", duration(Duration::ZERO..=30 * DAY))
            .unwrap_or(default.max_retry_after),
        addresses: deliver::AddressPolicy {
            allow_http: section.optional("allow_http", flag).unwrap_or(false),
            allow_networks: networks.unwrap_or_default(),
            allow_hosts: hosts.unwrap_or_default(),
        },
    };
    let default = pipeline::Config::default();
    let concurrency =
        section.optional("concurrency", count(1..=MAX_CONCURRENCY)).unwrap_or(default.concurrency);
    let pipeline = pipeline::Config {
        // These stand elsewhere in the file.
        breaker: default.breaker,
        max_backlog: default.max_backlog,
        tenant_max_backlog: default.tenant_max_backlog,
        retention: default.retention,
        receiver_breaker: section.section("breaker", flow::receiver_breaker),
        disable_after: section
            .optional("disable_after", unless_never(duration(SECOND..=365 * DAY)))
            .unwrap_or(default.disable_after),
        max_ready: section
            .optional("max_ready", count(1..=10_000_000))
            .unwrap_or(default.max_ready),
        max_ready_bytes: section
            .optional("max_ready_bytes", size(MIB..=1024 * GIB))
            .unwrap_or(default.max_ready_bytes),
        concurrency,
        tenant_concurrency: section
            .optional("tenant_concurrency", count(1..=concurrency))
            .unwrap_or(concurrency - concurrency / 4),
        webhook_concurrency: section
            .optional("webhook_concurrency", count(1..=MAX_CONCURRENCY))
            .unwrap_or(default.webhook_concurrency),
    };
    (deliver, pipeline)
}

fn plugins(
    section: &mut Section<'_>,
    plugins_dir: PathBuf,
    data_dir: &Path,
) -> (transform::Config, reload::Config) {
    const SETTLE: Duration = Duration::from_millis(50);
    const POLL: Duration = Duration::from_secs(5);
    const START_WAIT: Duration = MINUTE;
    const KEEP_VERSIONS: usize = 5;

    let default = transform::Config::new(data_dir.join("plugin-cache"));
    let total_memory_bytes = section
        .optional("total_memory_bytes", size(2 * MIN_MEMORY_BYTES..=1024 * GIB))
        .unwrap_or(default.total_memory_bytes);
    let tenant_memory_bytes = section
        .optional(
            "tenant_memory_bytes",
            no_more_than(total_memory_bytes, "plugins.total_memory_bytes", 1024 * GIB),
        )
        .unwrap_or(total_memory_bytes.div_ceil(2));
    // A memory of 32-bit WebAssembly ends at 4 GiB. Defaults give way where the operator allows less.
    let max_memory_bytes = section
        .optional(
            "max_memory_bytes",
            no_more_than(tenant_memory_bytes, "plugins.tenant_memory_bytes", 4 * GIB),
        )
        .unwrap_or(default.max_memory_bytes.min(tenant_memory_bytes));
    let instances = section.optional("instances", count(1..=100_000)).unwrap_or(default.instances);
    let transform = transform::Config {
        instances,
        heavy_instances: section
            .optional("heavy_instances", count(1..=10_000))
            .unwrap_or(default.heavy_instances),
        tenant_instances: section
            .optional("tenant_instances", count(1..=instances))
            .unwrap_or((instances / 2).max(1)),
        total_memory_bytes,
        tenant_memory_bytes,
        max_stack_bytes: section
            .optional("max_stack_bytes", size(64 * KIB..=64 * MIB))
            .unwrap_or(default.max_stack_bytes),
        max_file_bytes: section
            .optional("max_file_bytes", size(1..=GIB))
            .unwrap_or(default.max_file_bytes),
        limits: section
            .section("limits", |section| limits(section, &default.limits, max_memory_bytes)),
        max_memory_bytes,
        cache_dir: default.cache_dir,
        compilation: compilation(section, &default.compilation),
    };
    let reload = reload::Config {
        plugins_dir,
        watch: section.optional("watch", flag).unwrap_or(true),
        settle: section.optional("settle", duration(Duration::ZERO..=MINUTE)).unwrap_or(SETTLE),
        poll: section.optional("poll", duration(100 * MILLISECOND..=HOUR)).unwrap_or(POLL),
        start_wait: section
            .optional("start_wait", duration(Duration::ZERO..=HOUR))
            .unwrap_or(START_WAIT),
        archive_dir: data_dir.join("plugins"),
        keep_versions: section.optional("keep_versions", count(0..=1_000)).unwrap_or(KEEP_VERSIONS),
    };
    (transform, reload)
}

fn compilation(
    section: &mut Section<'_>,
    default: &transform::Compilation,
) -> transform::Compilation {
    transform::Compilation {
        by: transform::Compiler::this_program(),
        time: section.optional("compile_time", duration(SECOND..=HOUR)).unwrap_or(default.time),
        memory_bytes: section
            .optional("compile_memory_bytes", size(64 * MIB..=1024 * GIB))
            .unwrap_or(default.memory_bytes),
        cache_bytes: section
            .optional("cache_bytes", size(0..=1024 * GIB))
            .unwrap_or(default.cache_bytes),
    }
}

/// A number of bytes of memory, within what another setting allows.
fn no_more_than(
    limit: usize,
    setting: &'static str,
    most: u64,
) -> impl FnOnce(&Node) -> Result<usize, String> {
    move |node| {
        let bytes: usize = size(MIN_MEMORY_BYTES..=most)(node)?;
        if bytes > limit {
            return Err(format!(
                "is {}, more than the {} of `{setting}`; lower it, or raise that",
                show_size(bytes as u64),
                show_size(limit as u64)
            ));
        }
        Ok(bytes)
    }
}

fn breaker(section: &mut Section<'_>) -> pipeline::BreakerConfig {
    let default = pipeline::BreakerConfig::default();
    pipeline::BreakerConfig {
        // The deliveries that failed are remembered by their ids.
        failures: section.optional("failures", count(1..=1_000)).unwrap_or(default.failures),
        probe: section.optional("probe", duration(10 * MILLISECOND..=DAY)).unwrap_or(default.probe),
        release_per_second: section
            .optional("release_per_second", count(1..=100_000))
            .unwrap_or(default.release_per_second),
    }
}

fn limits(
    section: &mut Section<'_>,
    default: &transform::Limits,
    max_memory_bytes: usize,
) -> transform::Limits {
    let memory = section.optional(
        "memory_bytes",
        no_more_than(max_memory_bytes, "plugins.max_memory_bytes", 4 * GIB),
    );
    transform::Limits {
        time: section.optional("time", duration(MILLISECOND..=10 * MINUTE)).unwrap_or(default.time),
        describe_time: section
            .optional("describe_time", duration(MILLISECOND..=10 * MINUTE))
            .unwrap_or(default.describe_time),
        memory_bytes: memory.unwrap_or(default.memory_bytes.min(max_memory_bytes)),
        table_elements: section
            .optional("table_elements", count(0..=10_000_000))
            .unwrap_or(default.table_elements),
        host_calls: section
            .optional("host_calls", count(0..=1_000_000_000))
            .unwrap_or(default.host_calls),
        output_bytes: section
            .optional("output_bytes", size(1..=GIB))
            .unwrap_or(default.output_bytes),
        parts: section.optional("parts", count(1..=10_000)).unwrap_or(default.parts),
        headers: section.optional("headers", count(0..=1_000)).unwrap_or(default.headers),
        header_bytes: section
            .optional("header_bytes", size(0..=MIB))
            .unwrap_or(default.header_bytes),
        query_parameters: section
            .optional("query_parameters", count(0..=1_000))
            .unwrap_or(default.query_parameters),
        url_bytes: section.optional("url_bytes", size(0..=64 * KIB)).unwrap_or(default.url_bytes),
        message_bytes: section
            .optional("message_bytes", size(16..=MIB))
            .unwrap_or(default.message_bytes),
        log_lines: section.optional("log_lines", count(0..=10_000)).unwrap_or(default.log_lines),
        log_bytes: section.optional("log_bytes", size(0..=16 * MIB)).unwrap_or(default.log_bytes),
        fetches: section.optional("fetches", count(1..=1_000)).unwrap_or(default.fetches),
        fetch_bytes: section
            .optional("fetch_bytes", size(KIB..=64 * MIB))
            .unwrap_or(default.fetch_bytes),
        kv_keys: section.optional("kv_keys", count(1..=1_000_000_000)).unwrap_or(default.kv_keys),
        kv_bytes: section.optional("kv_bytes", size(KIB..=1024 * GIB)).unwrap_or(default.kv_bytes),
    }
}
