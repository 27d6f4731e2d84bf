//! Two and more sessions: locks, visibility, isolation levels. Steps are
//! ordered by what the server shows, never by time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use postgres::error::SqlState;
use postgres::{Client, IsolationLevel};
use sync_ext_cluster::batch::{push, put, versions};
use sync_ext_cluster::cluster::Cluster;
use sync_ext_cluster::device::call;
use sync_ext_cluster::waiting::{pid, until_blocked};

fn database(cluster: &Cluster, name: &str) -> Client {
    let mut client = cluster.create_database(name).unwrap();
    client.execute("select sync_register_table('notes')", &[]).unwrap();
    client
}

fn versions_seen(client: &mut Client, workspace: &str) -> Vec<i64> {
    let reply = call(client, "select sync_pull($1)::text", &[&workspace]).unwrap();
    versions(&reply, "changes")
}

#[test]
fn sessions() {
    // Who waits for a lock that it must not wait for gets an error in the end.
    let settings = ["fsync=off", "deadlock_timeout=50ms", "lock_timeout=60s"];
    let cluster = Cluster::start("sessions", &settings).unwrap();
    an_uncommitted_push_blocks_its_workspace_alone(&cluster);
    first_pushes_of_a_workspace_from_two_sessions_both_land(&cluster);
    a_concurrent_push_above_read_committed_is_40001(&cluster);
    two_workspaces_in_opposite_order_are_a_deadlock_that_postgres_ends(&cluster);
    no_puller_ever_steps_over_a_version(&cluster);
    gc_skips_a_locked_workspace_and_waits_for_a_named_one(&cluster);
    acknowledging_does_not_wait_for_a_push(&cluster);
    two_sessions_register_one_device(&cluster);
    a_push_waits_for_a_rolled_back_one_and_takes_its_versions(&cluster);
    an_op_that_another_session_commits_meanwhile_is_a_replay(&cluster);
    gc_sees_devices_that_came_after_its_snapshot(&cluster);
    gc_does_not_forget_a_device_that_comes_back_meanwhile(&cluster);
}

fn an_uncommitted_push_blocks_its_workspace_alone(cluster: &Cluster) {
    let mut admin = database(cluster, "blocking");
    let mut first = cluster.connect("blocking").unwrap();
    let mut transaction = first.transaction().unwrap();
    assert_eq!(push(&mut transaction, "w", &[put(1, "a", 1)]), [1]);

    let mut second = cluster.connect("blocking").unwrap();
    let second_pid = pid(&mut second);
    let waiting = thread::spawn(move || push(&mut second, "w", &[put(2, "b", 1)]));
    until_blocked(&mut admin, second_pid);

    // Another workspace goes on; nobody sees what is not committed.
    assert_eq!(push(&mut admin, "v", &[put(3, "c", 1)]), [1]);
    assert!(versions_seen(&mut admin, "w").is_empty());

    transaction.commit().unwrap();
    assert_eq!(waiting.join().unwrap(), [2]);
    assert_eq!(versions_seen(&mut admin, "w"), [1, 2]);
}

fn first_pushes_of_a_workspace_from_two_sessions_both_land(cluster: &Cluster) {
    let mut admin = database(cluster, "first_push");
    let mut first = cluster.connect("first_push").unwrap();
    let mut transaction = first.transaction().unwrap();
    assert_eq!(push(&mut transaction, "w", &[put(1, "a", 1)]), [1]);
    let mut second = cluster.connect("first_push").unwrap();
    let second_pid = pid(&mut second);
    let waiting = thread::spawn(move || push(&mut second, "w", &[put(2, "b", 1)]));
    until_blocked(&mut admin, second_pid);
    transaction.commit().unwrap();
    assert_eq!(waiting.join().unwrap(), [2]);
    let workspaces: i64 =
        admin.query_one("select count(*) from sync_ext.workspace", &[]).unwrap().get(0);
    assert_eq!(workspaces, 1);
}

fn a_concurrent_push_above_read_committed_is_40001(cluster: &Cluster) {
    let mut admin = database(cluster, "isolation");
    push(&mut admin, "w", &[put(1, "a", 1)]);
    for (id, level) in [(2, IsolationLevel::RepeatableRead), (3, IsolationLevel::Serializable)] {
        let mut client = cluster.connect("isolation").unwrap();
        let mut transaction = client.build_transaction().isolation_level(level).start().unwrap();
        // The snapshot is taken here; the push it cannot see comes after.
        transaction.query("select 1 from sync_ext.workspace", &[]).unwrap();
        let op = put(id, "a", 9);
        push(&mut admin, "w", &[op]);
        let ops = format!("[{}]", put(4, "a", 5));
        let error =
            transaction.query("select sync_push('w', $1::text::json)", &[&ops]).unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{error:?}");
        transaction.rollback().unwrap();

        // A new workspace, created after the snapshot: the same.
        let mut transaction = client.build_transaction().isolation_level(level).start().unwrap();
        transaction.query("select 1 from sync_ext.workspace", &[]).unwrap();
        let workspace = format!("new {id}");
        push(&mut admin, &workspace, &[put(1, "a", 1)]);
        let error = transaction
            .query("select sync_push($1, $2::text::json)", &[&workspace, &ops])
            .unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{error:?}");
        transaction.rollback().unwrap();

        // Alone, a push at this level works, and sees its own writes.
        let mut transaction = client.build_transaction().isolation_level(level).start().unwrap();
        let own = format!("own {workspace}");
        assert_eq!(push(&mut transaction, &own, &[put(1, "a", 1)]), [1]);
        assert_eq!(push(&mut transaction, &own, &[put(1, "a", 1), put(2, "a", 2)]), [1, 2]);
        transaction.commit().unwrap();
    }
}

