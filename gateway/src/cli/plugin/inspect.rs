//! `hookmill plugin inspect`: what a plugin's file is, needs and says of itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::sandbox::Sandbox;
use super::{Problem, figures, print, sandbox};
use crate::cli::layout;
use crate::cli::terminal::{Paint, printable};
use crate::digest::Digest;
use crate::transform::{Anatomy, Limits, Plugin, Resources};

/// Show what a plugin's file is, needs and says of itself.
///
/// Prints what is in the file, then what the plugin describes and needs once it is loaded, and the limits that
/// would apply: the defaults, or those in NAME.toml beside it. Exits with 1 if a gateway would not load it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The plugin's file.
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,

    /// Print everything as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// All there is to tell.
struct Inspected {
    name: String,
    digest: Digest,
    anatomy: Anatomy,
    limits: Limits,
    loaded: Result<Arc<Plugin>, Problem>,
}

/// Inspects the file.
pub(super) async fn run(args: Args) -> Result<ExitCode, Problem> {
    sandbox::with(async |sandbox| {
        let inspected = Inspected::of(sandbox, &args.file).await?;
        print(&match args.json {
            true => format!("{}\n", inspected.json()),
            false => inspected.human(Paint::for_stdout()),
        })?;
        inspected.loaded.map(|_| ExitCode::SUCCESS)
    })
    .await
}

impl Inspected {
    async fn of(sandbox: &Sandbox, path: &Path) -> Result<Self, Problem> {
        let file = sandbox.read(path)?;
        let anatomy = Anatomy::of(&file.bytes);
        Ok(Self {
            name: file.name.clone(),
            digest: Digest::of(&file.bytes),
            anatomy: anatomy.map_err(|error| format!("{}: {error}", path.display()))?,
            limits: file.manifest.limits.clone(),
            loaded: sandbox.load(file).await,
        })
    }

    fn human(&self, paint: Paint) -> String {
        let mut text = String::new();
        let mut line = |what: &str, value: &str| {
            let what = paint.faint(&format!("{what:<10}"));
            text.push_str(&format!("  {what}  {}\n", printable(value)));
        };
        let contract = self.anatomy.contract.as_deref();
        line("kind", self.anatomy.kind.as_str());
        line("sha256", &self.digest.to_string());
        line("contract", contract.unwrap_or("none: this is no Hookmill plugin"));
        line("imports", &listed(&self.anatomy.imports));
        match &self.loaded {
            Ok(plugin) => {
                let about = plugin.description();
                line(
                    "describes",
                    &format!("{} {}: {}", about.name, about.version, about.description),
                );
                line("wants", &listed(&about.capabilities));
                if let Some(resources) = plugin.resources() {
                    line("begins", &begins(resources));
                }
            }
            Err(problem) => line("loads", &format!("no: {problem}")),
        }
        let schema = self.schema();
        let schema = schema.as_deref().map_or("config of any form".to_owned(), layout::pretty);
        text = format!("{}\n{text}", paint.strong(&self.name));
        let mut section = |title: &str, content: &str| {
            text.push_str(&format!("\n{}\n{content}", paint.strong(title)));
        };
        section("config schema", &indented(&printable(&schema)));
        section(
            "exports",
            &self
                .anatomy
                .exports
                .iter()
                .map(|name| format!("  {}\n", printable(name)))
                .collect::<String>(),
        );
        section("bytes", &figures::table(&self.sizes()));
        section("limits", &figures::table(&limit_rows(&self.limits)));
        text
    }

    /// The schema of the config, where the plugin has one that is JSON.
    fn schema(&self) -> Option<String> {
        let schema = self.loaded.as_ref().ok()?.description().config_schema.clone()?;
        serde_json::from_str::<&RawValue>(&schema).is_ok().then_some(schema)
    }

    fn sizes(&self) -> Vec<[String; 2]> {
        let Anatomy { code_bytes, data_bytes, custom_sections, total_bytes, .. } = &self.anatomy;
        let mut rows = vec![
            ["code".to_owned(), figures::grouped(*code_bytes)],
            ["data".to_owned(), figures::grouped(*data_bytes)],
        ];
        rows.extend(custom_sections.iter().map(|(name, bytes)| {
            [format!("section {}", shortened(name)), figures::grouped(*bytes)]
        }));
        rows.push(["the file".to_owned(), figures::grouped(*total_bytes)]);
        rows
    }

