//! What SQL leaves in a row becomes one op, whatever statements it took.

use sync_ext_harness::steps::outcome;

use super::{TASKS, compare, ops, ops_of, stage, task};

const SOFT: &str = "create table notes (id uuid primary key default gen_random_uuid(),
                      workspace_id text, body text, gone timestamptz);
                    select sync_attach_table('notes', deleted_column => 'gone')";

#[test]
fn insert_update_and_delete_become_ops_at_commit() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    let insert = "insert into tasks values (1, 'w', 'a')";
    assert_eq!(ops_of(admin, insert), [format!("put 1 {}", task(1, "a"))]);
    let update = "update tasks set title = 'b'";
    assert_eq!(ops_of(admin, update), [format!("put 1 {}", task(1, "b"))]);
    assert_eq!(ops_of(admin, "delete from tasks"), ["delete 1"]);
    // Not before the commit.
    admin.batch_execute("begin; insert into tasks values (2, 'w', 'c')").unwrap();
    assert_eq!(ops(admin, "w").len(), 3);
    admin.batch_execute("commit").unwrap();
    assert_eq!(ops(admin, "w").len(), 4);
    compare(admin);
}

#[test]
fn an_op_of_the_server_beats_what_it_replaces() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    ops_of(admin, "insert into tasks values (1, 'w', 'a')");
    ops_of(admin, "update tasks set title = 'b'");
    ops_of(admin, "update tasks set title = 'c'");
    ops_of(admin, "delete from tasks");
    ops_of(admin, "insert into tasks values (1, 'w', 'd')");
    let sql = "select string_agg(concat_ws(' ', clock, device_id, applied, supersedes), ', '
                 order by server_version) from sync_ext.change_log";
    let stamps = outcome(admin, sql).unwrap();
    assert_eq!(stamps, "1 $server t, 2 $server t 1, 3 $server t 2, 4 $server t 3, 5 $server t 4");
    let sql = "select hlc ~ '^\\d{13}:\\d{4}:\\$server$' from sync_ext.change_log";
    assert_eq!(outcome(admin, sql).unwrap(), "t");
}

#[test]
fn a_rolled_back_transaction_leaves_no_op() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    assert_eq!(ops_of(admin, "begin; insert into tasks values (1, 'w', 'a'); rollback"), [""; 0]);
    // Not even a workspace; and what it changed does not count in the next transaction.
    let sql = "select count(*) from sync_ext.workspace where workspace_id = 'w'";
    assert_eq!(outcome(admin, sql).unwrap(), "0");
    admin.batch_execute("set sync_ext.max_captured_rows = 2").unwrap();
    for end in ["rollback", "commit", "commit"] {
        let sql = format!(
            "begin; insert into tasks select n, 'w', '' from generate_series(1, 2) n; delete from tasks; {end}"
        );
        assert_eq!(ops_of(admin, &sql), [""; 0]);
    }
}

#[test]
fn an_aborted_transaction_holds_up_nobody_in_the_next() {
    let mut stage = stage(TASKS);
    let mut session = stage.session();
    stage.admin.batch_execute("insert into tasks values (1, 'w', 'a')").unwrap();
    session.batch_execute("begin; update tasks set title = 'b'; rollback").unwrap();
    stage.admin.batch_execute("begin; select sync_push('w', '[]')").unwrap();
    let hold = "select from sync_ext.workspace where workspace_id = 'w' for update";
    stage.admin.batch_execute(hold).unwrap();
    let elsewhere = "set lock_timeout = '10ms'; insert into tasks values (2, 'other', 'c')";
    session.batch_execute(elsewhere).unwrap();
    stage.admin.batch_execute("commit").unwrap();
    compare(&mut stage.admin);
}

#[test]
fn a_rolled_back_savepoint_leaves_no_op_for_its_changes() {
    let mut stage = stage(TASKS);
    let sql = "begin; insert into tasks values (1, 'w', 'a'); savepoint s;
               insert into tasks values (2, 'w', 'b'); update tasks set title = 'x'; rollback to s;
               insert into tasks values (3, 'w', 'c'); savepoint s; delete from tasks;
               rollback to s; release s; commit";
    let expected = [(1, "a"), (3, "c")].map(|(id, title)| format!("put {id} {}", task(id, title)));
    assert_eq!(ops_of(&mut stage.admin, sql), expected);
}

#[test]
fn what_a_savepoint_changed_again_is_captured_as_it_was_before() {
    let mut stage = stage(TASKS);
    ops_of(&mut stage.admin, "insert into tasks values (1, 'w', 'a')");
    let sql = "begin; update tasks set title = 'b'; savepoint s; update tasks set title = 'c';
               savepoint t; delete from tasks; rollback to t; rollback to s; commit";
    assert_eq!(ops_of(&mut stage.admin, sql), [format!("put 1 {}", task(1, "b"))]);
}

