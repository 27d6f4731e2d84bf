//! Snapshots that meet pushes and GC between their pages: they end right after
//! pulling from the watermark, or they are told to begin again.

use postgres::{Client, IsolationLevel};
use serde_json::Value;
use sync_ext_harness::batch::{delete, push, put};
use sync_ext_harness::device::{Device, Listed, Listing, call};
use sync_ext_harness::state::{live, of_server};
use sync_ext_harness::steps::{Stage, age, age_entry, gc};

/// Records a, b, d, e at versions 1..5, the delete of b at 4; all old.
fn old_records(stage: &mut Stage) {
    let mut transaction = stage.admin.transaction().unwrap();
    push(
        &mut transaction,
        "w",
        &[put(1, "a", 1), put(2, "b", 1), put(3, "d", 1), delete(4, "b", 2), put(5, "e", 1)],
    );
    age(&mut transaction);
    transaction.commit().unwrap();
}

/// Reads the rest of a snapshot, a record per page.
fn finish(device: &mut Device, listing: &mut Listing, session: &mut Client) -> Listed {
    loop {
        match device.snapshot_page(listing, session, 1).unwrap() {
            Listed::More => {}
            listed => return listed,
        }
    }
}

/// Pulls from the watermark; then the device shows what the server holds.
fn complete(device: &mut Device, session: &mut Client) {
    device.pull(session, 1, false).unwrap();
    assert!(!device.snapshot_begun);
    let server = of_server(session, "w").unwrap();
    assert_eq!(live(device.state()), live(server.clone()));
    // What the device remembers as deleted is deleted, with the same revision.
    assert!(device.state().iter().all(|line| server.contains(line)));
}

#[test]
fn a_snapshot_page_does_not_wait_for_a_push_and_does_not_show_it() {
    let mut stage = Stage::new();
    old_records(&mut stage);
    let (mut device, mut listing) = (Device::new("fresh", "w"), Listing::default());
    let mut session = stage.session();
    assert_eq!(device.snapshot_page(&mut listing, &mut session, 1).unwrap(), Listed::More);
    let mut pusher = stage.session();
    let mut transaction = pusher.transaction().unwrap();
    push(&mut transaction, "w", &[delete(6, "d", 2), put(7, "f", 1)]);
    session.batch_execute("set lock_timeout = '30s'").unwrap();
    assert_eq!(finish(&mut device, &mut listing, &mut session), Listed::Whole);
    assert_eq!(device.cursor, 5);
    assert_eq!(device.state(), of_server(&mut session, "w").unwrap());
    transaction.commit().unwrap();
    complete(&mut device, &mut session);
    assert_eq!(device.cursor, 7);
}

#[test]
fn a_snapshot_between_whose_pages_others_push_is_completed_by_a_pull() {
    let mut stage = Stage::new();
    old_records(&mut stage);
    // The record just listed and the one to come next are changed, deleted,
    // brought back; new ones come before and after the place of the reading.
    let between = [
        [put(11, "a", 5), put(12, "aa", 1), put(13, "dd", 1)],
        [delete(14, "d", 5), put(15, "b", 5), delete(16, "aa", 5)],
        [put(17, "d", 6), delete(18, "a", 6), put(19, "0", 1)],
        [put(20, "z", 1), delete(21, "z", 2), delete(22, "unknown", 1)],
    ];
    let (mut device, mut listing) = (Device::new("fresh", "w"), Listing::default());
    let mut session = stage.session();
    for ops in &between {
        assert_eq!(device.snapshot_page(&mut listing, &mut session, 1).unwrap(), Listed::More);
        push(&mut stage.admin, "w", ops);
    }
    assert_eq!(finish(&mut device, &mut listing, &mut session), Listed::Whole);
    assert_eq!(device.cursor, 5, "the head of the first page");
    complete(&mut device, &mut session);
    assert_eq!(device.state(), of_server(&mut session, "w").unwrap());
}

