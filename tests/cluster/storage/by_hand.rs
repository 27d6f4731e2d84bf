//! Rows that somebody changes by hand, while others push or before.

use sync_ext_harness::batch::{push, put};
use sync_ext_harness::steps::{Stage, age, outcome, pid};

use super::{furnished, push_sql, refusal};
use crate::patching::{allow_patches, patch};

#[test]
fn a_row_changed_meanwhile_is_40001() {
    for (change, call, expected) in [
        ("update sync_ext.record set clock = clock + 0", push_sql(10, "a", 9), Err("40001")),
        ("delete from sync_ext.record where pk = 'a'", push_sql(10, "a", 9), Err("40001")),
        (
            "update sync_ext.change_log set hlc = hlc",
            "select sync_gc('w') -> 'changesDeleted'".to_owned(),
            Err("40001"),
        ),
        (
            "update sync_ext.workspace set head = head",
            format!("{} -> 'serverVersion'", push_sql(10, "z", 1)),
            Ok("5"),
        ),
        (
            "update sync_ext.device_cursor set updated_at = updated_at",
            "select sync_update_cursor('w', 'phone', 4) -> 'advanced'".to_owned(),
            Ok("false"),
        ),
    ] {
        let mut stage = Stage::on(furnished());
        age(&mut stage.admin);
        let mut by_hand = stage.holding("", change);
        let holder = pid(&mut by_hand);
        let sql = call.clone();
        let waiting = stage.blocked(holder, move |session| outcome(session, &sql));
        by_hand.batch_execute("commit").unwrap();
        let told = waiting.join().unwrap();
        let told = told.as_ref().map(String::as_str).map_err(String::as_str);
        assert_eq!(told, expected, "{change}");
        // Retried, it goes through.
        outcome(&mut stage.session(), &call).unwrap();
    }
}

#[test]
fn a_workspace_renamed_meanwhile_keeps_its_name() {
    let mut stage = Stage::on(furnished());
    let rename = "update sync_ext.workspace set workspace_id = 'new' where workspace_id = 'w'";
    for (end, names) in [("rollback", "team w"), ("commit", "new team w")] {
        let mut by_hand = stage.holding("", rename);
        let holder = pid(&mut by_hand);
        let sql = push_sql(if end == "commit" { 11 } else { 10 }, "z", 1);
        let waiting = stage.blocked(holder, move |session| outcome(session, &sql));
        by_hand.batch_execute(end).unwrap();
        assert!(waiting.join().unwrap().is_ok());
        let told =
            "select string_agg(workspace_id, ' ' order by workspace_id) from sync_ext.workspace";
        assert_eq!(outcome(&mut stage.admin, told).unwrap(), names, "{end}");
    }
    // The old name is a new workspace, with the op that waited alone.
    let head = "select head::text from sync_ext.workspace where workspace_id = $1";
    for (name, expected) in [("new", "5"), ("w", "1")] {
        let found: String = stage.admin.query_one(head, &[&name]).unwrap().get(0);
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn impossible_numbers_raise_damage() {
    let database = furnished();
    let mut admin = database.session();
    let head =
        |head: i64| format!("update sync_ext.workspace set head = {head} where workspace_id = 'w'");
    admin.batch_execute(&head(i64::MAX - 1)).unwrap();
    let two = format!("select sync_push('w', '[{},{}]')", put(10, "y", 1), put(11, "z", 1));
    assert_eq!(
        refusal(&mut admin, &two),
        ("55000".to_owned(), format!("Its head is {}.", i64::MAX - 1))
    );
    assert_eq!(push(&mut admin, "w", &[put(10, "y", 1)]), [i64::MAX]);
    assert_eq!(refusal(&mut admin, &push_sql(11, "z", 1)).0, "55000");
    let negative = "select count(*)::text from sync_ext.change_log where server_version < 0";
    assert_eq!(outcome(&mut admin, negative).unwrap(), "0");
    // Replays still are.
    assert!(outcome(&mut admin, &push_sql(10, "y", 1)).unwrap().contains("\"replayed\":true"));
    admin
        .batch_execute(
            "update sync_ext.workspace set horizon = 9223372036854775807 where workspace_id = 'w'",
        )
        .unwrap();
    let told = outcome(&mut admin, "select sync_pull('w') -> 'oldestRetainedVersion'");
    assert_eq!(told.unwrap(), i64::MAX.to_string());
}

#[test]
fn a_record_whose_winner_is_above_the_head_raises_damage() {
    let database = furnished();
    let mut admin = database.session();
    admin.batch_execute("update sync_ext.record set server_version = 6 where pk = 'a'").unwrap();
    allow_patches(&mut admin);
    let patch = patch(11, "a", 2, (1, 1), "{\"n\":2}");
    for sql in [push_sql(10, "a", 0), format!("select sync_push('w', '[{patch}]')")] {
        assert_eq!(refusal(&mut admin, &sql).0, "XX001", "{sql}");
    }
    // A retry of the register's op needs no entry of the record.
    assert!(outcome(&mut admin, &push_sql(1, "a", 1)).unwrap().contains("\"replayed\":true"));
    let with_another =
        format!("select sync_push('w', '[{},{}]')", put(12, "y", 1), put(13, "a", 0));
    assert_eq!(refusal(&mut admin, &with_another).0, "XX001");
    // What wins puts it right.
    assert_eq!(push(&mut admin, "w", &[put(14, "a", 9)]), [5]);
}
