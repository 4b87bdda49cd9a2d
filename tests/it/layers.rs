//! Who may import whom. The tables here are the rule; `ARCHITECTURE.md` has the reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use hookmill_tests::workspace;

/// What every module may name.
const GROUND: &[&str] =
    &["event", "delivery", "kv", "digest", "telemetry", "shutdown", "failpoint"];

/// Each module of the gateway, with what it may import beside the ground. A stage imports no other stage.
const MODULES: &[(&str, &[&str])] = &[
    ("event", &[]),
    ("delivery", &[]),
    ("kv", &["delivery"]),
    ("digest", &[]),
    ("telemetry", &[]),
    ("shutdown", &[]),
    ("failpoint", &[]),
    ("route", &[]),
    ("transform", &[]),
    ("sign", &[]),
    ("deliver", &[]),
    ("record", &[]),
    ("snapshot", &["route", "transform", "sign", "deliver"]),
    ("pipeline", &["route", "transform", "sign", "deliver", "record", "snapshot"]),
    ("problem", &[]),
    ("access", &["problem", "snapshot"]),
    ("ingest", &["problem", "access", "pipeline", "record", "snapshot"]),
    ("admin", &["problem", "access", "pipeline", "transform", "record", "snapshot"]),
    ("server", &["problem"]),
    (
        "config",
        &[
            "route",
            "transform",
            "sign",
            "deliver",
            "record",
            "snapshot",
            "pipeline",
            "ingest",
            "reload",
        ],
    ),
    ("reload", &["transform", "snapshot", "config"]),
    (
        "app",
        &[
            "transform",
            "deliver",
            "record",
            "snapshot",
            "pipeline",
            "ingest",
            "admin",
            "server",
            "config",
            "reload",
        ],
    ),
    ("cli", &["app", "config", "deliver", "reload", "sign", "snapshot", "transform"]),
];

/// Foreign crates that one module owns, or a few at one edge.
const OWNED: &[(&str, &[&str])] = &[
    ("wasmtime", &["transform"]),
    ("wasmtime_wasi", &["transform"]),
    ("wasi_preview1_component_adapter_provider", &["transform"]),
    ("wasmparser", &["transform"]),
    ("wit_component", &["transform"]),
    ("jsonschema", &["transform"]),
    ("hmac", &["sign"]),
    ("sha2", &["sign", "digest"]),
    ("base64", &["sign", "deliver"]),
    ("reqwest", &["deliver"]),
    ("httpdate", &["deliver"]),
    ("tower_layer", &["deliver"]),
    ("tower_service", &["deliver"]),
    ("rustls", &["deliver"]),
    ("rusqlite", &["record"]),
    ("ring", &["record"]),
    ("notify", &["reload", "cli"]),
    ("arc_swap", &["snapshot"]),
    ("toml", &["config"]),
    ("clap", &["cli"]),
    ("similar", &["cli"]),
    ("tracing_subscriber", &["telemetry"]),
    ("hyper", &["server"]),
    ("axum", &["problem", "access", "ingest", "admin", "server", "cli"]),
];

/// The module that a source file belongs to, with its text without tests.
fn sources() -> Vec<(String, PathBuf, String)> {
    let src = workspace().join("gateway/src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    files
        .into_iter()
        .filter(|file| !matches!(file.file_name().unwrap().to_str().unwrap(), "lib.rs" | "main.rs"))
        .map(|file| {
            let module = file.strip_prefix(&src).unwrap().iter().next().unwrap().to_str().unwrap();
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
            (module.trim_end_matches(".rs").to_owned(), file, code)
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, files),
            false => files.push(path),
        }
    }
}

/// The names that stand behind `crate::`, those in braces included.
fn imports(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let group = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        for item in group.map_or(rest, |(group, _)| group).split(',') {
            names.insert(
                item.trim().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect(),
            );
            if group.is_none() {
                break;
            }
        }
    }
    names
}

#[test]
fn modules_import_just_what_stands_below_them() {
    let rules: BTreeMap<_, _> = MODULES.iter().copied().collect();
    let mut broken = Vec::new();
    for (module, file, code) in sources() {
        let Some(allowed) = rules.get(module.as_str()) else {
            broken.push(format!("{module} has no rule"));
            continue;
        };
        let is_ground = GROUND.contains(&module.as_str());
        for name in imports(&code) {
            let known = rules.contains_key(name.as_str());
            let ground = GROUND.contains(&name.as_str()) && !is_ground;
            if known && name != module && !ground && !allowed.contains(&name.as_str()) {
                broken.push(format!("{} imports {name}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn foreign_crates_are_named_by_their_owners() {
    let mut broken = Vec::new();
    for (module, file, code) in sources() {
        for (foreign, owners) in OWNED {
            let path = format!("{foreign}::");
            let named = code.match_indices(&path).any(|(at, _)| {
                let before = code[..at].chars().next_back().unwrap_or(' ');
                !before.is_ascii_alphanumeric() && !matches!(before, '_' | ':')
            });
            if named && !owners.contains(&module.as_str()) {
                broken.push(format!("{} names {foreign}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_rules_name_what_exists() {
    let modules: BTreeSet<_> = sources().into_iter().map(|(module, ..)| module).collect();
    let ruled: BTreeSet<_> = MODULES.iter().map(|(module, _)| (*module).to_owned()).collect();
    assert_eq!(modules, ruled);
    // The check sees what is there: each owner names its crate.
    for (foreign, owners) in OWNED {
        let named = sources()
            .iter()
            .any(|(module, _, code)| owners.contains(&module.as_str()) && code.contains(foreign));
        assert!(named, "nobody names {foreign}");
    }
}

#[test]
fn files_say_what_they_are_and_stay_readable() {
    const MAX_LINES: usize = 400;
    let mut wrong = Vec::new();
    for (_, file, code) in sources() {
        if !code.starts_with("//!") {
            wrong.push(format!("{} does not begin by saying what it is", file.display()));
        }
        let is_test = file.components().any(|part| part.as_os_str() == "tests")
            || file.ends_with("tests.rs")
            || file.ends_with("contract.rs");
        if code.lines().count() > MAX_LINES && !is_test {
            wrong.push(format!("{} has more than {MAX_LINES} lines", file.display()));
        }
        if file.ends_with("mod.rs") {
            wrong.push(format!("{} is a mod.rs", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
