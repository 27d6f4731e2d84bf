//! Triggers of the app: they fire as for any statement, and see the role of the caller.

use serde_json::json;
use sync_ext_harness::steps::outcome;

use super::{Own, TASKS, codes, delete, patch, push_as, push_sql, put};

/// The table of tasks with a row trigger of this body.
fn with_trigger(when: &str, body: &str) -> Own {
    Own::new(&format!(
        "{TASKS}
         create function act() returns trigger language plpgsql as $act$ begin {body} end $act$;
         create trigger act {when} on tasks for each row execute function act()"
    ))
}

fn titled(pk: &str, clock: u64, title: &str) -> String {
    put("tasks", pk, clock, &format!(r#"{{"id":"{pk}","title":"{title}","done":false,"n":null}}"#))
}

#[test]
fn a_before_trigger_that_returns_null_rejects_the_op() {
    let when = "before insert or update or delete";
    let mut own = with_trigger(
        when,
        "if new.title = 'no' or tg_op <> 'INSERT' and old.title = 'no' then return null; end if; return coalesce(new, old);",
    );
    own.push(&[titled("a", 1, "A"), titled("b", 1, "B")]);
    let results = own.push(&[titled("c", 1, "no"), titled("a", 2, "no"), titled("b", 2, "yes")]);
    assert_eq!(codes(&results), ["REJECTED", "REJECTED", "ok"]);
    assert_eq!(results[0]["error"], "a trigger cancelled the change of the row");
    assert_eq!(results[1]["winner"]["payload"]["title"], "A");
    own.sql(
        "alter table tasks disable trigger act; update tasks set title = 'no' where id = 'a';
             alter table tasks enable trigger act",
    );
    assert_eq!(own.codes(&[delete("tasks", "a", 9)]), ["REJECTED"]);
    assert_eq!(own.rows("select id, title from tasks order by 1"), ["(a,no)", "(b,yes)"]);
}

#[test]
fn a_before_trigger_that_changes_the_key_or_the_workspace_refuses_the_op() {
    for set in ["new.id := new.id || '!'", "new.workspace_id := 'other'", "new.workspace_id := 'W'"]
    {
        let body = format!("if new.title = 'moved' then {set}; end if; return new;");
        let mut own = with_trigger("before insert or update", &body);
        own.push(&[titled("b", 1, "B")]);
        let ops = [titled("a", 1, "moved"), titled("b", 2, "moved"), titled("c", 1, "C")];
        assert_eq!(own.codes(&ops), ["VALIDATION_ERROR", "VALIDATION_ERROR", "ok"], "{set}");
        assert_eq!(own.rows("select id, title from tasks order by 1"), ["(b,B)", "(c,C)"], "{set}");
    }
}

#[test]
fn a_before_trigger_that_changes_values_is_told() {
    let mut own =
        with_trigger("before insert or update", "new.title := upper(new.title); return new;");
    let results = own.push(&[titled("a", 1, "x"), titled("b", 1, "Y")]);
    assert_eq!(results[0]["payload"], json!({"id": "a", "title": "X", "done": false, "n": null}));
    assert!(results[1].get("payload").is_none());
    let base = put("tasks", "c", 1, r#"{"title":"c"}"#);
    own.push(std::slice::from_ref(&base));
    let results = own.push(&[patch("tasks", "c", 2, &base, r#"{"title":"d"}"#)]);
    assert_eq!(results[0]["payload"]["title"], "D");
}

#[test]
fn what_an_app_raises_rejects_the_op_with_its_message() {
    let body = "if new.title <> 'ok' then raise 'no %', new.id using errcode = new.title; end if; return new;";
    for when in ["before insert", "after insert"] {
        let mut own = with_trigger(when, body);
        let results = own.push(&[
            titled("a", 1, "P0001"),
            titled("b", 1, "APP01"),
            titled("c", 1, "ok"),
            titled("d", 1, "45000"),
            titled("i", 1, "P0002"),
        ]);
        assert_eq!(
            codes(&results),
            ["REJECTED", "REJECTED", "ok", "REJECTED", "REJECTED"],
            "{when}"
        );
        assert_eq!(results[1]["error"], "no b");
        let results = own.push(&[titled("e", 1, "23514"), titled("f", 1, "22012")]);
        assert_eq!(codes(&results), ["CONSTRAINT 23514", "VALIDATION_ERROR 22012"], "{when}");
        for state in
            ["42501", "42P01", "40001", "53100", "57014", "58030", "XX000", "55000", "0A000"]
        {
            assert_eq!(
                own.failure(&[titled("g", 1, "ok"), titled("h", 1, state)]),
                state,
                "{when}"
            );
        }
        assert_eq!(own.rows("select id from tasks"), ["(c)"]);
    }
}

#[test]
fn an_after_trigger_that_changes_the_row_itself_is_told() {
    let body = "if pg_trigger_depth() = 1 then update public.tasks set n = coalesce(n, 0) + 1 where id = new.id; end if; return null;";
    let mut own = with_trigger("after insert or update", body);
    let results = own.push(&[titled("a", 1, "A")]);
    assert_eq!(results[0]["payload"], json!({"id": "a", "title": "A", "done": false, "n": 1}));
    assert_eq!(own.head(), 1);
    own.push(&[put("tasks", "a", 2, r#"{"title":"B"}"#)]);
    assert_eq!(own.payload("a").unwrap()["n"], 2);
}

#[test]
fn an_after_trigger_that_deletes_the_row_ends_in_a_delete_of_the_server() {
    let body = "delete from public.tasks where id = new.id and title = 'gone'; return null;";
    let mut own = with_trigger("after insert or update", body);
    let results = own.push(&[titled("a", 1, "gone"), titled("b", 1, "B")]);
    assert_eq!(codes(&results), ["ok", "ok"]);
    assert_eq!((own.payload("a"), own.head()), (None, 3));
    own.push(&[titled("b", 2, "gone")]);
    assert_eq!(own.payload("b"), None);
}

#[test]
fn an_after_trigger_that_inserts_a_deleted_row_again_ends_in_a_put_of_the_server() {
    let body = "insert into public.tasks values (old.id, old.workspace_id, 'again'); return null;";
    let mut own = with_trigger("after delete", body);
    own.push(&[titled("a", 1, "A")]);
    assert_eq!(own.codes(&[delete("tasks", "a", 2)]), ["ok"]);
    assert_eq!(own.payload("a").unwrap()["title"], "again");
}

/// Of the same batch, of the same and of another workspace, and of another table.
#[test]
fn other_rows_that_a_trigger_changes_become_ops_of_the_server() {
    let body = "if pg_trigger_depth() = 1 then
                  update public.tasks set n = 7 where id <> new.id;
                  delete from public.tasks where id = 'victim';
                  insert into public.log (workspace_id, about) values ('elsewhere', new.id);
                end if; return null;";
    let mut own = Own::new(&format!(
        "{TASKS} create table log (id integer primary key generated always as identity, workspace_id text, about text);
         select sync_attach_table('log');
         insert into tasks values ('far', 'far', ''), ('near', 'w', ''), ('victim', 'w', '');
         create function act() returns trigger language plpgsql as $$ begin {body} end $$;
         create trigger act after insert on tasks for each row execute function act()"
    ));
    let results = own.push(&[titled("a", 1, "A"), titled("b", 1, "B"), titled("victim", 8, "V")]);
    assert_eq!(codes(&results), ["ok", "ok", "ok"]);
    assert_eq!(results[0]["payload"]["n"], 7);
    assert_eq!(own.payload("near").unwrap()["n"], 7);
    assert_eq!(own.payload("victim"), None);
    let sql = "select workspace_id, device_id from sync_ext.change_log join sync_ext.workspace using (workspace_key)
                where workspace_id <> 'w' order by 1, server_version";
    assert_eq!(
        own.rows(sql).len(),
        4,
        "two inserts by SQL, two changes by the trigger: {:?}",
        own.rows(sql)
    );
}

/// The trigger goes on inserting a row whose key is taken: no waiting helps.
#[test]
fn a_trigger_that_inserts_a_taken_key_refuses_its_op() {
    let body = "if new.title = 'twice' then insert into public.tasks values ('taken', 'w', ''); end if; return null;";
    let mut own = with_trigger("after insert", body);
    own.push(&[titled("taken", 1, "T")]);
    let results = own.push(&[titled("a", 1, "twice"), titled("b", 1, "B")]);
    assert_eq!(codes(&results), ["CONSTRAINT 23505", "ok"]);
    assert_eq!(results[0]["constraint"], "tasks_pkey");
}

#[test]
fn statement_triggers_see_all_rows_of_the_push() {
    let mut own = Own::new(&format!(
        "{TASKS} create table seen (event text, rows text);
         create function see() returns trigger language plpgsql as $$ begin
           insert into public.seen select tg_op, string_agg(id, '' order by id) from changed; return null; end $$;
         create trigger i after insert on tasks referencing new table as changed for each statement execute function see();
         create trigger u after update on tasks referencing new table as changed for each statement execute function see();
         create trigger d after delete on tasks referencing old table as changed for each statement execute function see()"
    ));
    own.push(&[titled("a", 1, "A"), put("tasks", "b", 1, r#"{"title":"B"}"#), titled("c", 1, "C")]);
    own.push(&[titled("a", 2, "D"), put("tasks", "b", 2, r#"{"n":1}"#), delete("tasks", "c", 2)]);
    assert_eq!(
        own.rows("select * from seen order by ctid"),
        ["(INSERT,abc)", "(DELETE,c)", "(UPDATE,ab)"]
    );
}

#[test]
fn a_trigger_finds_names_where_the_table_was_attached() {
    let sql = "create schema app; create schema hidden;
        create table app.audit (x text); create table hidden.audit (x text);
        create function app.act() returns trigger language plpgsql as $$ begin insert into audit values (new.id); return new; end $$;
        create table app.tasks (id text primary key, workspace_id text);
        create trigger act before insert on app.tasks for each row execute function app.act();";
    for (attach, place) in [
        (
            "set search_path = app, public; select sync_attach_table('tasks'); reset search_path",
            "app",
        ),
        ("select sync_attach_table('app.tasks', apply_search_path => 'hidden, app')", "hidden"),
    ] {
        let mut own = Own::new(&format!("{sql} {attach}"));
        assert_eq!(own.codes(&[put("tasks", "a", 1, "{}")]), ["ok"]);
        assert_eq!(own.rows(&format!("select x from {place}.audit")), ["(a)"]);
    }
    let mut own = Own::new(&format!("{sql} select sync_attach_table('app.tasks')"));
    assert_eq!(own.failure(&[put("tasks", "a", 1, "{}")]), "42P01");
}

#[test]
fn a_trigger_acts_as_the_caller_or_as_the_tables_owner_and_as_nobody_else() {
    // Roles last as long as the server, and that as long as a test that uses it.
    let server = Own::new("");
    for role in ["apply_caller", "apply_table_owner", "apply_stranger"] {
        server.stage.database.ensure_role(role);
    }
    for (apply_as, user) in [("caller", "apply_caller"), ("owner", "apply_table_owner")] {
        let mut own = Own::new(&format!(
            "{TASKS} select sync_detach_table('tasks');
             alter table tasks owner to apply_table_owner;
             create function act() returns trigger language plpgsql as $$ begin
               if new.title = 'role' then set role postgres;
               elsif new.title = 'user' then set session authorization postgres;
               elsif new.title = 'log' then perform 1 from sync_ext.change_log;
               else new.title := current_user; end if; return new; end $$;
             create trigger act before insert on tasks for each row execute function act();
             grant all on tasks to apply_caller;
             grant execute on all functions in schema public to apply_caller;
             select sync_attach_table('tasks', apply_as => '{apply_as}')"
        ));
        let mut caller = own.stage.database.session_as("apply_caller");
        assert_eq!(push_as(&mut caller, "w", &[titled("a", 1, "x")]), ["ok"]);
        assert_eq!(own.rows("select title from tasks"), [format!("({user})")]);
        for title in ["role", "user", "log"] {
            let push = push_sql("w", &[titled("b", 1, title)]);
            assert_eq!(outcome(&mut caller, &push), Err("42501".to_owned()), "{apply_as} {title}");
        }
        let user = outcome(&mut caller, "select current_user || ' ' || session_user");
        assert_eq!(user, Ok("apply_caller apply_caller".to_owned()));
    }
}

/// A caller's temporary table is found before the app's, if a search_path does not say
/// otherwise. For the owner's triggers that would be a way to the owner's rights.
#[test]
fn a_callers_temporary_table_is_not_found_by_the_owners_triggers() {
    // Roles last as long as the server, and that as long as a test that uses it.
    let server = Own::new("");
    for role in ["apply_caller", "apply_table_owner"] {
        server.stage.database.ensure_role(role);
    }
    let mut own = Own::new(&format!(
        "{TASKS} select sync_detach_table('tasks');
         create table audit (x text);
         create function act() returns trigger language plpgsql as $$ begin insert into audit values (new.id); return new; end $$;
         create trigger act before insert on tasks for each row execute function act();
         alter table tasks owner to apply_table_owner; alter table audit owner to apply_table_owner;
         grant execute on all functions in schema public to apply_caller;
         select sync_attach_table('tasks', apply_as => 'owner')"
    ));
    let mut caller = own.stage.database.session_as("apply_caller");
    caller
        .batch_execute(
            "create temp table audit (x text);
             create function pg_temp.spy() returns trigger language plpgsql as $$ begin
               raise exception 'acts as %', current_user using errcode = 'SPY01'; end $$;
             create trigger spy before insert on audit for each row execute function pg_temp.spy();
             grant all on audit to public",
        )
        .unwrap();
    assert_eq!(push_as(&mut caller, "w", &[titled("a", 1, "x")]), ["ok"]);
    assert_eq!(own.rows("select * from audit"), ["(a)"]);
}

#[test]
fn an_error_that_a_trigger_caught_is_not_taken_for_the_one_that_ended_it() {
    // Of an error for want of memory no copy is kept.
    let body = "begin
          insert into tasks values (new.id, new.workspace_id, 'again');
          insert into tasks values (new.id, new.workspace_id, 'again');
        exception when unique_violation then raise exception 'x' using errcode = '53200';
        end;";
    let mut own = with_trigger(
        "before insert",
        &format!("if new.title = 'A' then {body} end if; return new;"),
    );
    assert_eq!(own.failure(&[titled("a", 1, "A")]), "53200");
    assert_eq!(own.head(), 0);
}
