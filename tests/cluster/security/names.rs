//! Names that somebody plants: functions, operators, types and tables of the
//! caller's own, where a statement of ours might find them instead of Postgres'.

use postgres::Client;
use sync_ext_harness::batch::{delete, push, put};
use sync_ext_harness::database::Database;

use super::{ask, furnished, refused, web};

fn world() -> Database {
    let app = furnished();
    let grant = format!("grant create, temporary on database {} to web", app.name);
    app.session().batch_execute(&grant).unwrap();
    web(&app).batch_execute(PLANTED).unwrap();
    app
}

/// Operators and functions that the path prefers to Postgres' own, types and
/// tables too. Each is sprung by whoever uses it.
const PLANTED: &str = r#"
    create schema trap;
    grant usage on schema trap to public;
    create function trap.sprung() returns boolean language plpgsql as $$
      begin
        raise exception using errcode = 'TRAPS',
          message = pg_catalog.concat('sprung as ', current_user);
      end $$;
    do $do$
    declare
      type text;
      name text;
      of_one constant text := 'create function trap.%I(%s) returns text
        language plpgsql as $$ begin perform trap.sprung(); return null; end $$';
      operators constant json := '{"eq": "=", "ne": "<>", "lt": "<", "gt": ">", "le": "<=", "ge": ">="}';
    begin
      foreach type in array array['text', 'bigint', 'integer', 'uuid', 'boolean', 'timestamptz', 'interval'] loop
        for name in select json_object_keys(operators) loop
          execute format('create function trap.%I(a %s, b %2$s) returns boolean
            language plpgsql as $$ begin return trap.sprung(); end $$;
            create operator trap.%s (leftarg = %2$s, rightarg = %2$s, function = trap.%1$I)',
            name, type, operators ->> name);
        end loop;
      end loop;
      foreach name in array array['timestamptz, interval', 'timestamptz, timestamptz',
          'float8, interval', 'bigint, bigint', 'bigint, interval', 'text, text', 'json, text'] loop
        execute format('create function trap.of_two(%s) returns interval
          language plpgsql as $$ begin perform trap.sprung(); return null; end $$', name);
        foreach type in array array['+', '-', '*', '||', '->>'] loop
          execute format('create operator trap.%s (leftarg = %s, rightarg = %s, function = trap.of_two)',
            type, split_part(name, ', ', 1), split_part(name, ', ', 2));
        end loop;
      end loop;
      foreach name in array array['now', 'clock_timestamp', 'gen_random_uuid', 'calling_user'] loop
        execute format(of_one, name, '');
      end loop;
      foreach name in array array['lower', 'length', 'current_setting', 'may_read'] loop
        execute format(of_one, name, 'text');
      end loop;
      foreach name in array array['role_of', 'concat', 'coalesce', 'sync_pull'] loop
        execute format(of_one, name, 'text, text');
      end loop;
      foreach name in array array['int8', 'text', 'uuid', 'json', 'timestamptz', 'interval', 'bool'] loop
        execute format('create domain trap.%I as varchar check (trap.sprung())', name);
      end loop;
      foreach name in array array['workspace', 'synced_table', 'change_log', 'record', 'device_cursor',
          'member', 'dropped_workspace', 'current_record', 'tombstone', 'pg_class', 'pg_proc'] loop
        execute format('create table trap.%I (workspace_id varchar, user_id varchar, role varchar)', name);
      end loop;
    end $do$;"#;

/// A session that sees the traps first, and has temporary tables besides.
fn trapped(app: &Database) -> Client {
    let mut session = web(app);
    session
        .batch_execute(
            "create temp table workspace (workspace_id text);
             create temp table change_log (workspace_key bigint);
             create temp table record (workspace_key bigint);
             create temp table device_cursor (workspace_key bigint);
             create temp table synced_table (table_name text);
             create temp table dropped_workspace (workspace_key bigint);
             set search_path = pg_temp, trap, public, pg_catalog, sync_ext",
        )
        .unwrap();
    session
}

fn speak(session: &mut Client, user: &str) {
    session.batch_execute(&format!("set sync_ext.user_id = '{user}'")).unwrap();
}

fn runs(session: &mut Client, sql: &str) {
    session.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// As the session finds out when it does not say which it means.
#[test]
fn the_traps_are_set() {
    let app = &world();
    let mut session = trapped(app);
    for sql in [
        "select 'a'::pg_catalog.text = 'a'::pg_catalog.text",
        "select 1::bigint > 0::bigint",
        "select lower('a'::pg_catalog.text)",
        "select now()",
        "select 'a'::text",
        "select 2.0::float8 * '1 second'::pg_catalog.interval",
        "select pg_catalog.now() + '1 second'::pg_catalog.interval",
        "select clock_timestamp()",
        "select calling_user()",
    ] {
        let told = refused(&mut session, sql);
        assert_eq!(told, ("TRAPS".to_owned(), "sprung as web".to_owned()), "{sql}");
    }
    assert_eq!(session.query("select user_id from member", &[]).unwrap().len(), 0);
}

#[test]
fn every_function_walks_past_them() {
    let app = &world();
    let mut session = trapped(app);
    let op = |table: &str| {
        format!(
            r#"[{{"tableName":"{table}","operation":"put","pk":"p","payload":{{}},"stamp":
            {{"deviceId":"d","opId":"00000000-0000-4000-8000-0000000000aa","hlc":"h","clock":1}}}}]"#
        )
    };
    for (user, expression) in [
        ("", "sync_register_table('tasks', 'id', 'who')".to_owned()),
        ("", "sync_unregister_table('tasks')".to_owned()),
        ("", format!("sync_push('unheard', '{}')", op("notes"))),
        ("", "sync_gc(null, '1 day', 10)".to_owned()),
        ("ann", "sync_create_workspace('hers', 'ann')".to_owned()),
        ("ann", "sync_set_member('hers', 'bob', 'editor')".to_owned()),
        ("ann", format!("sync_push('hers', '{}')", op("diary"))),
        ("ann", "sync_pull('hers', 0, 10, array['diary'], true)".to_owned()),
        ("ann", "sync_snapshot('hers', null, 10, array['diary'])".to_owned()),
        ("bob", "sync_update_cursor('hers', 'phone', 1)".to_owned()),
        ("bob", "sync_update_cursor('hers', 'phone', 1)".to_owned()),
        ("ann", format!("sync_exchange('hers', 'tablet', 1, '{}')", op("diary"))),
        ("ann", "sync_status('hers')".to_owned()),
        ("ann", "sync_explain('hers', 'diary', 'p')".to_owned()),
        ("ann", "sync_gc('hers')".to_owned()),
        ("ann", "sync_remove_member('hers', 'bob')".to_owned()),
        ("ann", "sync_list_workspaces()".to_owned()),
        ("ann", "sync_drop_workspace('hers', 1)".to_owned()),
        ("", "sync_gc()".to_owned()),
    ] {
        speak(&mut session, user);
        runs(&mut session, &format!("select public.{expression}"));
    }
    runs(&mut session, "select public.sync_status()");
    runs(&mut session, "call public.sync_gc_all(pause => '0')");
    speak(&mut session, "eve");
    runs(&mut session, "select sync_ext.may_read('den'), sync_ext.calling_user()");
}

