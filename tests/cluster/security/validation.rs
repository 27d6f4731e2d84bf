//! The app's validation functions: called with the rights of their owner, who may do
//! everything anyway, whoever pushes; and whatever they do, versions stay as they must.

use postgres::{Client, GenericClient};
use serde_json::{Value, json};
use sync_ext_harness::batch::put;
use sync_ext_harness::database::Database;
use sync_ext_harness::device::call;
use sync_ext_harness::state::tables;

use super::{furnished, refused, refused_within, speak_for, speaking_for, web};

fn world() -> Database {
    let app = furnished();
    let schema = "create schema app; create table app.secret (word text);
                  insert into app.secret values ('open')";
    app.session().batch_execute(schema).unwrap();
    app
}

/// Makes this body, with these options, the validation function of `notes`.
fn validate(app: &Database, options: &str, body: &str) {
    let sql = format!(
        "create or replace function app.check(payload json, previous json, op json) returns text
           language plpgsql {options} as $body$ begin {body} end $body$;
         select sync_register_table('notes', patches => true,
           validation => 'app.check(json,json,json)')"
    );
    app.session().batch_execute(&sql).unwrap();
}

/// What comes of a put: the errorCode and the reason, or NULLs.
fn put_by(session: &mut impl GenericClient, pk: &str) -> (Option<String>, Option<String>) {
    let sql = "select r ->> 'errorCode', r ->> 'error' from sync_put('team', 'notes', $1, '{}') r";
    let row = session.query_one(sql, &[&pk]).unwrap();
    (row.get(0), row.get(1))
}

fn rejected(reason: &str) -> (Option<String>, Option<String>) {
    (Some("REJECTED".to_owned()), Some(reason.to_owned()))
}

