//! Checks where nothing can be written, and repairs of what capture does not see.

use postgres::Client;
use postgres::error::SqlState;
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::database::Database;
use sync_ext_harness::device::call;
use sync_ext_harness::replica::until_replayed;

use super::{assert_same, check, run, tasks, tasks_in};

const ALL: &str = "select sync_check_table('tasks')::text";

#[test]
fn a_standby_checks_and_repairs_nothing() {
    let primary = Cluster::start("checked", &["fsync=off"]).unwrap();
    let mut stage = tasks_in(Database::within(primary, "app"), 10);
    let standby = stage.database.cluster.standby("checked-standby").unwrap();
    let mut on_standby = standby.connect("app").unwrap();
    let admin = &mut stage.admin;
    admin.batch_execute("call sync_backfill_table('tasks', 'a')").unwrap();
    admin.batch_execute("set sync_ext.capture = off; delete from tasks where id = 3").unwrap();
    until_replayed(admin, &mut on_standby);
    let reply = call(&mut on_standby, ALL, &[]).unwrap();
    assert_eq!(reply, call(admin, ALL, &[]).unwrap());
    assert_eq!(check(&mut on_standby, "tasks")["differencesTotal"], 6);
    for sql in [
        "select sync_ext.backfill_batch('tasks', null, 1, null)",
        "select sync_ext.repair_batch('tasks', 'log', null, 1, null)",
        "call sync_backfill_table('tasks')",
        "call sync_repair_table('tasks', 'log')",
    ] {
        let error = on_standby.batch_execute(sql).unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION), "{sql}");
    }
}

#[test]
fn a_check_reads_what_its_transaction_reads() {
    let mut stage = tasks(10);
    stage.admin.batch_execute("call sync_backfill_table('tasks')").unwrap();
    let mut reader = stage.session();
    reader.batch_execute("begin isolation level repeatable read, read only").unwrap();
    assert_same(&mut reader, "tasks");
    stage
        .admin
        .batch_execute(
            "set sync_ext.capture = off;
             delete from tasks where id = 1;
             update tasks set title = 'x' where id = 9",
        )
        .unwrap();
    assert_same(&mut reader, "tasks");
    reader.batch_execute("commit").unwrap();
    assert_eq!(check(&mut reader, "tasks")["differencesTotal"], 2);
}

/// A check of one workspace lists and counts what is in it.
fn of_workspace(client: &mut Client, workspace: &str) -> [i64; 3] {
    let sql = "select sync_check_table('tasks', $1)::text";
    let reply = call(client, sql, &[&workspace]).unwrap();
    let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
    let found = reply["differences"].as_array().unwrap();
    assert!(found.iter().all(|found| found["workspaceId"] == workspace), "{reply}");
    ["rows", "records", "differencesTotal"].map(|key| reply[key].as_i64().unwrap())
}

#[test]
fn what_a_disabled_trigger_and_alter_table_left_is_repaired() {
    let mut stage = tasks(10);
    let admin = &mut stage.admin;
    run(
        admin,
        "call sync_backfill_table('tasks');
             alter table tasks disable trigger sync_ext_capture;
             insert into tasks values (11, 'a', 'new'), (12, 'c', 'new');
             update tasks set workspace_id = 'b' where id = 1;
             update tasks set id = 20 where id = 2;
             delete from tasks where id in (3, 9);
             alter table tasks enable trigger sync_ext_capture;
             alter table tasks add column stars integer not null default 3",
    );
    // In a: 1 moved away, 2 has another key, 3 is gone, 11 is new. In b: 1 is new, 9 gone.
    assert_eq!(of_workspace(admin, "a"), [4, 5, 5]);
    assert_eq!(of_workspace(admin, "b"), [5, 5, 2]);
    assert_eq!(of_workspace(admin, "c"), [1, 0, 1]);
    assert_eq!(check(admin, "tasks")["columnsChanged"], true);
    admin.batch_execute("call sync_repair_table('tasks', 'log', batch_size => 3)").unwrap();
    assert_same(admin, "tasks");

    // Attached again with its new column, every record lacks it.
    admin
        .batch_execute("select sync_detach_table('tasks'); select sync_attach_table('tasks')")
        .unwrap();
    let reply = check(admin, "tasks");
    assert_eq!(reply["columnsChanged"], false);
    assert_eq!(reply["differencesTotal"], 10, "{reply}");
    assert_eq!(reply["differences"][0]["fields"], serde_json::json!(["stars"]));
    admin.batch_execute("call sync_repair_table('tasks', 'log')").unwrap();
    assert_same(admin, "tasks");
    let log = "select max(payload ->> 'stars') from sync_ext.current_record where pk = '20'";
    assert_eq!(call(admin, log, &[]).unwrap(), "3");
}

