//! The application: builds everything from the configuration, runs it, and takes it down again.

mod purge;

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, Environment};
use crate::deliver::Client;
use crate::pipeline::{self, Pipeline};
use crate::record::{self, SqliteStore, Store};
use crate::reload::{self, Declared, Reloader};
use crate::shutdown::{self, Drain};
use crate::snapshot::{Current, Misconfigured, MissingPlugin, PluginSet, Snapshot, Version};
use crate::transform::Runtime;
use crate::{admin, ingest, server, telemetry};

pub use self::purge::{Purge, purge};

/// Why the gateway cannot start or go on.
#[derive(Debug)]
pub struct AppError(String);

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AppError {}

fn app_error(error: impl fmt::Display) -> AppError {
    AppError(error.to_string())
}

/// Runs the gateway until SIGTERM or SIGINT, then finishes what is under way.
///
/// Writes `listening on http://ADDRESS` to standard output once it takes events.
///
/// # Errors
/// When the configuration is wrong, or something that it names cannot be had.
pub async fn serve(path: &Path, environment: &Environment) -> Result<(), AppError> {
    let config = Config::load(path, environment).map_err(app_error)?;
    telemetry::start(&config.telemetry);
    raise_file_limit();
    let grace = config.shutdown.grace;
    let mut terminate = signal(SignalKind::terminate()).map_err(app_error)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(app_error)?;
    // A file that may not grow any more makes a write fail, as a full disk does, instead of ending the process.
    let _too_large = signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map_err(app_error)?;
    let (trigger, drain) = shutdown::channel();
    let declared = Declared::new(path.to_owned(), environment.clone(), config.files.clone());
    let store = start(config, declared, drain).await?;
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, ?grace, "shutting down");
    if trigger.drain(grace).await {
        tracing::info!("everything under way is recorded");
        if let Err(error) = store.close().await {
            tracing::warn!(%error, "the database is not closed in order; the next start checks it");
        }
    } else {
        tracing::warn!("the grace is over; what is under way is delivered after the next start");
    }
    Ok(())
}

/// Allows this process as many open files as it may have: each loaded plugin and each connection needs one, and
/// the usual limit of 1024 is there for programs of another time.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Builds and starts everything; the drain is shared by all that has to finish.
async fn start(
    config: Config,
    declared: Declared,
    drain: Drain,
) -> Result<Arc<dyn Store>, AppError> {
    let address = config.ingest.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| AppError(format!("cannot listen on {address}: {error}")))?;
    let address = listener.local_addr().map_err(app_error)?;
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&config.record).map_err(app_error)?);
    let client = Client::new(&config.deliver).map_err(app_error)?;
    let services =
        pipeline::services(Arc::clone(&store), client.clone()).await.map_err(app_error)?;
    let runtime = Runtime::new(config.transform).map_err(app_error)?.with_services(services);
    let current = Current::new(Snapshot::new(config.tenants, PluginSet::default()));
    let plugins_dir = &config.reload.plugins_dir;
    if let Err(error) = std::fs::create_dir_all(plugins_dir) {
        let dir = plugins_dir.display();
        tracing::warn!(%error, "the plugins folder {dir} cannot be created");
    }
    let mut reloader = Reloader::new(config.reload, runtime);
    reloader.scan(&current).await;
    for missing in current.load().missing_plugins() {
        let MissingPlugin { webhook, name, reason, .. } = missing;
        tracing::warn!(
            plugin = name,
            webhook,
            "{reason}; the webhook's deliveries will be retried"
        );
    }
    tokio::spawn(reload::run(reloader, declared, current.clone(), drain.clone()));
    let pipeline = Pipeline::start(
        &config.pipeline,
        Arc::clone(&store),
        current.clone(),
        client,
        drain.clone(),
    )
    .await
    .map_err(app_error)?;
    let routes = ingest::routes(config.ingest, current.clone(), pipeline.clone())
        .merge(admin::routes(current, Arc::clone(&store), pipeline, drain.clone()));
    tokio::spawn(server::run(listener, routes, drain));
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
    let mut stdout = std::io::stdout().lock();
    // Nobody may be reading; the log says it too.
    drop(writeln!(stdout, "listening on http://{address}").and_then(|()| stdout.flush()));
    Ok(store)
}

/// What `check` found.
#[derive(Debug, Default)]
pub struct Report {
    /// What there is, one line each.
    pub notes: Vec<String>,
    /// What is wrong, one line each.
    pub problems: Vec<String>,
}

/// Checks the database, whether a gateway uses it or not. Reads all of it.
///
/// # Errors
/// When the configuration is wrong, or the database cannot be read as one.
pub fn check_store(path: &Path, environment: &Environment) -> Result<Report, AppError> {
    let config = Config::load(path, environment).map_err(app_error)?.record;
    let folder = config.data_dir.display();
    let (note, problems) = match record::check(&config).map_err(app_error)? {
        None => (format!("there is no database in {folder} yet"), Vec::new()),
        Some((pages, problems)) => {
            (format!("the database in {folder} has {pages} pages"), problems)
        }
    };
    Ok(Report { notes: vec![note], problems })
}

/// Checks the configuration and the plugins that it names, without starting anything.
///
/// # Errors
/// When the configuration is wrong, or the plugin engine cannot be set up.
pub async fn check(path: &Path, environment: &Environment) -> Result<Report, AppError> {
    let config = Config::load(path, environment).map_err(app_error)?;
    let webhooks = config.tenants.iter().map(|tenant| tenant.webhooks.len()).sum::<usize>();
    let mut report = Report::default();
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let tenants = counted(config.tenants.len(), "tenant");
    report.notes.push(format!("{tenants}, {}", counted(webhooks, "webhook")));
    if config.tenants.is_empty() {
        report.problems.push("no tenant is declared: nobody can send events".to_owned());
    }
    for tenant in config.tenants.iter().filter(|tenant| tenant.keys.is_empty()) {
        let name = &tenant.name;
        report.problems.push(format!("tenant `{name}` has no keys: nobody can send events for it"));
    }
    let runtime = Runtime::new(config.transform).map_err(app_error)?;
    let current = Current::new(Snapshot::new(config.tenants, PluginSet::default()));
    let dir = config.reload.plugins_dir.clone();
    let mut reloader = Reloader::only_looking(config.reload, runtime);
    reloader.scan(&current).await;
    for (key, plugin) in reloader.loaded() {
        let described = plugin.description();
        let version = plugin.version().short();
        report.notes.push(format!("plugin {key} {} ({version})", described.version));
    }
    for (key, rejection) in reloader.rejections() {
        report.problems.push(format!("plugin {key} in {}: {}", dir.display(), rejection.reason));
    }
    for problem in reloader.problems() {
        report.problems.push(problem);
    }
    for key in reloader.loading() {
        report.problems.push(format!("plugin {key} in {} takes long to load", dir.display()));
    }
    for missing in current.load().missing_plugins() {
        let MissingPlugin { webhook, name, version, reason } = missing;
        report.problems.push(match version {
            Version::Latest => {
                let dir = dir.display();
                format!("webhook {webhook} names the plugin `{name}`, which is not in {dir}")
            }
            Version::Pinned(_) => format!("webhook {webhook}: {reason}"),
        });
    }
    let misconfigured = current.load().misconfigured();
    report.problems.extend(misconfigured.iter().flat_map(Misconfigured::lines));
    Ok(report)
}
