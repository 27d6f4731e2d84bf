//! The gateway through PgBouncer in transaction mode, whose connections serve several calls
//! in turn. Where there is no PgBouncer it prints that it was not tried.

use std::collections::BTreeSet;
use std::thread;

use sync_ext_harness::batch::put;
use sync_ext_harness::bouncer::Bouncer;
use sync_ext_harness::cluster::Cluster;

use crate::support::process::{Door, Gateway, until};
use crate::support::stand::{SERVER, Stand};
use crate::support::stream::Live;

const USERS: [&str; 2] = ["ann", "bob"];
const PUSHES: u64 = 40;
/// Fewer than the gateway's pool has.
const CONNECTIONS: usize = 2;

#[test]
fn calls_go_through_a_pool_in_transaction_mode() {
    let cluster = Cluster::start("gateway-bouncer", &SERVER).unwrap();
    let mut stand = Stand::new(&cluster, "bouncer", &[]);
    let direct = stand.url();
    let Some(bouncer) = Bouncer::before(&[("bouncer", direct.clone())], CONNECTIONS) else {
        println!("PgBouncer is not available here: it is not tried");
        return;
    };
    let url = format!("postgres://gateway@127.0.0.1:{}/bouncer", bouncer.port);
    stand.gateway = Gateway::start(&url, &[("LISTEN_DATABASE_URL", direct.as_str())]);
    let live = Live::open(&stand.gateway, "/workspaces/team/live", Some("vic"));
    let door: &Door = &stand.gateway;
    thread::scope(|scope| {
        for (at, user) in (0..).zip(USERS) {
            for id in (1..=PUSHES).map(|id| 100 * at + id) {
                scope.spawn(move || push_one(door, user, id));
            }
        }
    });
    // A note of each push, and no diary of others.
    let versions = live.versions_until(4 * PUSHES as i64);
    assert_eq!(versions.len(), 2 * PUSHES as usize);
    for user in USERS {
        let pulled =
            door.post("/workspaces/team/pull", Some(user), r#"{"pageLimit": 1000}"#).json();
        let changes = pulled["changes"].as_array().unwrap();
        assert_eq!(changes.len(), 3 * PUSHES as usize, "{user}");
    }
    let backends = "select count(*) from pg_stat_activity
                     where application_name = 'sync_ext_gateway'";
    let count: i64 = stand.admin.query_one(backends, &[]).unwrap().get(0);
    assert_eq!(count, CONNECTIONS as i64);

    // Without a connection past the pool no notification can arrive.
    let settings = [("GATEWAY_DATABASE_TIMEOUT", "0.5")];
    let deaf = Gateway::spawn(&url, "127.0.0.1:0", &settings);
    until("it has tried to listen", || deaf.log().contains("not listening"));
    assert_eq!(deaf.get("/health", None).status, 503);
    let pulled = deaf.post("/workspaces/team/pull", Some("vic"), "{}");
    assert_eq!(pulled.status, 200);
}

/// A note, and a record that is the user's alone.
fn push_one(door: &Door, user: &str, id: u64) {
    let note = put(2 * id, &format!("n{id}"), 1);
    let diary = put(2 * id + 1, &format!("d{id}"), 1).replace("notes", "diary");
    let answer = door.post("/workspaces/team/push", Some(user), &format!("[{note}, {diary}]"));
    let reply = answer.json();
    let stored: BTreeSet<bool> = reply["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["success"].as_bool().unwrap())
        .collect();
    assert_eq!(stored, BTreeSet::from([true]), "{answer:?}");
}
