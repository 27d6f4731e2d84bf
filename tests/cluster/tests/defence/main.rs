//! What callers who are not trusted try, and what stands in their way. Each of
//! these fails if the defence it is about is taken out.

mod callers;
mod errors;
mod membership;
mod memory;
mod names;
mod privileges;
mod refusals;
mod required_user;
mod restricted;
mod text;
mod tokens;
mod users;
mod views;

use postgres::{Client, GenericClient, NoTls};
use serde_json::Value;
use sync_ext_cluster::batch::{delete, push, put};
use sync_ext_cluster::cluster::Cluster;
use sync_ext_cluster::device::call;
use sync_ext_cluster::steps::speak_for;

/// One call of each function that is about a workspace which is there, `$1`. Those
/// who may do all of it get an answer from each, in this order.
const CALLS: [(&str, &str); 14] = [
    (
        "push",
        r#"select sync_push($1, '[{"tableName":"notes","operation":"put","pk":"c","payload":{},
           "stamp":{"deviceId":"d","opId":"00000000-0000-4000-8000-00000000cccc","hlc":"h","clock":1}}]')"#,
    ),
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
    grant execute on function sync_push(text, json),
      sync_pull(text, bigint, integer, text[], boolean, text),
      sync_snapshot(text, text, integer, text[]), sync_update_cursor(text, text, bigint),
      sync_gc(text, interval, integer), sync_register_table(text, text, text),
      sync_unregister_table(text), sync_create_workspace(text, text),
      sync_drop_workspace(text, integer), sync_set_member(text, text, text),
      sync_remove_member(text, text), sync_list_workspaces(), sync_exchange, sync_status,
      sync_explain, sync_list_members, sync_get_role, sync_forget_device to web;
    grant execute on procedure sync_gc_all to web;
    grant usage on schema sync_ext to web;
    grant select on sync_ext.current_record, sync_ext.tombstone, sync_ext.conflict,
      sync_ext.workspace_status, sync_ext.device_status, sync_ext.counter to web;";

/// A server with the role `web`, who is nobody in particular.
fn server(name: &str) -> Cluster {
    let cluster = Cluster::start(&format!("defence-{name}"), &["fsync=off"]).unwrap();
    let mut admin = cluster.connect("postgres").unwrap();
    admin.batch_execute("create role web login").unwrap();
    cluster
}

/// A database with two workspaces. In `team` ann is owner, bob editor and vic
/// viewer; it has the shared note `plan`, the private records `ann-1` and `bob-1`,
/// and `done`, which is deleted. `den` is eve's, with the note `plot`.
fn database(cluster: &Cluster, name: &str) -> Client {
    let mut admin = cluster.create_database(name).unwrap();
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
    admin
}

/// A put of a private record.
fn diary(id: u64, pk: &str, owner: &str) -> String {
    put(id, pk, 1)
        .replace("\"notes\"", "\"diary\"")
        .replace("\"payload\":{", &format!("\"payload\":{{\"by\":\"{owner}\","))
}

/// A session of the role `web`.
fn web(cluster: &Cluster, database: &str) -> Client {
    cluster.config(database).user("web").connect(NoTls).unwrap()
}

/// A session of the role `web` that speaks for a user.
fn speaking_for(cluster: &Cluster, database: &str, user: &str) -> Client {
    let mut session = web(cluster, database);
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
