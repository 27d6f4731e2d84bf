//! GC that meets pushes and other GC: they exclude each other per workspace,
//! and who waited goes by what it then finds.

use std::thread;

use postgres::error::SqlState;
use postgres::{Client, IsolationLevel};
use serde_json::Value;
use sync_ext_harness::batch::{delete, op_id, push, put};
use sync_ext_harness::device::call;
use sync_ext_harness::replica::until;
use sync_ext_harness::steps::{Stage, age, age_all, gc, pid, versions_seen};

fn replies(client: &mut Client, ops: &[String]) -> Value {
    let ops = format!("[{}]", ops.join(","));
    let reply = call(client, "select sync_push('w', $1::text::json)::text", &[&ops]).unwrap();
    serde_json::from_str(&reply).unwrap()
}

/// Versions 1..4: a is put and deleted, b is put twice; all old.
fn old_log(client: &mut Client, workspace: &str) {
    let mut transaction = client.transaction().unwrap();
    let ops = [put(1, "a", 1), delete(2, "a", 5), put(3, "b", 1), put(4, "b", 2)];
    assert_eq!(push(&mut transaction, workspace, &ops), [1, 2, 3, 4]);
    // The head is never read by GC, so that it takes another entry.
    push(&mut transaction, workspace, &[put(5, "c", 1)]);
    age_all(&mut transaction);
    transaction.commit().unwrap();
}

#[test]
fn gc_skips_a_locked_workspace_and_waits_for_a_named_one() {
    let mut stage = Stage::new();
    for workspace in ["v", "w"] {
        push(&mut stage.admin, workspace, &[put(1, "a", 1), put(2, "a", 2), put(3, "a", 3)]);
    }
    age_all(&mut stage.admin);
    let mut holder = stage.session();
    let mut transaction = holder.transaction().unwrap();
    push(&mut transaction, "w", &[put(4, "a", 4)]);

    let mut collect = |sql: &str| call(&mut stage.admin, sql, &[]).unwrap();
    let all = collect("select sync_gc() ->> 'workspaces'");
    assert_eq!(all, "1", "the locked one is skipped");
    assert_eq!(collect("select sync_gc() ->> 'hasMore'"), "false");

    let waiting = stage.blocked(pid(&mut transaction), |second| gc(second, "w"));
    transaction.commit().unwrap();
    assert_eq!(waiting.join().unwrap()["scanned"], 3, "with the head that it waited for");
}

/// A log of so many entries that are due.
fn long_log(client: &mut Client, entries: u64) {
    for from in (0..entries).step_by(1000) {
        let ops: Vec<String> = (from..from + 1000).map(|n| put(n, "a", n + 1)).collect();
        push(client, "w", &ops);
    }
    age(client);
}

#[test]
fn a_call_ends_when_it_has_held_a_workspace_for_long_enough() {
    let mut stage = Stage::new();
    long_log(&mut stage.admin, 20_000);
    stage.admin.batch_execute("set sync_ext.gc_lock_time = '1ms'").unwrap();
    let mut scanned = Vec::new();
    loop {
        let reply = gc(&mut stage.admin, "w");
        scanned.push(reply["scanned"].as_i64().unwrap());
        if reply["hasMore"] == false {
            break;
        }
    }
    assert_eq!(scanned.iter().sum::<i64>(), 19_999);
    assert!(scanned.len() > 2 && scanned.iter().all(|some| *some > 0), "{scanned:?}");
}

