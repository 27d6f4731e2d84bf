//! Rows of another workspace are neither changed nor told, however a workspace is spelled,
//! and what a transaction did before and after its push is in the log with it.

use sync_ext_harness::steps::{outcome, pid};

use super::{Own, TASKS, codes, delete, push_as, put};

const HIDDEN: &str = "the row is not there for this user to write";

#[test]
fn a_row_of_another_workspace_is_neither_changed_nor_told() {
    let mut own = Own::new(&format!(
        "{TASKS} alter table tasks alter workspace_id drop not null;
         insert into tasks values ('theirs', 'other', 'T'), ('nobodys', null, 'N')"
    ));
    let base = put("tasks", "theirs", 8, r#"{"title":"mine"}"#);
    let results = own.push(&[
        base.clone(),
        delete("tasks", "theirs", 9),
        put("tasks", "nobodys", 1, r#"{"title":"mine"}"#),
        put("tasks", "ok", 1, r#"{"title":"ok"}"#),
    ]);
    assert_eq!(codes(&results), ["UNAUTHORIZED", "UNAUTHORIZED", "UNAUTHORIZED", "ok"]);
    for result in &results[..3] {
        assert_eq!(result["error"], HIDDEN);
        assert!(result.get("winner").is_none());
    }
    assert_eq!(
        own.rows("select id, title from tasks order by 1"),
        ["(nobodys,N)", "(ok,ok)", "(theirs,T)"]
    );
}

#[test]
fn a_record_whose_row_moved_away_is_no_longer_ours() {
    let mut own = Own::new(TASKS);
    own.push(&[put("tasks", "a", 1, r#"{"title":"A"}"#)]);
    own.sql("update tasks set workspace_id = 'other'");
    assert_eq!(own.codes(&[put("tasks", "a", 9, r#"{"title":"B"}"#)]), ["UNAUTHORIZED"]);
    assert_eq!(own.codes(&[delete("tasks", "a", 9)]), ["UNAUTHORIZED"]);
    own.sql("update tasks set workspace_id = 'w'");
    assert_eq!(own.codes(&[put("tasks", "a", 9, r#"{"title":"C"}"#)]), ["ok"]);
}

/// It moves, uncaptured, after the push has found it.
#[test]
fn a_row_that_moves_away_meanwhile_is_not_changed() {
    let mut own = Own::new(TASKS);
    own.push(&[put("tasks", "a", 1, r#"{"id":"a","title":"A","done":false,"n":1}"#)]);
    let mut mover = own.stage.session();
    let moves = "set sync_ext.capture = off; begin; update tasks set workspace_id = 'other'";
    mover.batch_execute(moves).unwrap();
    let push = own.stage.blocked(pid(&mut mover), |session| {
        session.batch_execute("set sync_ext.apply_lock_timeout = '60s'").unwrap();
        push_as(session, "w", &[put("tasks", "a", 2, r#"{"title":"stolen"}"#)])
    });
    mover.batch_execute("commit").unwrap();
    assert_ne!(push.join().unwrap(), ["ok"]);
    assert_eq!(own.rows("select title from tasks"), ["(A)"]);
    own.sql("update tasks set workspace_id = 'w'");
}

/// Else a member of workspace 007 could write to workspace 7.
#[test]
fn a_workspace_that_is_not_written_as_its_column_writes_it_reaches_no_rows() {
    let (id, upper) =
        ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11");
    for (kind, right, wrong) in [
        ("integer", "7", "007"),
        ("bigint", "7", " 7"),
        ("uuid", id, upper),
        ("varchar(3)", "abc", "abcdef"),
        ("varchar(3)", "abc", "abc "),
        ("short", "abc", "abcdef"),
        ("integer", "7", "none"),
    ] {
        let mut own = Own::new(&format!(
            "create domain short as varchar(3);
             create table tasks (id text primary key, workspace_id {kind} not null, title text);
             select sync_attach_table('tasks'); insert into tasks values ('a', '{right}', 'A')"
        ));
        let mut session = own.stage.session();
        let ops = [
            put("tasks", "a", 9, r#"{"title":"stolen"}"#),
            put("tasks", "b", 9, "{}"),
            delete("tasks", "a", 9),
        ];
        for code in push_as(&mut session, wrong, &ops) {
            assert!(!["ok", "lost"].contains(&code.as_str()), "{kind} {wrong:?}: {code}");
        }
        assert_eq!(own.rows("select id, title from tasks"), ["(a,A)"], "{kind} {wrong:?}");
        assert_eq!(push_as(&mut session, right, &ops[..2]), ["ok", "ok"], "{kind}");
    }
}

#[test]
fn all_rows_may_be_of_one_workspace() {
    let mut own = Own::new(
        "create table tasks (id text primary key, title text);
         select sync_attach_table('tasks', workspace_id => 'w'); insert into tasks values ('s', 'S')",
    );
    let mut session = own.stage.session();
    let op = || put("tasks", "a", 1, r#"{"title":"A"}"#);
    assert_eq!(
        push_as(&mut session, "other", &[op(), put("tasks", "s", 9, "{}")]),
        ["UNAUTHORIZED"; 2]
    );
    assert_eq!(own.codes(&[op(), put("tasks", "s", 9, "{}")]), ["ok", "ok"]);
    assert_eq!(own.rows("select * from tasks order by 1"), ["(a,A)", "(s,S)"]);
}

/// The row is no record yet: it was there before the table was attached.
#[test]
fn the_first_push_to_a_row_from_before() {
    let mut own = Own::new(&TASKS.replace(
        "select",
        "insert into tasks values ('a', 'w', 'A', true, 1), ('b', 'w', 'B', true, 1); select",
    ));
    assert_eq!(own.codes(&[put("tasks", "a", 1, r#"{"title":"C"}"#)]), ["ok"]);
    assert_eq!(own.codes(&[delete("tasks", "b", 1)]), ["ok"]);
    assert_eq!(own.rows("select * from tasks"), ["(a,w,C,t,1)"]);
}

#[test]
fn a_transaction_sees_its_own_changes_in_its_push_and_the_log_has_all() {
    let mut own = Own::new(TASKS);
    own.sql("begin; insert into tasks values ('a', 'w', 'by SQL'), ('b', 'w', 'by SQL')");
    let results = own.push(&[
        put("tasks", "a", 0, r#"{"title":"A"}"#),
        put("tasks", "b", 9, r#"{"title":"B"}"#),
    ]);
    assert_eq!(codes(&results), ["lost", "ok"]);
    own.sql("update tasks set n = 1");
    assert_eq!(own.codes(&[put("tasks", "c", 1, r#"{"title":"C"}"#)]), ["ok"]);
    own.sql("update tasks set n = 2 where id = 'c'; insert into tasks values ('d', 'other', 'by SQL'); commit");
    assert_eq!(own.payload("b").unwrap()["n"], 1);
    assert_eq!(own.payload("c").unwrap()["n"], 2);
}

/// The changes before the savepoint were logged by the push, which is undone.
#[test]
fn changes_before_a_push_that_is_rolled_back_are_in_the_log() {
    for end in
        ["rollback to s", "rollback to s; release s", "release s", "savepoint t; rollback to s"]
    {
        let mut own = Own::new(TASKS);
        own.sql(
            "insert into tasks values ('a', 'w', 'before'), ('b', 'w', 'before');
                 begin; update tasks set title = 'changed' where id = 'a'; savepoint s",
        );
        own.push(&[
            put("tasks", "b", 9, r#"{"title":"pushed"}"#),
            put("tasks", "c", 1, r#"{"title":"C"}"#),
        ]);
        own.sql(&format!("{end}; commit"));
        assert_eq!(own.payload("a").unwrap()["title"], "changed", "{end}");
    }
}

#[test]
fn changes_before_a_push_that_fails_in_a_block_are_in_the_log() {
    let mut own = Own::new(&format!(
        "{TASKS} create function boom() returns trigger language plpgsql as $$ begin perform no_such(); end $$;
         create trigger boom before insert on tasks for each row when (new.title = 'boom') execute function boom();
         insert into tasks values ('a', 'w', 'before')"
    ));
    let push = super::push_sql("w", &[put("tasks", "c", 1, r#"{"title":"boom"}"#)])
        .replace("select", "perform");
    own.sql(&format!(
        "do $do$ begin update tasks set title = 'changed';
           begin {push}; exception when undefined_function then null; end; end $do$"
    ));
    assert_eq!(own.payload("a").unwrap()["title"], "changed");
}

#[test]
fn a_savepoint_that_is_rolled_back_takes_the_rows_of_its_push_with_it() {
    let mut own = Own::new(TASKS);
    own.sql("begin; savepoint s");
    own.push(&[put("tasks", "a", 1, r#"{"title":"A"}"#)]);
    own.sql("rollback to s");
    own.push(&[put("tasks", "b", 1, r#"{"title":"B"}"#)]);
    own.sql("commit");
    assert_eq!((own.head(), own.rows("select id from tasks")), (1, vec!["(b)".to_owned()]));
}

#[test]
fn a_push_above_read_committed_is_exact_or_40001() {
    for level in ["repeatable read", "serializable"] {
        let mut own = Own::new(TASKS);
        own.push(&[put("tasks", "a", 1, r#"{"title":"A"}"#)]);
        let mut session = own.stage.session();
        session
            .batch_execute(&format!("begin isolation level {level}; select 1 from tasks"))
            .unwrap();
        assert_eq!(
            push_as(
                &mut session,
                "w",
                &[
                    put("tasks", "a", 2, r#"{"title":"B"}"#),
                    put("tasks", "b", 1, r#"{"title":"B"}"#)
                ]
            ),
            ["ok"; 2]
        );
        session.batch_execute("commit").unwrap();
        session
            .batch_execute(&format!("begin isolation level {level}; select 1 from tasks"))
            .unwrap();
        own.sql("update tasks set title = 'C' where id = 'a'");
        let push = super::push_sql("w", &[put("tasks", "b", 9, r#"{"title":"D"}"#)]);
        assert_eq!(outcome(&mut session, &push), Err("40001".to_owned()));
        session.batch_execute("rollback").unwrap();
    }
}
