//! Pushes that meet pushes: who waits for whom, and what the one who waited is
//! answered.

use postgres::error::SqlState;
use postgres::{Client, IsolationLevel};
use serde_json::Value;
use sync_ext_harness::batch::{op_id, push, put};
use sync_ext_harness::device::call;
use sync_ext_harness::steps::{Stage, pid, versions_seen};

/// The log, each op under its version.
fn log(client: &mut Client, workspace: &str) -> Vec<(i64, String)> {
    let sql = "select server_version, op_id::text
                 from sync_ext.change_log join sync_ext.workspace using (workspace_key)
                where workspace_id = $1 order by server_version";
    let rows = client.query(sql, &[&workspace]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn numbered(ids: &[u64]) -> Vec<(i64, String)> {
    (1..).zip(ids.iter().map(|id| op_id(*id))).collect()
}

#[test]
fn an_uncommitted_push_blocks_its_workspace_alone() {
    let mut stage = Stage::new();
    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    assert_eq!(push(&mut transaction, "w", &[put(1, "a", 1)]), [1]);
    let waiting =
        stage.blocked(pid(&mut transaction), |second| push(second, "w", &[put(2, "b", 1)]));

    // Another workspace goes on; nobody sees what is not committed.
    assert_eq!(push(&mut stage.admin, "v", &[put(3, "c", 1)]), [1]);
    assert!(versions_seen(&mut stage.admin, "w").is_empty());

    transaction.commit().unwrap();
    assert_eq!(waiting.join().unwrap(), [2]);
    assert_eq!(versions_seen(&mut stage.admin, "w"), [1, 2]);
}

#[test]
fn first_pushes_of_a_workspace_from_two_sessions_both_land() {
    let mut stage = Stage::new();
    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    assert_eq!(push(&mut transaction, "w", &[put(1, "a", 1)]), [1]);
    let waiting =
        stage.blocked(pid(&mut transaction), |second| push(second, "w", &[put(2, "b", 1)]));
    transaction.commit().unwrap();
    assert_eq!(waiting.join().unwrap(), [2]);
    assert_eq!(log(&mut stage.admin, "w"), numbered(&[1, 2]));
    assert_eq!(workspaces(&mut stage.admin), 1);
}

#[test]
fn a_workspace_whose_first_push_is_rolled_back_begins_with_the_next() {
    let mut stage = Stage::new();
    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    assert_eq!(push(&mut transaction, "w", &[put(1, "a", 1), put(2, "b", 1)]), [1, 2]);
    let waiting = stage.blocked(pid(&mut transaction), |second| {
        push(second, "w", &[put(3, "a", 1), put(1, "a", 1)])
    });
    transaction.rollback().unwrap();
    assert_eq!(waiting.join().unwrap(), [1, 2]);
    assert_eq!(log(&mut stage.admin, "w"), numbered(&[3, 1]));
    assert_eq!(workspaces(&mut stage.admin), 1);
    assert_eq!(push(&mut first, "w", &[put(1, "a", 1), put(2, "b", 1)]), [2, 3]);
}

fn workspaces(client: &mut Client) -> i64 {
    client.query_one("select count(*) from sync_ext.workspace", &[]).unwrap().get(0)
}

#[test]
fn a_concurrent_push_above_read_committed_is_40001() {
    let mut stage = Stage::new();
    push(&mut stage.admin, "w", &[put(1, "a", 1)]);
    for (id, level) in [(2, IsolationLevel::RepeatableRead), (3, IsolationLevel::Serializable)] {
        let mut client = stage.session();
        let mut transaction = client.build_transaction().isolation_level(level).start().unwrap();
        // The snapshot is taken here; the push it cannot see comes after.
        transaction.query("select 1 from sync_ext.workspace", &[]).unwrap();
        let op = put(id, "a", 9);
        push(&mut stage.admin, "w", &[op]);
        let ops = format!("[{}]", put(4, "a", 5));
        let error =
            transaction.query("select sync_push('w', $1::text::json)", &[&ops]).unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{error:?}");
        transaction.rollback().unwrap();

        // A new workspace, created after the snapshot: the same.
        let mut transaction = client.build_transaction().isolation_level(level).start().unwrap();
        transaction.query("select 1 from sync_ext.workspace", &[]).unwrap();
        let workspace = format!("new {id}");
        push(&mut stage.admin, &workspace, &[put(1, "a", 1)]);
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

#[test]
fn a_push_that_waits_above_read_committed_is_40001() {
    let mut stage = Stage::new();
    push(&mut stage.admin, "w", &[put(1, "a", 1)]);
    // Both a workspace that is there and one that is just being created.
    for (workspace, version) in [("w", 2), ("new", 1)] {
        let mut first = stage.session();
        let mut transaction = first.transaction().unwrap();
        assert_eq!(push(&mut transaction, workspace, &[put(2, "a", 2)]), [version]);
        let waiting = stage.blocked(pid(&mut transaction), move |second| {
            second.batch_execute("begin isolation level repeatable read").unwrap();
            let ops = format!("[{}]", put(3, "a", 3));
            let result =
                second.execute("select sync_push($1, $2::text::json)", &[&workspace, &ops]);
            second.batch_execute("rollback").unwrap();
            // The caller's retry, in a transaction of its own, goes through.
            (result, push(second, workspace, &[put(3, "a", 3)]))
        });
        transaction.commit().unwrap();
        let (refused, retried) = waiting.join().unwrap();
        let error = refused.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{error:?}");
        assert_eq!(retried, [version + 1]);
    }
    assert_eq!(log(&mut stage.admin, "w"), numbered(&[1, 2, 3]));
    assert_eq!(log(&mut stage.admin, "new"), numbered(&[2, 3]));
}

/// Pushes to one workspace, then to another, in one transaction.
fn push_to_two(
    client: &mut Client,
    pushes: [(&'static str, u64); 2],
    between: impl FnOnce(&mut Client),
) -> Result<(), postgres::Error> {
    client.batch_execute("begin")?;
    let [(first, id), (second, next_id)] = pushes;
    let sql = "select sync_push($1, $2::text::json)";
    let result = client
        .execute(sql, &[&first, &format!("[{}]", put(id, "b", id))])
        .map(|_| between(client))
        .and_then(|()| {
            client.execute(sql, &[&second, &format!("[{}]", put(next_id, "c", next_id))])
        });
    client.batch_execute(if result.is_ok() { "commit" } else { "rollback" })?;
    result.map(|_| ())
}

#[test]
fn two_workspaces_in_opposite_order_are_a_deadlock_that_a_retry_mends() {
    let mut stage = Stage::new();
    for workspace in ["v", "w"] {
        push(&mut stage.admin, workspace, &[put(1, "a", 1)]);
    }
    let (mine, other) = ([("v", 2), ("w", 3)], [("w", 4), ("v", 5)]);
    let mut first = stage.session();
    first.batch_execute("set deadlock_timeout = '50ms'").unwrap();
    let holder = pid(&mut first);
    let mut waiting = None;
    let my_result = push_to_two(&mut first, mine, |_| {
        waiting = Some(stage.blocked(holder, move |second| push_to_two(second, other, |_| {})));
    });
    let other_result = waiting.unwrap().join().unwrap();
    let (loser, error) = match (my_result, other_result) {
        (Err(error), Ok(())) => (mine, error),
        (Ok(()), Err(error)) => (other, error),
        both => panic!("one goes through, one is told: {both:?}"),
    };
    assert_eq!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED));
    for workspace in ["v", "w"] {
        assert_eq!(versions_seen(&mut stage.admin, workspace), [1, 2], "nothing of the loser");
    }

    push_to_two(&mut stage.session(), loser, |_| {}).unwrap();
    let (v, w) = if loser == mine { ([1, 5, 2], [1, 4, 3]) } else { ([1, 2, 5], [1, 3, 4]) };
    assert_eq!(log(&mut stage.admin, "v"), numbered(&v));
    assert_eq!(log(&mut stage.admin, "w"), numbered(&w));
    // Sent once more, all of it is known.
    let replayed = push(&mut stage.admin, "v", &[put(2, "b", 2), put(5, "c", 5)]);
    assert_eq!(replayed, if loser == mine { [3, 2] } else { [2, 3] });
}

#[test]
fn a_push_waits_for_a_rolled_back_one_and_takes_its_versions() {
    let mut stage = Stage::new();
    push(&mut stage.admin, "w", &[put(1, "a", 1)]);
    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    assert_eq!(push(&mut transaction, "w", &[put(2, "a", 2)]), [2]);
    // The same op: it is no replay of what never came to be.
    let waiting =
        stage.blocked(pid(&mut transaction), |second| push(second, "w", &[put(2, "a", 2)]));
    transaction.rollback().unwrap();
    assert_eq!(waiting.join().unwrap(), [2]);
    assert_eq!(log(&mut stage.admin, "w"), numbered(&[1, 2]));
}

/// A workspace that is there when the second begins, and one that is not: it
/// waits for another thing then.
const WORKSPACES: [(&str, i64); 2] = [("new", 0), ("old", 2)];

fn with_workspaces() -> Stage {
    let mut stage = Stage::new();
    assert_eq!(push(&mut stage.admin, "old", &[put(91, "x", 1), put(92, "a", 0)]), [1, 2]);
    stage
}

#[test]
fn an_op_that_another_session_commits_meanwhile_is_a_replay() {
    let mut stage = with_workspaces();
    for (workspace, head) in WORKSPACES {
        let mut first = stage.session();
        let mut transaction = first.transaction().unwrap();
        let ops = [put(1, "a", 1), put(2, "b", 1)];
        assert_eq!(push(&mut transaction, workspace, &ops), [head + 1, head + 2]);
        let waiting = stage.blocked(pid(&mut transaction), move |second| {
            push(second, workspace, &[put(3, "c", 1), put(2, "b", 1), put(1, "a", 1)])
        });
        transaction.commit().unwrap();
        assert_eq!(waiting.join().unwrap(), [head + 3, head + 2, head + 1]);
        let tail = log(&mut stage.admin, workspace).split_off(head as usize);
        assert_eq!(tail, [(head + 1, op_id(1)), (head + 2, op_id(2)), (head + 3, op_id(3))]);
    }
}

#[test]
fn of_two_pushes_of_one_record_the_higher_revision_wins_in_either_order() {
    for (first_clock, second_clock) in [(1, 2), (2, 1)] {
        let mut stage = with_workspaces();
        for (workspace, head) in WORKSPACES {
            let mut first = stage.session();
            let mut transaction = first.transaction().unwrap();
            push(&mut transaction, workspace, &[put(1, "a", first_clock)]);
            let waiting = stage.blocked(pid(&mut transaction), move |second| {
                let ops = format!("[{}]", put(2, "a", second_clock));
                let sql = "select sync_push($1, $2::text::json)::text";
                call(second, sql, &[&workspace, &ops]).unwrap()
            });
            transaction.commit().unwrap();
            let reply = waiting.join().unwrap();
            let reply: Value = serde_json::from_str(&reply).unwrap();
            let result = &reply["results"][0];
            assert_eq!(result["serverVersion"], head + 2, "{reply}");
            assert_eq!(result["applied"], second_clock > first_clock, "{reply}");
            // The loser is shown the winner that it could not see when it began.
            let winner = if second_clock > first_clock { None } else { Some(head + 1) };
            assert_eq!(result["winner"]["serverVersion"].as_i64(), winner, "{reply}");
            let sql = "select clock from sync_ext.record join sync_ext.workspace
                        using (workspace_key) where workspace_id = $1 and pk = 'a'";
            assert_eq!(stage.admin.query_one(sql, &[&workspace]).unwrap().get::<_, i64>(0), 2);
        }
    }
}
