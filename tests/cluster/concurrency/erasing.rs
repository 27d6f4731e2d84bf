//! What is left of dropped workspaces is erased in small transactions, which meet
//! everything else, and each other.

use postgres::GenericClient;
use serde_json::Value;
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::device::call;
use sync_ext_harness::steps::{Stage, acknowledge, gc, versions_seen};

/// The workspaces `gone` and `old`, dropped; of seven rows and three are left
/// six and two.
fn two_dropped() -> Stage {
    let mut stage = Stage::new();
    let admin = &mut stage.admin;
    push(admin, "gone", &[put(1, "a", 1), put(2, "b", 1), put(3, "a", 2)]);
    push(admin, "old", &[put(1, "a", 1), put(2, "a", 2)]);
    for (workspace, device) in [("gone", "phone"), ("gone", "tablet")] {
        acknowledge(admin, workspace, device, 1);
    }
    // Each erases one row of its own.
    for workspace in ["gone", "old"] {
        admin.execute("select sync_drop_workspace($1, 1)", &[&workspace]).unwrap();
    }
    assert_eq!(left(&mut stage), (8, 2));
    stage
}

/// How many rows a run of GC erased, and whether it left any.
fn erase(client: &mut impl GenericClient, batch: i32) -> (i64, bool) {
    let reply = call(client, "select sync_gc(batch_size => $1)::text", &[&batch]).unwrap();
    let reply: Value = serde_json::from_str(&reply).unwrap();
    (reply["scanned"].as_i64().unwrap(), reply["hasMore"].as_bool().unwrap())
}

/// The rows of workspaces that are dropped, and how many of these are known.
fn left(stage: &mut Stage) -> (i64, i64) {
    let sql = "select count(*), (select count(*) from sync_ext.dropped_workspace)
                 from (select workspace_key from sync_ext.change_log
                       union all select workspace_key from sync_ext.record
                       union all select workspace_key from sync_ext.device_cursor) t
                where workspace_key not in (select workspace_key from sync_ext.workspace)";
    let row = stage.admin.query_one(sql, &[]).unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn erasing_holds_up_nobody() {
    let mut stage = two_dropped();
    let (mut rows, _) = left(&mut stage);
    push(&mut stage.admin, "den", &[put(1, "a", 1)]);
    let mut id = 10;
    while rows > 0 {
        let mut holder = stage.session();
        let mut transaction = holder.transaction().unwrap();
        let (erased, _) = erase(&mut transaction, 1);
        // What is erased is not committed: all others go on, also under its name.
        let admin = &mut stage.admin;
        for workspace in ["den", "gone"] {
            push(admin, workspace, &[put(id, "b", id), put(id + 1, "c", id)]);
            let head = *versions_seen(admin, workspace).last().unwrap();
            acknowledge(admin, workspace, &format!("d-{id}"), head);
            gc(admin, workspace);
        }
        let brief = "begin; select sync_create_workspace('brief', 'ann');
            select sync_drop_workspace('brief', 1); rollback";
        admin.batch_execute(brief).unwrap();
        transaction.commit().unwrap();
        // A workspace's devices, of which there are few, go together.
        assert!(erased == 1 || erased == 2, "{erased}");
        assert_eq!(left(&mut stage).0, rows - erased);
        rows -= erased;
        id += 2;
    }
    while erase(&mut stage.admin, 1).1 {}
    assert_eq!(left(&mut stage), (0, 0));
    assert_eq!(versions_seen(&mut stage.admin, "gone").len() as u64, id - 10, "what began anew");
}

#[test]
fn two_who_erase_leave_it_to_each_other() {
    for end in ["commit", "rollback"] {
        let mut stage = two_dropped();
        let mut first = stage.session();
        first.batch_execute("begin").unwrap();
        assert_eq!(erase(&mut first, 1), (1, true), "of `gone`");
        // The other passes over what the first is at, and has no more to do.
        assert_eq!(erase(&mut stage.admin, 100), (2, false), "of `old`");
        first.batch_execute(end).unwrap();
        let rows = if end == "commit" { 5 } else { 6 };
        assert_eq!(left(&mut stage), (rows, 1), "{end}");
        assert_eq!(erase(&mut stage.admin, 100), (rows, false));
        assert_eq!(left(&mut stage), (0, 0));
    }
}

/// By an acknowledgement that began before the workspace was dropped.
#[test]
fn who_erases_passes_over_a_device_that_is_held() {
    for end in ["commit", "rollback"] {
        let mut stage = Stage::new();
        push(&mut stage.admin, "w", &[put(1, "a", 1)]);
        for device in ["phone", "tablet"] {
            acknowledge(&mut stage.admin, "w", device, 0);
        }
        let mut holder = stage.holding("", "select sync_update_cursor('w', 'phone', 1)");
        stage.admin.execute("select sync_drop_workspace('w')", &[]).unwrap();
        assert_eq!(left(&mut stage), (1, 1), "the phone's");
        assert_eq!(erase(&mut stage.admin, 100), (0, true));
        holder.batch_execute(end).unwrap();
        assert_eq!(erase(&mut stage.admin, 100), (1, false), "{end}");
        assert_eq!(left(&mut stage), (0, 0));
    }
}
