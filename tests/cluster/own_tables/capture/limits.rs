//! Large transactions, and what is refused.

use sync_ext_harness::steps::{outcome, pid};

use super::{TASKS, compare, ops, ops_of, stage, task};

const ROWS: &str = "insert into tasks select n, 'w' || n % 7, 'a' from generate_series(1, 20000) n";

#[test]
fn many_rows_of_many_workspaces_are_captured_at_once() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    for sql in [
        ROWS,
        "update tasks set title = 'b' where id % 2 = 0",
        "delete from tasks where id % 3 = 0",
    ] {
        admin.batch_execute(sql).unwrap();
        compare(admin);
    }
    let sql = "select count(*) from sync_ext.change_log";
    assert_eq!(outcome(admin, sql).unwrap(), (20_000 + 10_000 + 6_666).to_string());
}

#[test]
fn a_transaction_that_changes_too_many_rows_is_refused_at_the_statement() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    admin.batch_execute("load 'sync_ext'; set sync_ext.max_captured_rows = 3").unwrap();
    let four = "insert into tasks select n, 'w', 'a' from generate_series(1, 4) n";
    let error = admin.batch_execute(four).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "54000");
    assert_eq!(error.message(), "too many rows captured in one transaction");
    assert_eq!(error.detail(), Some("sync_ext.max_captured_rows allows 3."));
    assert!(error.hint().is_some());
    // Rows are counted, not changes, and those of all workspaces.
    let three = "begin; insert into tasks values (1, 'w', 'a'), (2, 'v', 'b'), (3, 'u', 'c');
                 update tasks set title = 'd'; update tasks set title = 'e'; commit";
    admin.batch_execute(three).unwrap();
    compare(admin);
    let fourth = "begin; update tasks set title = 'f'; insert into tasks values (4, 'u', 'd')";
    assert_eq!(outcome(admin, fourth), Err("54000".to_owned()));
    admin.batch_execute("rollback").unwrap();
    // What a push has captured does not count any more.
    let op = r#"{"tableName":"tasks","operation":"delete","pk":"7","stamp":{"deviceId":"d","opId":"11111111-1111-4111-8111-111111111111","hlc":"h","clock":1}}"#;
    let sql = format!(
        "begin; insert into tasks select n, 'w', '' from generate_series(11, 13) n;
         select sync_push('w', '[{op}]');
         insert into tasks select n, 'w', '' from generate_series(21, 23) n; commit"
    );
    admin.batch_execute(&sql).unwrap();
    compare(admin);
}

/// Rows that are already captured may change again, and a savepoint does not end that.
#[test]
fn a_statement_that_was_refused_leaves_room_for_what_was_captured() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    admin.batch_execute("load 'sync_ext'; set sync_ext.max_captured_rows = 3").unwrap();
    admin.batch_execute("begin; insert into tasks values (1, 'w', 'a'); savepoint s").unwrap();
    let four = "insert into tasks select n, 'v' || n, 'a' from generate_series(2, 5) n";
    assert_eq!(outcome(admin, four), Err("54000".to_owned()));
    admin.batch_execute("rollback to s; update tasks set title = 'b'; commit").unwrap();
    compare(admin);
    assert_eq!(ops(admin, "w").len(), 1);
}

/// What a transaction captures is not in memory at once.
#[test]
fn large_rows_are_captured_a_few_at_a_time() {
    let mut stage = stage(
        "create table texts (id integer primary key, workspace_id text, title text, body text);
        select sync_attach_table('texts');",
    );
    stage.admin.batch_execute(
        "insert into texts select n, 'w', '', repeat('x', 1024 * 1024) from generate_series(1, 200) n",
    ).unwrap();
    let mut session = stage.session();
    let peak = |pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    };
    let pid = pid(&mut session);
    session.batch_execute("begin; update texts set title = 'T' where id = 1; commit").unwrap();
    let before = peak(pid);
    session.batch_execute("update texts set title = 'U'").unwrap();
    let grown = peak(pid) - before;
    assert!(grown < 100, "200 MB of rows took {grown} MB");
    compare(&mut stage.admin);
}

