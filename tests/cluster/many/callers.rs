//! For whom a call is made: the user goes along with it, the role logs in on the shard.

use std::thread;

use postgres::{Client, NoTls};
use serde_json::Value;
use sync_ext_harness::batch::put;
use sync_ext_harness::bouncer::Bouncer;
use sync_ext_harness::device::call;
use sync_ext_harness::steps::{outcome, refused, speak_for};

use sync_ext_harness::router::foreign_server;

use super::Many;

const USERS: [&str; 3] = ["ann", "bob", "eve"];
const CALLS: usize = 40;
/// Of each pool; fewer than there are callers.
const CONNECTIONS: usize = 2;

fn workspaces(client: &mut Client) -> Result<String, String> {
    outcome(client, "select sync_list_workspaces()")
}

fn own(workspace: &str) -> String {
    format!(
        r#"{{"workspaces":[{{"workspaceId":"{workspace}","role":"owner","serverVersion":0}}]}}"#
    )
}

/// Each user has a workspace on another shard.
fn with_users(role: &str) -> Option<Many> {
    let many = Many::new()?;
    many.grant(role, "sync_list_workspaces, sync_push, sync_pull");
    let mut admin = many.session();
    for (shard, user) in USERS.iter().enumerate() {
        let workspace = many.workspace_on(shard as i32, 0);
        admin.execute("select sync_create_workspace($1, $2)", &[&workspace, user]).unwrap();
    }
    Some(many)
}

#[test]
fn the_user_is_named_by_setting_or_claims() {
    let Some(many) = with_users("caller") else { return };
    let mut session = many.session_as("caller");
    for (shard, user) in USERS.iter().enumerate() {
        let expected = Ok(own(&many.workspace_on(shard as i32, 0)));
        speak_for(&mut session, user);
        assert_eq!(workspaces(&mut session), expected);
        speak_for(&mut session, "");
        let claims = format!("set request.jwt.claims = '{{\"sub\": \"{user}\"}}'");
        session.batch_execute(&claims).unwrap();
        assert_eq!(workspaces(&mut session), expected);
        session.batch_execute("reset request.jwt.claims").unwrap();
        let mut transaction = session.transaction().unwrap();
        transaction.batch_execute(&format!("set local sync_ext.user_id = '{user}'")).unwrap();
        assert_eq!(outcome(&mut transaction, "select sync_list_workspaces()"), expected);
        transaction.rollback().unwrap();
    }
    // Nothing of it is left there.
    let all: Value = serde_json::from_str(&workspaces(&mut session).unwrap()).unwrap();
    assert_eq!(all["workspaces"].as_array().unwrap().len(), 3);
}

/// The connections of both pools serve calls of all users in turn.
#[test]
fn users_never_mix_through_poolers_before_and_behind() {
    let Some(many) = with_users("pooled") else { return };
    many.on_shards(&format!(
        "alter role pooled in database {} set sync_ext.require_user = on",
        many.database
    ));
    let names = ["shard_0", "shard_1", "shard_2"];
    let behind = (0..3).map(|number| {
        (names[number], many.servers.shards[number].connection_string("pooled", &many.database))
    });
    let Some(behind) = Bouncer::before(&behind.collect::<Vec<_>>(), CONNECTIONS) else {
        println!("PgBouncer is not available here: it is not tried");
        return;
    };
    let mut admin = many.session();
    let addresses = names.map(|name| format!("host=127.0.0.1 port={} dbname={name}", behind.port));
    for server in ["sync", "sync_reads"] {
        let again = foreign_server(server, &addresses);
        admin.batch_execute(&format!("drop server {server} cascade; {again}")).unwrap();
    }
    admin.batch_execute("grant usage on foreign server sync, sync_reads to pooled").unwrap();
    let router = many.servers.router.connection_string("pooled", &many.database);
    let before = Bouncer::before(&[("router", router)], CONNECTIONS).unwrap();
    let url = format!("postgres://pooled@127.0.0.1:{}/router", before.port);

    thread::scope(|scope| {
        for caller in 0..8 {
            let (url, many) = (&url, &many);
            scope.spawn(move || {
                let mut client = Client::connect(url, NoTls).unwrap();
                let shard = caller % USERS.len();
                let workspace = many.workspace_on(shard as i32, 0);
                for number in 0..CALLS {
                    let op = put((caller * CALLS + number) as u64, "a", 1);
                    // Drivers prepare a query, which this pool does not keep.
                    let sql = format!(
                        "begin; set local sync_ext.user_id = '{}';
                         select sync_push('{workspace}', '[{op}]'); commit;
                         begin; set local sync_ext.user_id = '{}'; select sync_list_workspaces(); commit",
                        USERS[shard], USERS[shard],
                    );
                    let messages = client.simple_query(&sql).unwrap();
                    let listed = messages.iter().filter_map(|message| match message {
                        postgres::SimpleQueryMessage::Row(row) => row.get(0),
                        _ => None,
                    });
                    let listed: Value = serde_json::from_str(listed.last().unwrap()).unwrap();
                    let names: Vec<&Value> = listed["workspaces"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|item| &item["workspaceId"])
                        .collect();
                    assert_eq!(names, [&workspace]);
                    assert_eq!(workspaces(&mut client), refused(), "without a user");
                }
            });
        }
    });
    let mut session = Client::connect(&url, NoTls).unwrap();
    session
        .simple_query(
            "begin; set local sync_ext.user_id = 'ann'; select sync_list_workspaces(); commit",
        )
        .unwrap();
    for (shard, name) in names.iter().enumerate() {
        let sql = "select count(*) from pg_stat_activity where usename = 'pooled'";
        let used: i64 = many.shard(shard).query_one(sql, &[]).unwrap().get(0);
        assert!(used <= CONNECTIONS as i64, "{used}");
        // Nor does a caller meet them who comes past the router.
        let url = format!("postgres://pooled@127.0.0.1:{}/{name}", behind.port);
        let mut direct = Client::connect(&url, NoTls).unwrap();
        assert_eq!(workspaces(&mut direct), refused(), "without a user");
    }
}

