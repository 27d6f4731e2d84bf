//! What else is done to attached tables: DDL, row security, private records, other tables of
//! the transaction.

use sync_ext_harness::steps::{outcome, pull};

use super::{TASKS, compare, ops, ops_of, stage, task};

#[test]
fn a_table_that_was_renamed_or_moved_is_captured_under_its_name() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    ops_of(admin, "insert into tasks values (1, 'w', 'a')");
    admin.batch_execute("create schema app; alter table tasks rename to jobs").unwrap();
    let put = |title| [format!("put 1 {}", task(1, title))];
    assert_eq!(ops_of(admin, "update jobs set title = 'b'"), put("b"));
    admin.batch_execute("alter table jobs set schema app").unwrap();
    assert_eq!(ops_of(admin, "update app.jobs set title = 'c'"), put("c"));
    // In the transaction that changes it, too.
    let sql = "begin; update app.jobs set title = 'd'; alter table app.jobs rename to tasks;
               alter table app.tasks set schema public; commit";
    assert_eq!(ops_of(admin, sql), put("d"));
}

#[test]
fn a_table_is_captured_from_the_moment_it_is_attached() {
    let mut stage = stage("select 1");
    let (create, attach) = TASKS.split_once(';').unwrap();
    let sql = format!(
        "begin; {create}; insert into tasks values (1, 'w', 'a'), (2, 'w', 'b'); savepoint s;
         {attach}; update tasks set title = 'lost'; rollback to s; {attach};
         update tasks set title = 'c' where id = 1; delete from tasks where id = 2;
         insert into tasks select n, 'w', 'd' from generate_series(11, 30) n; commit"
    );
    let made = ops_of(&mut stage.admin, &sql);
    assert_eq!(made.len(), 21);
    assert_eq!(made[0], format!("put 1 {}", task(1, "c")));
    // Rows that are new in a table which is new may be frozen at once.
    stage
        .admin
        .batch_execute(&format!(
            "drop table tasks; select sync_unregister_table('tasks'); begin; {create}; {attach}"
        ))
        .unwrap();
    let mut copy = stage.admin.copy_in("copy tasks from stdin (freeze)").unwrap();
    let rows: String = (41..60).map(|n| format!("{n}\tv\tfrozen\tf\n")).collect();
    std::io::Write::write_all(&mut copy, rows.as_bytes()).unwrap();
    copy.finish().unwrap();
    stage.admin.batch_execute("commit").unwrap();
    assert_eq!(ops(&mut stage.admin, "v").len(), 19);
}

