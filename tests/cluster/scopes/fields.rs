//! What the scope of a record is, and tables whose scopes become others.

use postgres::IsolationLevel;
use sync_ext_harness::batch::{op, push};
use sync_ext_harness::device::{Listed, Listing, Pulled, list};
use sync_ext_harness::steps::{Stage, outcome, pid};

use super::{follower, has, put_in, stage, up_to_date};

const BY_AT: &str = "call sync_set_scope_field('notes', 'at')";

fn both(id: u64, pk: &str, of_in: &str, of_at: &str) -> String {
    op(id, pk, 1, "put", &format!(r#"{{"in":"{of_in}","at":"{of_at}"}}"#))
}

/// The scopes of all live records.
fn scopes(stage: &mut Stage) -> Vec<(String, Option<String>)> {
    let sql = "select pk, scope from sync_ext.current_record where not deleted order by pk";
    let rows = stage.admin.query(sql, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn in_scope(pk: &str, scope: &str) -> (String, Option<String>) {
    (pk.to_owned(), Some(scope.to_owned()))
}

#[test]
fn another_scope_field_makes_every_reader_begin_again() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[both(1, "x", "a", "b"), both(2, "y", "b", "a")]);
    let mut device = up_to_date(&["a"], &mut stage.admin);
    assert_eq!(has(&device), ["x"]);
    stage.admin.batch_execute(BY_AT).unwrap();
    let required = Pulled::SnapshotRequired { reason: "scopes_changed".to_owned() };
    assert_eq!(device.pull_page(&mut stage.admin, 100, false).unwrap(), required);
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!(has(&device), ["y"]);
}

/// Also where nothing else was pushed, so that history is the same.
#[test]
fn a_scope_field_that_a_restore_took_back_is_not_taken_for_the_next_one() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[op(1, "x", 1, "put", r#"{"in":"a","at":"b","by":"a"}"#)]);
    stage.admin.batch_execute("create table backup as table sync_ext.workspace").unwrap();
    stage.admin.batch_execute(BY_AT).unwrap();
    let mut device = up_to_date(&["b"], &mut stage.admin);
    assert_eq!(has(&device), ["x"]);
    let restore = "update sync_ext.workspace as w set scope_epoch = b.scope_epoch from backup as b";
    stage.admin.batch_execute(restore).unwrap();
    stage.admin.batch_execute("call sync_set_scope_field('notes', 'by')").unwrap();
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!(has(&device), [""; 0]);
}

#[test]
fn another_scope_field_ends_a_snapshot_between_its_pages() {
    let mut stage = stage();
    push(&mut stage.admin, "w", &[both(1, "x", "a", "b"), both(2, "y", "a", "a")]);
    let (mut device, mut listing) = (follower(&["a"]), Listing::default());
    let page = device.snapshot_page(&mut listing, &mut stage.admin, 1).unwrap();
    assert_eq!(page, Listed::More);
    stage.admin.batch_execute(BY_AT).unwrap();
    let page = device.snapshot_page(&mut listing, &mut stage.admin, 1).unwrap();
    assert_eq!(page, Listed::Expired);
    // What was to be added to a state of the old meaning is expired too.
    let mut device = up_to_date(&["a"], &mut stage.admin);
    device.follow(list(&["b"]));
    device.pull_page(&mut stage.admin, 100, false).unwrap();
    stage.admin.batch_execute("call sync_set_scope_field('notes', 'in')").unwrap();
    let page = device.snapshot_page(&mut Listing::default(), &mut stage.admin, 1).unwrap();
    assert_eq!(page, Listed::Expired);
    device.pull(&mut stage.admin, 100, false).unwrap();
    assert_eq!((has(&device).len(), &device.scopes), (0, &list(&["b"])));
}

/// The owner that the server adds to a payload is part of the record.
#[test]
fn a_scope_that_is_the_owner_is_known_where_the_server_fills_it_in() {
    let mut stage = Stage::new();
    stage
        .admin
        .batch_execute(
            "select sync_register_table('diary', owner_field => 'by', scope_field => 'by'),
                    sync_create_workspace('w', 'ann')",
        )
        .unwrap();
    let mut session = stage.session_of("ann");
    push(&mut session, "w", &[op(1, "x", 1, "put", "{}").replace("notes", "diary")]);
    assert_eq!(scopes(&mut stage), [in_scope("x", "ann")]);
    assert_eq!(has(&up_to_date(&["ann"], &mut session)), ["x"]);
}

/// The push has taken its scope by the old field, in a workspace that nobody else sees yet.
#[test]
fn another_scope_field_waits_for_a_push_that_creates_a_workspace() {
    let mut stage = stage();
    let mut pusher = stage.session();
    let mut transaction = pusher.transaction().unwrap();
    push(&mut transaction, "w", &[both(1, "x", "a", "b")]);
    let setter =
        stage.blocked(pid(&mut transaction), |session| session.batch_execute(BY_AT).unwrap());
    transaction.commit().unwrap();
    setter.join().unwrap();
    assert_eq!(scopes(&mut stage), [in_scope("x", "b")]);
}

/// It sees the old registry, also in a workspace that has no record of the table.
#[test]
fn a_repeatable_read_push_from_before_another_scope_field_fails() {
    let mut stage = stage();
    let other = put_in("a", 1, "f", 1).replace("notes", "files");
    stage.admin.batch_execute("select sync_register_table('files')").unwrap();
    push(&mut stage.admin, "w", &[other]);
    let mut pusher = stage.session();
    let mut transaction =
        pusher.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().unwrap();
    transaction.query_one("select 1", &[]).unwrap();
    stage.admin.batch_execute(BY_AT).unwrap();
    let sql = format!("select sync_push('w', '[{}]')", both(2, "x", "a", "b"));
    assert_eq!(outcome(&mut transaction, &sql), Err("40001".to_owned()));
}
