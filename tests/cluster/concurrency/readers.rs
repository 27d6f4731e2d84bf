//! Pulls that meet pushes and GC: what is not committed is not seen, what is
//! committed later is not stepped over, and who lost something is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use postgres::{Client, IsolationLevel};
use serde_json::Value;
use sync_ext_harness::batch::{delete, push, put, versions};
use sync_ext_harness::device::{Device, Pulled, call};
use sync_ext_harness::state::{live, of_server};
use sync_ext_harness::steps::{Stage, age, gc, pid, pull};

fn seen(page: &Value) -> Vec<i64> {
    versions(&page.to_string(), "changes")
}

fn repeatable_read(client: &mut Client) -> postgres::Transaction<'_> {
    client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().unwrap()
}

#[test]
fn a_pull_sees_a_push_once_it_is_committed() {
    let mut stage = Stage::new();
    push(&mut stage.admin, "w", &[put(1, "a", 1)]);
    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    push(&mut transaction, "w", &[put(2, "a", 2), put(3, "b", 1)]);

    // Not for others, as if it did not exist; for its own transaction it does.
    let before = pull(&mut stage.admin, "w", 0, 100, None);
    assert_eq!(seen(&before), [1]);
    assert_eq!((&before["nextCursor"], &before["serverVersion"]), (&1.into(), &1.into()));
    assert_eq!(seen(&pull(&mut transaction, "w", 0, 100, None)), [1, 2, 3]);
    transaction.commit().unwrap();

    let proof = before["proof"].as_str();
    let after = pull(&mut stage.admin, "w", 1, 100, proof);
    assert_eq!(seen(&after), [2, 3]);
    assert_eq!((&after["nextCursor"], &after["serverVersion"]), (&3.into(), &3.into()));
}

#[test]
fn pushes_that_queue_are_seen_in_the_order_of_their_versions() {
    let mut stage = Stage::new();
    push(&mut stage.admin, "w", &[put(1, "a", 1)]);
    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    push(&mut transaction, "w", &[put(2, "b", 1)]);
    // The second has its version as soon as the first commits, and keeps it
    // to itself until it is told to commit.
    let (pushed, is_pushed) = mpsc::channel();
    let (commit, may_commit) = mpsc::channel::<()>();
    let second = stage.blocked(pid(&mut transaction), move |second| {
        let mut transaction = second.transaction().unwrap();
        pushed.send(push(&mut transaction, "w", &[put(3, "c", 1)])).unwrap();
        may_commit.recv().unwrap();
        transaction.commit().unwrap();
    });
    assert_eq!(pull(&mut stage.admin, "w", 1, 100, None)["nextCursor"], 1);
    transaction.commit().unwrap();
    assert_eq!(is_pushed.recv().unwrap(), [3]);
    let page = pull(&mut stage.admin, "w", 1, 100, None);
    assert_eq!((seen(&page), &page["nextCursor"]), (vec![2], &2.into()));
    commit.send(()).unwrap();
    second.join().unwrap();
    let page = pull(&mut stage.admin, "w", 2, 100, page["proof"].as_str());
    assert_eq!((seen(&page), &page["nextCursor"]), (vec![3], &3.into()));
}

#[test]
fn a_puller_with_one_snapshot_reads_one_state_and_goes_on_after_it() {
    let mut stage = Stage::new();
    push(&mut stage.admin, "w", &[put(1, "a", 1), put(2, "b", 1), put(3, "c", 1)]);
    let mut reader = stage.session();
    let mut transaction = repeatable_read(&mut reader);
    let first = pull(&mut transaction, "w", 0, 2, None);
    assert_eq!((seen(&first), &first["hasMore"]), (vec![1, 2], &true.into()));
    push(&mut stage.admin, "w", &[put(4, "a", 2)]);
    let second = pull(&mut transaction, "w", 2, 2, first["proof"].as_str());
    assert_eq!((seen(&second), &second["nextCursor"]), (vec![3], &3.into()));
    transaction.commit().unwrap();
    let newer = pull(&mut reader, "w", 3, 2, second["proof"].as_str());
    assert_eq!((seen(&newer), &newer["nextCursor"]), (vec![4], &4.into()));
}

