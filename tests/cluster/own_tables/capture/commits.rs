//! Every end of a transaction: procedures that commit, two-phase commit, several workspaces,
//! what is announced, and a commit that fails.

use sync_ext_harness::steps::{outcome, pid};

use super::{TASKS, compare, ops, ops_of, stage, task};

#[test]
fn each_commit_of_a_procedure_is_captured_by_itself() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    admin
        .batch_execute(
            "create procedure work() language plpgsql as $$ begin
               for n in 1..6 loop
                 insert into tasks values (n, 'w', 'a');
                 update tasks set title = 'b' where id = 1;
                 if n % 3 = 0 then rollback; else commit; end if;
                 if n = 2 then update tasks set title = 'c' where id = 1; end if;
               end loop;
               insert into tasks values (9, 'w', 'z');
             end $$",
        )
        .unwrap();
    let put = |id, title| format!("put {id} {}", task(id, title));
    let expected = [put(1, "b"), put(2, "a"), put(4, "a"), put(5, "a"), put(9, "z")];
    assert_eq!(ops_of(admin, "call work()"), expected);
    // Within an open cursor loop, too.
    admin
        .batch_execute(
            "create procedure each() language plpgsql as $$ declare t record; begin
               for t in select id from tasks order by id loop
                 update tasks set title = 'e' where id = t.id;
                 commit;
               end loop;
             end $$",
        )
        .unwrap();
    let expected = [1, 2, 4, 5, 9].map(|id| put(id, "e"));
    assert_eq!(ops_of(admin, "call each()"), expected);
}

#[test]
fn a_commit_that_capture_refuses_ends_the_procedure_and_changes_nothing() {
    let mut stage = stage(
        "create table diary (id int primary key, workspace_id text, by text);
         select sync_attach_table('diary', owner_column => 'by');
         insert into diary values (1, 'w', 'ann');
         create procedure work() language plpgsql as $$ begin
           insert into diary values (2, 'w', 'ann');
           commit;
           delete from diary where id = 1; insert into diary values (1, 'w', 'bob');
           commit;
         end $$",
    );
    assert_eq!(outcome(&mut stage.admin, "call work()"), Err("55000".to_owned()));
    compare(&mut stage.admin);
    assert_eq!(ops(&mut stage.admin, "w").len(), 2);
    let after = "insert into diary values (3, 'w', 'ann')";
    assert_eq!(ops_of(&mut stage.admin, after).len(), 1);
}

#[test]
fn a_prepared_transaction_is_captured_when_it_is_prepared_and_holds_the_workspace() {
    let mut stage = stage(TASKS);
    let prepare = "begin; insert into tasks values (1, 'w', 'a'); prepare transaction 'own'";
    stage.admin.batch_execute(prepare).unwrap();
    assert_eq!(ops(&mut stage.admin, "w"), [""; 0]);
    let mut other = stage.session();
    let insert = "set lock_timeout = '50ms'; insert into tasks values (2, 'w', 'b')";
    assert_eq!(outcome(&mut other, insert), Err("55P03".to_owned()));
    // Not the session, which goes on.
    stage.admin.batch_execute("insert into tasks values (3, 'v', 'c')").unwrap();
    stage.admin.batch_execute("commit prepared 'own'").unwrap();
    compare(&mut stage.admin);
    assert_eq!(ops(&mut stage.admin, "w"), [format!("put 1 {}", task(1, "a"))]);
    other.batch_execute(insert).unwrap();
    compare(&mut other);
}

#[test]
fn a_prepared_transaction_that_is_rolled_back_leaves_nothing() {
    let mut stage = stage(TASKS);
    ops_of(&mut stage.admin, "insert into tasks values (1, 'w', 'a')");
    let sql = "begin; update tasks set title = 'b'; insert into tasks values (2, 'new', 'c');
               prepare transaction 'own_back'";
    stage.admin.batch_execute(sql).unwrap();
    assert_eq!(ops_of(&mut stage.admin, "rollback prepared 'own_back'"), [""; 0]);
    let update = "update tasks set title = 'b'";
    assert_eq!(ops_of(&mut stage.admin, update), [format!("put 1 {}", task(1, "b"))]);
}

