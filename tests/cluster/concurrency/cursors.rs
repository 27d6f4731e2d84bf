//! Acknowledgements that meet GC and each other. They do not take the
//! workspace's lock: nobody waits, GC goes by the cursors that it finds
//! committed, and a device that came too late is told so.

use postgres::{Client, IsolationLevel};
use sync_ext_harness::batch::{delete, push, put};
use sync_ext_harness::device::{Device, Pulled, call};
use sync_ext_harness::state::{live, of_server};
use sync_ext_harness::steps::{Stage, acknowledge, age, age_entry, gc, pid};

/// Versions 1..6, all old; each delete is a tombstone that GC can purge.
fn old_log(stage: &mut Stage) {
    let mut transaction = stage.admin.transaction().unwrap();
    push(
        &mut transaction,
        "w",
        &[
            put(1, "a", 1),
            delete(2, "b", 1),
            put(3, "c", 1),
            delete(4, "a", 2),
            put(5, "d", 1),
            put(6, "e", 1),
        ],
    );
    age(&mut transaction);
    transaction.commit().unwrap();
}

/// A device that has seen everything up to a version, and no more.
fn device_at(session: &mut Client, version: i32) -> Device {
    let mut device = Device::new("phone", "w");
    device.pull_page(session, version, false).unwrap();
    assert_eq!(device.cursor, i64::from(version));
    device
}

/// The device goes on from where it is, without a snapshot.
fn goes_on(device: &mut Device, session: &mut Client) {
    let page = device.pull_page(session, 100, false).unwrap();
    assert!(matches!(page, Pulled::Page { has_more: false, .. }), "{page:?}");
    assert_eq!(device.state(), of_server(session, "w").unwrap());
}

fn is_refused_and_recovers(device: &mut Device, session: &mut Client) {
    let told = device.pull_page(session, 100, false).unwrap();
    assert_eq!(told, Pulled::SnapshotRequired { reason: "cursor_expired".to_owned() });
    device.pull(session, 100, false).unwrap();
    assert_eq!(live(device.state()), live(of_server(session, "w").unwrap()));
}

fn horizon(client: &mut Client) -> String {
    call(client, "select horizon::text from sync_ext.workspace", &[]).unwrap()
}

#[test]
fn acknowledging_waits_neither_for_a_push_nor_for_gc() {
    let mut stage = Stage::new();
    old_log(&mut stage);
    let mut holder = stage.session();
    let mut transaction = holder.transaction().unwrap();
    push(&mut transaction, "w", &[put(7, "a", 3)]);
    assert_eq!(acknowledge(&mut stage.admin, "w", "phone", 5)["advanced"], true);
    transaction.commit().unwrap();

    let mut transaction = holder.transaction().unwrap();
    assert_eq!(gc(&mut transaction, "w")["scanned"], 4);
    assert_eq!(acknowledge(&mut stage.admin, "w", "phone", 6)["advanced"], true);
    assert_eq!(acknowledge(&mut stage.admin, "w", "tablet", 6)["advanced"], true);
    transaction.commit().unwrap();
    assert_eq!(gc(&mut stage.admin, "w")["scanned"], 1, "5, as both have seen 6");
}

#[test]
fn two_sessions_register_one_device() {
    let mut stage = Stage::new();
    push(&mut stage.admin, "w", &[put(1, "a", 1), put(2, "a", 2)]);
    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    acknowledge(&mut transaction, "w", "phone", 2);
    let waiting =
        stage.blocked(pid(&mut transaction), |second| acknowledge(second, "w", "phone", 1));
    transaction.commit().unwrap();
    let reply = waiting.join().unwrap();
    assert_eq!((&reply["lastSeenVersion"], &reply["advanced"]), (&2.into(), &false.into()));

    // The first one never was: the second is the one that registers it.
    let mut transaction = first.transaction().unwrap();
    acknowledge(&mut transaction, "w", "tablet", 2);
    let waiting =
        stage.blocked(pid(&mut transaction), |second| acknowledge(second, "w", "tablet", 1));
    transaction.rollback().unwrap();
    let reply = waiting.join().unwrap();
    assert_eq!((&reply["lastSeenVersion"], &reply["advanced"]), (&1.into(), &true.into()));
}

#[test]
fn gc_keeps_to_a_cursor_whose_advance_is_not_committed() {
    let mut stage = Stage::new();
    old_log(&mut stage);
    acknowledge(&mut stage.admin, "w", "phone", 3);
    let mut session = stage.session();
    let mut transaction = session.transaction().unwrap();
    acknowledge(&mut transaction, "w", "phone", 6);
    let before = gc(&mut stage.admin, "w");
    assert_eq!((&before["scanned"], &before["tombstonesDeleted"]), (&2.into(), &1.into()));
    assert_eq!(horizon(&mut stage.admin), "2");
    transaction.commit().unwrap();
    let after = gc(&mut stage.admin, "w");
    assert_eq!((&after["scanned"], &after["tombstonesDeleted"]), (&3.into(), &1.into()));
}

#[test]
fn gc_keeps_to_a_cursor_whose_advance_is_rolled_back() {
    let mut stage = Stage::new();
    old_log(&mut stage);
    let mut session = stage.session();
    let mut device = device_at(&mut session, 3);
    device.acknowledge(&mut session).unwrap();
    let mut transaction = session.transaction().unwrap();
    acknowledge(&mut transaction, "w", "phone", 6);
    assert_eq!(gc(&mut stage.admin, "w")["scanned"], 2);
    transaction.rollback().unwrap();
    assert_eq!(gc(&mut stage.admin, "w")["scanned"], 0, "the cursor is where it was");
    goes_on(&mut device, &mut session);
}