#[test]
fn what_is_for_own_tables_walks_past_them() {
    let app = &world();
    app.session()
        .batch_execute(
            "grant select on sync_ext.attached_table to web;
             create schema own authorization web; set role web;
             create table own.tasks (id text primary key, workspace_id text not null, title text);
             insert into own.tasks values ('a', 'w', 'A'), ('b', 'w', 'B')",
        )
        .unwrap();
    let mut session = trapped(app);
    for sql in [
        "select public.sync_attach_table('own.tasks', patches => true)",
        "call public.sync_backfill_table('own.tasks', null, 1, '1 hour', '0')",
        "update own.tasks set title = 'C'",
        "select public.sync_check_table('own.tasks')",
        "call public.sync_repair_table('own.tasks', 'log', null, 1, '1 hour', '0')",
        "call public.sync_repair_table('own.tasks', 'table', null, 1, '1 hour', '0')",
        "select public.sync_put('w', 'tasks', 'c', '{}')",
        "select public.sync_patch('w', 'tasks', 'c', '{\"title\": \"D\"}')",
        "select public.sync_delete('w', 'tasks', 'c')",
        "select * from sync_ext.attached_table",
        "select public.sync_detach_table('own.tasks')",
    ] {
        runs(&mut session, sql);
    }
}

#[test]
fn the_views_walk_past_them() {
    let app = &world();
    let mut session = trapped(app);
    for (user, records, tombstones) in [("bob", 3, 1), ("", 5, 1), ("eve", 1, 0), ("vic", 2, 1)] {
        speak(&mut session, user);
        let mut count =
            |view| session.query(&format!("select pk from sync_ext.{view}"), &[]).unwrap().len();
        assert_eq!((count("current_record"), count("tombstone")), (records, tombstones), "{user}");
        for view in ["conflict", "workspace_status", "device_status", "counter"] {
            runs(&mut session, &format!("select * from sync_ext.{view}"));
        }
    }
}

