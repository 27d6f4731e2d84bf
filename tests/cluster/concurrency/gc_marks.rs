//! Which workspaces a call of sync_gc for all looks at: those in which something is due, and
//! none of the others, whatever has happened between one call and the next.

use postgres::{Client, GenericClient, IsolationLevel, Transaction};
use serde_json::Value;
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::database::Database;
use sync_ext_harness::device::call;
use sync_ext_harness::steps::{Stage, acknowledge, age, age_all, gc};

/// Versions 1..6 of one record: GC can purge each once the next one is read.
fn log(client: &mut impl GenericClient, workspace: &str) {
    let ops: Vec<String> = (1..=6).map(|n| put(n, "a", n)).collect();
    push(client, workspace, &ops);
}

/// The same, all old.
fn old_log(client: &mut Client, workspace: &str) {
    let mut transaction = client.transaction().unwrap();
    log(&mut transaction, workspace);
    age_all(&mut transaction);
    transaction.commit().unwrap();
}

fn gc_all(client: &mut impl GenericClient) -> Value {
    let reply = call(client, "select sync_gc()::text", &[]).unwrap();
    serde_json::from_str(&reply).unwrap()
}

fn scanned(client: &mut impl GenericClient) -> i64 {
    gc_all(client)["scanned"].as_i64().unwrap()
}

/// The workspaces at which a call would look.
fn looked_at(client: &mut Client) -> String {
    let sql = "select coalesce(string_agg(workspace_id, ' ' order by workspace_id), '')
                 from sync_ext.workspace
                where unread_since <= now() - interval '30 days'
                   or pinned_since <= now() - interval '90 days'
                   or devices_since <= now() - interval '180 days'
                   or workspace_key in (select workspace_key from sync_ext.unpinned_workspace)";
    call(client, sql, &[]).unwrap()
}

/// The phone has seen three versions of the old log, and GC knows that it waits for it.
fn pinned(stage: &mut Stage) {
    old_log(&mut stage.admin, "w");
    acknowledge(&mut stage.admin, "w", "phone", 3);
    assert_eq!((scanned(&mut stage.admin), scanned(&mut stage.admin)), (2, 0));
    assert_eq!(looked_at(&mut stage.admin), "");
}

#[test]
fn what_is_idle_young_or_pinned_is_not_looked_at() {
    let mut stage = Stage::new();
    pinned(&mut stage);
    old_log(&mut stage.admin, "idle");
    push(&mut stage.admin, "young", &[put(1, "a", 1), put(2, "b", 1)]);
    stage.admin.batch_execute("select sync_create_workspace('empty', 'ann')").unwrap();
    assert_eq!(looked_at(&mut stage.admin), "idle");
    assert_eq!(gc_all(&mut stage.admin)["workspaces"], 1);
    assert_eq!(looked_at(&mut stage.admin), "");
    assert_eq!(gc_all(&mut stage.admin)["workspaces"], 0);
}

#[test]
fn a_push_makes_due_what_was_the_head() {
    let mut stage = Stage::new();
    old_log(&mut stage.admin, "w");
    assert_eq!(scanned(&mut stage.admin), 5);
    push(&mut stage.admin, "w", &[put(7, "b", 1)]);
    assert_eq!(looked_at(&mut stage.admin), "w");
    assert_eq!(scanned(&mut stage.admin), 1);
    // So does what a commit captures.
    stage
        .admin
        .batch_execute(
            "create table tasks (id text primary key, workspace_id text not null);
             select sync_attach_table('tasks'); insert into tasks values ('a', 'w')",
        )
        .unwrap();
    age_all(&mut stage.admin);
    assert_eq!(scanned(&mut stage.admin), 1);
}

/// A time that has come for the device, or what a session does.
fn is_due_after(step: &str) {
    let mut stage = Stage::new();
    pinned(&mut stage);
    stage.admin.batch_execute(step).unwrap();
    assert_eq!(looked_at(&mut stage.admin), "w", "{step}");
    assert_eq!(scanned(&mut stage.admin), 3, "{step}");
}

