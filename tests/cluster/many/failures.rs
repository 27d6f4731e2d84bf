//! Shards that fail, and how a call ends then.

use std::net::TcpListener;
use std::sync::Arc;

use postgres::{Client, GenericClient};
use serde_json::Value;
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::cluster::{Cluster, Stop};
use sync_ext_harness::device::call;
use sync_ext_harness::replica::{promote, until_replayed};
use sync_ext_harness::steps::outcome;

use sync_ext_harness::router::foreign_server;

use super::{Many, Servers};

fn alone(name: &str, shards: usize) -> Option<Many> {
    Some(Many::on(Arc::new(Servers::start(name, shards)?)))
}

/// SQLSTATE and message of an error.
fn told(client: &mut impl GenericClient, sql: &str) -> (String, String) {
    let Err(error) = client.simple_query(sql) else { panic!("no error: {sql}") };
    let error = error.as_db_error().unwrap_or_else(|| panic!("not the server's: {error}"));
    (error.code().code().to_owned(), error.message().to_owned())
}

fn put_sql(workspace: &str) -> String {
    format!("select sync_put('{workspace}', 'notes', 'a', '{{}}') ->> 'success'")
}

fn stored(session: &mut Client, workspace: &str) {
    assert_eq!(outcome(session, &put_sql(workspace)), Ok("true".to_owned()), "{workspace}");
}

/// Of a session that has a connection which is lost: PL/Proxy may notice it before it calls.
fn recovers(session: &mut Client, workspace: &str) {
    if let Err(code) = outcome(session, &put_sql(workspace)) {
        assert!(["57P01", "57P02", "08006"].contains(&code.as_str()), "{code}");
    }
    stored(session, workspace);
}

fn unreachable() -> (String, String) {
    ("08001".to_owned(), "shard is not reachable".to_owned())
}

/// PL/Proxy takes it for a cancel of its own, and may wait for an answer that it has read.
#[test]
fn a_call_that_a_shard_cancels_ends_by_the_routers_timeout() {
    let Some(many) = Many::new() else { return };
    many.on_shards(
        "create function cancels(payload json, previous json, op json) returns text language plpgsql as $$
         begin raise exception 'canceled there' using errcode = 'query_canceled'; end $$;
         select sync_register_table('canceled', validation => 'cancels(json, json, json)')",
    );
    let mut session = many.session();
    session.batch_execute("set statement_timeout = '500ms'").unwrap();
    let canceled = put_sql("w").replace("notes", "canceled");
    let (code, message) = told(&mut session, &canceled);
    assert_eq!(code, "57014");
    assert!(
        ["canceled there", "canceling statement due to statement timeout"].contains(&&*message),
        "{message}"
    );
    session.batch_execute("set statement_timeout = '30s'").unwrap();
    stored(&mut session, "w");
}

/// A listening socket that nobody serves. Other shards are not affected, nor is the session.
#[test]
fn a_call_to_a_shard_that_never_answers_ends_by_the_routers_timeout() {
    let Some(many) = Many::new() else { return };
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut addresses = many.addresses();
    addresses[1] =
        format!("host=127.0.0.1 port={} dbname=app", silent.local_addr().unwrap().port());
    let mut session = many.session();
    let again = foreign_server("sync", &addresses);
    session
        .batch_execute(&format!(
            "drop server sync cascade; {again}; set statement_timeout = '500ms'"
        ))
        .unwrap();
    let [there, elsewhere] = [1, 2].map(|shard| many.workspace_on(shard, 0));
    for sql in
        [&put_sql(&there), "select sync_list_workspaces()", "select sync_register_table('t')"]
    {
        assert_eq!(outcome(&mut session, sql), Err("57014".to_owned()), "{sql}");
        session.batch_execute("set statement_timeout = '30s'").unwrap();
        stored(&mut session, &elsewhere);
        session.batch_execute("set statement_timeout = '500ms'").unwrap();
    }
}