/// Where the app keeps its members, and functions that ask there.
const MEMBERSHIP: &str = "
    create schema app;
    grant usage on schema app to web;
    create table app.member (user_id text, workspace_id text, role text);
    insert into app.member values ('ann', 'team', 'owner');
    grant select on app.member to web;
    create function app.role_of(who text, place text) returns text language sql stable as
      $$ select lower(role) from app.member where user_id = who and workspace_id = place $$;
    create function app.role_in_steps(who text, place text) returns text language plpgsql as
      $$ begin
        return (select role::text from app.member where user_id = who and workspace_id = place);
      end $$;
    create function app.role_by_path(who text, place text) returns text language sql stable
      set search_path = app, pg_catalog, pg_temp as
      $$ select role from member where user_id = who and workspace_id = place $$;
    create function app.role_unqualified(who text, place text) returns text language plpgsql as
      $$ begin return (select role from member where user_id = who); end $$;";

fn world_with_members() -> Database {
    let app = world();
    app.session().batch_execute(MEMBERSHIP).unwrap();
    app
}

/// A body is read where it is called from: in a path of ours.
#[test]
fn bodies_of_membership_functions_walk_past_them() {
    let app = &world_with_members();
    for function in ["role_of", "role_in_steps", "role_by_path"] {
        ask(app, &format!("app.{function}"));
        let mut session = trapped(app);
        speak(&mut session, "ann");
        session.batch_execute("begin").unwrap();
        for sql in [
            "select public.sync_push('team', '[]')",
            "select public.sync_pull('team')",
            "select public.sync_snapshot('team')",
            "select public.sync_update_cursor('team', 'd', 0)",
            "select public.sync_gc('team')",
            "select public.sync_remove_member('team', 'nobody')",
            "select public.sync_list_workspaces()",
            "select pk from sync_ext.current_record",
            "select pk from sync_ext.tombstone",
            "select sync_ext.may_read('team')",
            "select public.sync_drop_workspace('team')",
        ] {
            runs(&mut session, sql);
        }
        session.batch_execute("rollback").unwrap();
    }
}

#[test]
fn an_unqualified_membership_function_is_found_nowhere_else() {
    let app = &world_with_members();
    for function in [
        "role_of",
        "\"role_of\"",
        "app.role_of(text,text)",
        "role_of);delete/**/from/**/sync_ext/**/cascade;--",
    ] {
        ask(app, function);
        let mut session = trapped(app);
        speak(&mut session, "ann");
        assert_eq!(
            refused(&mut session, "select public.sync_pull('team')").0,
            "42883",
            "{function}"
        );
    }
    // What is no name is no statement either.
    for name in ["1); delete from sync_ext.member; --", "app.", "app..role_of", "a b", "\"a"] {
        ask(app, name);
        let mut session = trapped(app);
        speak(&mut session, "ann");
        assert_eq!(refused(&mut session, "select public.sync_pull('team')").0, "42602", "{name}");
    }
}

