//! Row security: a push may do what its caller's own statements may, and one text for all
//! that is hidden.

use postgres::Client;
use sync_ext_harness::steps::{outcome, speak_for};

use super::{Own, codes, delete, patch, push_as, push_sql, put};
use crate::patching::results;

const HIDDEN: &str = "the row is not there for this user to write";

/// Everybody sees and changes their own rows, and sees those that are public.
const POLICIES: &str = "create table tasks (id text primary key, workspace_id text not null, owner text, public boolean default false, x text);
    alter table tasks enable row level security;
    create policy seen on tasks for select using (public or owner = current_user);
    create policy made on tasks for insert with check (owner = current_user);
    create policy changed on tasks for update using (owner = current_user) with check (owner = current_user and x <> 'secret');
    create policy gone on tasks for delete using (owner = current_user and x <> 'kept');
    grant all on tasks to apply_ann, apply_bob;
    grant execute on all functions in schema public to apply_ann, apply_bob;
    select sync_attach_table('tasks', reads => 'workspace', patches => true);
    insert into tasks values ('mine', 'w', 'apply_ann', false, 'x'), ('kept', 'w', 'apply_ann', false, 'kept'),
      ('theirs', 'w', 'apply_bob', false, 'x'), ('seen', 'w', 'apply_bob', true, 'x'), ('far', 'other', 'apply_ann', false, 'x')";

fn own(sql: &str) -> Own {
    let mut own = Own::new("");
    for role in ["apply_ann", "apply_bob"] {
        own.stage.database.ensure_role(role);
    }
    own.sql(sql);
    own
}

fn ann(own: &Own) -> Client {
    own.stage.database.session_as("apply_ann")
}

