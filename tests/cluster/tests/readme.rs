//! The README's tour and set-ups, executed: each `sql` block through psql, its
//! output compared with the `text` block that follows it. With SYNC_EXT_ACCEPT set
//! the output is written into the README instead; read the diff.

use std::fs;
use std::path::Path;

use sync_ext_cluster::cluster::Cluster;

const SQL: &str = "```sql\n";
const TEXT: &str = "```\n```text\n";
const END: &str = "```\n";

/// What differs from run to run, made equal: proofs and the time of a delete.
fn normalized(output: &str) -> String {
    let mut words = Vec::new();
    for word in output.split_inclusive(['"', ' ', ',', ':', '}']) {
        let is_proof = word.starts_with("p1.");
        let is_time = word.bytes().take_while(u8::is_ascii_digit).count() == 10;
        words.push(match (is_proof, is_time) {
            (true, _) => "PROOF",
            (_, true) => "TIME",
            _ => word,
        });
    }
    words.concat()
}

#[test]
fn tour_and_set_ups_print_what_the_readme_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let cluster = Cluster::start("readme", &["fsync=off"]).unwrap();
    cluster.connect("postgres").unwrap().batch_execute("create database tour").unwrap();

    // What \pset sets lasts for a block, so each block begins with those before.
    let (mut settings, mut accepted, mut rest) = (String::new(), String::new(), readme.as_str());
    let mut blocks = 0;
    while let Some((before, after)) = rest.split_once(SQL) {
        let (sql, after) = after.split_once(TEXT).expect("output follows the SQL");
        let (expected, after) = after.split_once(END).expect("the block ends");
        let script = std::env::temp_dir().join(format!("sync_ext-tour-{}.sql", std::process::id()));
        fs::write(&script, format!("{settings}{sql}")).unwrap();
        let printed = cluster.psql_quietly("tour", &script).unwrap();
        fs::remove_file(&script).unwrap();
        let printed = printed.trim_end_matches('\n').to_owned() + "\n";

        blocks += 1;
        if std::env::var_os("SYNC_EXT_ACCEPT").is_none() {
            assert_eq!(normalized(&printed), normalized(expected), "block {blocks}:\n{sql}");
        }
        accepted += &[before, SQL, sql, TEXT, &printed, END].concat();
        settings.extend(
            sql.lines().filter(|line| line.starts_with("\\pset")).map(|line| format!("{line}\n")),
        );
        rest = after;
    }
    assert!(blocks >= 8, "tour and set-ups have {blocks} blocks");
    if std::env::var_os("SYNC_EXT_ACCEPT").is_some() {
        fs::write(&path, accepted + rest).unwrap();
    }
}
