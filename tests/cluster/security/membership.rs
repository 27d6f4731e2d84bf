//! The app's own membership function: called with the rights of the session's
//! role, once per call, and whatever it does, the session is left as it was.

use postgres::{Client, GenericClient, NoTls};
use sync_ext_harness::database::Database;
use sync_ext_harness::device::call;

use super::{CALLS, ask, furnished, pulled, refused, refused_within, speak_for, speaking_for};

fn world() -> Database {
    let app = furnished();
    app.session().batch_execute(FUNCTIONS).unwrap();
    app
}

const FUNCTIONS: &str = r#"
    create schema app;
    grant usage on schema app to web;
    create table app.secret (role text);
    insert into app.secret values ('owner');
    create sequence app.calls;
    grant usage, select on app.calls to web;
    create type app.word as enum ('owner', 'viewer');
    create function app.fixed(who text, place text) returns text language sql as
      $$ select case when who = 'ann' and place = 'team' then 'owner'
                     when who = 'bob' and place = 'team' then 'viewer' end $$;
    create function app.enum(who text, place text) returns app.word language sql as
      $$ select case when who = 'ann' then 'owner'::app.word end $$;
    create function app.wrong(who text, place text) returns text language sql as
      $$ select 'Owner'::text $$;
    create function app.empty(who text, place text) returns text language sql as $$ select '' $$;
    create function app.number(who text, place text) returns integer language sql as $$ select 1 $$;
    create function app.set_of(who text, place text) returns setof text language sql as
      $$ select 'owner'::text where who = 'ann' $$;
    create function app.two(who text, place text) returns setof text language sql as
      $$ values ('viewer'), ('owner') $$;
    create function app.counted(who text, place text) returns text language plpgsql as
      $$ begin perform pg_catalog.nextval('app.calls'); return 'owner'; end $$;
    create function app.tells(who text, place text) returns text language plpgsql as
      $$ begin
        raise exception using message = pg_catalog.concat_ws(' ', current_user,
          session_user, pg_catalog.current_setting('role'), pg_catalog.current_setting('search_path'));
      end $$;
    create function app.reads(who text, place text) returns text language sql as
      $$ select role from app.secret $$;
    create function app.reads_ours(who text, place text) returns text language sql as
      $$ select role from sync_ext.member where user_id = who and workspace_id = place $$;
    create function app.definer(who text, place text) returns text language sql
      security definer set search_path = pg_catalog, pg_temp as
      $$ select role from app.secret where who = 'ann' $$;
    create function app.private(who text, place text) returns text language sql as $$ select 'owner' $$;
    revoke execute on function app.private from public;
    create function app.becomes(who text, place text) returns text language plpgsql as
      $$ begin execute pg_catalog.current_setting('app.change'); return 'owner'; end $$;
    create function app.again(who text, place text) returns text language plpgsql as
      $$ begin perform public.sync_pull(place); return 'owner'; end $$;
    create function app.may_err(who text, place text) returns text language plpgsql as
      $$ begin
        if pg_catalog.current_setting('app.err', true) = 'on' then raise division_by_zero; end if;
        return 'owner';
      end $$;"#;

/// A session of `web` for ann, whose role this function tells.
fn session(app: &Database, function: &str) -> Client {
    ask(app, &format!("app.{function}"));
    speaking_for(app, "ann")
}

#[test]
fn its_answer_is_the_role() {
    let app = &world();
    for function in ["fixed", "enum", "set_of", "definer"] {
        let mut session = session(app, function);
        session.batch_execute("select sync_gc('team')").unwrap();
        speak_for(&mut session, "eve");
        let told = refused(&mut session, "select sync_pull('den')");
        assert_eq!(told.1, "permission denied for workspace", "she is a member by our table alone");
    }
    let mut session = session(app, "fixed");
    speak_for(&mut session, "bob");
    assert_eq!(pulled(&mut session, "team"), ["plan", "bob-1", "done"]);
    assert_eq!(refused(&mut session, "select sync_push('team', '[]')").0, "42501", "now a viewer");
    let list = call(&mut session, "select sync_list_workspaces()::text", &[]).unwrap();
    assert_eq!(
        list,
        r#"{"workspaces":[{"workspaceId":"team","role":"viewer","serverVersion":4}]}"#
    );
    // Our members neither count nor can be changed.
    speak_for(&mut session, "ann");
    for sql in ["sync_set_member('team', 'eve', 'owner')", "sync_create_workspace('new', 'ann')"] {
        let told = refused(&mut session, &format!("select {sql}"));
        assert_eq!(told.1, "members are kept elsewhere", "{sql}");
    }
}