/// Versions 1..8, all old: GC can purge the tombstone of b (4), what it and 7
/// superseded (2, 1), and the loser 5.
fn old_log(stage: &mut Stage, workspace: &str) {
    let mut transaction = stage.admin.transaction().unwrap();
    push(
        &mut transaction,
        workspace,
        &[
            put(1, "a", 1),
            put(2, "b", 1),
            put(3, "c", 1),
            delete(4, "b", 2),
            put(5, "c", 0),
            put(6, "d", 1),
            put(7, "a", 2),
            put(8, "e", 1),
        ],
    );
    age(&mut transaction);
    transaction.commit().unwrap();
}

#[test]
fn a_puller_that_began_before_gc_keeps_seeing_its_state() {
    let mut stage = Stage::new();
    old_log(&mut stage, "w");
    let mut reader = stage.session();
    let mut transaction = repeatable_read(&mut reader);
    let mut page = pull(&mut transaction, "w", 0, 1, None);
    let mut all = seen(&page);
    while page["hasMore"] == true {
        // GC goes one entry further between any two pages, and vacuum after it.
        stage.admin.execute("select sync_gc('w', batch_size => 1)", &[]).unwrap();
        stage.admin.batch_execute("vacuum sync_ext.change_log, sync_ext.record").unwrap();
        let cursor = page["nextCursor"].as_i64().unwrap();
        page = pull(&mut transaction, "w", cursor, 1, page["proof"].as_str());
        assert_eq!(page["oldestRetainedVersion"], 1);
        all.extend(seen(&page));
    }
    assert_eq!(all, (1..=8).collect::<Vec<_>>());
    transaction.commit().unwrap();
    // GC did purge, and yet this puller missed nothing: it simply goes on.
    let left = "select string_agg(server_version::text, ',' order by server_version)
                  from sync_ext.change_log";
    assert_eq!(call(&mut stage.admin, left, &[]).unwrap(), "3,6,7,8");
    push(&mut stage.admin, "w", &[put(9, "f", 1)]);
    let next = pull(&mut reader, "w", 8, 100, page["proof"].as_str());
    assert_eq!((&next["requiresSnapshot"], seen(&next)), (&false.into(), vec![9]));
}

#[test]
fn a_puller_between_whose_pages_a_tombstone_is_purged_needs_a_snapshot() {
    let mut stage = Stage::new();
    for (workspace, latest, first_page) in [("all", false, 2), ("latest", true, 1)] {
        old_log(&mut stage, workspace);
        let mut device = Device::new("phone", workspace);
        let mut session = stage.session();
        let page = device.pull_page(&mut session, first_page, latest).unwrap();
        assert_eq!(page, Pulled::Page { changes: first_page as usize, has_more: true });
        assert!(device.cursor < 4, "the tombstone is still to come");
        let collected = gc(&mut stage.admin, workspace);
        assert_eq!(collected["tombstonesDeleted"], 1, "{collected}");

        let told = device.pull_page(&mut session, 100, latest).unwrap();
        assert_eq!(told, Pulled::SnapshotRequired { reason: "cursor_expired".to_owned() });
        device.pull(&mut session, 100, latest).unwrap();
        assert_eq!(device.state(), live(of_server(&mut session, workspace).unwrap()));
    }
}