/// Purged before it was listed, the tombstone is not shown; purged afterwards,
/// it was. Either way its record is no longer live, and nothing after the
/// watermark is missing.
#[test]
fn a_snapshot_between_whose_pages_old_tombstones_are_purged_goes_on() {
    for pages_before in [1, 2] {
        let mut stage = Stage::new();
        old_records(&mut stage);
        let (mut device, mut listing) = (Device::new("fresh", "w"), Listing::default());
        let mut session = stage.session();
        for _ in 0..pages_before {
            assert_eq!(device.snapshot_page(&mut listing, &mut session, 1).unwrap(), Listed::More);
        }
        push(&mut stage.admin, "w", &[put(6, "a", 2), put(7, "f", 1)]);
        let collected = gc(&mut stage.admin, "w");
        assert_eq!(collected["tombstonesDeleted"], 1, "{collected}");
        assert_eq!(finish(&mut device, &mut listing, &mut session), Listed::Whole);
        let tombstones = device.synced.values().filter(|record| record.deleted).count();
        assert_eq!(tombstones, pages_before - 1);
        complete(&mut device, &mut session);
    }
}

#[test]
fn a_snapshot_between_whose_pages_a_new_tombstone_is_purged_is_expired() {
    let mut stage = Stage::new();
    old_records(&mut stage);
    let (mut device, mut listing) = (Device::new("fresh", "w"), Listing::default());
    let mut session = stage.session();
    // a is listed as live. Its delete would come with a pull from the
    // watermark, but GC takes it first.
    assert_eq!(device.snapshot_page(&mut listing, &mut session, 1).unwrap(), Listed::More);
    push(&mut stage.admin, "w", &[delete(6, "a", 2), put(7, "f", 1)]);
    age_entry(&mut stage.admin, 6);
    let collected = gc(&mut stage.admin, "w");
    assert_eq!(collected["tombstonesDeleted"], 2, "{collected}");
    assert_eq!(finish(&mut device, &mut listing, &mut session), Listed::Expired);
    assert_eq!((device.cursor, device.synced.len()), (0, 0), "nothing of it counts");
    assert!(device.snapshot_begun);
    complete(&mut device, &mut session);
}

/// No tombstone is missing, but the token's proof has no entry any more.
#[test]
fn a_snapshot_whose_proof_gc_has_passed_is_expired() {
    let mut stage = Stage::new();
    let mut transaction = stage.admin.transaction().unwrap();
    push(&mut transaction, "w", &[put(1, "a", 1), put(2, "b", 1), put(3, "b", 2)]);
    age(&mut transaction);
    transaction.commit().unwrap();
    let (mut device, mut listing) = (Device::new("fresh", "w"), Listing::default());
    let mut session = stage.session();
    assert_eq!(device.snapshot_page(&mut listing, &mut session, 1).unwrap(), Listed::More);
    push(&mut stage.admin, "w", &[put(4, "b", 3), put(5, "c", 1)]);
    age_entry(&mut stage.admin, 4);
    let collected = gc(&mut stage.admin, "w");
    assert_eq!(collected["changesDeleted"], 2, "{collected}");
    assert_eq!(collected["tombstonesDeleted"], 0, "{collected}");
    assert_eq!(finish(&mut device, &mut listing, &mut session), Listed::Expired);
    complete(&mut device, &mut session);
}

#[test]
fn a_snapshot_of_one_transaction_does_not_see_gc() {
    let mut stage = Stage::new();
    old_records(&mut stage);
    let page = |client: &mut postgres::Transaction<'_>, token: Option<&str>| -> Value {
        let sql = "select sync_snapshot('w', $1, 1)::text";
        serde_json::from_str(&call(client, sql, &[&token]).unwrap()).unwrap()
    };
    let mut session = stage.session();
    let level = IsolationLevel::RepeatableRead;
    let mut transaction = session.build_transaction().isolation_level(level).start().unwrap();
    let mut listed = page(&mut transaction, None);
    let mut pks = vec![listed["items"][0]["pk"].clone()];
    push(&mut stage.admin, "w", &[delete(6, "d", 2), put(7, "f", 1)]);
    age_entry(&mut stage.admin, 6);
    gc(&mut stage.admin, "w");
    stage.admin.batch_execute("vacuum sync_ext.change_log, sync_ext.record").unwrap();
    let first_token = listed["nextPageToken"].as_str().unwrap().to_owned();
    while let Some(token) = listed["nextPageToken"].as_str() {
        listed = page(&mut transaction, Some(token));
        pks.push(listed["items"][0]["pk"].clone());
    }
    assert_eq!(pks, ["a", "b", "d", "e"]);
    transaction.commit().unwrap();
    // For everybody else a tombstone above this watermark is gone.
    let sql = "select sync_snapshot('w', $1, 1)";
    let error = session.query(sql, &[&first_token]).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "SX001");
    assert_eq!(error.message(), "snapshot expired");
}