#[test]
fn a_call_that_only_forgets_devices_ends_as_well() {
    let mut stage = Stage::new();
    let workspaces = "select sync_put('w' || n, 'notes', 'a', '{}'),
      sync_update_cursor('w' || n, 'phone', 1) from generate_series(1, 500) n";
    stage.admin.batch_execute(workspaces).unwrap();
    let silent = "update sync_ext.device_cursor set updated_at = now() - interval '1 year'";
    assert_eq!(stage.admin.execute(silent, &[]).unwrap(), 500);
    let marks = "update sync_ext.workspace set devices_since = now() - interval '1 year'";
    stage.admin.batch_execute(marks).unwrap();
    stage.admin.batch_execute("set sync_ext.gc_lock_time = '1ms'").unwrap();
    let mut forgotten = Vec::new();
    loop {
        let reply = call(&mut stage.admin, "select sync_gc()::text", &[]).unwrap();
        let reply: Value = serde_json::from_str(&reply).unwrap();
        forgotten.push(reply["devicesDeleted"].as_i64().unwrap());
        if reply["hasMore"] == false {
            break;
        }
    }
    assert_eq!(forgotten.iter().sum::<i64>(), 500);
    assert!(forgotten.len() > 2 && forgotten.iter().all(|some| *some > 0), "{forgotten:?}");
}

#[test]
fn dropping_a_workspace_holds_it_no_longer() {
    let mut stage = Stage::new();
    long_log(&mut stage.admin, 20_000);
    let mut holder = stage.session();
    holder.batch_execute("set sync_ext.gc_lock_time = '1ms'").unwrap();
    let dropped = call(&mut holder, "select sync_drop_workspace('w', 1000000)::text", &[]).unwrap();
    let dropped: Value = serde_json::from_str(&dropped).unwrap();
    let erased = dropped["rowsErased"].as_i64().unwrap();
    assert!(erased < 20_000 && dropped["hasMore"] == true, "{dropped}");
    let gc = "select sync_gc(batch_size => 1000000) ->> 'hasMore'";
    assert_eq!(call(&mut holder, gc, &[]).unwrap(), "false");
    until(&mut stage.admin, "select count(*)::text from sync_ext.change_log", "0");
}

#[test]
fn gc_lets_go_of_a_workspace_that_somebody_waits_for() {
    let mut stage = Stage::new();
    long_log(&mut stage.admin, 2_000);
    let mut collector = stage.session();
    collector.batch_execute("set sync_ext.gc_lock_time = '1min'").unwrap();
    let mut transaction = collector.transaction().unwrap();
    let first = "select sync_gc('w', batch_size => 500) ->> 'scanned'";
    assert_eq!(call(&mut transaction, first, &[]).unwrap(), "500");
    let pushing =
        stage.blocked(pid(&mut transaction), |pusher| push(pusher, "w", &[put(70_001, "c", 1)]));
    let reply = gc(&mut transaction, "w");
    assert_eq!((&reply["scanned"], &reply["hasMore"]), (&100.into(), &true.into()));
    transaction.commit().unwrap();
    assert_eq!(pushing.join().unwrap(), [2_001]);
    assert_eq!(gc(&mut collector, "w")["scanned"], 1_400);
}

#[test]
fn gc_that_waited_for_a_push_reads_what_it_pushed() {
    let mut stage = Stage::new();
    old_log(&mut stage.admin, "w");
    for commits in [false, true] {
        let mut holder = stage.session();
        let mut transaction = holder.transaction().unwrap();
        // c is replaced, deleted, and something is pushed after it.
        let ops = [put(11, "c", 2), delete(12, "c", 3), put(13, "d", 1)];
        push(&mut transaction, "w", &ops);
        age(&mut transaction);
        let waiting = stage.blocked(pid(&mut transaction), |second| gc(second, "w"));
        if commits {
            transaction.commit().unwrap();
        } else {
            transaction.rollback().unwrap();
        }
        let reply = waiting.join().unwrap();
        let read = ["scanned", "changesDeleted", "tombstonesDeleted"]
            .map(|key| reply[key].as_i64().unwrap());
        // Rolled back: 1..4, of which 1 and 3 are superseded and 2 a tombstone.
        // Committed: 5..7 remain, 5 and 6 superseded, 7 a tombstone.
        let expected = if commits { [3, 2, 1] } else { [4, 2, 1] };
        assert_eq!(read, expected, "{reply}");
    }
    let left = "select string_agg(server_version::text, ',' order by server_version)
                  from sync_ext.change_log";
    assert_eq!(call(&mut stage.admin, left, &[]).unwrap(), "4,8");
}