/// With no order of their own, the two would wait for each other.
#[test]
fn workspaces_are_locked_in_byte_order() {
    let mut stage = stage(TASKS);
    let both = "insert into tasks values (1, 'a', ''), (2, 'b', ''), (3, 'é', ''), (4, 'z', '')";
    stage.admin.batch_execute(both).unwrap();
    // Whoever commits waits for the first: it then holds none of the others.
    for (held, free) in [("a", ["b", "z", "é"].as_slice()), ("b", &["z", "é"]), ("z", &["é"])] {
        let mut holder = stage.session();
        let lock = format!(
            "begin; select from sync_ext.workspace where workspace_id = '{held}' for update"
        );
        holder.batch_execute(&lock).unwrap();
        let waiting = stage.blocked(pid(&mut holder), |session| {
            let sql = "begin; update tasks set title = title || 'x' where workspace_id in ('z', 'é');
                       update tasks set title = title || 'x' where workspace_id in ('b', 'a'); commit";
            outcome(session, sql)
        });
        for workspace in free {
            let lock = format!(
                "select 1 from sync_ext.workspace where workspace_id = '{workspace}' for update nowait"
            );
            assert!(outcome(&mut stage.admin, &lock).is_ok(), "{workspace} while {held} is held");
        }
        holder.batch_execute("commit").unwrap();
        waiting.join().unwrap().unwrap();
        compare(&mut stage.admin);
    }
}

#[test]
fn two_transactions_change_two_workspaces_in_opposite_order() {
    let mut stage = stage(TASKS);
    stage
        .admin
        .batch_execute(
            "set sync_ext.capture = on; insert into tasks
        select n, case when n % 2 = 0 then 'a' else 'b' end, '' from generate_series(1, 8) n",
        )
        .unwrap();
    std::thread::scope(|scope| {
        for first in [1, 2] {
            let mut session = stage.session();
            scope.spawn(move || {
                let (own, other) = (first + 2, 7 - first);
                let sql = format!(
                    "begin; update tasks set title = title || '{first}' where id = {own};
                     update tasks set title = title || '{first}' where id = {other}; commit"
                );
                (0..100).for_each(|_| session.batch_execute(&sql).unwrap());
            });
        }
    });
    compare(&mut stage.admin);
}

#[test]
fn captured_ops_are_announced_once_at_commit() {
    let mut stage = stage(TASKS);
    let mut listener = stage.session();
    listener.batch_execute("listen sync_ext").unwrap();
    let admin = &mut stage.admin;
    admin.batch_execute("load 'sync_ext'; set sync_ext.notify = hint").unwrap();
    admin
        .batch_execute(
            "begin; insert into tasks values (1, 'w', 'a'), (2, 'w', 'b'), (3, 'v', 'c'); savepoint s;
             update tasks set title = 'x'; rollback to s; update tasks set title = 'y'; commit;
             update tasks set title = title; begin; update tasks set title = 'z'; rollback;
             notify sync_ext, 'end'",
        )
        .unwrap();
    let told = |listener: &mut postgres::Client| {
        use fallible_iterator::FallibleIterator;
        let mut told = Vec::new();
        let mut notifications = listener.notifications();
        let mut coming = notifications.timeout_iter(std::time::Duration::from_secs(60));
        while let Some(next) = coming.next().unwrap().filter(|next| next.payload() != "end") {
            told.push(next.payload().to_owned());
        }
        told
    };
    let hint = |workspace, version| {
        format!(r#"{{"workspaceId":"{workspace}","serverVersion":{version}}}"#)
    };
    assert_eq!(told(&mut listener), [hint("v", 1), hint("w", 2)]);
    // Prepared, it is not announced, as a push is not.
    for sql in [
        "begin; update tasks set title = 'p'; prepare transaction 'own_told'",
        "commit prepared 'own_told'",
        "set sync_ext.notify = changes",
        "update tasks set title = 'q' where id = 3",
        "notify sync_ext, 'end'",
    ] {
        admin.batch_execute(sql).unwrap();
    }
    let [only] = told(&mut listener).try_into().unwrap();
    assert!(only.contains(r#""pk":"3""#) && only.contains(r#""title":"q""#), "{only}");
    compare(admin);
}

#[test]
fn a_workspace_that_a_captured_row_needs_is_created() {
    let mut stage = stage(TASKS);
    let sql = "insert into tasks values (1, 'new', 'a'); begin; insert into tasks values (2, 'gone', 'b');
               delete from tasks where id = 2; commit";
    stage.admin.batch_execute(sql).unwrap();
    let sql = "select string_agg(workspace_id, ',') from sync_ext.workspace";
    assert_eq!(outcome(&mut stage.admin, sql).unwrap(), "new");
    // Dropped, its rows stay; the next change makes it anew.
    stage.admin.batch_execute("select sync_drop_workspace('new'); select sync_gc()").unwrap();
    stage.admin.batch_execute("update tasks set title = 'c' where id = 1").unwrap();
    assert_eq!(ops(&mut stage.admin, "new"), [format!("put 1 {}", task(1, "c"))]);
    compare(&mut stage.admin);
}
