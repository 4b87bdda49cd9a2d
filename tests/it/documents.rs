//! What the documents say of the tree.

use std::collections::BTreeSet;
use std::fs;

use hookmill_tests::workspace;

/// The paths in the README's map: the first word of each line of the code block under "Where things are".
fn mapped() -> BTreeSet<String> {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let section = readme.split("## Where things are").nth(1).unwrap();
    let block = section.split("```").nth(1).unwrap();
    block
        .lines()
        .skip(1)
        .filter(|line| line.starts_with(|c: char| !c.is_whitespace()))
        .filter_map(|line| line.split_whitespace().next())
        .map(|path| path.trim_end_matches('/').to_owned())
        .collect()
}

#[test]
fn the_readmes_map_names_what_exists() {
    let map = mapped();
    assert!(map.len() > 20, "{map:?}");
    let missing: Vec<_> = map.iter().filter(|path| !workspace().join(path).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_module_and_plugin_is_on_the_map() {
    let map = mapped();
    let mut missing = Vec::new();
    for (folder, prefix) in [("gateway/src", "gateway/src"), ("plugins", "plugins")] {
        for entry in fs::read_dir(workspace().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = format!("{prefix}/{name}");
            // A folder belongs to the file of its name; the library's root is the list itself.
            let sibling = format!("{path}.rs");
            let known = map.contains(&path) || map.contains(&sibling);
            if !known && !matches!(name.as_str(), "lib.rs" | "README.md") {
                missing.push(path);
            }
        }
    }
    assert!(missing.is_empty(), "not on the README's map: {missing:?}");
}

#[test]
fn every_plugin_has_a_readme_and_fixtures() {
    for entry in fs::read_dir(workspace().join("plugins")).unwrap() {
        let folder = entry.unwrap().path();
        if folder.is_dir() {
            assert!(folder.join("README.md").exists(), "{}", folder.display());
            assert!(
                folder.join("fixtures").read_dir().unwrap().count() >= 2,
                "{}",
                folder.display()
            );
        }
    }
}

#[test]
fn every_language_has_a_readme_and_the_shared_fixtures() {
    let examples = workspace().join("plugin-sdk/examples");
    let shared = fs::canonicalize(examples.join("fixtures")).unwrap();
    for language in ["c", "go", "javascript", "python", "rust"] {
        let folder = examples.join(language);
        assert!(folder.join("README.md").exists(), "{language}");
        assert_eq!(fs::canonicalize(folder.join("fixtures")).unwrap(), shared, "{language}");
    }
    let lock = fs::read_to_string(examples.join("javascript/package-lock.json")).unwrap();
    assert!(!lock.contains("\"resolved\""), "a lock file names no registry's host");
}

#[test]
fn the_commands_of_the_readme_are_those_of_ci() {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let ci = fs::read_to_string(workspace().join(".ci/run")).unwrap();
    assert!(readme.contains("cargo xtask demo") && readme.contains("cargo xtask test"));
    assert!(ci.contains("cargo xtask test"));
}
