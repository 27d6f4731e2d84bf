//! All parts have one version.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the pattern finds.
fn found(text: &str, pattern: &str) -> Vec<String> {
    let pattern = Regex::new(&format!("(?m){pattern}")).unwrap();
    pattern.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

fn version() -> String {
    found(&read("Cargo.toml"), r#"^version = "(.+)"$"#).remove(0)
}

#[test]
fn all_parts_have_the_version_of_the_extension() {
    let mut versions = BTreeMap::new();
    let members = found(&read("Cargo.toml"), r"^members = \[(.+)\]$").remove(0);
    for member in found(&members, r#""([^"]+)""#) {
        let manifest = format!("{member}/Cargo.toml");
        let version = found(&read(&manifest), r#"^version = "(.+)"$"#);
        versions.insert(manifest, version);
    }
    for package in fs::read_dir(root().join("clients")).unwrap() {
        let manifest = package.unwrap().path().join("package.json");
        if manifest.exists() {
            versions.insert(
                manifest.display().to_string(),
                found(&read(manifest), r#"^  "version": "(.+)""#),
            );
        }
    }
    let locked = r#"^name = "sync_ext(?:_\w+)?"\nversion = "(.+)"$"#;
    let lock = |text: String, pattern| found(&text, pattern).into_iter().collect::<BTreeSet<_>>();
    versions.insert("Cargo.lock".into(), Vec::from_iter(lock(read("Cargo.lock"), locked)));
    let locked = r#"^    "(?:typescript|or3|proof|demo)": \{\n(?:      "name": .+\n)?      "version": "(.+)""#;
    let clients = read("clients/package-lock.json");
    versions.insert("package-lock.json".into(), Vec::from_iter(lock(clients, locked)));
    assert!(versions.len() > 12, "{versions:#?}");
    versions.retain(|_, found| *found != [version()]);
    assert!(versions.is_empty(), "not {}: {versions:#?}", version());
}