#[test]
fn an_exception_block_leaves_no_op_for_what_it_undid() {
    let mut stage = stage(TASKS);
    let sql = "do $$ begin
                 insert into tasks values (1, 'w', 'a');
                 for n in 2..200 loop
                   begin
                     insert into tasks values (n, 'w', 'b');
                     update tasks set title = n::text where id = 1;
                     if n % 50 > 0 then raise exception 'no'; end if;
                   exception when raise_exception then null;
                   end;
                 end loop;
               end $$";
    let ids = [50, 100, 150, 200].map(|id| format!("put {id} {}", task(id, "b")));
    let mut expected = vec![format!("put 1 {}", task(1, "200"))];
    expected.extend(ids);
    expected.sort();
    assert_eq!(ops_of(&mut stage.admin, sql), expected);
}

#[test]
fn ten_updates_are_one_op() {
    let mut stage = stage(TASKS);
    ops_of(&mut stage.admin, "insert into tasks values (1, 'w', 'a')");
    let update = "update tasks set title = title || 'x'; ".repeat(10);
    let expected = [format!("put 1 {}", task(1, "axxxxxxxxxx"))];
    assert_eq!(ops_of(&mut stage.admin, &format!("begin; {update} commit")), expected);
}

#[test]
fn what_leaves_no_change_is_no_op() {
    let mut stage = stage(TASKS);
    ops_of(&mut stage.admin, "insert into tasks values (1, 'w', 'a')");
    for sql in [
        "begin; insert into tasks values (2, 'w', 'b'); delete from tasks where id = 2; commit",
        "update tasks set title = title",
        "update tasks set title = 'a', done = false where id = 1",
        "begin; update tasks set title = 'x'; update tasks set title = 'a'; commit",
        "begin; delete from tasks; insert into tasks values (1, 'w', 'a'); commit",
        "begin; update tasks set id = 7; update tasks set id = 1; commit",
        "begin; update tasks set workspace_id = 'v'; update tasks set workspace_id = 'w'; commit",
        "delete from tasks where id = 9",
    ] {
        assert_eq!(ops_of(&mut stage.admin, sql), [""; 0], "{sql}");
    }
    assert_eq!(ops(&mut stage.admin, "v"), [""; 0]);
}

#[test]
fn upserts_merge_and_copy_become_what_they_did() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    ops_of(admin, "insert into tasks values (1, 'w', 'a'), (2, 'w', 'b'), (3, 'w', 'c')");
    let upsert = "insert into tasks values (1, 'w', 'x'), (4, 'w', 'd')
                  on conflict (id) do update set title = excluded.title";
    let put = |id, title| format!("put {id} {}", task(id, title));
    assert_eq!(ops_of(admin, upsert), [put(1, "x"), put(4, "d")]);
    let nothing = "insert into tasks values (1, 'w', 'y'), (5, 'w', 'e') on conflict do nothing";
    assert_eq!(ops_of(admin, nothing), [put(5, "e")]);
    let merge = "merge into tasks t using (values (1, 'm'), (2, null), (6, 'f')) as s (id, title)
                   on t.id = s.id
                 when matched and s.title is null then delete
                 when matched then update set title = s.title
                 when not matched then insert values (s.id, 'w', s.title)";
    assert_eq!(ops_of(admin, merge), ["delete 2".to_owned(), put(1, "m"), put(6, "f")]);
    let before = ops(admin, "w").len();
    let mut copy = admin.copy_in("copy tasks (id, workspace_id, title) from stdin").unwrap();
    std::io::Write::write_all(&mut copy, b"7\tw\tg\n8\tw\th\n9\t\\N\ti\n").unwrap();
    copy.finish().unwrap();
    compare(admin);
    assert_eq!(ops(admin, "w")[before..], [put(7, "g"), put(8, "h")]);
    // One statement that changes a row in several ways.
    let with = "with gone as (delete from tasks where id = 7 returning *)
                insert into tasks select id + 3, workspace_id, title from gone";
    assert_eq!(ops_of(admin, with), ["delete 7".to_owned(), put(10, "g")]);
}

#[test]
fn a_changed_key_is_a_delete_and_a_put() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    ops_of(admin, "insert into tasks values (1, 'w', 'a'), (2, 'w', 'b')");
    let expected = ["delete 1".to_owned(), format!("put 3 {}", task(3, "a"))];
    assert_eq!(ops_of(admin, "update tasks set id = 3 where id = 1"), expected);
    let swap = "begin; update tasks set id = 0 where id = 2; update tasks set id = 2 where id = 3;
                update tasks set id = 3 where id = 0; commit";
    let expected = [format!("put 2 {}", task(2, "a")), format!("put 3 {}", task(3, "b"))];
    assert_eq!(ops_of(admin, swap), expected);
}

#[test]
fn a_row_that_moves_is_deleted_here_and_put_there() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    ops_of(admin, "insert into tasks values (1, 'w', 'a')");
    let there = "update tasks set workspace_id = 'v', title = 'b'";
    assert_eq!(ops_of(admin, there), ["delete 1"]);
    assert_eq!(ops(admin, "v"), [format!("put 1 {}", task(1, "b"))]);
    let back = "update tasks set workspace_id = 'w'";
    assert_eq!(ops_of(admin, back), [format!("put 1 {}", task(1, "b"))]);
    assert_eq!(ops(admin, "v").last().unwrap(), "delete 1");
    // And with another key.
    assert_eq!(ops_of(admin, "update tasks set workspace_id = 'v', id = 2"), ["delete 1"]);
    assert_eq!(ops(admin, "v").last().unwrap(), &format!("put 2 {}", task(2, "b")));
}

