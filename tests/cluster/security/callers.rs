//! Who calls is asked anew by every call: by the settings as they are then, and
//! whatever role the session has taken on.

use postgres::{Client, GenericClient};
use serde_json::Value;
use sync_ext_harness::device::call;

use super::{furnished, json, pks, pulled, refused, refused_within, speak_for, web};

/// The user by whom calls go: empty if the caller is trusted.
fn user(session: &mut impl GenericClient) -> String {
    let told = call(session, "select coalesce(sync_ext.calling_user(), '')", &[]).unwrap();
    // The functions agree with it.
    let list = json(session, "select sync_list_workspaces()::text");
    let roles: Vec<&Value> =
        list["workspaces"].as_array().unwrap().iter().map(|w| &w["role"]).collect();
    let expected = match told.as_str() {
        "" => vec![Value::Null, Value::Null],
        "ann" | "eve" => vec!["owner".into()],
        "bob" => vec!["editor".into()],
        "vic" => vec!["viewer".into()],
        _ => vec![],
    };
    assert_eq!(roles, expected.iter().collect::<Vec<_>>(), "{told}");
    told
}

#[test]
fn a_user_set_twice_in_a_transaction_is_the_latest() {
    let app = &furnished();
    let mut session = web(app);
    let mut transaction = session.transaction().unwrap();
    transaction.batch_execute("set local sync_ext.user_id = 'ann'").unwrap();
    assert_eq!(pulled(&mut transaction, "team"), ["plan", "ann-1", "done"]);
    transaction.batch_execute("set local sync_ext.user_id = 'bob'").unwrap();
    assert_eq!(pulled(&mut transaction, "team"), ["plan", "bob-1", "done"]);
    assert_eq!(refused_within(&mut transaction, "select sync_gc('team')").0, "42501");
    transaction.batch_execute("set local sync_ext.user_id = 'ann'").unwrap();
    transaction.batch_execute("select sync_gc('team')").unwrap();
    transaction.batch_execute("set local sync_ext.user_id = 'eve'").unwrap();
    assert_eq!(refused(&mut transaction, "select sync_pull('team')").0, "42501");
}

#[test]
fn a_user_ends_with_what_set_it() {
    let app = &furnished();
    let mut session = web(app);
    for end in ["commit", "rollback"] {
        session.batch_execute("begin; set local sync_ext.user_id = 'bob'").unwrap();
        assert_eq!(user(&mut session), "bob");
        session.batch_execute("savepoint a; set local sync_ext.user_id = 'vic'").unwrap();
        assert_eq!(user(&mut session), "vic");
        session.batch_execute("rollback to a").unwrap();
        assert_eq!(user(&mut session), "bob", "after a rollback to a savepoint");
        session
            .batch_execute("savepoint b; set local sync_ext.user_id = 'ann'; release b")
            .unwrap();
        assert_eq!(user(&mut session), "ann", "a released savepoint keeps it");
        session.batch_execute(end).unwrap();
        assert_eq!(user(&mut session), "", "after {end}");
    }
    session.batch_execute("set sync_ext.user_id = 'bob'").unwrap();
    session.batch_execute("begin; set local sync_ext.user_id = 'ann'; commit").unwrap();
    assert_eq!(user(&mut session), "bob", "the session's own");
    session.batch_execute("begin; set sync_ext.user_id = 'ann'; rollback").unwrap();
    assert_eq!(user(&mut session), "bob", "what was set was rolled back");
    for reset in ["reset sync_ext.user_id", "set sync_ext.user_id = ''", "discard all"] {
        speak_for(&mut session, "bob");
        assert_eq!(user(&mut session), "bob");
        session.batch_execute(reset).unwrap();
        assert_eq!(user(&mut session), "", "{reset}");
    }
}

#[test]
fn a_user_changes_within_a_statement() {
    let app = &furnished();
    let mut session = web(app);
    let sql = "select u, set_config('sync_ext.user_id', u, true), sync_pull('team')::text
                 from unnest(array['ann', 'bob']) with ordinality as t (u, n) order by n";
    let mut transaction = session.transaction().unwrap();
    let rows = transaction.query(sql, &[]).unwrap();
    for (row, pk) in rows.iter().zip(["ann-1", "bob-1"]) {
        let reply: Value = serde_json::from_str(row.get(2)).unwrap();
        assert_eq!(pks(&reply, "changes"), ["plan", pk, "done"]);
    }
}

#[test]
fn claims_count_where_no_user_is_set() {
    let app = &furnished();
    let mut session = web(app);
    session.batch_execute("set request.jwt.claims = '{\"sub\": \"vic\"}'").unwrap();
    assert_eq!(user(&mut session), "vic");
    speak_for(&mut session, "bob");
    assert_eq!(user(&mut session), "bob", "the setting goes before claims");
    speak_for(&mut session, "");
    assert_eq!(user(&mut session), "vic", "an empty one is none");
    session.batch_execute("begin; set local request.jwt.claims = '{\"sub\": \"ann\"}'").unwrap();
    assert_eq!(user(&mut session), "ann");
    session.batch_execute("rollback").unwrap();
    assert_eq!(user(&mut session), "vic");
    // Claims that cannot be read are not taken for none.
    for claims in ["{", "[]", "null", "vic", "{\"sub\": null}", "{\"sub\": 7}", "{\"sub\": \"\"}"] {
        session.execute("select set_config('request.jwt.claims', $1, false)", &[&claims]).unwrap();
        let told = refused(&mut session, "select sync_list_workspaces()");
        assert_eq!(told.1, "invalid request.jwt.claims", "{claims}");
        assert_eq!(
            refused(&mut session, "select sync_ext.may_read('team')").0,
            "22023",
            "{claims}"
        );
    }
    session.batch_execute("set request.jwt.claims = ''").unwrap();
    assert_eq!(user(&mut session), "");
}