#[test]
fn a_workspace_is_due_once_its_device_moves_or_is_gone() {
    is_due_after("select sync_update_cursor('w', 'phone', 6)");
    is_due_after("select sync_exchange('w', 'phone', 6, '[]')");
    is_due_after("select sync_forget_device('w', 'phone')");
    // Longer than sync_ext.device_ttl.
    is_due_after(
        "update sync_ext.device_cursor set updated_at = updated_at - interval '100 days';
         update sync_ext.workspace set pinned_since = pinned_since - interval '100 days'",
    );
    let mut stage = Stage::new();
    old_log(&mut stage.admin, "w");
    stage
        .admin
        .batch_execute(
            "select sync_set_member('w', 'ann', 'owner'), sync_set_member('w', 'bob', 'viewer');
             set sync_ext.user_id = 'bob'; select sync_update_cursor('w', 'phone', 3);
             reset sync_ext.user_id; select sync_gc(); select sync_gc();
             select sync_remove_member('w', 'bob')",
        )
        .unwrap();
    assert_eq!(scanned(&mut stage.admin), 3);
}

#[test]
fn devices_that_hold_nothing_back_have_nothing_looked_at() {
    let mut stage = Stage::new();
    pinned(&mut stage);
    for version in 4..=6 {
        acknowledge(&mut stage.admin, "w", "laptop", version);
    }
    assert_eq!(acknowledge(&mut stage.admin, "w", "phone", 3)["advanced"], false);
    assert_eq!(looked_at(&mut stage.admin), "");
}

#[test]
fn of_several_devices_the_last_one_counts() {
    let mut stage = Stage::new();
    old_log(&mut stage.admin, "w");
    for device in ["phone", "tablet", "watch"] {
        acknowledge(&mut stage.admin, "w", device, 3);
    }
    assert_eq!((scanned(&mut stage.admin), scanned(&mut stage.admin)), (2, 0));
    for device in ["phone", "watch", "tablet"] {
        assert_eq!(scanned(&mut stage.admin), 0, "before {device}");
        assert_eq!(looked_at(&mut stage.admin), "");
        acknowledge(&mut stage.admin, "w", device, 6);
    }
    assert_eq!(scanned(&mut stage.admin), 3);
}

#[test]
fn an_acknowledgement_that_began_before_gc_looked_is_not_missed() {
    let mut stage = Stage::new();
    old_log(&mut stage.admin, "w");
    acknowledge(&mut stage.admin, "w", "phone", 3);
    let mut session = stage.session();
    let mut transaction = session.transaction().unwrap();
    acknowledge(&mut transaction, "w", "phone", 6);
    assert_eq!((scanned(&mut stage.admin), scanned(&mut stage.admin)), (2, 0));
    assert_eq!(scanned(&mut stage.admin), 0);
    transaction.commit().unwrap();
    assert_eq!(scanned(&mut stage.admin), 3);
}

#[test]
fn an_acknowledgement_while_gc_looks_neither_waits_nor_is_missed() {
    for looks_before in [0, 1, 2] {
        let mut stage = Stage::new();
        old_log(&mut stage.admin, "w");
        acknowledge(&mut stage.admin, "w", "phone", 3);
        let mut collector = stage.session();
        for _ in 0..looks_before {
            gc_all(&mut collector);
        }
        let mut transaction = collector.transaction().unwrap();
        gc_all(&mut transaction);
        // What it has found is not committed, so this is no other look.
        gc_all(&mut transaction);
        acknowledge(&mut stage.admin, "w", "phone", 6);
        transaction.commit().unwrap();
        assert_eq!(scanned(&mut stage.admin), 3, "{looks_before}");
    }
}

