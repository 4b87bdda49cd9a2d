//! `hookmill plugin versions` and `hookmill plugin rollback`: the versions that the gateway has kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::serve::{ConfigFile, environment};
use crate::cli::terminal::{self, Paint, printable};
use crate::config::Config;
use crate::digest::{Digest, DigestPrefix};
use crate::reload::{Archive, roll_back};
use crate::snapshot::{KeptVersion, PluginKey, PluginSet, Snapshot, Version};
use crate::transform::Runtime;

/// List the versions of plugins that can be pinned or rolled back to.
///
/// The gateway keeps each version that it loads, `plugins.keep_versions` earlier ones of each plugin and those
/// that webhooks name. A version is the SHA-256 hash of the plugin's file; its first digits are enough to
/// name it.
#[derive(Debug, clap::Args)]
pub(super) struct VersionsArgs {
    /// Only those of this plugin.
    name: Option<String>,
    #[command(flatten)]
    config: ConfigFile,
}

/// Put an earlier version of a plugin back into the plugins folder.
///
/// The version is loaded first to see that it works, then it replaces the file in one step. A gateway that
/// runs picks it up as it does any change; deliveries under way end on the version that they began with.
/// Rolling back twice comes back to where it began.
#[derive(Debug, clap::Args)]
pub(super) struct RollbackArgs {
    /// The plugin.
    name: String,
    /// The version to go back to, by the first digits of its hash; otherwise the one before.
    #[arg(long, value_name = "HASH", value_parser = hash)]
    to: Option<DigestPrefix>,
    /// The tenant whose own plugin it is, in the folder of its name.
    #[arg(long)]
    tenant: Option<String>,
    /// Put NAME.toml back too, as the version ran with it. Limits set since then are lost.
    #[arg(long)]
    with_manifest: bool,
    #[command(flatten)]
    config: ConfigFile,
}

fn hash(text: &str) -> Result<DigestPrefix, String> {
    DigestPrefix::parse(text).map_err(|error| format!("it {error}"))
}

/// Lists the versions.
pub(super) fn versions(args: &VersionsArgs) -> ExitCode {
    let config = match Config::load(&args.config.path, &environment()) {
        Ok(config) => config,
        Err(error) => return terminal::fail(&error.to_string()),
    };
    let dir = config.reload.archive_dir.clone();
    let mut kept = match Archive::at(dir.clone()).list() {
        Ok(kept) => kept,
        Err(error) => {
            let dir = dir.display();
            return terminal::fail(&format!("the kept versions in {dir} cannot be read: {error}"));
        }
    };
    if let Some(name) = &args.name {
        kept.retain(|key, _| key.name == *name);
    }
    if kept.is_empty() {
        let what = args.name.as_ref().map_or_else(String::new, |name| format!(" of `{name}`"));
        return terminal::fail(&format!(
            "no version{what} is kept in {} yet; a gateway keeps each version that it loads",
            dir.display()
        ));
    }
    let plugins_dir = config.reload.plugins_dir.clone();
    let users = Users::of(config);
    let text = listing(&kept, &users, |key| in_folder(&plugins_dir, key));
    match terminal::print(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Puts a version back.
pub(super) async fn rollback(args: &RollbackArgs) -> ExitCode {
    match try_rollback(args).await {
        Ok(told) => match terminal::print(&told) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => terminal::fail(&error),
    }
}

async fn try_rollback(args: &RollbackArgs) -> Result<String, String> {
    let config = Config::load(&args.config.path, &environment()).map_err(|it| it.to_string())?;
    let runtime = Runtime::new(config.transform).map_err(|error| error.to_string())?;
    let tenant = args.tenant.as_deref().map(Into::into);
    let key = PluginKey { tenant, name: args.name.clone() };
    let done =
        roll_back(&config.reload, &runtime, &key, args.to.as_ref(), args.with_manifest).await?;
    let from = done.from.map_or_else(|| "nothing".to_owned(), |from| from.brief());
    let described = printable(&done.to.described).into_owned();
    let (to, path) = (done.to.version.brief(), done.path.display());
    Ok(format!("{path} is {to} ({described}) again; it was {from}\n"))
}

/// The content of a plugin's file in the plugins folder.
fn in_folder(plugins_dir: &Path, key: &PluginKey) -> Option<Digest> {
    let folder = key
        .tenant
        .as_ref()
        .map_or_else(|| plugins_dir.to_owned(), |tenant| plugins_dir.join(&**tenant));
    let bytes = std::fs::read(folder.join(format!("{}.wasm", key.name))).ok()?;
    Some(Digest::of(&bytes))
}

/// Who names versions of plugins in a chain.
struct Users(Vec<User>);

struct User {
    tenant: String,
    plugin: String,
    prefix: DigestPrefix,
    /// What it does with the version.
    what: String,
}

impl Users {
    fn of(config: Config) -> Self {
        let snapshot = Snapshot::new(config.tenants, PluginSet::default());
        let mut users = Vec::new();
        for webhook in snapshot.webhooks() {
            let name = format!("{}/{}", webhook.tenant, webhook.definition.name);
            let mut add = |plugin: &str, version: &Version, what: String| {
                if let Version::Pinned(prefix) = version {
                    let (tenant, plugin) = (webhook.tenant.to_string(), plugin.to_owned());
                    users.push(User { tenant, plugin, prefix: prefix.clone(), what });
                }
            };
            for link in webhook.chain() {
                add(&link.name, &link.version, format!("pinned by {name}"));
                if let Some(canary) = &link.canary {
                    let what = format!("canary of {name} ({})", canary.share);
                    add(&link.name, &canary.version, what);
                }
            }
        }
        users.sort_by(|a, b| a.what.cmp(&b.what));
        users.dedup_by(|a, b| a.what == b.what && a.plugin == b.plugin && a.prefix == b.prefix);
        Self(users)
    }

    fn of_version(&self, key: &PluginKey, version: Digest) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |user| user.plugin == key.name && user.prefix.fits(&version))
            .filter(|user| key.tenant.as_ref().is_none_or(|tenant| **tenant == *user.tenant))
            .map(|user| &*user.what)
    }
}

fn listing(
    kept: &BTreeMap<PluginKey, Vec<KeptVersion>>,
    users: &Users,
    in_folder: impl Fn(&PluginKey) -> Option<Digest>,
) -> String {
    let paint = Paint::for_stdout();
    let mut text = String::new();
    let mut say = |line: String| {
        text.push_str(line.trim_end());
        text.push('\n');
    };
    for (key, versions) in kept {
        say(paint.strong(&printable(&key.to_string())));
        let current = in_folder(key);
        if let Some(current) = current.filter(|it| !versions.iter().any(|kept| kept.version == *it))
        {
            say(format!(
                "  {}  in the plugins folder, but not loaded by a gateway",
                current.brief()
            ));
        }
        for version in versions {
            let mut notes: Vec<String> =
                users.of_version(key, version.version).map(str::to_owned).collect();
            if current == Some(version.version) {
                notes.insert(0, paint.good("in the plugins folder"));
            }
            let described = printable(&version.described).into_owned();
            let first_seen = version.first_seen.strftime("%F %T");
            say(format!(
                "  {}  {described:<10}  {:>9}  first seen {first_seen} UTC  {}",
                version.version.brief(),
                size(version.size_bytes),
                notes.join(", ")
            ));
        }
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes.div_ceil(1_024)),
        _ => format!("{} MiB", bytes.div_ceil(1_048_576)),
    }
}
