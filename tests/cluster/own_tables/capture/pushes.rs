//! Pushes and pulls in a transaction that also changes rows by SQL.

use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, GenericClient};
use serde_json::Value;
use sync_ext_harness::batch::op_id;
use sync_ext_harness::device::call;
use sync_ext_harness::steps::{pid, pull};

use super::{TASKS, compare, ops, stage, task};

/// The op of a device that puts a task.
fn put(id: u64, pk: i32, title: &str, clock: u64) -> String {
    let payload = task(pk, title);
    format!(
        r#"{{"tableName":"tasks","operation":"put","pk":"{pk}","payload":{payload},"stamp":{{"deviceId":"d","opId":"{}","hlc":"h","clock":{clock}}}}}"#,
        op_id(id)
    )
}

/// Pushes to workspace `w`; each op must be stored.
fn push(client: &mut impl GenericClient, ops: &[String]) -> Value {
    let ops = format!("[{}]", ops.join(","));
    let reply = call(client, "select sync_push('w', $1::text::json)::text", &[&ops]).unwrap();
    assert!(!reply.contains("\"success\":false"), "{reply}");
    serde_json::from_str(&reply).unwrap()
}

fn pushed_sql(op: &str) -> String {
    format!("select sync_push('w', '[{op}]')")
}

fn titles(client: &mut Client) -> Vec<String> {
    let sql = "select concat_ws(' ', id, title) from tasks order by id";
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn changes_before_a_push_come_before_its_ops_and_later_ones_after() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    let mut transaction = admin.transaction().unwrap();
    transaction.batch_execute("insert into tasks values (1, 'w', 'a'), (2, 'w', 'b')").unwrap();
    // It has seen the insert.
    let reply = push(&mut transaction, &[put(1, 1, "pushed", 5), put(2, 3, "new", 1)]);
    assert_eq!(reply["results"][0]["applied"], true);
    assert_eq!(reply["results"][0]["created"], Value::Null);
    assert_eq!(reply["serverVersion"], 4);
    transaction.batch_execute("update tasks set title = title || '!' where id <> 2").unwrap();
    transaction.commit().unwrap();
    compare(admin);
    let expected = [(1, "a"), (2, "b"), (1, "pushed"), (3, "new"), (1, "pushed!"), (3, "new!")];
    assert_eq!(
        ops(admin, "w"),
        expected.map(|(id, title)| format!("put {id} {}", task(id, title)))
    );
}

#[test]
fn a_push_that_loses_to_a_change_of_its_transaction_changes_nothing() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    admin.batch_execute("insert into tasks values (1, 'w', 'a')").unwrap();
    let mut transaction = admin.transaction().unwrap();
    transaction.batch_execute("update tasks set title = 'b'").unwrap();
    let reply = push(&mut transaction, &[put(1, 1, "old", 1)]);
    assert_eq!(reply["results"][0]["applied"], false);
    assert_eq!(reply["results"][0]["winner"]["payload"]["title"], "b");
    transaction.commit().unwrap();
    compare(admin);
    assert_eq!(titles(admin), ["1 b"]);
}

#[test]
fn changes_before_a_push_are_captured_if_the_push_is_rolled_back() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    admin.batch_execute("insert into tasks values (1, 'w', 'a'), (2, 'w', 'a')").unwrap();
    let lost = pushed_sql(&put(1, 1, "lost", 9));
    let sql =
        format!("begin; update tasks set title = 'b'; savepoint s; {lost}; rollback to s; commit");
    admin.batch_execute(&sql).unwrap();
    compare(admin);
    assert_eq!(titles(admin), ["1 b", "2 b"]);
    // However deep, and where only the outer savepoint is rolled back.
    let sql = format!(
        "begin; update tasks set title = 'c'; savepoint s; update tasks set title = 'lost';
         savepoint t; {lost}; release t; rollback to s;
         savepoint u; savepoint v; {}; release v; update tasks set title = 'd' where id = 2;
         release u; commit",
        pushed_sql(&put(2, 1, "kept", 99))
    );
    admin.batch_execute(&sql).unwrap();
    compare(admin);
    assert_eq!(titles(admin), ["1 kept", "2 d"]);
    let sql = format!(
        "do $do$ begin
           update tasks set title = 'e' where id = 2;
           begin perform sync_push('w', '[{}]'); raise exception 'no';
           exception when raise_exception then null; end;
         end $do$",
        put(3, 2, "lost", 999)
    );
    admin.batch_execute(&sql).unwrap();
    compare(admin);
    assert_eq!(titles(admin), ["1 kept", "2 e"]);
}

