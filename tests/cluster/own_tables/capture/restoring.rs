//! Dumps with attached tables: log and table go together, or the restore fails.

use std::process::Command;

use postgres::Client;
use sync_ext_harness::database::Database;
use sync_ext_harness::dump::dump;

use super::{compare, ops};

/// A table with rows, deleted ones too, and one that was not captured.
fn furnished() -> (Database, Client) {
    let database = Database::new();
    let mut admin = database.session();
    admin
        .batch_execute(
            "create table lists (id int primary key, workspace_id text);
             create table tasks (id int primary key, workspace_id text, title text, gone boolean,
               list_id int references lists on delete cascade);
             select sync_attach_table('lists'), sync_attach_table('tasks', deleted_column => 'gone');
             insert into lists values (1, 'w'), (2, 'w');
             insert into tasks select n, 'w', 'a', n % 7 = 0, 1 + n % 2 from generate_series(1, 30) n;
             delete from lists where id = 2; update tasks set title = 'b' where id % 4 = 0",
        )
        .unwrap();
    compare(&mut admin);
    (database, admin)
}

/// Dumps what `arguments` say, and restores it; false if restoring it failed.
fn copy(from: &Database, dumped: &[&str], to: &Database, restored: &[&str]) -> bool {
    let file =
        std::env::temp_dir().join(format!("sync_ext-own-{}-{}", to.name, std::process::id()));
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        println!("{}", String::from_utf8_lossy(&output.stderr));
        output.status.success()
    };
    let mut dump = from.cluster.client_program("pg_dump", &from.name);
    assert!(run(dump.args(["-Fc", "-f"]).arg(&file).args(dumped)));
    let mut restore = to.cluster.client_program("pg_restore", &to.name);
    let arguments = ["-d", &to.name, "--exit-on-error", "--single-transaction"];
    let is_restored = run(restore.args(arguments).args(restored).arg(&file));
    std::fs::remove_file(file).unwrap();
    is_restored
}

#[test]
fn a_whole_dump_is_restored_with_its_log() {
    let (old, mut before) = furnished();
    let new = Database::empty();
    dump(&old).restore_into(&new);
    let mut after = new.session();
    compare(&mut after);
    assert_eq!(ops(&mut after, "w"), ops(&mut before, "w"));
    // It goes on where it was.
    for client in [&mut before, &mut after] {
        client.batch_execute("update tasks set title = 'c'; delete from lists").unwrap();
        compare(client);
    }
    assert_eq!(ops(&mut after, "w"), ops(&mut before, "w"));
}

#[test]
fn data_are_restored_apart_from_their_schema_with_triggers_disabled() {
    let (old, mut before) = furnished();
    let new = Database::empty();
    assert!(copy(&old, &["--schema-only"], &new, &[]));
    assert!(copy(&old, &["--data-only"], &new, &["--disable-triggers"]));
    let mut after = new.session();
    compare(&mut after);
    assert_eq!(ops(&mut after, "w"), ops(&mut before, "w"));
    after.batch_execute("update tasks set title = 'c'; delete from lists").unwrap();
    compare(&mut after);
}

/// They would be captured while the log is still to come.
#[test]
fn data_restored_with_triggers_enabled_are_refused() {
    let (old, _before) = furnished();
    let new = Database::empty();
    assert!(copy(&old, &["--schema-only"], &new, &[]));
    assert!(!copy(&old, &["--data-only"], &new, &[]));
    let mut after = new.session();
    assert_eq!(ops(&mut after, "w"), [""; 0]);
    assert_eq!(after.query("select from tasks", &[]).unwrap().len(), 0);
}

/// The rows of one table, restored into a server that has it attached, are ops there.
#[test]
fn rows_restored_into_an_attached_table_are_captured() {
    let (old, _before) = furnished();
    let new = Database::new();
    let mut after = new.session();
    after
        .batch_execute(
            "create table lists (id int primary key, workspace_id text);
             select sync_attach_table('lists')",
        )
        .unwrap();
    assert!(copy(&old, &["--data-only", "--table=lists"], &new, &[]));
    compare(&mut after);
    assert_eq!(ops(&mut after, "w"), [r#"put 1 {"id":1}"#]);
}