/// With a snapshot in which GC does not wait for the device yet.
#[test]
fn an_acknowledgement_above_read_committed_is_not_missed() {
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let mut stage = Stage::new();
        old_log(&mut stage.admin, "w");
        acknowledge(&mut stage.admin, "w", "phone", 3);
        let mut session = stage.session();
        let mut transaction = session.build_transaction().isolation_level(level).start().unwrap();
        transaction.query("select from sync_ext.workspace", &[]).unwrap();
        assert_eq!((scanned(&mut stage.admin), scanned(&mut stage.admin)), (2, 0));
        assert_eq!(looked_at(&mut stage.admin), "");
        acknowledge(&mut transaction, "w", "phone", 6);
        transaction.commit().unwrap();
        assert_eq!(scanned(&mut stage.admin), 3, "{level:?}");
    }
}

#[test]
fn silent_devices_are_forgotten_and_others_looked_at_once() {
    let mut stage = Stage::new();
    push(&mut stage.admin, "w", &[put(1, "a", 1)]);
    acknowledge(&mut stage.admin, "w", "phone", 1);
    acknowledge(&mut stage.admin, "w", "watch", 1);
    gc_all(&mut stage.admin);
    let half_a_year = "update sync_ext.device_cursor set updated_at = now() - interval '200 days'
        where device_id = 'watch';
      update sync_ext.workspace set devices_since = now() - interval '200 days'";
    stage.admin.batch_execute(half_a_year).unwrap();
    let reply = gc_all(&mut stage.admin);
    assert_eq!((&reply["workspaces"], &reply["devicesDeleted"]), (&1.into(), &1.into()));
    assert_eq!(looked_at(&mut stage.admin), "");

    // The setting of a session that forgets sooner; the phone is there all the time.
    stage.admin.batch_execute("set sync_ext.device_ttl = '1s'").unwrap();
    let a_minute = "update sync_ext.workspace set devices_since = now() - interval '1 minute'";
    stage.admin.batch_execute(a_minute).unwrap();
    acknowledge(&mut stage.admin, "w", "phone", 1);
    assert_eq!(gc_all(&mut stage.admin)["workspaces"], 0);
    let raised = "select (devices_since > now() - interval '30 s')::text from sync_ext.workspace";
    assert_eq!(call(&mut stage.admin, raised, &[]).unwrap(), "true");
}

#[test]
fn a_loop_ends_and_has_done_what_was_due() {
    let mut stage = Stage::new();
    stage
        .admin
        .batch_execute(
            "set sync_ext.gc_lock_time = 0;
             insert into sync_ext.workspace (workspace_id) select 'w' || n from generate_series(1, 2500) n",
        )
        .unwrap();
    for workspace in ["x", "y", "z"] {
        old_log(&mut stage.admin, workspace);
    }
    let mut replies = Vec::new();
    loop {
        replies.push(gc_all(&mut stage.admin));
        if replies.last().unwrap()["hasMore"] == false {
            break;
        }
    }
    let total = |key: &str| replies.iter().map(|reply| reply[key].as_i64().unwrap()).sum::<i64>();
    assert_eq!((total("workspaces"), total("scanned"), replies.len()), (3, 15, 3));
    assert_eq!(looked_at(&mut stage.admin), "");
}

#[test]
fn a_locked_workspace_keeps_no_other_from_its_turn() {
    let mut stage = Stage::new();
    old_log(&mut stage.admin, "v");
    old_log(&mut stage.admin, "w");
    let mut holder = stage.session();
    let mut transaction = holder.transaction().unwrap();
    push(&mut transaction, "v", &[put(7, "b", 1)]);
    let reply = gc_all(&mut stage.admin);
    assert_eq!((&reply["scanned"], &reply["hasMore"]), (&5.into(), &false.into()));
    transaction.commit().unwrap();
    assert_eq!(scanned(&mut stage.admin), 6);
}