#[test]
fn what_is_no_role_is_an_error() {
    let app = &world();
    for function in ["wrong", "empty", "number", "two"] {
        let mut session = session(app, function);
        for sql in ["select sync_pull('team')", "select pk from sync_ext.current_record"] {
            let told = refused(&mut session, sql);
            assert_eq!(told.0, "39000", "{function}: {told:?}");
        }
    }
    let mut session = session(app, "missing");
    assert_eq!(refused(&mut session, "select sync_pull('team')").0, "42883");
}

/// What it does is not undone with the call that it refuses: a sequence counts.
#[test]
fn it_is_called_once_per_call() {
    let app = &world();
    let mut session = session(app, "counted");
    let calls = |session: &mut Client| -> i64 {
        session.query_one("select last_value from app.calls", &[]).unwrap().get(0)
    };
    session.batch_execute("select nextval('app.calls')").unwrap();
    let mut before = calls(&mut session);
    for (name, sql) in CALLS.iter().filter(|(name, _)| *name != "drop_workspace") {
        let _ = session.query(*sql, &[&"team"]);
        let after = calls(&mut session);
        // Once more by each of the views that it reads.
        let expected = match *name {
            "status" => 3,
            // Of the caller, and of the user that is asked about.
            "get_role of another" => 2,
            _ => 1,
        };
        assert_eq!(after - before, expected, "{name}");
        before = after;
    }
    // A large push, that stores first and asks later, and one that nobody needs.
    let large: Vec<String> =
        (20..40).map(|id| sync_ext_harness::batch::put(id, &format!("l-{id}"), 1)).collect();
    for ops in [large.join(","), large.join(","), String::new()] {
        let sql = "select sync_push('team', $1::text::json)";
        session.execute(sql, &[&format!("[{ops}]")]).unwrap();
        let after = calls(&mut session);
        assert_eq!(after - before, 1);
        before = after;
    }
    session.execute("select sync_ext.may_read('team')", &[]).unwrap();
    assert_eq!(calls(&mut session) - before, 1);
    before += 1;
    session.execute("select sync_list_workspaces()", &[]).unwrap();
    assert_eq!(calls(&mut session) - before, 2, "the list asks for each workspace");
    before += 2;
    session.batch_execute("begin; select sync_drop_workspace('team'); rollback").unwrap();
    assert_eq!(calls(&mut session) - before, 1);
    // A trusted caller has no role to ask for.
    speak_for(&mut session, "");
    session.execute("select sync_pull('den')", &[]).unwrap();
    assert_eq!(calls(&mut session) - before, 1);
}

#[test]
fn it_runs_as_the_sessions_role() {
    let app = &world();
    let admin = &mut app.session();
    admin
        .batch_execute(
            "create role other; grant other to web; grant usage on schema app to other;
             grant execute on function sync_pull to other;
             create function app.wrapped() returns json language sql security definer
               set search_path = pg_catalog, pg_temp return public.sync_pull('team')",
        )
        .unwrap();
    let mut session = session(app, "tells");
    let path = "pg_catalog, pg_temp";
    for sql in [
        "select sync_pull('team')",
        "select sync_push('team', '[]')",
        "select sync_ext.may_read('team')",
        "select pk from sync_ext.tombstone",
        "select app.wrapped()",
    ] {
        let told = refused(&mut session, sql);
        assert_eq!(told, ("P0001".to_owned(), format!("web web none {path}")), "{sql}");
    }
    session.batch_execute("set role other").unwrap();
    let told = refused(&mut session, "select sync_pull('team')");
    assert_eq!(told.1, format!("other web other {path}"));
    assert_eq!(refused(&mut session, "select app.wrapped()").1, format!("other web other {path}"));
    drop(session);
    admin.batch_execute("drop function app.wrapped; drop owned by other; drop role other").unwrap();
}

