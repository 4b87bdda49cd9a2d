//! The plugin SDK of this version, as it is put beside a new plugin.
//!
//! The sources are the SDK's own. Its manifests are written out, for elsewhere there is no workspace to inherit
//! from.

/// A file of the SDK's folder, with its path there.
macro_rules! own {
    ($path:literal) => {
        ($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-sdk/", $path)))
    };
}

/// Every file, with its path in the SDK's folder.
pub(super) const FILES: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../../../plugin-template/sdk-manifest.toml")),
    ("macros/Cargo.toml", include_str!("../../../../plugin-template/sdk-macros-manifest.toml")),
    own!("README.md"),
    own!("macros/src/check.rs"),
    own!("macros/src/config.rs"),
    own!("macros/src/expand.rs"),
    own!("macros/src/lib.rs"),
    own!("src/__guest.rs"),
    own!("src/__guest/host.rs"),
    own!("src/arena.rs"),
    own!("src/arena/global.rs"),
    own!("src/clock.rs"),
    own!("src/event.rs"),
    own!("src/failure.rs"),
    own!("src/http.rs"),
    own!("src/json.rs"),
    own!("src/kv.rs"),
    own!("src/lib.rs"),
    own!("src/log.rs"),
    own!("src/mismatch.rs"),
    own!("src/random.rs"),
    own!("src/schema.rs"),
    own!("src/secrets.rs"),
    own!("src/testing.rs"),
    own!("src/testing/fixtures.rs"),
    own!("src/testing/fixtures/diff.rs"),
    own!("src/testing/fixtures/expect.rs"),
    own!("src/testing/fixtures/mocks.rs"),
    own!("src/testing/host.rs"),
    own!("src/testing/logs.rs"),
    own!("src/transform.rs"),
    own!("src/verdict.rs"),
    own!("wit/since-v1.0/clock.wit"),
    own!("wit/since-v1.0/http.wit"),
    own!("wit/since-v1.0/kv.wit"),
    own!("wit/since-v1.0/plugin.wit"),
    own!("wit/since-v1.0/random.wit"),
    own!("wit/since-v1.0/secrets.wit"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use toml::{Table, Value};

    use super::*;

    fn workspace() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
    }

    fn collect(folder: &Path, root: &Path, files: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => collect(&path, root, files),
                false => {
                    files.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
    }

    #[test]
    fn it_is_complete() {
        let sdk = workspace().join("plugin-sdk");
        let mut files = BTreeSet::new();
        collect(&sdk, &sdk, &mut files);
        // What the SDK's own tests read, and what is there for people, is of no use to a plugin.
        let left_out = ["tests/", "examples/", "wit/README.md"];
        files.retain(|file| !left_out.iter().any(|path| file.starts_with(path)));
        let listed: BTreeSet<_> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(listed, files, "left is `FILES`, right is the folder plugin-sdk");
    }

    /// What a manifest says once everything that it inherits is written out.
    fn resolved(mut manifest: Table, paths: &[(&str, &str)]) -> Table {
        let root: Table =
            fs::read_to_string(workspace().join("Cargo.toml")).unwrap().parse().unwrap();
        let root = &root["workspace"];
        for (key, value) in manifest["package"].as_table_mut().unwrap() {
            if value.get("workspace").is_some() {
                *value = root["package"][key].clone();
            }
        }
        inherit(manifest["dependencies"].as_table_mut().unwrap(), root, paths);
        if let Some(targets) = manifest.get_mut("target") {
            for (_, target) in targets.as_table_mut().unwrap() {
                inherit(target["dependencies"].as_table_mut().unwrap(), root, paths);
            }
        }
        manifest.insert("lints".to_owned(), root["lints"].clone());
        manifest
    }

    fn inherit(dependencies: &mut Table, root: &Value, paths: &[(&str, &str)]) {
        for (name, value) in dependencies {
            *value = match paths.iter().find(|(local, _)| local == name) {
                Some((_, path)) => {
                    Table::from_iter([("path".to_owned(), Value::from(*path))]).into()
                }
                None => root["dependencies"][name].clone(),
            };
        }
    }

    #[test]
    fn its_manifests_say_what_the_workspaces_say() {
        for (manifest, paths) in [
            ("Cargo.toml", &[("hookmill-plugin-macros", "macros")][..]),
            ("macros/Cargo.toml", &[]),
        ] {
            let own = fs::read_to_string(workspace().join("plugin-sdk").join(manifest)).unwrap();
            let (_, written) = FILES.iter().find(|(path, _)| *path == manifest).unwrap();
            let written: Table = written.parse().unwrap();
            assert_eq!(written, resolved(own.parse().unwrap(), paths), "{manifest}");
        }
    }
}