/// A dropped workspace needs no look, also if one was asked for.
#[test]
fn nothing_is_left_of_a_dropped_workspace() {
    let mut stage = Stage::new();
    pinned(&mut stage);
    acknowledge(&mut stage.admin, "w", "phone", 6);
    stage.admin.batch_execute("select sync_drop_workspace('w'); select sync_gc()").unwrap();
    let left = "select count(*)::text from sync_ext.unpinned_workspace";
    assert_eq!(call(&mut stage.admin, left, &[]).unwrap(), "0");
}

/// Only what makes a workspace due changes an indexed column.
#[test]
fn pushes_and_acknowledgements_stay_hot() {
    let mut stage = Stage::new();
    pinned(&mut stage);
    push(&mut stage.admin, "v", &[put(1, "a", 1)]);
    acknowledge(&mut stage.admin, "v", "phone", 1);
    gc(&mut stage.admin, "v");
    stage.admin.batch_execute("vacuum sync_ext.workspace, sync_ext.device_cursor").unwrap();
    let mut transaction = stage.admin.transaction().unwrap();
    let counted = |transaction: &mut Transaction<'_>| -> Vec<i64> {
        let sql = "select n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables
                    where relname in ('workspace', 'device_cursor') order by relname";
        let rows = transaction.query(sql, &[]).unwrap();
        rows.iter().flat_map(|row| [row.get(0), row.get(1)]).collect()
    };
    let before = counted(&mut transaction);
    for n in 10..20 {
        push(&mut transaction, "v", &[put(n, "a", n)]);
        push(&mut transaction, "w", &[put(n, "a", n)]);
        acknowledge(&mut transaction, "v", "phone", n as i64 - 8);
        acknowledge(&mut transaction, "w", "phone", 3);
    }
    // All of devices, and of workspaces all but the first push to v after all was read.
    let grown: Vec<i64> = counted(&mut transaction)
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect();
    assert_eq!(grown, [20, 20, 20, 19]);
}

/// The new library with the schema of the release, and what that leaves to its update.
#[test]
fn gc_works_before_an_update_and_knows_what_is_due_after_it() {
    let database = Database::empty();
    let mut stage = Stage::on(database);
    stage
        .admin
        .batch_execute(
            "create extension sync_ext version '0.1.0'; select sync_register_table('notes')",
        )
        .unwrap();
    for workspace in ["read", "pinned"] {
        log(&mut stage.admin, workspace);
    }
    age(&mut stage.admin);
    for workspace in ["due", "young"] {
        log(&mut stage.admin, workspace);
    }
    acknowledge(&mut stage.admin, "pinned", "phone", 3);
    let reply = gc_all(&mut stage.admin);
    assert_eq!((&reply["workspaces"], &reply["scanned"]), (&2.into(), &7.into()));
    let reply = gc_all(&mut stage.admin);
    assert_eq!((&reply["workspaces"], &reply["hasMore"]), (&0.into(), &false.into()));
    acknowledge(&mut stage.admin, "pinned", "phone", 4);
    stage.admin.batch_execute("select sync_forget_device('pinned', 'none')").unwrap();
    assert_eq!(scanned(&mut stage.admin), 1);

    acknowledge(&mut stage.admin, "pinned", "phone", 6);
    acknowledge(&mut stage.admin, "read", "phone", 6);
    stage
        .admin
        .batch_execute(
            "update sync_ext.device_cursor set updated_at = now() - interval '1 year'
               from sync_ext.workspace w where w.workspace_key = device_cursor.workspace_key and workspace_id = 'read';
             update sync_ext.change_log set created_at = now() - interval '1 year'
               from sync_ext.workspace w where w.workspace_key = change_log.workspace_key and workspace_id = 'due';
             alter extension sync_ext update",
        )
        .unwrap();
    let reply = gc_all(&mut stage.admin);
    let done = ["workspaces", "scanned", "devicesDeleted"].map(|key| reply[key].as_i64().unwrap());
    assert_eq!(done, [3, 7, 1], "{reply}");
    assert_eq!(looked_at(&mut stage.admin), "");
}