#[test]
fn it_needs_the_rights_of_the_sessions_role() {
    let app = &world();
    for (function, message) in [
        ("private", "permission denied for function private"),
        ("reads", "permission denied for table secret"),
        ("reads_ours", "permission denied for table member"),
    ] {
        let mut session = session(app, function);
        for sql in [
            "select sync_pull('team')",
            "select sync_push('team', '[]')",
            "select sync_drop_workspace('team')",
            "select sync_list_workspaces()",
            "select sync_ext.may_read('team')",
            "select pk from sync_ext.current_record",
        ] {
            let told = refused(&mut session, sql);
            assert_eq!(told, ("42501".to_owned(), message.to_owned()), "{sql}");
        }
    }
}

/// A superuser that took on a role for a caller stays in it.
#[test]
fn it_cannot_become_another_role() {
    let app = &world();
    for change in [
        "reset role",
        "set role none",
        "set role postgres",
        "set local role postgres",
        "set session authorization default",
        "reset session authorization",
        "select set_config(''role'', ''postgres'', false)",
    ] {
        let mut session = app.config().connect(NoTls).unwrap();
        let setting = "sync_ext.membership_function = 'app.becomes'";
        session.batch_execute(&format!("set {setting}; set app.change = '{change}'")).unwrap();
        speak_for(&mut session, "ann");
        session.batch_execute("begin; set local role web").unwrap();
        for sql in ["select sync_pull('team')", "select sync_push('team', '[]')"] {
            let told = refused_within(&mut session, sql);
            assert_eq!(told.0, "42501", "{change}: {told:?}");
            assert!(told.1.starts_with("cannot set parameter"), "{change}: {told:?}");
            is_as_it_was(&mut session);
        }
    }
}

/// The session is `web`, and has its rights and no more.
fn is_as_it_was(session: &mut impl GenericClient) {
    assert_eq!(call(session, "select current_user::text", &[]).unwrap(), "web");
    for table in ["sync_ext.member", "app.secret"] {
        let told = refused_within(session, &format!("select from {table}"));
        assert_eq!(told.0, "42501", "{table}: {told:?}");
    }
}

const ERRING: [&str; 6] = [
    "select sync_pull('team')",
    "select sync_push('team', '[]')",
    "select sync_update_cursor('team', 'd', 0)",
    "select sync_list_workspaces()",
    "select pk from sync_ext.current_record",
    "select sync_drop_workspace('team')",
];

#[test]
fn an_error_in_it_leaves_the_session_as_it_was() {
    let app = &world();
    let mut session = session(app, "may_err");
    for sql in ERRING {
        // Without a transaction around, and in one that goes on.
        session.batch_execute("set app.err = on").unwrap();
        assert_eq!(refused(&mut session, sql).0, "22012", "{sql}");
        session.batch_execute("begin").unwrap();
        is_as_it_was(&mut session);
        assert_eq!(refused_within(&mut session, sql).0, "22012", "{sql}");
        is_as_it_was(&mut session);
        still_does_its_work(&mut session);
        session.batch_execute("rollback").unwrap();
    }
}

/// Calls go on to have our rights for themselves: this one writes to our tables.
fn still_does_its_work(session: &mut impl GenericClient) {
    session.batch_execute("set app.err = off").unwrap();
    session.batch_execute("select sync_update_cursor('team', 'back', 1)").unwrap();
    assert!(!pulled(session, "team").is_empty());
    is_as_it_was(session);
}

#[test]
fn an_error_in_it_that_somebody_catches_does_too() {
    let app = &world();
    let mut session = session(app, "may_err");
    for sql in ERRING {
        let block = format!(
            "do $$ declare
               who text := current_user;
             begin
               for n in 1..3 loop
                 begin
                   execute $sql$ {sql} $sql$;
                   raise 'no error';
                 exception when division_by_zero then null;
                 end;
                 assert current_user = who, 'another user after the error';
               end loop;
               begin
                 perform from sync_ext.member;
                 raise 'rights of ours are left';
               exception when insufficient_privilege then null;
               end;
               set local app.err = off;
               perform public.sync_update_cursor('team', 'caught', 1);
               assert current_user = who, 'another user after the call';
             end $$"
        );
        session.batch_execute("begin; set local app.err = on").unwrap();
        session.batch_execute(&block).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        is_as_it_was(&mut session);
        session.batch_execute("commit").unwrap();
    }
}

/// By Postgres' limit on its stack.
#[test]
fn a_function_that_asks_us_again_comes_to_an_end() {
    let app = &world();
    let mut session = session(app, "again");
    assert_eq!(refused(&mut session, "select sync_pull('team')").0, "54001");
    session.batch_execute("begin").unwrap();
    is_as_it_was(&mut session);
}