fn heads(admin: &mut Client) -> Vec<(String, i64)> {
    let sql = "select workspace_id, head from sync_ext.workspace order by 1";
    admin.query(sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn it_runs_as_its_owner() {
    let app = &world();
    let names = "return concat_ws(' ', current_user, session_user, current_setting('search_path'),
                   (select word from app.secret), sync_ext.calling_user());";
    let paths = [
        ("", "pg_catalog, pg_temp"),
        ("set search_path = app", "app"),
        ("security definer", "pg_catalog, pg_temp"),
    ];
    for (options, path) in paths {
        validate(app, options, names);
        let mut session = speaking_for(app, "bob");
        assert_eq!(put_by(&mut session, "a"), rejected(&format!("postgres web {path} open bob")));
        is_as_it_was(&mut session);
    }
}

/// The session is `web`, and has its rights and no more.
fn is_as_it_was(session: &mut impl GenericClient) {
    let who = "select current_user || ' ' || current_setting('search_path')";
    assert_eq!(call(session, who, &[]).unwrap(), "web \"$user\", public");
    session.batch_execute("begin").unwrap();
    assert_eq!(refused_within(session, "select from app.secret").0, "42501");
    session.batch_execute("rollback").unwrap();
}

#[test]
fn names_of_the_callers_path_do_not_count() {
    let app = &world();
    app.session()
        .batch_execute(
            "create schema evil authorization web;
             create function evil.json_typeof(json) returns text language sql as $$ select 'null' $$;
             create function evil.eq(text, text) returns boolean language sql as $$ select false $$;
             create operator evil.= (leftarg = text, rightarg = text, function = evil.eq);
             grant usage on schema evil to public",
        )
        .unwrap();
    validate(app, "", "return case when json_typeof(payload) = 'object' then 'an object' end;");
    let mut session = web(app);
    session.batch_execute("set search_path = evil, pg_catalog, public").unwrap();
    let sql = "select json_typeof('{}') = 'object'::text";
    assert!(!session.query_one(sql, &[]).unwrap().get::<_, bool>(0), "the trap is set");
    assert_eq!(put_by(&mut session, "a"), rejected("an object"));
}

#[test]
fn it_cannot_become_another_role() {
    let app = &world();
    validate(app, "", "execute current_setting('app.change'); return null;");
    for change in ["reset role", "set role web", "set session authorization default"] {
        let mut session = web(app);
        session.batch_execute(&format!("set app.change = '{change}'")).unwrap();
        let told = refused(&mut session, "select sync_put('team', 'notes', 'a', '{}')");
        assert_eq!(told.0, "42501", "{change}: {told:?}");
        is_as_it_was(&mut session);
    }
}

#[test]
fn an_error_in_it_leaves_the_session_and_the_tables_as_they_were() {
    let app = &world();
    let admin = &mut app.session();
    let body = "if payload ->> 'n' = '31' then raise division_by_zero; end if; return null;";
    validate(app, "", body);
    let before = tables(admin).unwrap();
    let mut session = speaking_for(app, "bob");
    let ops = format!("[{},{}]", put(30, "x", 1), put(31, "y", 1));
    let sql = format!("select sync_push('team', '{ops}')");
    assert_eq!(refused(&mut session, &sql).0, "22012");
    is_as_it_was(&mut session);
    let caught = format!(
        "do $$ begin
           begin perform sync_push('team', '{ops}'); exception when division_by_zero then null; end;
           assert current_user = 'web', 'another user after the error';
         end $$"
    );
    session.batch_execute(&caught).unwrap();
    is_as_it_was(&mut session);
    assert_eq!(tables(admin).unwrap(), before);
    // The workspace is open again.
    assert_eq!(put_by(&mut session, "x"), (None, None));
}

/// Calls that would change the workspace under the push.
const WRITES: [&str; 8] = [
    "sync_push('team', '[{}]')",
    "sync_put('team', 'tasks', 'within', '{}')",
    "sync_delete('team', 'tasks', 'within')",
    "sync_exchange('team', 'd', 0, '[{}]')",
    "sync_gc('team')",
    "sync_set_member('team', 'eve', 'viewer')",
    "sync_remove_member('team', 'vic')",
    "sync_drop_workspace('team')",
];

#[test]
fn it_cannot_write_to_the_workspace_of_its_op() {
    let app = &world();
    let admin = &mut app.session();
    admin.batch_execute("select sync_register_table('tasks')").unwrap();
    let op = put(40, "within", 1).replace("\"notes\"", "\"tasks\"");
    for write in WRITES {
        let write = write.replace("[{}]", &format!("[{op}]"));
        validate(app, "", &format!("perform public.{write}; return null;"));
        let before = tables(admin).unwrap();
        for sql in [
            "select sync_put('team', 'notes', 'a', '{}')".to_owned(),
            format!("select sync_push('team', '[{}]')", put(41, "a", 1)),
        ] {
            let told = refused(&mut web(app), &sql);
            let expected = ("55000".to_owned(), "workspace is being pushed to".to_owned());
            assert_eq!(told, expected, "{write}");
        }
        assert_eq!(tables(admin).unwrap(), before, "{write}");
    }
    // Nor by the detour of another workspace.
    validate(
        app,
        "",
        "perform public.sync_put(case op ->> 'pk' when 'a' then 'den' else 'team' end, 'notes', 'b', '{}');
         return null;",
    );
    let before = tables(admin).unwrap();
    assert_eq!(refused(&mut web(app), "select sync_put('team', 'notes', 'a', '{}')").0, "55000");
    assert_eq!(tables(admin).unwrap(), before);
}

#[test]
fn what_else_it_does_leaves_versions_contiguous() {
    let app = &world();
    let admin = &mut app.session();
    admin
        .batch_execute("select sync_register_table('tasks'); create table app.audit (op json)")
        .unwrap();
    // It writes, catches errors, one of them that of the push into its own workspace, reads
    // what is there, collects other garbage, and pushes to another workspace.
    validate(
        app,
        "",
        "insert into app.audit values (op);
         begin
           insert into app.audit values (op);
           perform public.sync_put('team', 'tasks', 'never', '{}');
         exception when object_not_in_prerequisite_state then null;
         end;
         perform public.sync_gc();
         perform public.sync_put('audit', 'tasks', op ->> 'pk', op);
         perform public.sync_pull('team'), public.sync_update_cursor('team', 'within', 0);
         return case when payload ->> 'n' in ('51', '60') then 'no' end;",
    );
    let before = heads(admin);
    assert_eq!(before[1], ("team".to_owned(), 4));
    let ops: Vec<String> = (50..70).map(|id| put(id, &format!("p{}", id % 7), id)).collect();
    let sql = "select sync_push('team', $1::text::json)::text";
    let reply = call(&mut web(app), sql, &[&format!("[{}]", ops.join(","))]).unwrap();
    let reply: Value = serde_json::from_str(&reply).unwrap();
    let versions: Vec<i64> = reply["results"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|item| item["serverVersion"].as_i64())
        .collect();
    assert_eq!(versions, Vec::from_iter(5..=22));
    assert_eq!(reply["serverVersion"], 22);
    let after = heads(admin);
    assert_eq!(after[0], ("audit".to_owned(), 20), "what it pushed elsewhere is stored");
    assert_eq!(after[2], ("team".to_owned(), 22));
    let audited = "select count(*)::text || ' ' || count(distinct op ->> 'pk') from app.audit";
    assert_eq!(call(admin, audited, &[]).unwrap(), "20 7", "once for each op, errors undone");
    let logged = "select count(*)::text || ' ' || max(server_version) from sync_ext.change_log
                    join sync_ext.workspace using (workspace_key) where workspace_id = 'team'";
    assert_eq!(call(admin, logged, &[]).unwrap(), "22 22");
    // The record is what the last op of it that was not rejected put.
    let sql = "select payload::text from sync_ext.current_record
                where workspace_id = 'team' and pk = 'p4'";
    let last: Value = serde_json::from_str(&call(admin, sql, &[]).unwrap()).unwrap();
    assert_eq!(last, json!({"n": 67}));
}

/// Membership and rights of the caller are checked before anything of the app runs.
#[test]
fn who_may_not_push_does_not_reach_it() {
    let app = &world();
    let admin = &mut app.session();
    admin.batch_execute("create sequence app.calls").unwrap();
    validate(app, "", "perform nextval('app.calls'); return null;");
    let mut session = speaking_for(app, "vic");
    for user in ["vic", "eve"] {
        speak_for(&mut session, user);
        let told = refused(&mut session, "select sync_put('team', 'notes', 'a', '{}')");
        assert_eq!(told.0, "42501", "{user}");
    }
    let called = "select is_called::text from app.calls";
    assert_eq!(call(admin, called, &[]).unwrap(), "false");
    // Nor is the record of another shown to it: that is refused before.
    admin
        .batch_execute(
            "select sync_register_table('diary', owner_field => 'by',
               validation => 'app.check(json,json,json)')",
        )
        .unwrap();
    speak_for(&mut session, "bob");
    let sql = "select sync_put('team', 'diary', 'ann-1', '{}') ->> 'errorCode'";
    assert_eq!(call(&mut session, sql, &[]).unwrap(), "UNAUTHORIZED");
    assert_eq!(call(admin, called, &[]).unwrap(), "false");
    assert_eq!(put_by(&mut session, "a"), (None, None));
    assert_eq!(call(admin, called, &[]).unwrap(), "true");
}
