//! `cargo xtask test --all-languages`: builds the examples in other languages, each with its own tools, runs
//! their fixtures through a real gateway, and says what they cost beside Rust.

mod tools;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use self::tools::Tools;
use crate::arguments::Arguments;
use crate::{command, report, wasm, workspace};

/// The languages other than Rust, each with a folder in `plugin-sdk/examples`.
const LANGUAGES: &[&str] = &["c", "go", "javascript", "python"];

/// What every example's build makes, and the crate of the same one in Rust.
const PLUGIN: &str = "order-message";

/// The variable that tells the test where the built plugins are; it puts its figures there.
const BUILT: &str = "BUILT_LANGUAGES";

/// Builds and tests those that the arguments name, or all.
pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let json = arguments.flag("--json");
    let release = arguments.flag("--release");
    let only: Option<String> = arguments.option("--only")?;
    arguments.end()?;
    let chosen = chosen(only.as_deref())?;

    let folder = workspace::target().join("languages");
    let built = folder.join("built");
    if built.exists() {
        std::fs::remove_dir_all(&built).with_context(|| cannot("empty", &built))?;
    }
    std::fs::create_dir_all(&built).with_context(|| cannot("make", &built))?;

    wasm::build()?;
    let rust = workspace::wasm_file(PLUGIN);
    std::fs::copy(&rust, built.join("rust.wasm")).with_context(|| cannot("read", &rust))?;
    let tools = Tools::new(&folder);
    // One language's missing tools are no reason not to try the others.
    let mut failed = Vec::new();
    for language in chosen {
        if let Err(error) = build(language, &tools, &folder, &built) {
            report::line(&report::bad(&format!("{language}: {error:#}")));
            failed.push(format!("{language}: {error:#}"));
        }
    }

    let mut test = command::cargo(["test", "--package", "hookmill-tests", "--test", "it"]);
    if release {
        test.arg("--release");
    }
    test.args(["--", "--ignored", "--exact", "languages::every_language_does_as_the_fixtures_say"]);
    command::step("run them through the gateway", test.env(BUILT, &built))?;
    show(&built.join("figures.json"), json)?;
    if !failed.is_empty() {
        bail!("not all languages could be built:\n{}", failed.join("\n"));
    }
    Ok(())
}

fn chosen(only: Option<&str>) -> Result<Vec<&'static str>> {
    let Some(only) = only else {
        return Ok(LANGUAGES.to_vec());
    };
    let mut chosen = Vec::new();
    for name in only.split(',') {
        let Some(language) = LANGUAGES.iter().find(|language| **language == name) else {
            bail!("--only takes some of {}, with commas between", LANGUAGES.join(", "));
        };
        chosen.push(*language);
    }
    Ok(chosen)
}

/// Builds one, as its README says, in a copy of its folder.
fn build(language: &str, tools: &Tools, folder: &Path, built: &Path) -> Result<()> {
    tools.ensure(language)?;
    let copy = copy(language, folder)?;
    let mut build = Command::new("./build.sh");
    build.current_dir(&copy).env("PATH", tools.path()?);
    if language == "go"
        && let Some(package) = Tools::go_package()
    {
        build.env("GO_PKG", package);
    }
    command::step(&format!("build the plugin in {language}"), &mut build)?;
    let made = copy.join(format!("{PLUGIN}.wasm"));
    std::fs::copy(&made, built.join(format!("{language}.wasm")))
        .with_context(|| cannot("read", &made))?;
    Ok(())
}

/// Copies an example, and the contract to where the example looks for it, so that nothing is built among
/// the sources.
fn copy(language: &str, folder: &Path) -> Result<PathBuf> {
    let sdk = workspace::root().join("plugin-sdk");
    let place = folder.join("plugin-sdk");
    for part in ["wit", &format!("examples/{language}")] {
        copy_folder(&sdk.join(part), &place.join(part))?;
    }
    Ok(place.join("examples").join(language))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| cannot("make", to))?;
    for entry in std::fs::read_dir(from).with_context(|| cannot("read", from))? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&source, &target)?;
        } else if kind.is_file() {
            std::fs::copy(&source, &target).with_context(|| cannot("copy", &source))?;
        }
    }
    Ok(())
}

fn cannot(do_it: &str, path: &Path) -> String {
    format!("cannot {do_it} {}", path.display())
}

/// Shows what the test has measured.
fn show(figures: &Path, json: bool) -> Result<()> {
    let text = std::fs::read_to_string(figures).with_context(|| cannot("read", figures))?;
    let mut figures: Vec<Value> = serde_json::from_str(&text)?;
    let call = |figure: &Value| number(figure, "call_us");
    figures.sort_by(|a, b| call(a).total_cmp(&call(b)));
    let head = ["language", "size", "compile time", "a call"].map(str::to_owned).to_vec();
    let row = |figure: &Value| {
        vec![
            figure.get("language").and_then(Value::as_str).unwrap_or_default().to_owned(),
            format!("{:.0} kB", number(figure, "bytes") / 1e3),
            format!("{:.2} s", number(figure, "compile_ms") / 1e3),
            format!("{:.0} µs", number(figure, "call_us")),
        ]
    };
    report::line("");
    report::table(&std::iter::once(head).chain(figures.iter().map(row)).collect::<Vec<_>>());
    if json {
        report::line(&Value::Array(figures).to_string());
    }
    Ok(())
}

fn number(figure: &Value, name: &str) -> f64 {
    figure.get(name).and_then(Value::as_f64).unwrap_or_default()
}