#[test]
fn a_commit_that_captures_can_be_cancelled() {
    let mut stage = stage(TASKS);
    stage.admin.batch_execute("insert into tasks values (0, 'w3', 'a')").unwrap();
    let mut holder = stage.session();
    let lock = "begin; select from sync_ext.workspace where workspace_id = 'w3' for update";
    holder.batch_execute(lock).unwrap();
    // The first workspaces are written by then.
    let waiting = stage.blocked(pid(&mut holder), |session| {
        (outcome(session, ROWS), outcome(session, "insert into tasks values (1, 'w', 'b')"))
    });
    let cancel = format!(
        "select pg_cancel_backend(pid) from pg_stat_activity
                           where {} = any(pg_blocking_pids(pid))",
        pid(&mut holder)
    );
    assert_eq!(outcome(&mut stage.admin, &cancel).unwrap(), "t");
    assert_eq!(waiting.join().unwrap(), (Err("57014".to_owned()), Ok(String::new())));
    let admin = &mut stage.admin;
    assert_eq!(outcome(admin, "select count(*) from tasks").unwrap(), "2");
    assert_eq!(ops(admin, "w0"), [""; 0]);
    assert_eq!(ops(admin, "w"), [format!("put 1 {}", task(1, "b"))]);
    compare(admin);
}

#[test]
fn names_that_no_record_may_have_are_refused_at_the_statement() {
    let mut stage = stage(
        "create table notes (id text primary key, workspace_id text);
         select sync_attach_table('notes')",
    );
    let admin = &mut stage.admin;
    for (pk, workspace, expected) in [
        ("repeat('x', 1024)", "repeat('w', 256)", Ok(String::new())),
        ("repeat('x', 1025)", "'w'", Err("22023".to_owned())),
        ("repeat('é', 513)", "'w'", Err("22023".to_owned())),
        ("''", "'w'", Err("22023".to_owned())),
        ("'x'", "repeat('w', 257)", Err("22023".to_owned())),
        ("'x'", "''", Err("22023".to_owned())),
        ("''", "null", Ok(String::new())),
    ] {
        let sql = format!("insert into notes values ({pk}, {workspace})");
        assert_eq!(outcome(admin, &sql), expected, "{sql}");
    }
    compare(admin);
}

/// Such a row is older than the attachment, or came while nothing was captured.
#[test]
fn a_row_that_cannot_be_a_record_can_be_mended_and_deleted() {
    let mut stage = stage(
        "create table notes (id text primary key, workspace_id text);
         insert into notes values ('a', ''), ('b', ''), ('', 'w'), (repeat('x', 2000), 'w');
         select sync_attach_table('notes')",
    );
    let admin = &mut stage.admin;
    for sql in [
        "update notes set workspace_id = 'w' where id = 'a'",
        "update notes set id = 'c' where id = ''",
        "delete from notes where id = 'b' or length(id) > 9",
    ] {
        admin.batch_execute(sql).unwrap();
    }
    compare(admin);
    assert_eq!(ops(admin, "w"), [r#"put a {"id":"a"}"#, r#"put c {"id":"c"}"#]);
    assert_eq!(outcome(admin, "update notes set id = '' where id = 'a'"), Err("22023".to_owned()));
    assert_eq!(ops_of(admin, "delete from notes"), ["delete a", "delete c"]);
}

#[test]
fn nothing_is_captured_while_capture_is_off() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    admin
        .batch_execute(
            "load 'sync_ext'; set sync_ext.capture = off; insert into tasks values (1, 'w', 'a');
             set sync_ext.capture = on",
        )
        .unwrap();
    assert_eq!(ops(admin, "w"), [""; 0]);
    // Once changed, the row is a record.
    let update = "update tasks set title = 'b'";
    assert_eq!(ops_of(admin, update), [format!("put 1 {}", task(1, "b"))]);
}

#[test]
fn an_attached_table_is_not_truncated() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    admin
        .batch_execute(
            "create table parents (id int primary key);
             alter table tasks add column parent int references parents;
             insert into tasks values (1, 'w', 'a')",
        )
        .unwrap();
    for sql in ["truncate tasks", "truncate parents cascade", "truncate parents, tasks"] {
        let error = admin.batch_execute(sql).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "0A000", "{sql}");
        assert!(error.hint().unwrap().starts_with("DELETE the rows"));
    }
    compare(admin);
}
