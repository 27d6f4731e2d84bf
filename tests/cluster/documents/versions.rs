//! All parts have one version, the changelog names it, and what was released stays as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use sha2::{Digest, Sha256};

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

/// Those of the changelog, the newest first.
fn released() -> Vec<String> {
    found(&read("CHANGELOG.md"), r"^## (\d+\.\d+\.\d+) \(\d{4}-\d\d-\d\d\)$")
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

#[test]
fn the_changelog_names_the_version() {
    let headings = found(&read("CHANGELOG.md"), r"^## (\S+)");
    assert_eq!(headings[0], "Unreleased");
    assert_eq!(headings[1..], released(), "a heading is a version and its date");
    // Between releases the version is that of the next, with a suffix.
    assert_eq!(headings[1] == version(), !version().ends_with("-dev"), "{headings:?}");
}

/// The install script of each release, and the scripts between releases.
#[test]
fn scripts_of_releases_do_not_change() {
    let list = read("sql/released.sha256");
    let sums: BTreeMap<&str, &str> = list
        .lines()
        .map(|line| line.split_once("  ").expect("as sha256sum prints it"))
        .map(|(sum, file)| (file, sum))
        .collect();
    for (file, sum) in &sums {
        let digest = Sha256::digest(read(format!("sql/{file}")));
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, *sum, "{file} was released");
    }
    let mut releases = released();
    for version in &releases {
        let file = format!("sync_ext--{version}.sql");
        assert!(sums.contains_key(&*file), "{file} is not in sql/released.sha256");
    }
    // From each version to the next.
    releases.reverse();
    if !releases.contains(&version()) {
        releases.push(version());
    }
    for pair in releases.windows(2) {
        let file = format!("sync_ext--{}--{}.sql", pair[0], pair[1]);
        assert!(root().join("sql").join(&file).exists(), "no sql/{file}");
        let is_release = pair[1] != version() || !pair[1].ends_with("-dev");
        assert_eq!(sums.contains_key(&*file), is_release, "{file} in sql/released.sha256");
    }
}

/// Whichever Postgres it was built for.
#[test]
fn the_script_of_a_release_is_what_its_sources_make() {
    let file = format!("sync_ext--{}.sql", version());
    let Ok(released) = fs::read_to_string(root().join("sql").join(&file)) else {
        assert!(version().ends_with("-dev"), "no sql/{file}");
        return;
    };
    let pg_config = Path::new(&std::env::var_os("SYNC_EXT_PG_BIN").unwrap()).join("pg_config");
    let output = Command::new(pg_config).arg("--sharedir").output().unwrap();
    let share = String::from_utf8(output.stdout).unwrap();
    let installed = Path::new(share.trim_end()).join("extension").join(&file);
    assert!(fs::read_to_string(installed).unwrap() == released, "sql/{file} differs");
}
