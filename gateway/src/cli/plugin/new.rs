//! `hookmill plugin new`: a plugin's crate that builds, passes its tests and can be installed as it is.

mod name;
mod sdk;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::name::Name;
use super::{Problem, print};

/// Make the crate of a new plugin.
///
/// It builds and passes its tests as it is: a typed event, a config, unit tests, and fixtures that run natively
/// and in the sandbox. The plugin SDK of this very version is put into NAME/vendor, so that nothing else is
/// needed; --sdk depends on a checkout of it instead.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The name of the plugin and of its crate.
    #[arg(value_parser = Name::parse)]
    name: Name,

    /// The folder to make it in.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// A checkout of the SDK, or of the repository that it is in, to depend on.
    #[arg(long, value_name = "PATH")]
    sdk: Option<PathBuf>,
}

/// Files of a new crate, with `{{name}}` and `{{sdk}}` where those stand.
const TEMPLATE: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../../plugin-template/manifest.toml")),
    (".cargo/config.toml", include_str!("../../../plugin-template/cargo-config.toml")),
    (".gitignore", include_str!("../../../plugin-template/gitignore")),
    ("README.md", include_str!("../../../plugin-template/readme.md")),
    ("src/lib.rs", include_str!("../../../plugin-template/lib.rs")),
    ("fixtures/large-order.json", include_str!("../../../plugin-template/large-order.json")),
    ("fixtures/no-total.json", include_str!("../../../plugin-template/no-total.json")),
    ("fixtures/small-order.json", include_str!("../../../plugin-template/small-order.json")),
];

/// Where the SDK is put in a new crate.
const VENDORED: &str = "vendor/hookmill-plugin";

/// Makes the crate.
#[expect(clippy::needless_pass_by_value, reason = "as every subcommand takes its arguments")]
pub(super) fn run(args: Args) -> Result<ExitCode, Problem> {
    let path = create(&args)?;
    let shown = path.display();
    print(&format!(
        "made {shown}\n\nNext:\n  hookmill plugin test {shown}\n  \
         hookmill plugin dev {shown} --install PLUGINS_DIR\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn create(args: &Args) -> Result<PathBuf, Problem> {
    let name = args.name.as_str();
    let path = args.dir.join(name);
    let shown = path.display();
    if !args.dir.is_dir() {
        return Err(format!("there is no folder {}", args.dir.display()));
    }
    if fs::symlink_metadata(&path).is_ok() {
        return Err(format!("{shown} is there already; choose another name, or another --dir"));
    }
    let sdk = args.sdk.as_deref().map(checkout).transpose()?;
    let aside = args.dir.join(format!(".{name}.{}.new", std::process::id()));
    let made = write(&aside, name, sdk.as_deref()).and_then(|()| fs::rename(&aside, &path));
    if let Err(error) = made {
        // Nothing is left half made; what failed before is what matters.
        drop(fs::remove_dir_all(&aside));
        return Err(format!("cannot make {shown}: {error}"));
    }
    Ok(path)
}

/// The SDK's folder in a checkout, absolute.
fn checkout(path: &Path) -> Result<String, Problem> {
    let shown = path.display();
    let root = fs::canonicalize(path).map_err(|error| format!("cannot find {shown}: {error}"))?;
    let is_sdk = |folder: &PathBuf| {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
        manifest.lines().any(|line| line.trim() == "name = \"hookmill-plugin\"")
    };
    let found = [root.clone(), root.join("plugin-sdk")].into_iter().find(is_sdk).ok_or_else(|| {
        format!("{shown} is no checkout of the SDK: neither it nor its plugin-sdk is hookmill-plugin")
    })?;
    let path = found.into_os_string().into_string();
    path.map_err(|path| format!("the path {} is not UTF-8", Path::new(&path).display()))
}

fn write(folder: &Path, name: &str, sdk: Option<&str>) -> io::Result<()> {
    fs::create_dir(folder)?;
    // A path stands between quotes in the manifest.
    let dependency = sdk.unwrap_or(VENDORED).replace('\\', "\\\\").replace('"', "\\\"");
    for (path, content) in TEMPLATE {
        let content = content.replace("{{name}}", name).replace("{{sdk}}", &dependency);
        write_file(&folder.join(path), &content)?;
    }
    if sdk.is_none() {
        for (path, content) in sdk::FILES {
            write_file(&folder.join(VENDORED).join(path), content)?;
        }
    }
    Ok(())
}

fn write_file(path: &Path, content: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(dir: &Path, sdk: Option<&Path>) -> Args {
        let name = Name::parse("order-alert").unwrap();
        Args { name, dir: dir.to_owned(), sdk: sdk.map(Path::to_owned) }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_of_the_template_is_left_to_fill_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = create(&args(dir.path(), None)).unwrap();
        for (file, _) in TEMPLATE {
            let content = fs::read_to_string(path.join(file)).unwrap();
            assert!(!content.contains("{{"), "{file}: {content}");
        }
        let manifest = fs::read_to_string(path.join("Cargo.toml")).unwrap();
        assert!(manifest.contains("name = \"order-alert\""), "{manifest}");
        assert!(manifest.contains("path = \"vendor/hookmill-plugin\""), "{manifest}");
        assert!(path.join("vendor/hookmill-plugin/wit/since-v1.0/plugin.wit").is_file());
    }

    #[test]
    fn a_checkout_is_depended_on_instead() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let path = create(&args(dir.path(), Some(workspace))).unwrap();
        let manifest = fs::read_to_string(path.join("Cargo.toml")).unwrap();
        let sdk = fs::canonicalize(workspace.join("plugin-sdk")).unwrap();
        assert!(manifest.contains(&format!("path = \"{}\"", sdk.display())), "{manifest}");
        assert!(!path.join("vendor").exists());

        let problem = create(&args(&path, Some(dir.path()))).unwrap_err();
        assert!(problem.contains("is no checkout of the SDK"), "{problem}");
    }

    #[test]
    fn what_is_there_stays_and_nothing_is_half_made() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("order-alert"), "mine").unwrap();
        let problem = create(&args(dir.path(), None)).unwrap_err();
        assert!(problem.contains("is there already"), "{problem}");
        let problem = create(&args(&dir.path().join("missing"), None)).unwrap_err();
        assert!(problem.contains("there is no folder"), "{problem}");
        let problem = create(&args(&dir.path().join("order-alert"), None)).unwrap_err();
        assert!(problem.contains("there is no folder"), "{problem}");
        assert_eq!(names(dir.path()), ["order-alert"]);
        assert_eq!(fs::read(dir.path().join("order-alert")).unwrap(), b"mine");
    }

    #[test]
    fn it_is_built_as_the_projects_own_plugins_are() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let read = |path: &str| table(&fs::read_to_string(root.join(path)).unwrap());
        let file = |path: &str| {
            let (_, content) = TEMPLATE.iter().find(|(name, _)| *name == path).unwrap();
            table(content)
        };
        let own = read(".cargo/config.toml");
        assert_eq!(file(".cargo/config.toml")["target"], own["target"]);
        let mut profile = read("Cargo.toml")["profile"]["plugin"].clone();
        profile.as_table_mut().unwrap().remove("inherits");
        assert_eq!(file("Cargo.toml")["profile"]["release"], profile);
    }
}