#[test]
fn what_a_policy_refuses_is_unauthorized_with_one_text() {
    let mut own = own(POLICIES);
    let mut ann = ann(&own);
    let ops = [
        put("tasks", "theirs", 9, r#"{"x":"hidden update"}"#),
        put("tasks", "seen", 9, r#"{"x":"update of what is seen"}"#),
        put("tasks", "theirs", 9, "{}"),
        put("tasks", "seen", 9, r#"{"of no column":1}"#),
        delete("tasks", "theirs", 9),
        delete("tasks", "seen", 9),
        delete("tasks", "kept", 9),
        put("tasks", "mine", 9, r#"{"x":"secret"}"#),
        put("tasks", "mine", 9, r#"{"owner":"apply_bob"}"#),
        put("tasks", "new", 9, r#"{"owner":"apply_bob"}"#),
        put("tasks", "far", 9, r#"{"owner":"apply_ann"}"#),
        put("tasks", "theirs", 9, r#"{"owner":"apply_ann"}"#),
    ];
    for op in &ops {
        let result = results(&mut ann, "w", std::slice::from_ref(op)).remove(0);
        assert_eq!(
            (&result["errorCode"], &result["error"]),
            (&"UNAUTHORIZED".into(), &HIDDEN.into()),
            "{op}"
        );
    }
    let head = own.head();
    let mut all = ops.to_vec();
    all.extend([
        put("tasks", "mine", 8, r#"{"x":"fine"}"#),
        put("tasks", "new", 8, r#"{"owner":"apply_ann"}"#),
    ]);
    let codes = push_as(&mut ann, "w", &all);
    assert_eq!(codes[..12], ["UNAUTHORIZED"; 12]);
    assert_eq!(codes[12..], ["ok", "ok"], "where the winner is refused the op before it wins");
    assert_eq!(own.head(), head + 2);
    let rows =
        "select id, owner, x from tasks where id in ('mine', 'new', 'seen', 'theirs') order by 1";
    let expected =
        ["(mine,apply_ann,fine)", "(new,apply_ann,)", "(seen,apply_bob,x)", "(theirs,apply_bob,x)"];
    assert_eq!(own.rows(rows), expected);
}

#[test]
fn a_hidden_row_is_not_patched() {
    let mut own = own(POLICIES);
    let base = put("tasks", "p", 1, r#"{"owner":"apply_bob","x":"B"}"#);
    let mut bob = own.stage.database.session_as("apply_bob");
    assert_eq!(push_as(&mut bob, "w", std::slice::from_ref(&base)), ["ok"]);
    let patches = [patch("tasks", "p", 2, &base, r#"{"x":"A"}"#)];
    assert_eq!(push_as(&mut ann(&own), "w", &patches), ["UNAUTHORIZED"]);
    assert_eq!(push_as(&mut bob, "w", &patches), ["ok"]);
    assert_eq!(own.rows("select x from tasks where id = 'p'"), ["(A)"]);
}

/// The row is there for the caller: its refusal comes from the app.
#[test]
fn a_trigger_that_cancels_a_change_is_told_from_a_policy() {
    let mut own = own(POLICIES);
    own.sql(
        "create function act() returns trigger language plpgsql as $$ begin
           if new.x = 'no' then return null; end if; return new; end $$;
         create trigger act before insert or update on tasks for each row execute function act()",
    );
    let mut ann = ann(&own);
    let ops = [
        put("tasks", "mine", 9, r#"{"x":"no"}"#),
        put("tasks", "theirs", 9, r#"{"x":"no"}"#),
        put("tasks", "new", 9, r#"{"x":"no","owner":"apply_ann"}"#),
        put("tasks", "fine", 9, r#"{"x":"yes","owner":"apply_ann"}"#),
    ];
    assert_eq!(push_as(&mut ann, "w", &ops), ["REJECTED", "UNAUTHORIZED", "REJECTED", "ok"]);
}

/// Policies that ask for the user of the app, as the extension does.
#[test]
fn policies_see_the_settings_of_the_session() {
    let mut own = own("create table tasks (id text primary key, workspace_id text, by text, x text);
         alter table tasks enable row level security;
         create policy own on tasks using (by = current_setting('sync_ext.user_id', true) and x <> current_setting('app.forbidden'));
         grant all on tasks to apply_ann; grant execute on all functions in schema public to apply_ann;
         select sync_attach_table('tasks', reads => 'workspace', owner_column => 'by'); select sync_create_workspace('w', 'u1'), sync_set_member('w', 'u2', 'editor')");
    let mut session = ann(&own);
    session.batch_execute("set app.forbidden = 'f'").unwrap();
    speak_for(&mut session, "u1");
    assert_eq!(
        push_as(
            &mut session,
            "w",
            &[put("tasks", "a", 1, r#"{"x":"1"}"#), put("tasks", "b", 1, r#"{"x":"f"}"#)]
        ),
        ["ok", "UNAUTHORIZED"]
    );
    speak_for(&mut session, "u2");
    assert_eq!(
        push_as(&mut session, "w", &[put("tasks", "a", 2, r#"{"x":"2"}"#)]),
        ["UNAUTHORIZED"]
    );
    assert_eq!(own.rows("select by, x from tasks"), ["(u1,1)"]);
}

#[test]
fn row_security_that_is_forced_binds_the_owner_and_hides_nothing_from_the_log() {
    let mut own = own(&format!(
        "{POLICIES}; alter table tasks force row level security; alter table tasks owner to apply_ann;
         select sync_detach_table('tasks');
         select sync_attach_table('tasks', reads => 'workspace', apply_as => 'owner')"
    ));
    let mut bob = own.stage.database.session_as("apply_bob");
    let ops = [
        put("tasks", "theirs", 9, r#"{"x":"no"}"#),
        put("tasks", "new", 9, r#"{"owner":"apply_bob"}"#),
        put("tasks", "mine", 9, r#"{"x":"by the owner"}"#),
    ];
    assert_eq!(push_as(&mut bob, "w", &ops), ["UNAUTHORIZED", "UNAUTHORIZED", "ok"]);
    bob.batch_execute("update tasks set x = 'by bob' where id = 'theirs'").unwrap();
    assert_eq!(own.payload("theirs").unwrap()["x"], "by bob");
}

#[test]
fn row_security_switched_off_in_the_session_is_an_error_and_no_way_around() {
    let mut own = own(POLICIES);
    let mut ann = ann(&own);
    ann.batch_execute("set row_security = off").unwrap();
    let push = push_sql("w", &[put("tasks", "theirs", 9, r#"{"x":"stolen"}"#)]);
    assert_eq!(outcome(&mut ann, &push), Err("42501".to_owned()));
    assert_eq!(own.rows("select x from tasks where id = 'theirs'"), ["(x)"]);
}

/// A caller cannot write by a function of somebody else what the session could not.
#[test]
fn a_push_from_a_definers_function_has_the_rights_of_the_session() {
    let mut own = own(&format!(
        "{POLICIES}; create function wrapped(ops json) returns json security definer language sql as 'select sync_push(''w'', ops)';
         grant execute on function wrapped to apply_ann"
    ));
    let mut ann = ann(&own);
    let op = put("tasks", "theirs", 9, r#"{"x":"stolen"}"#);
    let reply = outcome(&mut ann, &format!("select wrapped('[{op}]'::json)")).unwrap();
    let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
    assert_eq!(codes(reply["results"].as_array().unwrap()), ["UNAUTHORIZED"]);
    assert_eq!(own.rows("select x from tasks where id = 'theirs'"), ["(x)"]);
}