#[test]
fn a_row_of_no_workspace_is_not_captured_until_it_has_one() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    assert_eq!(ops_of(admin, "insert into tasks values (1, null, 'a')"), [""; 0]);
    assert_eq!(ops_of(admin, "update tasks set title = 'b'"), [""; 0]);
    let into = "update tasks set workspace_id = 'w'";
    assert_eq!(ops_of(admin, into), [format!("put 1 {}", task(1, "b"))]);
    assert_eq!(ops_of(admin, "update tasks set workspace_id = null"), ["delete 1"]);
    assert_eq!(ops_of(admin, "delete from tasks"), [""; 0]);
}

#[test]
fn a_soft_delete_is_a_delete_and_an_undelete_a_put() {
    let mut stage = stage(SOFT);
    let admin = &mut stage.admin;
    let id = "11111111-1111-4111-8111-111111111111";
    let put = |body| format!(r#"put {id} {{"id":"{id}","body":"{body}"}}"#);
    let insert = format!("insert into notes values ('{id}', 'w', 'a')");
    assert_eq!(ops_of(admin, &insert), [put("a")]);
    assert_eq!(ops_of(admin, "update notes set gone = now()"), [format!("delete {id}")]);
    // What happens to it meanwhile is nobody's.
    assert_eq!(ops_of(admin, "update notes set body = 'b', gone = 'infinity'"), [""; 0]);
    assert_eq!(ops_of(admin, "update notes set gone = null"), [put("b")]);
    assert_eq!(ops_of(admin, "update notes set gone = now(); delete from notes").len(), 1);
    let born_gone = "insert into notes values (default, 'w', 'c', now())";
    assert_eq!(ops_of(admin, born_gone), [""; 0]);
}

#[test]
fn a_soft_delete_by_a_flag_is_a_delete() {
    let mut stage = stage(
        "create table notes (id int primary key, workspace_id text, gone boolean);
         select sync_attach_table('notes', deleted_column => 'gone')",
    );
    let admin = &mut stage.admin;
    assert_eq!(ops_of(admin, "insert into notes values (1, 'w', null)"), [r#"put 1 {"id":1}"#]);
    assert_eq!(ops_of(admin, "update notes set gone = false"), [""; 0]);
    assert_eq!(ops_of(admin, "update notes set gone = true"), ["delete 1"]);
    assert_eq!(ops_of(admin, "update notes set gone = null"), [r#"put 1 {"id":1}"#]);
}

#[test]
fn a_table_that_allows_patches_gets_patches_of_what_differs() {
    let mut stage = stage(
        "create table tasks (id int primary key, workspace_id text, title text, done boolean, n int);
         select sync_attach_table('tasks', patches => true)",
    );
    let admin = &mut stage.admin;
    let insert = "insert into tasks values (1, 'w', 'a', false, 1)";
    let put = |title| format!(r#"put 1 {{"id":1,"title":"{title}","done":false,"n":1}}"#);
    assert_eq!(ops_of(admin, insert), [put("a")]);
    assert_eq!(ops_of(admin, "update tasks set title = 'b', n = 1"), [r#"patch 1 {"title":"b"}"#]);
    let two = "begin; update tasks set n = 2; update tasks set title = null; commit";
    assert_eq!(ops_of(admin, two), [r#"patch 1 {"title":null,"n":2}"#]);
    let back = "update tasks set n = 1, title = 'b'";
    assert_eq!(ops_of(admin, back), [r#"patch 1 {"title":"b","n":1}"#]);
    assert_eq!(ops_of(admin, "delete from tasks"), ["delete 1"]);
    // What is deleted comes back by a put.
    assert_eq!(ops_of(admin, "insert into tasks values (1, 'w', 'b', false, 1)"), [put("b")]);
}

#[test]
fn a_table_of_one_workspace_needs_no_column() {
    let mut stage = stage(
        "create table colours (id int primary key, name text);
         select sync_attach_table('colours', 'palette', workspace_id => 'w')",
    );
    let insert = "insert into colours values (1, 'red')";
    let expected = [r#"put 1 {"id":1,"name":"red"}"#];
    assert_eq!(ops_of(&mut stage.admin, insert), expected);
    assert_eq!(ops_of(&mut stage.admin, "delete from colours"), ["delete 1"]);
}

#[test]
fn columns_that_are_not_synced_make_no_op() {
    let mut stage = stage(
        "create table tasks (id int primary key, workspace_id text, title text, secret text);
         select sync_attach_table('tasks', columns => '{\"id\": \"id\", \"name\": \"title\"}')",
    );
    let insert = "insert into tasks values (1, 'w', 'a', 's')";
    assert_eq!(ops_of(&mut stage.admin, insert), [r#"put 1 {"id":1,"name":"a"}"#]);
    assert_eq!(ops_of(&mut stage.admin, "update tasks set secret = 't'"), [""; 0]);
}
