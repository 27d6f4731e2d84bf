//! Golden SQL tests, pg_regress style: each file of `tests/pg_regress/sql` runs
//! through psql in a database of its own, and what psql prints must be what
//! `expected/` holds. With SYNC_EXT_ACCEPT set, what is printed is written
//! there instead; read the diff before committing it. SYNC_EXT_GOLDEN names one
//! script to run alone.

use std::fs;
use std::path::Path;

use sync_ext_cluster::cluster::Cluster;

#[test]
fn psql_prints_what_is_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pg_regress");
    let accept = std::env::var_os("SYNC_EXT_ACCEPT").is_some();
    let cluster = Cluster::start("golden", &["fsync=off"]).unwrap();
    let mut scripts: Vec<_> =
        fs::read_dir(folder.join("sql")).unwrap().map(|entry| entry.unwrap().path()).collect();
    if let Ok(name) = std::env::var("SYNC_EXT_GOLDEN") {
        scripts.retain(|script| script.file_stem().is_some_and(|stem| *stem == *name));
    }
    scripts.sort();
    assert!(!scripts.is_empty(), "no golden tests found");

    let mut failed = Vec::new();
    for script in scripts {
        let name = script.file_stem().unwrap().to_string_lossy().into_owned();
        let database = format!("golden_{name}");
        let mut admin = cluster.connect("postgres").unwrap();
        admin.batch_execute(&format!("create database {database}")).unwrap();
        let printed = cluster.psql(&database, &script).unwrap();
        admin.batch_execute(&format!("drop database {database}")).unwrap();

        let expected_path = folder.join("expected").join(format!("{name}.out"));
        if accept {
            fs::write(&expected_path, &printed).unwrap();
            continue;
        }
        let expected = fs::read_to_string(&expected_path)
            .unwrap_or_else(|_| panic!("{} is missing", expected_path.display()));
        if printed == expected {
            println!("golden {name} ok");
        } else {
            println!("golden {name} FAILED");
            print_difference(&expected, &printed);
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "printed something else: {failed:?}");
}

fn print_difference(expected: &str, printed: &str) {
    let (expected, printed): (Vec<_>, Vec<_>) =
        (expected.lines().collect(), printed.lines().collect());
    let same = expected.iter().zip(&printed).take_while(|(a, b)| a == b).count();
    println!("  first difference in line {}", same + 1);
    for line in expected.iter().skip(same).take(5) {
        println!("  - {line}");
    }
    for line in printed.iter().skip(same).take(5) {
        println!("  + {line}");
    }
}