#[test]
fn a_table_is_brought_back_to_its_log() {
    let mut stage = tasks(10);
    let admin = &mut stage.admin;
    let toward_table = "call sync_repair_table('tasks', 'table', batch_size => 3)";
    let refused = admin.batch_execute(toward_table).unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "55000", "rows without records would be deleted");
    run(
        admin,
        "alter table tasks add column note text default 'none';
             select sync_detach_table('tasks');
             select sync_attach_table('tasks');
             call sync_backfill_table('tasks')",
    );
    let rows = "select json_agg(tasks order by id)::text from tasks";
    let heads = "select json_agg(head order by workspace_id)::text from sync_ext.workspace";
    let before = [rows, heads].map(|sql| call(admin, sql, &[]).unwrap());
    run(
        admin,
        "set sync_ext.capture = off;
             insert into tasks values (11, 'a', 'new'), (12, 'c', 'new');
             update tasks set workspace_id = 'b' where id = 1;
             update tasks set id = 20 where id = 2;
             update tasks set title = 'changed', note = 'changed' where id = 4;
             delete from tasks where id in (3, 9);
             reset sync_ext.capture",
    );
    admin.batch_execute(toward_table).unwrap();
    // No record was ever of workspace c: there is no log to bring its row to.
    admin.batch_execute("delete from tasks where workspace_id = 'c'").unwrap();
    assert_eq!([rows, heads].map(|sql| call(admin, sql, &[]).unwrap()), before);
    assert_same(admin, "tasks");
}

#[test]
fn a_load_without_capture_is_repaired_and_costs_no_mark() {
    let mut stage = tasks(10);
    let admin = &mut stage.admin;
    run(
        admin,
        "call sync_backfill_table('tasks');
             set sync_ext.max_captured_rows = 100;
             set sync_ext.capture = off;
             insert into tasks select n, 'load', 'loaded' from generate_series(1001, 1500) as n;
             delete from tasks where id <= 10;
             reset sync_ext.capture",
    );
    let refused = admin.batch_execute("call sync_repair_table('tasks', 'log')").unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "54000", "a batch is a transaction like others");
    assert_eq!(check(admin, "tasks")["differencesTotal"], 510);
    admin.batch_execute("call sync_repair_table('tasks', 'log', batch_size => 100)").unwrap();
    assert_same(admin, "tasks");
}

/// The backfill of a workspace that was dropped makes it anew.
#[test]
fn rows_of_a_dropped_workspace_have_no_records() {
    let mut stage = tasks(10);
    let admin = &mut stage.admin;
    run(admin, "call sync_backfill_table('tasks'); select sync_drop_workspace('b', 1)");
    assert_eq!(of_workspace(admin, "b"), [5, 0, 5]);
    assert_eq!(of_workspace(admin, "a"), [5, 5, 0]);
    admin.batch_execute("call sync_repair_table('tasks', 'log')").unwrap();
    assert_same(admin, "tasks");
    let sql = "select head::text from sync_ext.workspace where workspace_id = 'b'";
    assert_eq!(call(admin, sql, &[]).unwrap(), "5");
}