/// A tombstone that the puller has seen, entries that were superseded by what
/// is still to come, losers: none of them is missed.
#[test]
fn a_puller_between_whose_pages_gc_purged_less_gets_all_it_needs() {
    let mut stage = Stage::new();
    for (workspace, latest) in [("all", false), ("latest", true)] {
        // One device before anything else, one after the tombstone.
        let mut transaction = stage.admin.transaction().unwrap();
        push(
            &mut transaction,
            workspace,
            &[put(11, "a", 1), put(12, "b", 1), put(13, "a", 2), put(14, "b", 0), put(15, "c", 1)],
        );
        age(&mut transaction);
        transaction.commit().unwrap();
        let mut session = stage.session();
        let mut early = Device::new("early", workspace);
        early.pull_page(&mut session, 1, latest).unwrap();
        let collected = gc(&mut stage.admin, workspace);
        assert_eq!(collected["changesDeleted"], 2, "{collected}");
        assert_eq!(collected["tombstonesDeleted"], 0, "{collected}");
        pull_to_the_end(&mut early, &mut session, latest);

        let mut transaction = stage.admin.transaction().unwrap();
        push(
            &mut transaction,
            workspace,
            &[delete(16, "b", 3), put(17, "a", 3), put(18, "d", 1), put(19, "e", 1)],
        );
        age(&mut transaction);
        transaction.commit().unwrap();
        assert_eq!(
            early.pull_page(&mut session, 1, latest).unwrap(),
            Pulled::Page { changes: 1, has_more: true }
        );
        assert_eq!(early.cursor, 6, "right at the tombstone");
        let collected = gc(&mut stage.admin, workspace);
        assert_eq!(collected["tombstonesDeleted"], 1, "{collected}");
        pull_to_the_end(&mut early, &mut session, latest);
        assert_eq!(early.state(), of_server(&mut session, workspace).unwrap());
    }
}

/// Without being asked for a snapshot.
fn pull_to_the_end(device: &mut Device, session: &mut Client, latest: bool) {
    loop {
        match device.pull_page(session, 1, latest).unwrap() {
            Pulled::Page { has_more: true, .. } => {}
            Pulled::Page { .. } => break,
            told => panic!("{told:?}"),
        }
    }
    let server = of_server(session, &device.workspace).unwrap();
    assert_eq!(device.state(), server);
}

/// Pushers in several sessions, some of whom roll back; pullers that follow
/// nextCursor must see every version from 1 on, in order, none twice.
#[test]
fn no_puller_ever_steps_over_a_version() {
    const PUSHERS: u64 = 4;
    const PUSHES: u64 = 100;
    let stage = Stage::new();
    let database = &stage.database;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let pullers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = database.session();
                    let mut cursor = 0i64;
                    loop {
                        let last_round = done.load(Ordering::SeqCst);
                        let sql = "select sync_pull('w', $1, 7)::text";
                        let reply = call(&mut client, sql, &[&cursor]).unwrap();
                        let seen = versions(&reply, "changes");
                        let end = cursor + seen.len() as i64;
                        assert_eq!(seen, (cursor + 1..=end).collect::<Vec<_>>(), "after {cursor}");
                        // What comes next is what nextCursor says, not what we count.
                        let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
                        cursor = reply["nextCursor"].as_i64().unwrap();
                        assert_eq!(cursor, end);
                        if last_round && seen.is_empty() {
                            return cursor;
                        }
                    }
                })
            })
            .collect();
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|pusher| {
                scope.spawn(move || {
                    let mut client = database.session();
                    for round in 0..PUSHES {
                        let id = pusher * PUSHES * 2 + round * 2;
                        let mut transaction = client.transaction().unwrap();
                        push(
                            &mut transaction,
                            "w",
                            &[put(id, "a", round), put(id + 1, "b", round)],
                        );
                        if round % 5 == 4 {
                            transaction.rollback().unwrap();
                        } else {
                            transaction.commit().unwrap();
                        }
                    }
                })
            })
            .collect();
        // Pullers end also when a pusher fails.
        let pushed: Vec<_> = pushers.into_iter().map(|pusher| pusher.join()).collect();
        done.store(true, Ordering::SeqCst);
        for result in pushed {
            result.unwrap();
        }
        let committed = PUSHERS * PUSHES / 5 * 4 * 2;
        for puller in pullers {
            assert_eq!(puller.join().unwrap(), committed as i64);
        }
    });
}