#[test]
fn the_user_stays_whatever_the_role() {
    let app = &furnished();
    let admin = &mut app.session();
    admin.batch_execute("begin; set local sync_ext.user_id = 'bob'").unwrap();
    for change in [
        "set local role web",
        "reset role",
        "set role web",
        "set role none",
        "set session authorization web",
        "reset role",
        "reset session authorization",
    ] {
        admin.batch_execute(change).unwrap();
        assert_eq!(user(admin), "bob", "{change}");
        assert_eq!(pulled(admin, "team"), ["plan", "bob-1", "done"], "{change}");
        assert_eq!(refused_within(admin, "select sync_gc('team')").0, "42501");
    }
    admin.batch_execute("set local role web; savepoint a; reset role; rollback to a").unwrap();
    assert_eq!(call(admin, "select current_user::text", &[]).unwrap(), "web");
    assert_eq!(user(admin), "bob");
    admin.batch_execute("commit").unwrap();
    assert_eq!(user(admin), "");
}

#[test]
fn rights_on_functions_are_those_of_the_role_taken_on() {
    let app = &furnished();
    let admin = &mut app.session();
    admin.batch_execute("create role stranger; grant stranger to web").unwrap();
    for change in ["set local role stranger", "set local session authorization stranger"] {
        let mut transaction = admin.transaction().unwrap();
        transaction.batch_execute("set local sync_ext.user_id = 'ann'").unwrap();
        assert_eq!(user(&mut transaction), "ann");
        transaction.batch_execute(change).unwrap();
        let told = refused(&mut transaction, "select sync_pull('team')");
        assert_eq!(told.1, "permission denied for function sync_pull", "{change}");
    }
    admin.batch_execute("drop role stranger").unwrap();
}

#[test]
fn a_function_that_sets_a_user_does_so_for_itself() {
    let app = &furnished();
    let admin = &mut app.session();
    admin
        .batch_execute(
            "create schema app; grant usage on schema app to web;
             create function app.as_bob() returns json language sql
             set sync_ext.user_id = 'bob' begin atomic; select sync_pull('team'); end;
             create function app.becomes_bob() returns json language plpgsql as $$
             begin set local sync_ext.user_id = 'bob'; return sync_pull('team'); end $$",
        )
        .unwrap();
    let mut session = web(app);
    speak_for(&mut session, "ann");
    let as_bob = |session: &mut Client, function: &str| {
        let reply = json(session, &format!("select app.{function}()::text"));
        assert_eq!(pks(&reply, "changes"), ["plan", "bob-1", "done"], "{function}");
    };
    as_bob(&mut session, "as_bob");
    assert_eq!(user(&mut session), "ann", "after a SET clause");
    session.batch_execute("begin").unwrap();
    as_bob(&mut session, "becomes_bob");
    assert_eq!(user(&mut session), "bob", "a SET inside lasts as any does");
    session.batch_execute("rollback").unwrap();
    assert_eq!(user(&mut session), "ann");
}

/// An app that gives its roles functions of its own, and none of ours.
#[test]
fn wrappers_of_an_app_go_by_the_user_too() {
    let app = &furnished();
    let admin = &mut app.session();
    admin
        .batch_execute(
            "create schema app; create role backend; grant usage on schema app to backend;
             grant execute on function sync_push(text, json),
               sync_pull to backend;
             create function app.notes() returns json language sql security definer
               set search_path = pg_catalog, pg_temp return public.sync_pull('team');
             create function app.save(ops json) returns json language sql security definer
               set search_path = pg_catalog, pg_temp return public.sync_push('team', ops);
             alter function app.notes() owner to backend;
             alter function app.save(json) owner to backend;
             create role front login; grant usage on schema app to front;
             alter role front set sync_ext.require_user = on",
        )
        .unwrap();
    let mut session = app.config().user("front").connect(postgres::NoTls).unwrap();
    assert_eq!(refused(&mut session, "select app.notes()").1, "no user is set");
    assert_eq!(
        refused(&mut session, "select sync_pull('team')").1,
        "permission denied for function sync_pull"
    );
    speak_for(&mut session, "vic");
    let reply = json(&mut session, "select app.notes()::text");
    assert_eq!(pks(&reply, "changes"), ["plan", "done"]);
    assert_eq!(refused(&mut session, "select app.save('[]')").0, "42501");
    speak_for(&mut session, "bob");
    assert_eq!(json(&mut session, "select app.save('[]')::text")["serverVersion"], 4);
    speak_for(&mut session, "eve");
    assert_eq!(refused(&mut session, "select app.notes()").1, "permission denied for workspace");
}