fn two_workspaces_in_opposite_order_are_a_deadlock_that_postgres_ends(cluster: &Cluster) {
    let mut admin = database(cluster, "deadlock");
    for workspace in ["v", "w"] {
        push(&mut admin, workspace, &[put(1, "a", 1)]);
    }
    let mut first = cluster.connect("deadlock").unwrap();
    let mut second = cluster.connect("deadlock").unwrap();
    let second_pid = pid(&mut second);
    let mut transaction = first.transaction().unwrap();
    push(&mut transaction, "v", &[put(2, "b", 1)]);
    let other = thread::spawn(move || {
        let mut transaction = second.transaction().unwrap();
        push(&mut transaction, "w", &[put(2, "b", 1)]);
        let ops = format!("[{}]", put(3, "c", 1));
        let result = transaction.execute("select sync_push('v', $1::text::json)", &[&ops]);
        if result.is_ok() {
            transaction.commit().unwrap();
        }
        result
    });
    until_blocked(&mut admin, second_pid);
    let ops = format!("[{}]", put(3, "c", 1));
    let mine = transaction.execute("select sync_push('w', $1::text::json)", &[&ops]);
    if mine.is_ok() {
        transaction.commit().unwrap();
    } else {
        transaction.rollback().unwrap();
    }
    let results = [mine, other.join().unwrap()];
    let errors: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert_eq!(errors.len(), 1, "one goes through, one is told");
    assert_eq!(errors[0].code(), Some(&SqlState::T_R_DEADLOCK_DETECTED));
    for workspace in ["v", "w"] {
        assert_eq!(versions_seen(&mut admin, workspace), [1, 2]);
    }
}

