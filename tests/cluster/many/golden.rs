//! The golden scripts through a router: what psql prints differs from what it prints without
//! one as `tests/pg_regress/router` says, and in no other way. With SYNC_EXT_ACCEPT set, the
//! differences are written there; read them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::{Captures, Regex};
use sync_ext_harness::database::Database;

use sync_ext_harness::router::{is_possible, script};

/// A test for each script.
macro_rules! scripts {
    ($($name:ident)*) => {
        const SCRIPTS: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            differs_as_expected(stringify!($name));
        })*
    };
}

scripts! {
    conflicts cursor deletes errors exchange gc hlc horizon_and_graves members pages parent patches
    private proof_after_restore pull push_and_replay rejections scopes server_ops snapshot status
    superseded_delete validation winners
}

/// Scripts about functions that a router has not, or about the extension as an object.
const OTHERS: [&str; 7] = [
    "attach",
    "attach_notices",
    "attach_refusals",
    "grants",
    "renamed_schema",
    "repair",
    "settings_and_schema",
];

#[test]
fn no_script_is_left_out() {
    let entries = fs::read_dir(folder().join("sql")).unwrap();
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let found: BTreeSet<String> = entries.map(|entry| stem(entry.unwrap().path())).collect();
    assert_eq!(found, SCRIPTS.iter().chain(&OTHERS).map(|name| name.to_string()).collect());
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pg_regress")
}

fn differs_as_expected(name: &str) {
    let database = Database::empty();
    if !is_possible(&database.cluster).unwrap() {
        return;
    }
    let work = std::env::temp_dir().join(format!("sync_ext-routed-{name}-{}", std::process::id()));
    fs::create_dir_all(work.join("sql")).unwrap();
    for file in ["prelude.sql", &format!("sql/{name}.sql")] {
        let text = fs::read_to_string(folder().join(file)).unwrap();
        fs::write(work.join(file), routed(&database, &text)).unwrap();
    }
    let script = work.join(format!("sql/{name}.sql"));
    let printed = database.cluster.psql(&database.name, &script).unwrap();
    let expected = folder().join(format!("expected/{name}.out"));
    let expected = fs::read_to_string(expected).unwrap();
    let differences = difference(&work, [&expected, &printed].map(|text| comparable(text)));
    fs::remove_dir_all(work).unwrap();

    let path = folder().join(format!("router/{name}.diff"));
    if std::env::var_os("SYNC_EXT_ACCEPT").is_none() {
        assert_eq!(differences, fs::read_to_string(path).unwrap_or_default());
    } else if differences.is_empty() {
        let _ = fs::remove_file(path);
    } else {
        fs::write(path, differences).unwrap();
    }
}

/// The script for a router. The router and its only shard are one database, so that it finds
/// tables and views where it expects them: the functions of the router come first in its
/// search path, those of the extension in that of PL/Proxy.
fn routed(database: &Database, script: &str) -> String {
    let script = script.replace(CREATE, &format!("{START}{}{END}", setup(database)));
    // What is set and granted counts on the shard, settings in sessions that begin afterwards.
    let setting = Regex::new(r"(?m)^(set|reset) (sync_ext\.\w+)( = .+)?;$").unwrap();
    let mut changed = 0;
    let script = setting.replace_all(&script, |found: &Captures| {
        let line = &found[0];
        if &found[2] == "sync_ext.user_id" {
            return line.to_owned();
        }
        changed += 1;
        let address = format!("{} application_name={changed}", address(database));
        format!(
            "{line}\n{START}\\if :ERROR\n\\else\nalter database {} {line}
alter server sync options (set p0 '{address}');
alter server sync_reads options (set p0 '{address}');\n\\endif\n{END}",
            database.name
        )
    });
    let role = Regex::new(r"(?m)^create role (\w+);$").unwrap();
    let script = role.replace_all(&script, format!("$0\n{START}alter role $1 login;\n{END}"));
    let right =
        Regex::new(r"(?m)^(grant|revoke) execute on function (sync_.+) (to|from) (\w+);$").unwrap();
    right
        .replace_all(&script, |found: &Captures| {
            let functions = found[2].replace("sync_", "extension.sync_");
            format!(
                "{}\n{START}{} execute on function {functions} {} {};\n{END}",
                &found[0], &found[1], &found[3], &found[4]
            )
        })
        .into_owned()
}

const CREATE: &str = "create extension sync_ext;\n";
const START: &str = "\\set was :ECHO\n\\set ECHO none\n";
const END: &str = "\\set ECHO :was\n";

fn setup(database: &Database) -> String {
    let address = address(database);
    let [server, reads] = ["sync", "sync_reads"].map(|name| {
        format!(
            "create server {name} foreign data wrapper plproxy options (p0 '{address}');
create user mapping for public server {name};
grant usage on foreign server {name} to public;"
        )
    });
    format!(
        "create schema extension;
grant usage on schema extension to public;
create extension sync_ext schema extension;
set search_path = public, extension;
\\i {router}
{server}
{reads}
insert into sync_router.bucket select b, 0 from generate_series(0, 1023) as b;
set statement_timeout = '20s';
\\set ON_ERROR_STOP off
\\set SHOW_CONTEXT never
",
        router = script().canonicalize().unwrap().display(),
    )
}

fn address(database: &Database) -> String {
    let address = database.cluster.address(&database.name).replace('\'', "''");
    format!("{address} options=''-csearch_path=extension,public''")
}

/// Without the lines that are added here, and what PL/Proxy says after each error.
fn comparable(printed: &str) -> String {
    let ours = [START, END, CREATE].concat();
    let noise = ["NOTICE:  PL/Proxy: dropping stale conn", "NOTICE:  00000"];
    let is_kept = |line: &&str| !noise.contains(line) && !ours.lines().any(|ours| ours == *line);
    printed.lines().filter(is_kept).map(|line| format!("{line}\n")).collect()
}

fn difference(work: &Path, [expected, printed]: [String; 2]) -> String {
    fs::write(work.join("expected"), expected).unwrap();
    fs::write(work.join("printed"), printed).unwrap();
    let mut diff = Command::new("diff");
    let output = diff.args(["expected", "printed"]).current_dir(work).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