#[test]
fn a_shard_that_is_down_fails_the_calls_that_need_it() {
    let Some(mut many) = alone("down", 3) else { return };
    let mut session = many.session();
    let workspaces = [0, 1, 2].map(|shard| many.workspace_on(shard, 0));
    workspaces.iter().for_each(|workspace| stored(&mut session, workspace));

    shard(&mut many, 2).stop_server(Stop::Cleanly).unwrap();
    // The open connection may be noticed by the first call.
    let (code, _) = told(&mut session, &put_sql(&workspaces[2]));
    assert!(["57P01", "08006", "08001"].contains(&code.as_str()), "{code}");
    for sql in [
        &put_sql(&workspaces[2]),
        &format!("select sync_pull('{}')", workspaces[2]),
        "select sync_list_workspaces()",
        "select sync_status()",
        "select sync_gc()",
        "select sync_register_table('tasks')",
    ] {
        assert_eq!(told(&mut session, sql), unreachable(), "{sql}");
    }
    workspaces[..2].iter().for_each(|workspace| stored(&mut session, workspace));

    // What was done on some of the shards only, is done by calling again.
    shard(&mut many, 2).start_server().unwrap();
    session.batch_execute("select sync_register_table('tasks')").unwrap();
    for number in 0..3 {
        let sql =
            "select string_agg(table_name, ' ' order by table_name) from sync_ext.synced_table";
        assert_eq!(call(&mut many.shard(number), sql, &[]).unwrap(), "notes tasks");
    }
    let listed = call(&mut session, "select sync_list_workspaces()::text", &[]).unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["workspaces"].as_array().unwrap().len(), 3);
}

fn shard(many: &mut Many, number: usize) -> &mut Cluster {
    &mut Arc::get_mut(&mut many.servers).unwrap().shards[number]
}

/// Hosts and ports are for the log of the router.
#[test]
fn no_error_names_where_the_shards_are() {
    let Some(many) = Many::new() else { return };
    let mut session = many.session();
    let nowhere = "host=127.0.0.1 port=1 dbname=secret".to_owned();
    let again = foreign_server("sync", &[nowhere]);
    session.batch_execute(&format!("drop server sync cascade; {again}")).unwrap();
    let error = session.simple_query(&put_sql("w")).unwrap_err();
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    assert!(!format!("{error:?}").contains("127.0.0.1"), "{error:?}");
    assert_eq!(error.code().unwrap().code(), "08001");
    assert!(many.servers.router.log().contains("secret"));
}

#[test]
fn a_crash_is_an_error_once_for_each_open_connection() {
    let Some(mut many) = alone("crash", 1) else { return };
    let (mut session, mut other) = (many.session(), many.session());
    stored(&mut session, "w");
    stored(&mut other, "w");
    let shard = shard(&mut many, 0);
    shard.stop_server(Stop::Immediately).unwrap();
    shard.start_server().unwrap();
    recovers(&mut session, "w");
    recovers(&mut other, "w");
}

#[test]
fn a_failover_is_found_by_the_next_call() {
    let Some(mut many) = alone("failover", 1) else { return };
    let standby = many.servers.shards[0].standby("failover-standby").unwrap();
    let mut on_standby = standby.connect(&many.database).unwrap();
    let mut session = many.session();
    let [primary, other] = [&many.servers.shards[0], &standby].map(|cluster| {
        let address = cluster.environment("", &many.database);
        (address[0].1.clone(), address[1].1.clone())
    });
    let either = format!(
        "host={},{} port={},{} dbname={} target_session_attrs=read-write",
        primary.0, other.0, primary.1, other.1, many.database
    );
    let again = foreign_server("sync", &[either]);
    session.batch_execute(&format!("drop server sync cascade; {again}")).unwrap();
    assert_eq!(push(&mut session, "w", &[put(1, "a", 1)]), [1]);
    let mut fresh = many.session();

    until_replayed(&mut many.shard(0), &mut on_standby);
    shard(&mut many, 0).stop_server(Stop::Immediately).unwrap();
    promote(&mut on_standby);
    assert_eq!(push(&mut fresh, "w", &[put(2, "b", 1)]), [2]);
    recovers(&mut session, "w");
}
