//! A record goes out of the scopes that a device follows.

use serde_json::Value;
use sync_ext_harness::batch::{delete, op_id, push};
use sync_ext_harness::device::{Pending, Pulled, call};
use sync_ext_harness::steps::{age, gc};

use super::{changes, has, put_in, stage, up_to_date};
use crate::patching::patch;

fn told(version: i64, op: &str) -> (i64, String) {
    (version, op.to_owned())
}

#[test]
fn a_patch_that_moves_a_record_is_a_leave() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[put_in("a", 1, "x", 1)]);
    let mut device = up_to_date(&["a"], &mut stage.admin);
    device.keeps_marks = true;
    push(&mut stage.admin, "w", &[patch(2, "x", 2, (1, 1), r#"{"in":"b"}"#)]);
    let sql = "select sync_pull('w', 1, scopes => array['a']) #>> '{changes,0}'";
    let leave: Value = serde_json::from_str(&call(&mut stage.admin, sql, &[]).unwrap()).unwrap();
    let base = serde_json::json!({"clock": 1, "hlc": "h", "opId": op_id(1)});
    assert_eq!((&leave["op"], &leave["base"]), (&"leave".into(), &base), "{leave}");
    assert_eq!((leave.get("payload"), leave.get("patch")), (None, None), "{leave}");
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!(has(&device), [""; 0]);
    let mark = &device.marks[&("notes".to_owned(), "x".to_owned())];
    assert_eq!((mark.version, &*mark.revision.op_id), (2, &*op_id(1)), "the register");
}

/// Both entries are one call's; the one that moved the record keeps nothing but that.
#[test]
fn a_patch_that_its_own_call_superseded_is_a_leave_too() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[put_in("a", 1, "x", 1)]);
    let mut device = up_to_date(&["a"], &mut stage.admin);
    let moves = patch(2, "x", 2, (1, 1), r#"{"in":"b"}"#);
    push(&mut stage.admin, "w", &[moves, patch(3, "x", 3, (1, 1), r#"{"n":3}"#)]);
    assert_eq!(changes(&mut stage.admin, 1, "a", true), [told(2, "leave")]);
    device.pull(&mut stage.admin, 100, true).unwrap();
    assert_eq!(has(&device), [""; 0]);
}

#[test]
fn a_patch_that_loses_the_field_moves_nothing() {
    let mut stage = stage();
    let ops = [
        put_in("a", 1, "x", 1),
        patch(2, "x", 9, (1, 1), r#"{"in":"b"}"#),
        patch(3, "x", 5, (1, 1), r#"{"in":"c","n":3}"#),
    ];
    push(&mut stage.admin, "w", &ops);
    assert_eq!(changes(&mut stage.admin, 1, "c", false), []);
    assert_eq!(has(&up_to_date(&["b"], &mut stage.admin)), ["x"]);
}

#[test]
fn a_record_that_was_deleted_in_one_scope_and_revived_in_another_leaves_the_first() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[put_in("a", 1, "x", 1)]);
    let mut device = up_to_date(&["a"], &mut stage.admin);
    push(&mut stage.admin, "w", &[delete(2, "x", 2)]);
    assert_eq!(changes(&mut stage.admin, 1, "a", false), [told(2, "delete")]);
    device.pull(&mut stage.admin, 100, false).unwrap();
    push(&mut stage.admin, "w", &[put_in("b", 3, "x", 3)]);
    for latest in [false, true] {
        assert_eq!(changes(&mut stage.admin, 2, "a", latest), [told(3, "leave")]);
    }
    // Of the whole history, for who has not seen the delete.
    let all = [told(1, "put"), told(2, "delete"), told(3, "leave")];
    assert_eq!(changes(&mut stage.admin, 0, "a", false), all);
    device.pull(&mut stage.admin, 100, true).unwrap();
    assert_eq!(device.synced.len(), 0);
}

/// Who has read up to the put learns of the move by an entry that is not the newest.
#[test]
fn a_leave_that_was_superseded_is_among_the_latest() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[put_in("a", 1, "x", 1)]);
    let mut device = up_to_date(&["a"], &mut stage.admin);
    push(&mut stage.admin, "w", &[put_in("b", 2, "x", 2), put_in("c", 3, "x", 3)]);
    assert_eq!(changes(&mut stage.admin, 1, "a", true), [told(2, "leave")]);
    assert_eq!(changes(&mut stage.admin, 1, "b", true), [told(3, "leave")]);
    device.pull(&mut stage.admin, 100, true).unwrap();
    assert_eq!(has(&device), [""; 0]);
    push(&mut stage.admin, "w", &[put_in("a", 4, "x", 4)]);
    assert_eq!(changes(&mut stage.admin, 1, "a", true), [told(4, "put")], "it is inside again");
}

/// Every record of such a table is inside, whatever the scope was that it left; also until the
/// change of the field has come to its workspace.
#[test]
fn a_record_whose_table_has_no_scope_field_any_more_has_not_left() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[put_in("a", 1, "x", 1), put_in("b", 2, "x", 2)]);
    assert_eq!(changes(&mut stage.admin, 1, "a", true), [told(2, "leave")]);
    let first_step = "select sync_ext.set_scope_field('notes', '', null)";
    stage.admin.batch_execute(first_step).unwrap();
    push(&mut stage.admin, "w", &[put_in("b", 3, "x", 3)]);
    assert_eq!(changes(&mut stage.admin, 1, "a", true), [told(3, "put")]);
}

#[test]
fn a_purged_leave_is_below_the_horizon() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[put_in("a", 1, "x", 1)]);
    let mut device = up_to_date(&["a"], &mut stage.admin);
    // The third one supersedes the leave.
    let ops = [put_in("b", 2, "x", 2), put_in("b", 3, "x", 3), put_in("b", 4, "y", 1)];
    push(&mut stage.admin, "w", &ops);
    age(&mut stage.admin);
    assert_eq!(gc(&mut stage.admin, "w")["changesDeleted"], 2);
    device.proof = None;
    let required = Pulled::SnapshotRequired { reason: "cursor_expired".to_owned() };
    assert_eq!(device.pull_page(&mut stage.admin, 100, false).unwrap(), required);
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!(has(&device), [""; 0]);
}

#[test]
fn a_mark_hides_and_settles_what_it_replaced_and_lets_newer_ops_through() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[put_in("a", 1, "x", 1)]);
    let mut device = up_to_date(&["a"], &mut stage.admin);
    push(&mut stage.admin, "w", &[put_in("b", 2, "x", 5)]);
    let older = Pending { told: Some(9), ..Pending::of(put_in("a", 3, "x", 2)).unwrap() };
    let newer = Pending::of(put_in("a", 4, "x", 6)).unwrap();
    device.outbox = vec![older, newer.clone()];
    device.pull(&mut stage.admin, 100, false).unwrap();
    let waiting: Vec<_> = device.outbox.iter().map(|op| &op.revision.op_id).collect();
    assert_eq!(waiting, [&op_id(4)], "the older one is settled");
    assert_eq!(device.seen("notes", "x").register.unwrap(), newer.revision);
    device.outbox = vec![Pending::of(put_in("a", 3, "x", 2)).unwrap()];
    assert!(!device.seen("notes", "x").is_live(), "the older one is hidden");
    assert_eq!(device.parent("notes", "x"), "none", "the record is not known");
    device.outbox.clear();
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!(device.marks.len(), 0, "nothing needs the mark");
}