/// What is sent while GC holds the workspace: a put that is older than the
/// tombstone, two ops whose entries GC purges, one whose entry stays.
fn late_ops() -> [String; 4] {
    [put(9, "a", 3), delete(2, "a", 5), put(3, "b", 1), put(4, "b", 2)]
}

#[test]
fn a_push_that_waited_for_gc_meets_the_grave_and_the_purged_ops() {
    let mut stage = Stage::new();
    old_log(&mut stage.admin, "w");
    let mut collector = stage.session();
    let mut transaction = collector.transaction().unwrap();
    let collected = gc(&mut transaction, "w");
    assert_eq!(
        (&collected["changesDeleted"], &collected["tombstonesDeleted"]),
        (&2.into(), &1.into())
    );
    let waiting = stage.blocked(pid(&mut transaction), |second| replies(second, &late_ops()));
    transaction.commit().unwrap();

    let reply = waiting.join().unwrap();
    let results = reply["results"].as_array().unwrap();
    // The late put loses to the grave, which no longer tells when it was dug.
    assert_eq!((&results[0]["serverVersion"], &results[0]["applied"]), (&6.into(), &false.into()));
    let grave = &results[0]["winner"];
    assert_eq!((&grave["kind"], &grave["serverVersion"]), (&"delete".into(), &2.into()));
    assert_eq!(grave["revision"]["opId"], op_id(2));
    assert!(grave.get("serverDeletedAt").is_none(), "{reply}");
    // Purged ops are new ones and lose, the delete to its own grave.
    for (result, version, winner) in [(&results[1], 7, 2), (&results[2], 8, 4)] {
        assert_eq!(result["serverVersion"], version, "{reply}");
        assert_eq!(result["applied"], false, "{reply}");
        assert_eq!(result["winner"]["serverVersion"], winner, "{reply}");
        assert!(result.get("replayed").is_none(), "{reply}");
    }
    // What was not purged is a replay.
    assert_eq!(results[3]["serverVersion"], 4, "{reply}");
    assert_eq!((&results[3]["replayed"], &results[3]["applied"]), (&true.into(), &true.into()));
    assert_eq!(reply["serverVersion"], 8);
    assert_eq!(
        deleted(&mut stage.admin),
        [("a".to_owned(), true), ("b".to_owned(), false), ("c".to_owned(), false)]
    );
}

#[test]
fn a_push_that_waited_for_gc_that_is_rolled_back_meets_what_was() {
    let mut stage = Stage::new();
    old_log(&mut stage.admin, "w");
    let mut collector = stage.session();
    let mut transaction = collector.transaction().unwrap();
    assert_eq!(gc(&mut transaction, "w")["tombstonesDeleted"], 1);
    let waiting = stage.blocked(pid(&mut transaction), |second| replies(second, &late_ops()));
    transaction.rollback().unwrap();

    let reply = waiting.join().unwrap();
    let results = reply["results"].as_array().unwrap();
    assert_eq!((&results[0]["serverVersion"], &results[0]["applied"]), (&6.into(), &false.into()));
    assert!(results[0]["winner"]["serverDeletedAt"].is_number(), "still a tombstone: {reply}");
    for (result, version) in results[1..].iter().zip([2, 3, 4]) {
        assert_eq!(
            (&result["serverVersion"], &result["replayed"]),
            (&version.into(), &true.into())
        );
    }
    assert_eq!(versions_seen(&mut stage.admin, "w"), [1, 2, 3, 4, 5, 6]);
}