#[test]
fn gc_that_began_first_keeps_to_the_cursor_that_it_saw() {
    let mut stage = Stage::new();
    old_log(&mut stage);
    let mut session = stage.session();
    let mut device = device_at(&mut session, 3);
    device.acknowledge(&mut session).unwrap();
    let mut collector = stage.session();
    let mut transaction = collector.transaction().unwrap();
    assert_eq!(gc(&mut transaction, "w")["scanned"], 2);
    // Neither what GC purged nor that it is still at it shows to the device.
    goes_on(&mut device, &mut session);
    device.acknowledge(&mut session).unwrap();
    transaction.commit().unwrap();
    assert_eq!(horizon(&mut stage.admin), "2");
    goes_on(&mut device, &mut session);
    assert_eq!(gc(&mut stage.admin, "w")["scanned"], 3);
    goes_on(&mut device, &mut session);
}

/// A first acknowledgement, or that of a device silent for too long, counts
/// from its commit on. GC in between may pass it; then it is told, and is not
/// left with a record that was deleted.
#[test]
fn a_device_that_gc_could_not_see_yet_needs_a_snapshot() {
    for was_silent in [false, true] {
        let mut stage = Stage::new();
        old_log(&mut stage);
        let mut session = stage.session();
        let mut device = device_at(&mut session, 3);
        if was_silent {
            device.acknowledge(&mut session).unwrap();
            let sql = "update sync_ext.device_cursor set updated_at = now() - interval '100 days'";
            session.execute(sql, &[]).unwrap();
        }
        let mut transaction = session.transaction().unwrap();
        acknowledge(&mut transaction, "w", "phone", 3);
        assert_eq!(gc(&mut stage.admin, "w")["scanned"], 5);
        transaction.commit().unwrap();
        assert_eq!(horizon(&mut stage.admin), "4");
        is_refused_and_recovers(&mut device, &mut session);

        // Below the horizon it holds back nothing; once it has acknowledged
        // its snapshot it does.
        push(&mut stage.admin, "w", &[delete(7, "d", 2), put(8, "f", 1), put(9, "g", 1)]);
        age_entry(&mut stage.admin, 7);
        device.acknowledge(&mut session).unwrap();
        assert_eq!(device.cursor, 6);
        assert_eq!(gc(&mut stage.admin, "w")["scanned"], 0);
        goes_on_to_live(&mut device, &mut session);
    }
}

/// As [`goes_on`], of a device that never saw what became graves.
fn goes_on_to_live(device: &mut Device, session: &mut Client) {
    let page = device.pull_page(session, 100, false).unwrap();
    assert!(matches!(page, Pulled::Page { has_more: false, .. }), "{page:?}");
    assert_eq!(live(device.state()), live(of_server(session, "w").unwrap()));
}

#[test]
fn a_device_that_registers_while_gc_runs_needs_a_snapshot() {
    let mut stage = Stage::new();
    old_log(&mut stage);
    let mut session = stage.session();
    let mut device = device_at(&mut session, 3);
    let mut collector = stage.session();
    let mut transaction = collector.transaction().unwrap();
    assert_eq!(gc(&mut transaction, "w")["tombstonesDeleted"], 2);
    device.acknowledge(&mut session).unwrap();
    transaction.commit().unwrap();
    is_refused_and_recovers(&mut device, &mut session);
}

/// Acknowledging does not take the workspace's lock, so no 40001 protects GC
/// at higher levels from deciding by old cursors.
#[test]
fn gc_sees_devices_that_came_after_its_snapshot() {
    let mut stage = Stage::new();
    let ops = [put(1, "a", 1), put(2, "a", 2), put(3, "a", 3), put(4, "a", 4)];
    push(&mut stage.admin, "w", &ops);
    age(&mut stage.admin);
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let mut collector = stage.session();
        let mut transaction = collector.build_transaction().isolation_level(level).start().unwrap();
        transaction.query("select 1 from sync_ext.workspace", &[]).unwrap();
        acknowledge(&mut stage.admin, "w", "phone", 2);
        let scanned = gc(&mut transaction, "w")["scanned"].clone();
        assert_eq!(scanned, 1, "only what the phone has seen");
        transaction.rollback().unwrap();
        stage.admin.execute("delete from sync_ext.device_cursor", &[]).unwrap();
    }
}

#[test]
fn gc_does_not_forget_a_device_that_comes_back_meanwhile() {
    let mut stage = Stage::new();
    push(&mut stage.admin, "w", &[put(1, "a", 1)]);
    acknowledge(&mut stage.admin, "w", "phone", 1);
    let sql = "update sync_ext.device_cursor set updated_at = now() - interval '1 year'";
    stage.admin.execute(sql, &[]).unwrap();
    let mut device = stage.session();
    let mut transaction = device.transaction().unwrap();
    acknowledge(&mut transaction, "w", "phone", 1);
    let forgotten = |stage: &mut Stage| gc(&mut stage.admin, "w")["devicesDeleted"].clone();
    assert_eq!(forgotten(&mut stage), 0, "its row is locked");
    transaction.commit().unwrap();
    assert_eq!(forgotten(&mut stage), 0, "it is alive");
    stage.admin.execute(sql, &[]).unwrap();
    assert_eq!(forgotten(&mut stage), 1, "silent again");
}