#[test]
fn another_sessions_ddl_is_seen_by_a_session_that_has_captured() {
    let mut stage = stage(TASKS);
    let mut session = stage.session();
    session.batch_execute("insert into tasks values (1, 'w', 'a')").unwrap();
    stage
        .admin
        .batch_execute(
            "alter table tasks drop column done; alter table tasks add column extra int default 7;
             alter table tasks rename column title to name",
        )
        .unwrap();
    session.batch_execute("update tasks set name = 'b'").unwrap();
    assert_eq!(ops(&mut session, "w").last().unwrap(), r#"put 1 {"id":1}"#);
    let again = "select sync_detach_table('tasks'), sync_attach_table('tasks')";
    stage.admin.batch_execute(again).unwrap();
    let expected = [r#"put 1 {"id":1,"name":"c","extra":7}"#];
    assert_eq!(ops_of(&mut session, "update tasks set name = 'c'"), expected);
    stage.admin.batch_execute("select sync_detach_table('tasks')").unwrap();
    session.batch_execute("update tasks set name = 'd'").unwrap();
    assert_eq!(ops(&mut session, "w").len(), 3);
    let attach = "select sync_attach_table('tasks', 'other_name')";
    stage.admin.batch_execute(attach).unwrap();
    session.batch_execute("update tasks set name = 'e'").unwrap();
    assert_eq!(ops(&mut session, "w").len(), 4);
    compare(&mut session);
}

#[test]
fn a_table_that_is_dropped_or_detached_is_no_longer_captured() {
    for end in ["drop table tasks", "select sync_detach_table('tasks')"] {
        let mut stage = stage(TASKS);
        let admin = &mut stage.admin;
        ops_of(admin, "insert into tasks values (1, 'w', 'a')");
        let sql = format!("begin; update tasks set title = 'b'; {end}; commit");
        assert_eq!(ops_of(admin, &sql), [""; 0], "{end}");
        // Other tables are.
        admin
            .batch_execute(
                "create table jobs (id int primary key, workspace_id text);
            select sync_attach_table('jobs')",
            )
            .unwrap();
        let insert = "insert into jobs values (1, 'w')";
        assert_eq!(ops_of(admin, insert), [r#"put 1 {"id":1}"#], "{end}");
    }
}

#[test]
fn a_column_or_key_without_which_no_row_is_a_record_is_missed_in_words() {
    for (ddl, message) in [
        ("drop column workspace_id", "attached table has lost a column"),
        ("rename column workspace_id to w", "attached table has lost a column"),
        ("drop constraint tasks_pkey", "attached table has lost its primary key"),
        ("drop column id", "attached table has lost its primary key"),
    ] {
        let mut stage = stage(TASKS);
        stage.admin.batch_execute("insert into tasks values (1, 'w', 'a')").unwrap();
        let mut session = stage.session();
        session.batch_execute("update tasks set title = 'b'").unwrap();
        let same = format!("begin; update tasks set title = 'c'; alter table tasks {ddl}; commit");
        let error = session.batch_execute(&same).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!((error.code().code(), error.message()), ("55000", message), "{ddl}");
        compare(&mut stage.admin);
        stage.admin.batch_execute(&format!("alter table tasks {ddl}")).unwrap();
        let error = session.batch_execute("update tasks set title = 'd'").unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!((error.code().code(), error.message()), ("55000", message), "{ddl}");
        let op = r#"{"tableName":"tasks","operation":"delete","pk":"1","stamp":{"deviceId":"d","opId":"11111111-1111-4111-8111-111111111111","hlc":"h","clock":9}}"#;
        let push = format!("select sync_push('w', '[{op}]')");
        assert_eq!(outcome(&mut session, &push), Err("55000".to_owned()), "{ddl}");
    }
}

#[test]
fn rows_are_rewritten_without_ops() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    ops_of(admin, "insert into tasks values (1, 'w', 'a'), (2, 'w', 'b')");
    for sql in [
        "alter table tasks add column n int default 7",
        "alter table tasks alter column title type varchar",
        "vacuum full tasks",
        "cluster tasks using tasks_pkey",
        "reindex table tasks",
        "reindex table concurrently tasks",
    ] {
        admin.batch_execute(sql).unwrap();
        assert_eq!(ops(admin, "w").len(), 2, "{sql}");
        let touch = "update tasks set title = title || 'x' where id = 1;
                     update tasks set title = left(title, 1) where id = 1";
        admin.batch_execute(&format!("begin; {touch}; commit")).unwrap();
        assert_eq!(ops(admin, "w").len(), 2, "{sql}");
    }
}

#[test]
fn temporary_tables_of_the_transaction_do_not_matter() {
    let mut stage = stage(TASKS);
    let sql = "begin; create temp table batch (id int primary key, title text) on commit drop;
               insert into batch values (1, 'a'), (2, 'b');
               insert into tasks select id, 'w', title from batch; commit;
               begin; create temp table other (id int) on commit delete rows;
               insert into other values (1); update tasks set title = 'c' where id = 1; commit";
    assert_eq!(ops_of(&mut stage.admin, sql).len(), 3);
}

#[test]
fn forced_row_security_hides_nothing_from_capture() {
    let mut stage = stage(
        "create table tasks (id int primary key, workspace_id text, title text);
         alter table tasks enable row level security, force row level security;
         create policy mine on tasks using (title like current_user || '%') with check (true);
         select sync_attach_table('tasks', reads => 'workspace')",
    );
    stage.database.ensure_role("capture_owner");
    stage.database.ensure_role("capture_user");
    stage
        .admin
        .batch_execute(
            "grant all on tasks to capture_user; alter table tasks owner to capture_owner",
        )
        .unwrap();
    for role in ["capture_user", "capture_owner"] {
        let mut session = stage.database.session_as(role);
        let insert = format!("insert into tasks values (1, 'w', '{role}: a'), (2, 'w', 'hidden')");
        session.batch_execute(&insert).unwrap();
        session.batch_execute("update tasks set title = 'hidden at once'").unwrap();
        compare(&mut stage.admin);
        let sql =
            "select string_agg(id::text, ',' order by id) from tasks where title like 'hidden%'";
        assert_eq!(outcome(&mut stage.admin, sql).unwrap(), "1,2", "{role}");
        assert_eq!(outcome(&mut session, "select count(*) from tasks").unwrap(), "0");
        stage.admin.batch_execute("delete from tasks").unwrap();
    }
    assert_eq!(ops(&mut stage.admin, "w").len(), 10);
}

/// The role that commits needs no right on anything of the extension.
#[test]
fn a_role_without_rights_on_the_extension_is_captured() {
    let mut stage = stage(TASKS);
    stage.database.ensure_role("capture_user");
    stage
        .admin
        .batch_execute("grant select, insert, update, delete on tasks to capture_user")
        .unwrap();
    let mut session = stage.database.session_as("capture_user");
    session.batch_execute("insert into tasks values (1, 'w', 'a')").unwrap();
    session.batch_execute("update tasks set title = 'b'").unwrap();
    compare(&mut stage.admin);
    assert_eq!(ops(&mut stage.admin, "w").len(), 2);
    assert_eq!(
        outcome(&mut session, "select count(*) from sync_ext.record"),
        Err("42501".to_owned())
    );
    // Nor is a user asked for who may write to the workspace.
    session.batch_execute("set sync_ext.user_id = 'nobody'; update tasks set title = 'c'").unwrap();
    compare(&mut stage.admin);
}

/// A cast of a type's owner decides what a value is as JSON. It runs as the table's owner,
/// whoever commits.
#[test]
fn a_cast_within_a_payload_has_the_rights_of_the_tables_owner() {
    let mut stage = stage(
        "create type mood as enum ('ok'); create type part as (mood mood);
         create table parts (id int primary key, workspace_id text, part part);
         select sync_attach_table('parts');
         create function told(mood) returns json language sql return to_json(current_user);
         create cast (mood as json) with function told(mood)",
    );
    stage.database.ensure_role("capture_owner");
    let admin = &mut stage.admin;
    admin.batch_execute("alter table parts owner to capture_owner").unwrap();
    admin.batch_execute("insert into parts values (1, 'w', row('ok'))").unwrap();
    assert_eq!(ops(admin, "w"), [r#"put 1 {"id":1,"part":{"mood":"capture_owner"}}"#]);
    let user = outcome(admin, "select current_user").unwrap();
    assert_eq!(user, "postgres");
}

#[test]
fn rows_of_private_tables_are_records_of_their_owners() {
    let mut stage = stage(
        "create table diary (id int primary key, workspace_id text, by text, body text);
         select sync_attach_table('diary', owner_column => 'by'),
                sync_create_workspace('w', 'ann'), sync_set_member('w', 'bob', 'editor')",
    );
    let admin = &mut stage.admin;
    let rows =
        "insert into diary values (1, 'w', 'ann', 'a'), (2, 'w', 'bob', 'b'), (3, 'w', null, 'c')";
    assert_eq!(ops_of(admin, rows).len(), 2);
    for (user, pk) in [("ann", "1"), ("bob", "2")] {
        admin.batch_execute(&format!("set sync_ext.user_id = '{user}'")).unwrap();
        let page = pull(admin, "w", 0, 100, None);
        admin.batch_execute("reset sync_ext.user_id").unwrap();
        let changes = page["changes"].as_array().unwrap();
        assert_eq!(changes.len(), 1, "{page}");
        assert_eq!(changes[0]["pk"], pk);
    }
    // A row gets an owner once.
    assert_eq!(ops_of(admin, "update diary set by = 'ann' where id = 3").len(), 1);
    assert_eq!(ops_of(admin, "update diary set body = 'x'").len(), 3);
    assert_eq!(ops_of(admin, "delete from diary where id = 3"), ["delete 3"]);
}

#[test]
fn a_record_keeps_its_owner() {
    let mut stage = stage(
        "create table diary (id int primary key, workspace_id text, by text);
         select sync_attach_table('diary', owner_column => 'by');
         insert into diary values (1, 'w', 'ann')",
    );
    let admin = &mut stage.admin;
    for sql in [
        "update diary set by = 'bob'",
        "update diary set by = null",
        "insert into diary values (1, 'w', 'bob') on conflict (id) do update set by = excluded.by",
        // At the commit.
        "begin; delete from diary; insert into diary values (1, 'w', 'bob'); commit",
    ] {
        let error = admin.batch_execute(sql).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "55000", "{sql}");
        assert_eq!(error.message(), "a record keeps its owner", "{sql}");
        assert!(error.hint().is_some());
        compare(admin);
    }
    let other = "update diary set by = 'bob', id = 2";
    assert_eq!(ops_of(admin, other), ["delete 1", r#"put 2 {"id":2,"by":"bob"}"#]);
}

#[test]
fn a_session_that_replays_another_server_is_not_captured() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    let sql = "set session_replication_role = replica; insert into tasks values (1, 'w', 'a');
               truncate tasks; insert into tasks values (1, 'w', 'b');
               set session_replication_role = origin";
    admin.batch_execute(sql).unwrap();
    assert_eq!(ops(admin, "w"), [""; 0]);
    // `set local`, beside a captured change.
    let sql = "begin; insert into tasks values (2, 'w', 'c'); set local session_replication_role = replica;
               update tasks set title = 'd'; commit";
    admin.batch_execute(sql).unwrap();
    assert_eq!(ops(admin, "w"), [format!("put 2 {}", task(2, "d"))]);
    let op = r#"{"tableName":"tasks","operation":"delete","pk":"1","stamp":{"deviceId":"d","opId":"11111111-1111-4111-8111-111111111111","hlc":"h","clock":9}}"#;
    let push = format!("set session_replication_role = replica; select sync_push('w', '[{op}]')");
    assert_eq!(outcome(admin, &push), Err("55000".to_owned()));
}

#[test]
fn a_disabled_trigger_captures_nothing_and_is_shown() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    admin
        .batch_execute(
            "alter table tasks disable trigger user; insert into tasks values (1, 'w', 'a')",
        )
        .unwrap();
    assert_eq!(ops(admin, "w"), [""; 0]);
    let state = "select trigger from sync_ext.attached_table";
    assert_eq!(outcome(admin, state).unwrap(), "disabled");
    admin.batch_execute("alter table tasks enable trigger user").unwrap();
    assert_eq!(ops_of(admin, "update tasks set title = 'b'").len(), 1);
}

#[test]
fn our_trigger_function_serves_attached_tables_alone() {
    let mut stage = stage(
        "create table loose (id int primary key, workspace_id text);
         create trigger t after insert on loose for each row execute function sync_ext.capture()",
    );
    let error = stage.admin.batch_execute("insert into loose values (1, 'w')").unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "55000");
    assert_eq!(error.message(), "sync_ext.capture() is a row trigger of attached tables");
}