/// On the shards a role is what it is there, and it is the current one that logs in: a role
/// that a session takes on needs to be bound itself.
#[test]
fn a_required_user_binds_the_role_that_calls() {
    let Some(many) = with_users("api") else { return };
    many.grant("authenticator", "sync_list_workspaces");
    let bind = |role: &str| {
        format!("alter role {role} in database {} set sync_ext.require_user = on", many.database)
    };
    many.on_shards(&bind("authenticator"));
    many.session().batch_execute("grant api to authenticator").unwrap();

    let mut session = many.session_as("authenticator");
    assert_eq!(workspaces(&mut session), refused());
    session.batch_execute("set role api").unwrap();
    assert!(workspaces(&mut session).unwrap().contains("null"), "it is trusted");
    many.on_shards(&bind("api"));
    let mut session = many.session_as("authenticator");
    session.batch_execute("set role api").unwrap();
    assert_eq!(workspaces(&mut session), refused());
    speak_for(&mut session, "ann");
    assert_eq!(workspaces(&mut session), Ok(own(&many.workspace_on(0, 0))));

    // Or it logs in as the one that is bound.
    many.on_shards(&format!(
        "alter role api in database {} reset sync_ext.require_user",
        many.database
    ));
    let map = "create user mapping for api server sync options (user 'authenticator')";
    many.session().batch_execute(map).unwrap();
    let mut session = many.session_as("authenticator");
    session.batch_execute("set role api").unwrap();
    assert_eq!(workspaces(&mut session), refused());
}

/// EXECUTE is needed in both places, and without a right to PL/Proxy's servers it is of no use.
#[test]
fn a_role_may_do_what_it_may_on_the_shards() {
    let Some(many) = Many::new() else { return };
    many.grant("clerk", "sync_pull, sync_push");
    let mut admin = many.session();
    admin.batch_execute("grant execute on function sync_snapshot to clerk").unwrap();
    let mut session = many.session_as("clerk");
    assert!(outcome(&mut session, "select sync_pull('w')").is_ok());
    for sql in [
        "select sync_snapshot('w')",
        "select sync_gc()",
        "select sync_router.gc(0, '', '', 'w', null, 1)",
        "select * from sync_router.placed",
        "select * from sync_router.bucket",
        "insert into sync_router.placed values ('w', 1)",
    ] {
        assert_eq!(outcome(&mut session, sql), refused(), "{sql}");
    }
    admin.batch_execute("revoke usage on foreign server sync from clerk").unwrap();
    let mut session = many.session_as("clerk");
    assert_eq!(outcome(&mut session, "select sync_pull('w')"), refused());
    assert_eq!(
        outcome(
            &mut session,
            "select sync_router.pull('sync', 0, '', '', 'w', 0, 1, null, false, null, null)"
        ),
        refused()
    );
}

#[test]
fn a_misspelt_setting_is_an_error() {
    let Some(many) = Many::new() else { return };
    let mut session = many.session();
    assert_eq!(outcome(&mut session, "set sync_ext.usr_id = 'ann'"), Err("42602".to_owned()));
    session.batch_execute("set sync_ext.user_id = 'ann'").unwrap();
    let mut config = many.config();
    assert!(config.options("-c sync_ext.usr_id=ann").connect(NoTls).is_ok());
}

#[test]
fn reads_go_to_standbys_for_who_says_so() {
    let Some(many) = Many::new() else { return };
    many.on_shards("select sync_own_buckets(null)");
    let workspace = many.workspace_on(0, 0);
    let mut session = many.session();
    let mut addresses = many.addresses();
    // Another shard stands for a standby that does not know the workspace yet.
    addresses[0] = addresses[1].clone();
    let again = foreign_server("sync_reads", &addresses);
    session.batch_execute(&format!("drop server sync_reads cascade; {again}")).unwrap();
    session.execute("select sync_put($1, 'notes', 'a', '{}')", &[&workspace]).unwrap();
    let reads = [
        "select sync_pull($1) ->> 'serverVersion'",
        "select sync_snapshot($1) ->> 'highWatermark'",
        "select (length(sync_status($1) ->> 'workspaces') > 2)::integer::text",
        "select (sync_explain($1, 'notes', 'a') ->> 'state' = 'live')::integer::text",
        "select json_array_length(sync_list_workspaces() -> 'workspaces')::text where $1 <> ''",
    ];
    for (reads_from, expected) in [("primary", "1"), ("standby", "0"), ("", "1")] {
        session.batch_execute(&format!("set sync_router.reads = '{reads_from}'")).unwrap();
        for sql in reads {
            assert_eq!(call(&mut session, sql, &[&workspace]).unwrap(), expected, "{sql}");
        }
    }
    session.batch_execute("set sync_router.reads = standby").unwrap();
    let sql = "select sync_put($1, 'notes', 'a', '{}') ->> 'serverVersion'";
    assert_eq!(call(&mut session, sql, &[&workspace]).unwrap(), "2");
}