/// But a temporary table is found, which Postgres leaves out of no path: whoever
/// writes such a function qualifies its tables, as SECURITY.md says.
#[test]
fn an_unqualified_table_in_a_body_is_none_of_those_planted() {
    let app = &world_with_members();
    ask(app, "app.role_unqualified");
    let mut session = trapped(app);
    speak(&mut session, "ann");
    assert_eq!(refused(&mut session, "select public.sync_pull('team')").0, "42P01");
    let own = "create temp table member as
        select varchar 'ann' as user_id, varchar 'owner' as role";
    session.batch_execute("set search_path to default").unwrap();
    runs(&mut session, own);
    runs(&mut session, "select public.sync_pull('team')");
}

/// The functions for the views, too, which others may use in views of theirs.
#[test]
fn every_function_fixes_where_it_looks() {
    let app = &world();
    let admin = &mut app.session();
    // Those in C do so where they run a statement, and have no rights of their own. A
    // procedure that commits cannot: it qualifies every name.
    let sql = "select p.oid::regprocedure::text from pg_proc p
                 join pg_depend d on d.objid = p.oid and d.classid = 'pg_proc'::regclass
                 join pg_extension e on e.oid = d.refobjid and e.extname = 'sync_ext'
                where p.proname not in
                      ('sync_gc_all', 'run_batches', 'sync_backfill_table', 'sync_repair_table',
                       'sync_set_scope_field')
                  and (case when p.probin is not null then p.prosecdef or p.proconfig is not null
                       else not p.prosecdef
                         or p.proconfig is distinct from array['search_path=pg_catalog, pg_temp'] end)";
    let careless: Vec<String> =
        admin.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(careless.is_empty(), "{careless:?}");
}

fn give_to_web(app: &Database, admin: &mut Client) {
    app.ensure_role("web");
    admin.batch_execute(&format!("alter database {} owner to web", app.name)).unwrap();
}

/// Its owner could put there whatever our statements name.
#[test]
fn a_schema_that_is_there_already_is_not_adopted() {
    let app = &Database::empty();
    let mut admin = app.session();
    give_to_web(app, &mut admin);
    web(app).batch_execute("create schema sync_ext").unwrap();
    assert_eq!(refused(&mut admin, "create extension sync_ext").0, "42P06");
}

/// Where CREATE EXTENSION installs, functions that fit better than Postgres' own:
/// those take any arguments. A body that is parsed then would keep them for good.
const FITTING: &str = "
    create function public.json_build_object(text, bigint, text, text, text, text, text, uuid)
      returns json language plpgsql as $$ begin raise 'sprung as %', current_user; end $$;
    create function public.sprung(json, json) returns json
      language plpgsql as $$ begin raise 'sprung as %', current_user; end $$;
    create aggregate public.json_agg(json) (sfunc = public.sprung, stype = json);";

#[test]
fn what_is_planted_before_is_not_adopted() {
    let app = &Database::empty();
    let mut admin = app.session();
    give_to_web(app, &mut admin);
    web(app).batch_execute(FITTING).unwrap();
    let springs = "select json_build_object('a', 1::bigint, 'b', 'c'::text, 'd', 'e'::text, 'f',
                     '00000000-0000-4000-8000-000000000000'::uuid)";
    admin.batch_execute("set search_path = public, pg_catalog").unwrap();
    assert_eq!(refused(&mut admin, springs).1, "sprung as postgres");
    admin.batch_execute("reset search_path").unwrap();
    assert_eq!(refused(&mut admin, springs).1, "sprung as postgres", "without a path of its own");

    admin.batch_execute("create extension sync_ext; select sync_register_table('notes')").unwrap();
    push(&mut admin, "w", &[put(1, "a", 1), delete(2, "a", 2)]);
    for sql in [
        "select sync_update_cursor('w', 'd', 1)",
        "select sync_status()",
        "select sync_status('w')",
        "select sync_explain('w', 'notes', 'a')",
        "select * from sync_ext.current_record, sync_ext.tombstone, sync_ext.conflict",
        "select * from sync_ext.workspace_status, sync_ext.device_status, sync_ext.counter",
        "call sync_gc_all()",
    ] {
        runs(&mut admin, sql);
    }
}
