//! Golden SQL tests, pg_regress style: each file of `tests/pg_regress/sql` runs
//! through psql in a database of its own, and what psql prints must be what
//! `expected/` holds. With SYNC_EXT_ACCEPT set, what is printed is written
//! there instead; read the diff before committing it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sync_ext_harness::database::Database;

/// A test for each script.
macro_rules! scripts {
    ($($name:ident)*) => {
        const SCRIPTS: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            prints_what_is_expected(stringify!($name));
        })*
    };
}

scripts! {
    attach attach_notices attach_refusals conflicts cursor deletes errors exchange gc grants hlc
    horizon_and_graves members pages parent patches private proof_after_restore pull push_and_replay
    rejections renamed_schema repair scopes server_ops settings_and_schema snapshot status
    superseded_delete validation winners
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pg_regress")
}

#[test]
fn no_script_is_left_out() {
    let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    for (part, extension) in [("sql", "sql"), ("expected", "out")] {
        let entries = fs::read_dir(folder().join(part)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let found: BTreeSet<String> = paths
            .filter(|path| path.extension().unwrap() == extension)
            .map(|path| stem(&path))
            .collect();
        assert_eq!(found, SCRIPTS.iter().map(|name| name.to_string()).collect(), "{part}");
    }
}

fn prints_what_is_expected(name: &str) {
    let script = folder().join(format!("sql/{name}.sql"));
    let expected = folder().join(format!("expected/{name}.out"));
    let database = Database::empty();
    let printed = database.cluster.psql(&database.name, &script).unwrap();
    if std::env::var_os("SYNC_EXT_ACCEPT").is_some() {
        fs::write(expected, printed).unwrap();
        return;
    }
    let expected = fs::read_to_string(expected).unwrap();
    if printed != expected {
        panic!("{}", difference(&expected, &printed));
    }
}

fn difference(expected: &str, printed: &str) -> String {
    let (expected, printed): (Vec<_>, Vec<_>) =
        (expected.lines().collect(), printed.lines().collect());
    let same = expected.iter().zip(&printed).take_while(|(a, b)| a == b).count();
    let part = |lines: &[&str], sign: &str| -> String {
        lines.iter().skip(same).take(5).map(|line| format!("\n  {sign} {line}")).collect()
    };
    let (before, after) = (part(&expected, "-"), part(&printed, "+"));
    format!("the first difference is in line {}{before}{after}", same + 1)
}
