//! Backfills that are ended, that meet each other, writers and pushes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use postgres::{Client, GenericClient};
use sync_ext_harness::batch::{op_id, push};
use sync_ext_harness::device::call;
use sync_ext_harness::steps::{outcome, pid};

use super::{assert_same, check, run, tasks};

/// How far it is, and the records there are.
fn progress(client: &mut impl GenericClient) -> String {
    let sql = "select concat(backfilled, ' ', backfilled_through, ' ', (select count(*) from sync_ext.record))
                 from sync_ext.synced_table where table_name = 'tasks'";
    call(client, sql, &[]).unwrap()
}

/// A put of a task, whatever was there.
fn put_task(n: u64, id: i32, clock: u64, title: &str) -> String {
    format!(
        r#"{{"tableName":"tasks","operation":"put","pk":"{id}","payload":{{"id":{id},"title":"{title}"}},
            "stamp":{{"deviceId":"phone","opId":"{}","hlc":"h","clock":{clock}}}}}"#,
        op_id(n)
    )
}

#[test]
fn a_backfill_that_was_killed_goes_on_where_it_was() {
    let mut stage = tasks(40);
    // Its third batch waits for workspace b.
    let mut holder = stage.session();
    holder.batch_execute("begin").unwrap();
    push(&mut holder, "b", &[put_task(1, 99, 1, "held")]);
    let holding = pid(&mut holder);
    let killed = stage.blocked(holding, |session| {
        session.batch_execute("call sync_backfill_table('tasks', batch_size => 10)")
    });
    let sql = "select count(pg_terminate_backend(pid))::text from pg_stat_activity
                where $1 = any(pg_blocking_pids(pid))";
    assert_eq!(call(&mut stage.admin, sql, &[&holding]).unwrap(), "1");
    assert!(killed.join().unwrap().is_err());
    holder.batch_execute("rollback").unwrap();
    assert_eq!(progress(&mut stage.admin), "f 20 20");

    let batch = "select sync_ext.backfill_batch('tasks', null, 10, null)::text";
    let reply = call(&mut stage.admin, batch, &[]).unwrap();
    assert_eq!(reply, r#"{"read":10,"captured":10,"position":{"row":{"pk":"30"}}}"#);
    stage.admin.batch_execute("call sync_backfill_table('tasks', batch_size => 10)").unwrap();
    assert_eq!(progress(&mut stage.admin), "t  40");
    assert_same(&mut stage.admin, "tasks");
    // No row twice, and each a record that any edit beats.
    let log = "select concat(count(*), ' ', max(clock), ' ', max(server_version)) from sync_ext.change_log";
    assert_eq!(call(&mut stage.admin, log, &[]).unwrap(), "40 0 20");
}

#[test]
fn two_backfills_of_a_table_take_turns() {
    let mut stage = tasks(40);
    let batch = "select sync_ext.backfill_batch('tasks', null, 10, null)::text";
    let mut first = stage.session();
    first.batch_execute("begin").unwrap();
    call(&mut first, batch, &[]).unwrap();
    let second = stage.blocked(pid(&mut first), |session| call(session, batch, &[]).unwrap());
    first.batch_execute("commit").unwrap();
    let reply = second.join().unwrap();
    assert_eq!(reply, r#"{"read":10,"captured":10,"position":{"row":{"pk":"20"}}}"#);
    assert_eq!(progress(&mut stage.admin), "f 20 20");
}

/// What differs is read again under the lock.
#[test]
fn an_edit_that_a_backfill_waited_for_is_not_undone() {
    let mut stage = tasks(4);
    let mut writer = stage.session();
    writer.batch_execute("begin; select from sync_ext.workspace").unwrap();
    // A push holds the workspace from its call on.
    push(&mut writer, "a", &[put_task(1, 1, 3, "pushed")]);
    let waiting = stage
        .blocked(pid(&mut writer), |session| outcome(session, "call sync_backfill_table('tasks')"));
    writer.batch_execute("update tasks set title = 'edited' where id = 2; commit").unwrap();
    waiting.join().unwrap().unwrap();
    assert_same(&mut stage.admin, "tasks");
    let titles = "select string_agg(concat(r.pk, ' ', l.clock, ' ', l.payload ->> 'title'), ', ' order by r.pk)
                    from sync_ext.record as r join sync_ext.change_log as l using (workspace_key, server_version)";
    assert_eq!(
        call(&mut stage.admin, titles, &[]).unwrap(),
        "1 3 pushed, 2 1 edited, 3 0 task 3, 4 0 task 4"
    );
}

#[test]
fn what_is_the_same_is_repaired_and_backfilled_without_a_lock() {
    let mut stage = tasks(10);
    stage.admin.batch_execute("call sync_backfill_table('tasks', 'a')").unwrap();
    let mut holder = stage.session();
    holder.batch_execute("begin").unwrap();
    push(&mut holder, "a", &[put_task(1, 1, 1, "held")]);
    run(
        &mut stage.admin,
        "call sync_repair_table('tasks', 'log', 'a', batch_size => 2);
             call sync_backfill_table('tasks');
             call sync_repair_table('tasks', 'log');
             call sync_backfill_table('tasks', 'a')",
    );
    holder.batch_execute("rollback").unwrap();
    assert_same(&mut stage.admin, "tasks");
}

/// What a writer or a device does to one row.
fn change(session: &mut Client, n: u64) {
    let id = (n * 7 % 400) as i32;
    let workspace = if id <= 200 { "a" } else { "b" };
    match n % 5 {
        0 => session.batch_execute(&format!("update tasks set title = 'edit {n}' where id = {id}")),
        1 => session.batch_execute(&format!("delete from tasks where id = {id}")),
        2 => session.batch_execute(&format!(
            "insert into tasks values ({id}, '{workspace}', 'new {n}') on conflict do nothing"
        )),
        3 => session.batch_execute(&format!(
            "begin; update tasks set title = 'gone' where id = {id}; rollback"
        )),
        _ => {
            push(session, workspace, &[put_task(n, id, n, "pushed")]);
            Ok(())
        }
    }
    .unwrap();
}

/// Beside writers and pushes a check finds only what a backfill has still to do, and
/// afterwards nothing.
#[test]
fn a_check_beside_writers_tells_no_false_difference() {
    let mut stage = tasks(400);
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..2_u64 {
            let (mut session, ends) = (stage.session(), &ends);
            scope.spawn(move || {
                let mut n = writer * 1_000_000;
                while !ends.load(Ordering::Relaxed) {
                    change(&mut session, n);
                    n += 1;
                }
            });
        }
        let mut checker = stage.session();
        let checks = scope.spawn(move || {
            let (mut is_backfilled, mut after) = (false, 0);
            while after < 30 {
                let was_backfilled = is_backfilled;
                let state = progress(&mut checker);
                is_backfilled = state.starts_with('t');
                let reply = check(&mut checker, "tasks");
                for found in reply["differences"].as_array().unwrap() {
                    assert_eq!(found["kind"], "missing_record", "{reply}");
                }
                if was_backfilled {
                    assert_eq!(reply["differencesTotal"], 0, "{reply}");
                    after += 1;
                }
            }
        });
        let call = "call sync_backfill_table('tasks', batch_size => 7)";
        let backfilled = stage.admin.batch_execute(call);
        let checked = checks.join();
        ends.store(true, Ordering::Relaxed);
        backfilled.unwrap();
        checked.unwrap();
    });
    assert_same(&mut stage.admin, "tasks");
    let gaps = "select count(*)::text from (
                  select server_version - row_number() over (partition by workspace_key order by server_version) as gap
                  from sync_ext.change_log) as v where gap <> 0";
    assert_eq!(call(&mut stage.admin, gaps, &[]).unwrap(), "0");
}