#[test]
fn changes_before_a_push_are_captured_if_the_push_had_to_wait() {
    let mut stage = stage(TASKS);
    stage.admin.batch_execute("insert into tasks values (1, 'w', 'a'), (2, 'w', 'a')").unwrap();
    let mut holder = stage.session();
    holder.batch_execute("begin; update tasks set title = 'held' where id = 1").unwrap();
    let mut session = stage.session();
    session.batch_execute("load 'sync_ext'; set sync_ext.apply_wait = '60s'").unwrap();
    let waiting = pid(&mut session);
    let push = pushed_sql(&put(1, 1, "pushed", 9));
    let pusher = thread::spawn(move || {
        let sql = format!("begin; update tasks set title = 'b' where id = 2; {push}; commit");
        session.batch_execute(&sql)
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    let yields = "select wait_event_type = 'Extension' from pg_stat_activity where pid = $1";
    let is_yielding = |admin: &mut Client| {
        admin.query_one(yields, &[&waiting]).unwrap().get::<_, Option<bool>>(0) == Some(true)
    };
    while !is_yielding(&mut stage.admin) {
        assert!(Instant::now() < deadline && !pusher.is_finished(), "it never yielded");
    }
    holder.batch_execute("commit").unwrap();
    pusher.join().unwrap().unwrap();
    compare(&mut stage.admin);
    assert_eq!(titles(&mut stage.admin), ["1 pushed", "2 b"]);
}

#[test]
fn a_push_leaves_changes_in_other_workspaces_for_the_commit() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    let mut transaction = admin.transaction().unwrap();
    transaction.batch_execute("insert into tasks values (1, 'v', 'a'), (2, 'w', 'b')").unwrap();
    push(&mut transaction, &[put(1, 3, "new", 1)]);
    let sql = "update tasks set workspace_id = 'w' where id = 1;
               update tasks set workspace_id = 'v' where id = 3";
    transaction.batch_execute(sql).unwrap();
    transaction.commit().unwrap();
    compare(admin);
    assert_eq!(ops(admin, "v"), [format!("put 3 {}", task(3, "new"))]);
    assert_eq!(ops(admin, "w").len(), 4);
}

#[test]
fn pushes_and_changes_of_a_json_table_do_not_mind_each_other() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    let mut transaction = admin.transaction().unwrap();
    transaction.batch_execute("insert into tasks values (1, 'w', 'a')").unwrap();
    let note = sync_ext_harness::batch::put(1, "n", 1);
    push(&mut transaction, &[note]);
    transaction.batch_execute("update tasks set title = 'b'").unwrap();
    transaction.commit().unwrap();
    compare(admin);
    assert_eq!(ops(admin, "w"), [r#"put n {"n":1}"#.to_owned(), format!("put 1 {}", task(1, "b"))]);
}

#[test]
fn a_pull_in_the_transaction_shows_what_is_captured_by_then() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    let versions = |client: &mut postgres::Transaction<'_>| {
        let page = pull(client, "w", 0, 100, None);
        page["changes"].as_array().unwrap().len()
    };
    let mut transaction = admin.transaction().unwrap();
    transaction.batch_execute("insert into tasks values (1, 'w', 'a')").unwrap();
    assert_eq!(versions(&mut transaction), 0);
    push(&mut transaction, &[put(1, 2, "new", 1)]);
    assert_eq!(versions(&mut transaction), 2);
    transaction.batch_execute("update tasks set title = 'b'").unwrap();
    assert_eq!(versions(&mut transaction), 2);
    transaction.commit().unwrap();
    let mut transaction = admin.transaction().unwrap();
    assert_eq!(versions(&mut transaction), 4);
    transaction.commit().unwrap();
    compare(admin);
}
