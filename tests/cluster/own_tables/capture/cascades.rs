//! What foreign keys and triggers change is captured as if a statement had.

use super::{TASKS, compare, ops, ops_of, stage, task};

/// Lists, attached, and entries that refer to them.
fn lists(action: &str) -> String {
    format!(
        "create table lists (id int primary key, workspace_id text);
         create table entries (id int primary key, workspace_id text,
           list_id int default 9 references lists {action});
         select sync_attach_table('lists'), sync_attach_table('entries');
         insert into lists values (1, 'w'), (9, 'w');
         insert into entries values (1, 'w', 1), (2, 'w', 1), (3, 'w', 9)"
    )
}

fn entry(id: i32, list: &str) -> String {
    format!(r#"put {id} {{"id":{id},"list_id":{list}}}"#)
}

#[test]
fn a_cascaded_delete_is_captured() {
    let mut stage = stage(&lists("on delete cascade"));
    let sql = "delete from lists where id = 1";
    assert_eq!(ops_of(&mut stage.admin, sql), ["delete 1", "delete 1", "delete 2"]);
}

#[test]
fn what_set_null_and_set_default_change_is_captured() {
    for (action, list) in [("null", "null"), ("default", "9")] {
        let mut stage = stage(&lists(&format!("on delete set {action}")));
        let expected = ["delete 1".to_owned(), entry(1, list), entry(2, list)];
        assert_eq!(ops_of(&mut stage.admin, "delete from lists where id = 1"), expected);
    }
}

#[test]
fn what_on_update_cascade_changes_is_captured() {
    let mut stage = stage(&lists("on update cascade"));
    let expected =
        ["delete 1".to_owned(), entry(1, "5"), entry(2, "5"), r#"put 5 {"id":5}"#.to_owned()];
    assert_eq!(ops_of(&mut stage.admin, "update lists set id = 5 where id = 1"), expected);
}

/// Through a foreign key that has the workspace.
#[test]
fn children_move_with_their_parent() {
    let mut stage = stage(
        "create table lists (id int primary key, workspace_id text, unique (workspace_id, id));
         create table entries (id int primary key, workspace_id text, list_id int,
           foreign key (workspace_id, list_id) references lists (workspace_id, id) on update cascade);
         select sync_attach_table('lists'), sync_attach_table('entries');
         insert into lists values (1, 'w'); insert into entries values (1, 'w', 1), (2, 'w', 1)",
    );
    let sql = "update lists set workspace_id = 'v'";
    assert_eq!(ops_of(&mut stage.admin, sql), ["delete 1", "delete 1", "delete 2"]);
    let there = [entry(1, "1"), entry(2, "1"), r#"put 1 {"id":1}"#.to_owned()];
    assert_eq!(ops(&mut stage.admin, "v"), there);
}

/// Triggers fire in the order of their names.
#[test]
fn a_trigger_that_updates_the_row_again_is_captured_before_and_after_ours() {
    for name in ["a_first", "z_last"] {
        let mut stage = stage(TASKS);
        stage
            .admin
            .batch_execute(&format!(
                "create function again() returns trigger language plpgsql as $$ begin
                   update tasks set title = title || '!'
                     where id = new.id and title not like '%!!';
                   return null;
                 end $$;
                 create trigger {name} after insert or update on tasks
                   for each row execute function again()"
            ))
            .unwrap();
        let insert = "insert into tasks values (1, 'w', 'a')";
        let expected = [format!("put 1 {}", task(1, "a!!"))];
        assert_eq!(ops_of(&mut stage.admin, insert), expected, "{name}");
    }
}

#[test]
fn what_a_before_trigger_makes_of_a_row_is_captured() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    admin
        .batch_execute(
            "create function stamp() returns trigger language plpgsql as $$ begin
               if new.title = 'skip' then return null; end if;
               new.title := upper(new.title); new.workspace_id := 'w';
               return new;
             end $$;
             create trigger stamp before insert or update on tasks
               for each row execute function stamp();
             create function keep() returns trigger language plpgsql as 'begin return null; end';
             create trigger keep before delete on tasks for each row execute function keep()",
        )
        .unwrap();
    let insert = "insert into tasks values (1, 'elsewhere', 'a')";
    assert_eq!(ops_of(admin, insert), [format!("put 1 {}", task(1, "A"))]);
    assert_eq!(ops_of(admin, "update tasks set title = 'skip'"), [""; 0]);
    assert_eq!(ops_of(admin, "delete from tasks"), [""; 0]);
    assert_eq!(ops(admin, "elsewhere"), [""; 0]);
}

#[test]
fn what_statement_triggers_and_other_tables_write_is_captured() {
    let mut stage = stage(TASKS);
    let admin = &mut stage.admin;
    admin
        .batch_execute(
            "create table inbox (title text);
             create function file() returns trigger language plpgsql as $$ begin
               insert into tasks select coalesce(max(id), 0) + 1, 'w', (select max(title) from new)
                 from tasks;
               return null;
             end $$;
             create trigger file after insert on inbox referencing new table as new
               for each statement execute function file()",
        )
        .unwrap();
    let insert = "insert into inbox values ('a'), ('b')";
    assert_eq!(ops_of(admin, insert), [format!("put 1 {}", task(1, "b"))]);
}

/// The session's first use of the extension is then in the middle of its commit.
#[test]
fn a_deferred_trigger_that_alone_writes_is_captured() {
    let mut stage = stage(TASKS);
    stage
        .admin
        .batch_execute(
            "create table inbox (id int);
             create function file() returns trigger language plpgsql as $$ begin
               insert into tasks values (new.id, 'w', 'filed');
               update tasks set title = title || '!' where id = new.id - 1;
               return null;
             end $$;
             create constraint trigger file after insert on inbox
               deferrable initially deferred for each row execute function file()",
        )
        .unwrap();
    let mut session = stage.session();
    session.batch_execute("insert into inbox values (1)").unwrap();
    compare(&mut session);
    assert_eq!(ops(&mut session, "w"), [format!("put 1 {}", task(1, "filed"))]);
    let two = "begin; insert into inbox values (2); insert into tasks values (9, 'w', 'z'); commit";
    let expected = [(1, "filed!"), (2, "filed"), (9, "z")];
    let expected = expected.map(|(id, title)| format!("put {id} {}", task(id, title)));
    assert_eq!(ops_of(&mut session, two), expected);
    let prepare = "begin; insert into inbox values (3); prepare transaction 'deferred'";
    session.batch_execute(prepare).unwrap();
    assert_eq!(ops_of(&mut session, "commit prepared 'deferred'").len(), 2);
    // It may fail, too.
    let error = session.batch_execute("begin; insert into inbox values (1); commit").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23505");
    compare(&mut session);
    assert_eq!(ops(&mut session, "w").len(), 6);
}

#[test]
fn a_deferred_trigger_on_the_table_itself_is_captured() {
    let mut stage = stage(TASKS);
    stage
        .admin
        .batch_execute(
            "create function finish() returns trigger language plpgsql as $$ begin
               begin
                 update tasks set title = 'lost' where id = new.id;
                 raise exception 'no';
               exception when raise_exception then null;
               end;
               update tasks set done = true where id = new.id and not done;
               return null;
             end $$;
             create constraint trigger finish after insert or update on tasks
               deferrable initially deferred for each row execute function finish()",
        )
        .unwrap();
    let insert = "insert into tasks values (1, 'w', 'a')";
    let expected = [r#"put 1 {"id":1,"title":"a","done":true}"#];
    assert_eq!(ops_of(&mut stage.admin, insert), expected);
}

#[test]
fn generated_columns_and_defaults_are_in_the_payload() {
    let mut stage = stage(
        "create table sums (id int primary key generated always as identity,
           workspace_id text default 'w', a int default 2, b int generated always as (a * 2) stored);
         select sync_attach_table('sums')",
    );
    let insert = "insert into sums default values";
    assert_eq!(ops_of(&mut stage.admin, insert), [r#"put 1 {"id":1,"a":2,"b":4}"#]);
    assert_eq!(
        ops_of(&mut stage.admin, "update sums set a = 3"),
        [r#"put 1 {"id":1,"a":3,"b":6}"#]
    );
}
