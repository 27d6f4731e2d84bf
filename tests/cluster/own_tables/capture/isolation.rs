//! Beside other sessions, at every isolation level: capture raises no 40001 of its own.

use postgres::Client;
use sync_ext_harness::steps::{Stage, outcome, pid};

use super::{TASKS, compare, ops, stage, task};

const LEVELS: [&str; 3] = ["read committed", "repeatable read", "serializable"];

/// A session in a transaction that has taken its snapshot, and then this step.
fn begun(stage: &Stage, level: &str, step: &str) -> Client {
    let mut session = stage.session();
    let sql = format!("begin isolation level {level}; select count(*) from pg_class; {step}");
    session.batch_execute(&sql).unwrap();
    session
}

#[test]
fn a_commit_after_others_have_committed_is_captured_at_every_level() {
    for level in LEVELS {
        let mut stage = stage(TASKS);
        stage.admin.batch_execute("insert into tasks values (1, 'w', 'a')").unwrap();
        let insert = |id: i32| format!("insert into tasks values ({id}, 'w', 'b')");
        let mut sessions: Vec<_> = (2..12).map(|id| begun(&stage, level, &insert(id))).collect();
        for session in &mut sessions {
            assert_eq!(outcome(session, "commit"), Ok(String::new()), "{level}");
        }
        compare(&mut stage.admin);
        let sql = "select count(*) from sync_ext.change_log";
        assert_eq!(outcome(&mut stage.admin, sql).unwrap(), "11");
    }
}

#[test]
fn updates_of_different_rows_are_captured_at_every_level() {
    for level in LEVELS {
        let mut stage = stage(TASKS);
        let rows = "insert into tasks select n, 'w', 'a' from generate_series(1, 12) n";
        stage.admin.batch_execute(rows).unwrap();
        let mut sessions: Vec<_> = (1..13)
            .map(|id| {
                // Without reading others' rows, so that serializable transactions depend on
                // each other by capture alone.
                let update = format!("update tasks set title = 'b' where id = {id}");
                begun(&stage, level, &format!("set enable_seqscan = off; {update}"))
            })
            .collect();
        for session in &mut sessions {
            assert_eq!(outcome(session, "commit"), Ok(String::new()), "{level}");
        }
        compare(&mut stage.admin);
    }
}

#[test]
fn a_commit_that_waits_for_the_workspace_is_captured_at_every_level() {
    for level in LEVELS {
        let mut stage = stage(TASKS);
        stage.admin.batch_execute("insert into tasks values (1, 'w', 'a')").unwrap();
        let mut holder = begun(&stage, level, "insert into tasks values (2, 'w', 'b')");
        let lock = "select from sync_ext.workspace where workspace_id = 'w' for update";
        holder.batch_execute(lock).unwrap();
        let sql = format!(
            "begin isolation level {level}; insert into tasks values (3, 'w', 'c'); commit"
        );
        let waiting = stage.blocked(pid(&mut holder), move |session| outcome(session, &sql));
        holder.batch_execute("commit").unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(String::new()), "{level}");
        compare(&mut stage.admin);
    }
}

#[test]
fn a_workspace_that_another_session_creates_meanwhile_is_waited_for_at_every_level() {
    for level in LEVELS {
        let mut stage = stage(TASKS);
        let mut creator = stage.session();
        creator.batch_execute("begin; select sync_create_workspace('w', 'ann')").unwrap();
        let sql = format!(
            "begin isolation level {level}; insert into tasks values (1, 'w', 'a'); commit"
        );
        let waiting = stage.blocked(pid(&mut creator), move |session| outcome(session, &sql));
        creator.batch_execute("commit").unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(String::new()), "{level}");
        assert_eq!(ops(&mut stage.admin, "w"), [format!("put 1 {}", task(1, "a"))]);
        compare(&mut stage.admin);
    }
}

#[test]
fn a_row_that_others_changed_after_a_savepoint_let_it_go_is_left_to_them() {
    for level in LEVELS {
        let mut stage = stage(TASKS);
        stage.admin.batch_execute("insert into tasks values (1, 'w', 'a'), (2, 'w', 'a')").unwrap();
        let undone = "update tasks set title = 'x' where id = 2; savepoint s;
                      update tasks set title = 'lost' where id = 1; rollback to s";
        let mut session = begun(&stage, level, undone);
        stage.admin.batch_execute("update tasks set title = 'b' where id = 1").unwrap();
        let mut open = begun(&stage, level, "update tasks set title = 'c' where id = 1");
        session.batch_execute("commit").unwrap();
        compare(&mut stage.admin);
        open.batch_execute("commit").unwrap();
        compare(&mut stage.admin);
        assert_eq!(ops(&mut stage.admin, "w").len(), 5);
    }
}

/// Sessions that retry what Postgres itself refuses; capture must not make a commit fail that
/// changes rows of its own alone.
#[test]
fn sessions_at_mixed_levels_race() {
    let mut stage = stage(TASKS);
    let rows = "insert into tasks select n, 'w' || n % 3, 'a' from generate_series(1, 30) n";
    stage.admin.batch_execute(rows).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..6_usize {
            let mut session = stage.session();
            scope.spawn(move || {
                session.batch_execute("set enable_seqscan = off").unwrap();
                for round in 0..60 {
                    let level = LEVELS[(worker + round) % 2];
                    let (id, other) =
                        (worker * 5 + 1 + round % 5, worker * 5 + 1 + (round + 2) % 5);
                    let sql = format!(
                        "begin isolation level {level};
                         update tasks set workspace_id = 'w' || (id + {round}) % 3 where id = {id};
                         savepoint s; delete from tasks where id = {other};
                         {}; update tasks set title = '{round}' where id = {other}; commit",
                        if round % 3 == 0 { "release s" } else { "rollback to s" },
                    );
                    session.batch_execute(&sql).unwrap();
                    let again = format!(
                        "insert into tasks values ({other}, 'w0', 'b') on conflict do nothing"
                    );
                    session.batch_execute(&again).unwrap();
                }
            });
        }
    });
    compare(&mut stage.admin);
}