/// Which records are deleted.
fn deleted(client: &mut Client) -> Vec<(String, bool)> {
    let rows = client.query("select pk, deleted from sync_ext.record order by pk", &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn a_push_above_read_committed_that_waited_for_gc_is_40001() {
    let mut stage = Stage::new();
    old_log(&mut stage.admin, "w");
    let mut collector = stage.session();
    let mut transaction = collector.transaction().unwrap();
    gc(&mut transaction, "w");
    let waiting = stage.blocked(pid(&mut transaction), |second| {
        second.batch_execute("begin isolation level repeatable read").unwrap();
        let ops = format!("[{}]", put(9, "a", 3));
        second.execute("select sync_push('w', $1::text::json)", &[&ops])
    });
    transaction.commit().unwrap();
    let error = waiting.join().unwrap().unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{error:?}");
}

#[test]
fn gc_above_read_committed_after_a_concurrent_push_is_40001() {
    let mut stage = Stage::new();
    old_log(&mut stage.admin, "w");
    for (id, level) in [(9, IsolationLevel::RepeatableRead), (10, IsolationLevel::Serializable)] {
        let mut collector = stage.session();
        let mut transaction = collector.build_transaction().isolation_level(level).start().unwrap();
        transaction.query("select 1 from sync_ext.workspace", &[]).unwrap();
        push(&mut stage.admin, "w", &[put(id, "a", 9)]);
        let error = transaction.query("select sync_gc('w')", &[]).unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{error:?}");
        transaction.rollback().unwrap();
    }
    assert_eq!(gc(&mut stage.admin, "w")["scanned"], 5, "nothing was read before");
}

#[test]
fn a_second_gc_waits_and_finds_nothing_left() {
    let mut stage = Stage::new();
    old_log(&mut stage.admin, "w");
    let mut collector = stage.session();
    let mut transaction = collector.transaction().unwrap();
    assert_eq!(gc(&mut transaction, "w")["scanned"], 4);
    let elsewhere = call(&mut stage.admin, "select sync_gc()::text", &[]).unwrap();
    assert!(elsewhere.contains("\"workspaces\":0"), "who names none waits for none: {elsewhere}");
    let waiting = stage.blocked(pid(&mut transaction), |second| gc(second, "w"));
    transaction.commit().unwrap();
    let second = waiting.join().unwrap();
    assert_eq!((&second["workspaces"], &second["scanned"]), (&1.into(), &0.into()), "{second}");
}

#[test]
fn a_push_to_another_workspace_does_not_wait_for_gc() {
    let mut stage = Stage::new();
    for workspace in ["v", "w"] {
        old_log(&mut stage.admin, workspace);
    }
    let mut collector = stage.session();
    let mut transaction = collector.transaction().unwrap();
    gc(&mut transaction, "v");
    assert_eq!(push(&mut stage.admin, "w", &[put(6, "a", 9)]), [6]);
    assert_eq!(push(&mut stage.admin, "new", &[put(6, "a", 9)]), [1]);
    transaction.commit().unwrap();
    assert_eq!(push(&mut stage.admin, "v", &[put(6, "a", 9)]), [6]);
}

/// A batch is committed, and its locks are free, while the next one is waited for.
#[test]
fn what_gc_all_has_done_is_done_before_it_goes_on() {
    let mut stage = Stage::new();
    old_log(&mut stage.admin, "w");
    let mut collector = stage.session();
    let backend = pid(&mut collector);
    let all = "call sync_gc_all(batch_size => 2, pause => interval '1 day')";
    let collecting = thread::spawn(move || collector.batch_execute(all).unwrap_err());
    let waits_for =
        format!("select concat(wait_event) from pg_stat_activity where pid = {backend}");
    until(&mut stage.admin, &waits_for, "PgSleep");
    let left = "select string_agg(server_version::text, ',' order by server_version)
                  from sync_ext.change_log";
    assert_eq!(call(&mut stage.admin, left, &[]).unwrap(), "3,4,5");
    assert_eq!(push(&mut stage.admin, "w", &[put(6, "d", 1)]), [6]);
    stage.admin.execute("select pg_cancel_backend($1)", &[&backend]).unwrap();
    let ended = collecting.join().unwrap();
    assert_eq!(ended.code(), Some(&SqlState::QUERY_CANCELED), "{ended:?}");
}