/// Pushers in several sessions, some of whom roll back; pullers that follow
/// nextCursor must see every version from 1 on, in order, none twice.
fn no_puller_ever_steps_over_a_version(cluster: &Cluster) {
    const PUSHERS: u64 = 4;
    const PUSHES: u64 = 100;
    drop(database(cluster, "no_gap"));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let pullers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = cluster.connect("no_gap").unwrap();
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
                    let mut client = cluster.connect("no_gap").unwrap();
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

fn gc_skips_a_locked_workspace_and_waits_for_a_named_one(cluster: &Cluster) {
    let mut admin = database(cluster, "gc_locks");
    for workspace in ["v", "w"] {
        push(&mut admin, workspace, &[put(1, "a", 1), put(2, "a", 2), put(3, "a", 3)]);
    }
    age(&mut admin);
    let mut holder = cluster.connect("gc_locks").unwrap();
    let mut transaction = holder.transaction().unwrap();
    push(&mut transaction, "w", &[put(4, "a", 4)]);

    let mut collect = |sql: &str| call(&mut admin, sql, &[]).unwrap();
    let all = collect("select sync_gc() ->> 'workspaces'");
    assert_eq!(all, "1", "the locked one is skipped");
    assert_eq!(collect("select sync_gc() ->> 'hasMore'"), "false");

    let mut second = cluster.connect("gc_locks").unwrap();
    let second_pid = pid(&mut second);
    let waiting =
        thread::spawn(move || call(&mut second, "select sync_gc('w') ->> 'scanned'", &[]).unwrap());
    until_blocked(&mut admin, second_pid);
    transaction.commit().unwrap();
    assert_eq!(waiting.join().unwrap(), "3", "with the head that it waited for");
}

fn acknowledging_does_not_wait_for_a_push(cluster: &Cluster) {
    let mut admin = database(cluster, "acknowledge");
    push(&mut admin, "w", &[put(1, "a", 1)]);
    let mut holder = cluster.connect("acknowledge").unwrap();
    let mut transaction = holder.transaction().unwrap();
    push(&mut transaction, "w", &[put(2, "a", 2)]);
    admin.batch_execute("set lock_timeout = '5s'").unwrap();
    let sql = "select sync_update_cursor('w', 'phone', 1) ->> 'advanced'";
    assert_eq!(call(&mut admin, sql, &[]).unwrap(), "true");
    transaction.commit().unwrap();
}

fn two_sessions_register_one_device(cluster: &Cluster) {
    let mut admin = database(cluster, "devices");
    push(&mut admin, "w", &[put(1, "a", 1), put(2, "a", 2)]);
    let mut first = cluster.connect("devices").unwrap();
    let mut transaction = first.transaction().unwrap();
    let sql = "select sync_update_cursor('w', 'phone', $1)::text";
    transaction.query(sql, &[&2i64]).unwrap();
    let mut second = cluster.connect("devices").unwrap();
    let second_pid = pid(&mut second);
    let waiting = thread::spawn(move || call(&mut second, sql, &[&1i64]).unwrap());
    until_blocked(&mut admin, second_pid);
    transaction.commit().unwrap();
    let reply = waiting.join().unwrap();
    assert!(reply.contains("\"lastSeenVersion\":2,\"advanced\":false"), "{reply}");
}

fn a_push_waits_for_a_rolled_back_one_and_takes_its_versions(cluster: &Cluster) {
    let mut admin = database(cluster, "rolled_back");
    push(&mut admin, "w", &[put(1, "a", 1)]);
    let mut first = cluster.connect("rolled_back").unwrap();
    let mut transaction = first.transaction().unwrap();
    assert_eq!(push(&mut transaction, "w", &[put(2, "a", 2)]), [2]);
    let mut second = cluster.connect("rolled_back").unwrap();
    let second_pid = pid(&mut second);
    // The same op: it is no replay of what never came to be.
    let waiting = thread::spawn(move || push(&mut second, "w", &[put(2, "a", 2)]));
    until_blocked(&mut admin, second_pid);
    transaction.rollback().unwrap();
    assert_eq!(waiting.join().unwrap(), [2]);
    let all: BTreeSet<i64> = versions_seen(&mut admin, "w").into_iter().collect();
    assert_eq!(all, BTreeSet::from([1, 2]));
}

fn an_op_that_another_session_commits_meanwhile_is_a_replay(cluster: &Cluster) {
    let mut admin = database(cluster, "replayed");
    let mut first = cluster.connect("replayed").unwrap();
    let mut transaction = first.transaction().unwrap();
    assert_eq!(push(&mut transaction, "w", &[put(1, "a", 1), put(2, "b", 1)]), [1, 2]);
    let mut second = cluster.connect("replayed").unwrap();
    let second_pid = pid(&mut second);
    let waiting = thread::spawn(move || {
        push(&mut second, "w", &[put(3, "c", 1), put(2, "b", 1), put(1, "a", 1)])
    });
    until_blocked(&mut admin, second_pid);
    transaction.commit().unwrap();
    assert_eq!(waiting.join().unwrap(), [3, 2, 1]);
    assert_eq!(versions_seen(&mut admin, "w"), [1, 2, 3]);
}

fn age(client: &mut Client) {
    let sql = "update sync_ext.change_log set created_at = created_at - interval '40 days'";
    client.execute(sql, &[]).unwrap();
}

/// Acknowledging does not take the workspace's lock, so no 40001 protects GC
/// at higher levels from deciding by old cursors.
fn gc_sees_devices_that_came_after_its_snapshot(cluster: &Cluster) {
    let mut admin = database(cluster, "gc_snapshot");
    push(&mut admin, "w", &[put(1, "a", 1), put(2, "a", 2), put(3, "a", 3), put(4, "a", 4)]);
    age(&mut admin);
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let mut collector = cluster.connect("gc_snapshot").unwrap();
        let mut transaction = collector.build_transaction().isolation_level(level).start().unwrap();
        transaction.query("select 1 from sync_ext.workspace", &[]).unwrap();
        call(&mut admin, "select sync_update_cursor('w', 'phone', 2)::text", &[]).unwrap();
        let scanned: String =
            transaction.query_one("select sync_gc('w') ->> 'scanned'", &[]).unwrap().get(0);
        assert_eq!(scanned, "1", "only what the phone has seen");
        transaction.rollback().unwrap();
        admin.execute("delete from sync_ext.device_cursor", &[]).unwrap();
    }
}

fn gc_does_not_forget_a_device_that_comes_back_meanwhile(cluster: &Cluster) {
    let mut admin = database(cluster, "comeback");
    push(&mut admin, "w", &[put(1, "a", 1)]);
    call(&mut admin, "select sync_update_cursor('w', 'phone', 1)::text", &[]).unwrap();
    admin
        .execute("update sync_ext.device_cursor set updated_at = now() - interval '1 year'", &[])
        .unwrap();
    let mut device = cluster.connect("comeback").unwrap();
    let mut transaction = device.transaction().unwrap();
    transaction.query("select sync_update_cursor('w', 'phone', 1)", &[]).unwrap();
    let forgotten = "select sync_gc('w') ->> 'devicesDeleted'";
    assert_eq!(call(&mut admin, forgotten, &[]).unwrap(), "0", "its row is locked");
    transaction.commit().unwrap();
    assert_eq!(call(&mut admin, forgotten, &[]).unwrap(), "0", "it is alive");
}