    fn json(&self) -> Value {
        let plugin = self.loaded.as_ref().ok();
        let describes = plugin.map(|plugin| {
            let about = plugin.description();
            json!({
                "name": about.name,
                "version": about.version,
                "description": about.description,
                "capabilities": about.capabilities,
                "config_schema": self.schema().and_then(|it| serde_json::from_str::<Value>(&it).ok()),
            })
        });
        let begins = plugin.and_then(|plugin| plugin.resources()).map(|resources| {
            json!({
                "memories": resources.memories,
                "memory_bytes": resources.memory_bytes,
                "tables": resources.tables,
                "table_elements": resources.table_elements,
            })
        });
        json!({
            "name": self.name,
            "sha256": self.digest.to_string(),
            "kind": self.anatomy.kind.as_str(),
            "contract": self.anatomy.contract,
            "imports": self.anatomy.imports,
            "exports": self.anatomy.exports,
            "describes": describes,
            "problem": self.loaded.as_ref().err(),
            "begins_with": begins,
            "bytes": {
                "total": self.anatomy.total_bytes,
                "code": self.anatomy.code_bytes,
                "data": self.anatomy.data_bytes,
                "custom_sections": self.anatomy.custom_sections,
            },
            "limits": limits(&self.limits),
        })
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// A name that leaves room for a figure; the whole is in the JSON.
fn shortened(name: &str) -> String {
    const LONGEST: usize = 40;

    let name = printable(name);
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.into_owned(),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn begins(resources: Resources) -> String {
    let Resources { memories, memory_bytes, tables, table_elements } = resources;
    let counted = |count: u32, what: &str, plural: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {plural}"),
    };
    let memory = figures::bytes(usize::try_from(memory_bytes).unwrap_or(usize::MAX));
    format!(
        "{} of {memory}, {} of up to {table_elements} elements",
        counted(memories, "memory", "memories"),
        counted(tables, "table", "tables"),
    )
}

/// The limits by their names in a manifest, each for people and for programs.
fn each(limits: &Limits) -> [(&'static str, String, Value); 18] {
    let Limits {
        time,
        describe_time,
        memory_bytes,
        table_elements,
        host_calls,
        output_bytes,
        parts,
        headers,
        header_bytes,
        query_parameters,
        url_bytes,
        message_bytes,
        log_lines,
        log_bytes,
        fetches,
        fetch_bytes,
        kv_keys,
        kv_bytes,
    } = limits;
    let duration = |time| (figures::time(time), json!(figures::micros(time)));
    let bytes = |bytes| (figures::bytes(bytes), json!(bytes));
    let count = |count| (figures::grouped(count), json!(count));
    let wide = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    [
        ("time", duration(*time)),
        ("describe_time", duration(*describe_time)),
        ("memory_bytes", bytes(*memory_bytes)),
        ("table_elements", count(*table_elements)),
        ("host_calls", count(wide(*host_calls))),
        ("output_bytes", bytes(*output_bytes)),
        ("parts", count(*parts)),
        ("headers", count(*headers)),
        ("header_bytes", bytes(*header_bytes)),
        ("query_parameters", count(*query_parameters)),
        ("url_bytes", bytes(*url_bytes)),
        ("message_bytes", bytes(*message_bytes)),
        ("log_lines", count(*log_lines)),
        ("log_bytes", bytes(*log_bytes)),
        ("fetches", count(*fetches)),
        ("fetch_bytes", bytes(*fetch_bytes)),
        ("kv_keys", count(wide(*kv_keys))),
        ("kv_bytes", bytes(wide(*kv_bytes))),
    ]
    .map(|(name, (shown, value))| (name, shown, value))
}

fn limit_rows(limits: &Limits) -> Vec<[String; 2]> {
    each(limits).into_iter().map(|(name, shown, _)| [name.to_owned(), shown]).collect()
}

/// The limits, for programs. Durations are microseconds, and their names say so.
pub(super) fn limits(limits: &Limits) -> Value {
    let named = |name: &str| match name.ends_with("time") {
        true => format!("{name}_us"),
        false => name.to_owned(),
    };
    each(limits).into_iter().map(|(name, _, value)| (named(name), value)).collect()
}
