//! A push meets plain SQL on a row: it waits without its workspace, and never makes a
//! commit fail.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use postgres::Client;
use sync_ext_harness::steps::{outcome, pid};

use super::{Own, TASKS, delete, push_as, push_sql, put};

const FAMILY: &str = "create table parents (id text primary key, workspace_id text not null, x text);
    create table children (id text primary key, workspace_id text not null, parent text references parents on delete cascade, x text);
    select sync_attach_table('parents'), sync_attach_table('children');
    insert into parents values ('p', 'w', 'P');
    insert into children values ('c', 'w', 'p', 'C');";

/// What a session does without committing, and the push that meets it.
fn meetings() -> Vec<(&'static str, String)> {
    vec![
        ("update children set x = 'SQL' where id = 'c'", put("children", "c", 9, r#"{"x":"D"}"#)),
        ("update children set x = 'SQL' where id = 'c'", delete("children", "c", 9)),
        ("delete from children where id = 'c'", put("children", "c", 9, r#"{"x":"D"}"#)),
        ("select from children where id = 'c' for update", put("children", "c", 9, r#"{"x":"D"}"#)),
        (
            "insert into children values ('new', 'w', null, 'SQL')",
            put("children", "new", 9, r#"{"x":"D"}"#),
        ),
        (
            "insert into children values ('new', 'other', null, 'SQL')",
            put("children", "new", 9, r#"{"x":"D"}"#),
        ),
        ("delete from parents where id = 'p'", put("children", "new", 9, r#"{"parent":"p"}"#)),
        (
            "insert into parents values ('q', 'w', 'SQL'); insert into children values ('new', 'w', 'q', 'SQL')",
            put("children", "new", 9, r#"{"x":"D"}"#),
        ),
        ("lock table children in share mode", put("children", "c", 9, r#"{"x":"D"}"#)),
    ]
}

/// A session in a transaction that holds what this statement locks.
fn holding(own: &Own, step: &str) -> Client {
    let mut session = own.stage.session();
    session.batch_execute(&format!("begin; {step}")).unwrap();
    session
}

/// Starts a push, which waits for the holder.
fn pushing(own: &mut Own, holder: &mut Client, op: String) -> JoinHandle<Vec<String>> {
    let holder = pid(holder);
    own.stage.blocked(holder, move |session| {
        session.batch_execute("set sync_ext.apply_wait = '30s'").unwrap();
        push_as(session, "w", &[op, put("parents", "pushed", 1, "{}")])
    })
}

#[test]
fn a_push_that_meets_sql_goes_on_when_that_commits() {
    for (step, op) in meetings() {
        for end in ["commit", "rollback"] {
            let mut own = Own::new(FAMILY);
            let mut holder = holding(&own, step);
            let push = pushing(&mut own, &mut holder, op.clone());
            assert_eq!(outcome(&mut holder, end), Ok(String::new()), "{step}: {end}");
            let codes = push.join().unwrap();
            let expected = match (step.split(' ').next(), step.contains("other"), end) {
                (_, true, "commit") => "UNAUTHORIZED",
                (Some("delete"), _, "commit") if step.contains("parents") => "CONSTRAINT 23503",
                _ => "ok",
            };
            assert_eq!(codes, [expected, "ok"], "{step}: {end}");
        }
    }
}

/// Pushes and commits of the workspace go on while the push waits: it does not hold it.
#[test]
fn others_of_the_workspace_go_on_while_a_push_waits() {
    for (step, op) in meetings() {
        let mut own = Own::new(FAMILY);
        let mut holder = holding(&own, step);
        let push = pushing(&mut own, &mut holder, op);
        if !step.starts_with("lock") {
            let mut other = own.stage.session();
            other
                .batch_execute("set sync_ext.apply_wait = '20s'; set lock_timeout = '20s'")
                .unwrap();
            for at in 0..3 {
                let parent = put("parents", &format!("{at}"), 1, "{}");
                assert_eq!(push_as(&mut other, "w", &[parent]), ["ok"], "{step}");
                let insert = format!("insert into parents values ('sql {at}', 'w')");
                other.batch_execute(&insert).unwrap_or_else(|error| panic!("{step}: {error:?}"));
            }
        }
        assert!(!push.is_finished(), "{step}");
        holder.batch_execute("commit").unwrap();
        push.join().unwrap();
    }
}

#[test]
fn a_push_gives_up_with_nothing_stored() {
    for (step, op) in meetings().into_iter().filter(|(step, _)| !step.starts_with("lock")) {
        let mut own = Own::new(FAMILY);
        let head = own.head();
        let mut holder = holding(&own, step);
        let mut session = own.stage.session();
        session.batch_execute("set sync_ext.apply_wait = '100ms'").unwrap();
        let begun = Instant::now();
        let ops = [put("parents", "pushed", 1, "{}"), put("notes", "n", 1, "{}"), op];
        assert_eq!(outcome(&mut session, &push_sql("w", &ops)), Err("55P03".to_owned()), "{step}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{step}");
        assert_eq!(own.head(), head, "{step}");
        assert_eq!(own.rows("select id from parents where id = 'pushed'"), [""; 0]);
        holder.batch_execute("commit").unwrap();
    }
}

#[test]
fn a_workspace_that_a_waiting_push_would_create_is_not_there() {
    let mut own = Own::new(TASKS);
    let mut holder = holding(&own, "insert into tasks values ('a', 'other', 'SQL')");
    own.sql("set sync_ext.apply_wait = '50ms'");
    assert_eq!(own.failure(&[put("tasks", "a", 1, r#"{"title":"A"}"#)]), "55P03");
    assert_eq!(own.rows("select count(*) from sync_ext.workspace"), ["(0)"]);
    holder.batch_execute("rollback").unwrap();
}

#[test]
fn a_push_that_yielded_has_what_its_transaction_changed_before() {
    let mut own = Own::new(TASKS);
    own.sql("insert into tasks values ('held', 'w', 'H'), ('mine', 'w', 'M')");
    let mut holder = holding(&own, "update tasks set n = 1 where id = 'held'");
    let push = own.stage.blocked(pid(&mut holder), |session| {
        session
            .batch_execute(
                "set sync_ext.apply_wait = '30s'; begin; update tasks set n = 2 where id = 'mine'",
            )
            .unwrap();
        let codes = push_as(session, "w", &[put("tasks", "held", 9, r#"{"title":"pushed"}"#)]);
        session.batch_execute("commit").unwrap();
        codes
    });
    holder.batch_execute("commit").unwrap();
    assert_eq!(push.join().unwrap(), ["ok"]);
    assert_eq!(
        own.rows("select id, title, n from tasks order by 1"),
        ["(held,pushed,1)", "(mine,M,2)"]
    );
}

/// The first push keeps the workspace: the second one waits with it, but gives up.
#[test]
fn a_second_push_of_a_transaction_makes_no_commit_fail() {
    let mut own = Own::new(TASKS);
    own.sql("insert into tasks values ('a', 'w', 'A')");
    let mut holder = holding(&own, "update tasks set n = 1");
    holder.batch_execute("set deadlock_timeout = '10ms'").unwrap();
    let push = own.stage.blocked(pid(&mut holder), |session| {
        session.batch_execute("set sync_ext.apply_wait = '500ms'; begin").unwrap();
        push_as(session, "w", &[put("tasks", "b", 1, r#"{"title":"B"}"#)]);
        let failed = outcome(session, &push_sql("w", &[put("tasks", "a", 9, r#"{"title":"B"}"#)]));
        session.batch_execute("rollback").unwrap();
        failed
    });
    holder.batch_execute("commit").unwrap();
    assert_eq!(push.join().unwrap(), Err("55P03".to_owned()));
    assert_eq!(own.rows("select * from tasks"), ["(a,w,A,f,1)"]);
}

/// The caller's own lock_timeout and statement_timeout stay what they were.
#[test]
fn a_waiting_push_ends_with_the_callers_timeout() {
    let mut own = Own::new(TASKS);
    own.sql("insert into tasks values ('a', 'w', 'A')");
    let mut holder = holding(&own, "update tasks set n = 1");
    let mut session = own.stage.session();
    session.batch_execute("set statement_timeout = '100ms'; set lock_timeout = '7min'").unwrap();
    let push = push_sql("w", &[put("tasks", "a", 9, r#"{"title":"B"}"#)]);
    assert_eq!(outcome(&mut session, &push), Err("57014".to_owned()));
    assert_eq!(outcome(&mut session, "show lock_timeout"), Ok("7min".to_owned()));
    holder.batch_execute("commit").unwrap();
    assert!(outcome(&mut session, &push).is_ok());
}

/// Both wait for each other: the push, which holds the workspace, and the commit.
#[test]
fn a_commit_that_meets_a_push_never_fails() {
    for lock_timeout in ["50ms", "60s"] {
        let mut own = Own::new(FAMILY);
        let mut holder = holding(&own, "update parents set x = 'SQL' where id = 'p'");
        // The commit looks for a deadlock before the push would.
        holder.batch_execute("set deadlock_timeout = '20ms'").unwrap();
        let op = put("parents", "p", 9, r#"{"x":"pushed"}"#);
        let lock_timeout = format!(
            "set sync_ext.apply_lock_timeout = '{lock_timeout}'; set deadlock_timeout = '100ms'"
        );
        let push = own.stage.blocked(pid(&mut holder), move |session| {
            session.batch_execute(&lock_timeout).unwrap();
            push_as(session, "w", &[op])
        });
        holder.batch_execute("commit").unwrap();
        assert_eq!(push.join().unwrap(), ["ok"]);
        assert_eq!(own.rows("select x from parents"), ["(pushed)"]);
    }
}

/// Two sessions write two workspaces in opposite orders, beside pushes to both.
#[test]
fn commits_of_several_workspaces_meet_pushes_without_deadlock() {
    let own = Own::new(TASKS);
    let mut setup = own.stage.session();
    setup.batch_execute("insert into tasks select w || n, w, '' from unnest('{a,b}'::text[]) w, generate_series(1, 4) n").unwrap();
    thread::scope(|scope| {
        for (at, order) in [["a", "b"], ["b", "a"]].into_iter().enumerate() {
            let (mut sql, mut pusher) = (own.stage.session(), own.stage.session());
            scope.spawn(move || {
                for n in 0..60 {
                    let updates = order.map(|w| {
                        format!("update tasks set n = {n} where id = '{w}{}'", 1 + n % 2 + 2 * at)
                    });
                    sql.batch_execute(&format!("begin; {}; commit", updates.join("; "))).unwrap();
                }
            });
            scope.spawn(move || {
                for n in 1..60u64 {
                    let ops: Vec<_> = (1..=4)
                        .map(|row| {
                            put(
                                "tasks",
                                &format!("{}{row}", order[0]),
                                n * 1000,
                                r#"{"title":"p"}"#,
                            )
                        })
                        .collect();
                    push_as(&mut pusher, order[0], &ops);
                }
            });
        }
    });
}
