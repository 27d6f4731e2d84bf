//! What callers who are not trusted try, and what stands in their way. Each of
//! these fails if the defence it is about is taken out.

mod callers;
mod errors;
mod membership;
mod memory;
mod names;
mod patches;
mod privileges;
mod refusals;
mod required_user;
mod restricted;
mod text;
mod tokens;
mod users;
mod validation;
mod views;

use postgres::{Client, GenericClient};
use serde_json::Value;
use sync_ext_harness::batch::{delete, push, put};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::database::Database;
use sync_ext_harness::device::call;
use sync_ext_harness::steps::speak_for;

/// One call of each function that is about a workspace which is there, `$1`. Those
/// who may do all of it get an answer from each, in this order.
const CALLS: [(&str, &str); 17] = [
    (
        "push",
        r#"select sync_push($1, '[{"tableName":"notes","operation":"put","pk":"c","payload":{},
           "stamp":{"deviceId":"d","opId":"00000000-0000-4000-8000-00000000cccc","hlc":"h","clock":1}}]')"#,
    ),
    ("put", "select sync_put($1, 'notes', 'c', '{}')"),
    ("patch", "select sync_patch($1, 'notes', 'c', '{\"n\": 1}')"),
    ("delete", "select sync_delete($1, 'notes', 'c')"),
    ("pull", "select sync_pull($1)"),
    ("snapshot", "select sync_snapshot($1)"),
    ("update_cursor", "select sync_update_cursor($1, 'called', 0)"),
    ("exchange", "select sync_exchange($1, 'called', 0, '[]')"),
    ("status", "select sync_status($1)"),
    ("explain", "select sync_explain($1, 'notes', 'c')"),
    ("gc", "select sync_gc($1)"),
    ("list_members", "select sync_list_members($1)"),
    ("get_role of another", "select sync_get_role($1, 'called')"),
    ("forget_device", "select sync_forget_device($1, 'called')"),
    ("set_member", "select sync_set_member($1, 'called', 'viewer')"),
    ("remove_member", "select sync_remove_member($1, 'called')"),
    ("drop_workspace", "select sync_drop_workspace($1)"),
];

/// What a role needs to call all functions and look at the views.
const GRANTS: &str = "
    grant execute on all routines in schema public to web;
    grant usage on schema sync_ext to web;
    grant select on sync_ext.current_record, sync_ext.tombstone, sync_ext.conflict,
      sync_ext.workspace_status, sync_ext.device_status, sync_ext.counter to web;";

/// A database with two workspaces. In `team` ann is owner, bob editor and vic
/// viewer; it has the shared note `plan`, the private records `ann-1` and `bob-1`,
/// and `done`, which is deleted. `den` is eve's, with the note `plot`.
fn furnished() -> Database {
    furnish(Database::new())
}

/// The same in a cluster of its own.
fn alone(name: &str) -> Database {
    furnish(Database::within(Cluster::start(name, &["fsync=off"]).unwrap(), "app"))
}

fn furnish(app: Database) -> Database {
    app.ensure_role("web");
    let mut admin = app.session();
    admin.batch_execute(GRANTS).unwrap();
    admin
        .batch_execute(
            "select sync_register_table('notes'), sync_register_table('diary', owner_field => 'by');
             select sync_create_workspace('team', 'ann'), sync_create_workspace('den', 'eve');
             select sync_set_member('team', 'bob', 'editor'), sync_set_member('team', 'vic', 'viewer')",
        )
        .unwrap();
    push(
        &mut admin,
        "team",
        &[
            put(1, "plan", 1),
            diary(2, "ann-1", "ann"),
            diary(3, "bob-1", "bob"),
            delete(5, "done", 1),
        ],
    );
    push(&mut admin, "den", &[put(4, "plot", 1)]);
    app
}

/// A setting of `web` for its later logins to this database.
fn set_for_web(app: &Database, setting: &str) {
    let sql = format!("alter role web in database {} set {setting}", app.name);
    app.session().batch_execute(&sql).unwrap();
}

/// Requires a user of `web`.
fn bind(app: &Database) {
    set_for_web(app, "sync_ext.require_user = on");
}

/// Takes the roles of members from this function.
fn ask(app: &Database, function: &str) {
    set_for_web(app, &format!("sync_ext.membership_function = '{function}'"));
}

/// A put of a private record.
fn diary(id: u64, pk: &str, owner: &str) -> String {
    put(id, pk, 1)
        .replace("\"notes\"", "\"diary\"")
        .replace("\"payload\":{", &format!("\"payload\":{{\"by\":\"{owner}\","))
}

fn web(app: &Database) -> Client {
    app.session_as("web")
}

/// A session of the role `web` that speaks for a user.
fn speaking_for(app: &Database, user: &str) -> Client {
    let mut session = web(app);
    speak_for(&mut session, user);
    session
}

/// Runs a statement that must fail; gives SQLSTATE and message.
fn refused(session: &mut impl GenericClient, sql: &str) -> (String, String) {
    match session.batch_execute(sql) {
        Ok(()) => panic!("not refused: {sql}"),
        Err(error) => told(&error),
    }
}

/// The same in a transaction that goes on.
fn refused_within(session: &mut impl GenericClient, sql: &str) -> (String, String) {
    session.batch_execute("savepoint tried").unwrap();
    let told = refused(session, sql);
    session.batch_execute("rollback to tried; release tried").unwrap();
    told
}

fn told(error: &postgres::Error) -> (String, String) {
    let Some(error) = error.as_db_error() else { panic!("not the server's error: {error:?}") };
    (error.code().code().to_owned(), error.message().to_owned())
}

/// What a call replies.
fn json(session: &mut impl GenericClient, sql: &str) -> Value {
    serde_json::from_str(&call(session, sql, &[]).unwrap()).unwrap()
}

/// The pks that a pull of the workspace shows.
fn pulled(session: &mut impl GenericClient, workspace: &str) -> Vec<String> {
    let reply = call(session, "select sync_pull($1)::text", &[&workspace]).unwrap();
    pks(&serde_json::from_str(&reply).unwrap(), "changes")
}

fn pks(reply: &Value, array: &str) -> Vec<String> {
    let rows = reply[array].as_array().unwrap();
    rows.iter().map(|row| row["pk"].as_str().unwrap().to_owned()).collect()
}
