//! Standbys: they answer what they can, and the primary what they cannot.

use postgres::Client;
use serde_json::{Value, json};
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::cluster::{Cluster, Stop};
use sync_ext_harness::replica::{pause_replay, resume_replay, until_replayed};

use crate::support::fleet::gauge;
use crate::support::process::{Gateway, until};
use crate::support::stand::{SERVER, trust_gateway};
use crate::support::stream::Live;
use crate::support::team;

const PULL: &str = "/workspaces/team/pull";
const SNAPSHOT: &str = "/workspaces/team/snapshot";

struct Pair {
    primary: Client,
    standby: Client,
    gateway: Gateway,
}

impl Pair {
    /// A database on both, and a gateway.
    fn new(clusters: &[Cluster; 2], database: &str) -> Pair {
        let [on_primary, on_standby] = clusters;
        let mut primary = on_primary.create_database(database).unwrap();
        team::prepare(&mut primary, database).unwrap();
        trust_gateway(&mut primary, database);
        push(&mut primary, "team", &[put(1, "a", 1), put(2, "b", 1)]);
        let mut postgres = on_standby.connect("postgres").unwrap();
        until_replayed(&mut primary, &mut postgres);
        let standby = on_standby.connect(database).unwrap();
        let [url, standby_url] =
            clusters.each_ref().map(|cluster| cluster.connection_string("gateway", database));
        let servers = json!([{"name": "a", "url": url, "standbyUrls": [standby_url]}]).to_string();
        let settings = [("GATEWAY_TRUSTED", "on"), ("DATABASE_URLS", &servers)];
        Pair { primary, standby, gateway: Gateway::start("", &settings) }
    }

    fn ask(&self, path: &str, body: Value) -> Value {
        let answer = self.gateway.post(path, None, &body.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// All up to now, and nothing that comes.
    fn let_standby_have_all(&mut self) {
        resume_replay(&mut self.standby);
        until_replayed(&mut self.primary, &mut self.standby);
        pause_replay(&mut self.standby);
    }

    /// How often the standby was asked since the last time, and how often in vain.
    fn asked(&self, before: &mut (f64, f64)) -> (f64, f64) {
        let of = |name| gauge(&self.gateway, &format!("standby_{name}_total{{server=\"a\"}}"));
        let now = (of("reads"), of("fallbacks"));
        let since = (now.0 - before.0, now.1 - before.1);
        *before = now;
        since
    }
}

#[test]
fn standbys_answer_what_they_can() {
    let settings = [&SERVER[..], &["max_standby_streaming_delay=-1"]].concat();
    let primary = Cluster::start("gateway-primary", &settings).unwrap();
    let standby = primary.standby("gateway-standby").unwrap();
    let mut clusters = [primary, standby];
    reads_go_to_the_standby_and_all_else_to_the_primary(&clusters);
    what_the_caller_has_seen_is_not_missing(&clusters);
    what_a_hint_has_named_is_not_missing(&clusters);
    what_nobody_has_named_is_not_missing_in_a_stream(&clusters);
    a_refusal_is_the_primarys(&clusters);
    a_standby_that_is_down_is_done_without(&mut clusters);
}

fn reads_go_to_the_standby_and_all_else_to_the_primary(clusters: &[Cluster; 2]) {
    let mut pair = Pair::new(clusters, "reads");
    let mut count = (0.0, 0.0);
    assert_eq!(pair.ask(PULL, json!({}))["nextCursor"], 2);
    let first = pair.ask(SNAPSHOT, json!({"pageLimit": 1}));
    let next = json!({"pageToken": first["nextPageToken"]});
    assert_eq!(pair.ask(SNAPSHOT, next)["items"].as_array().unwrap().len(), 1);
    assert_eq!(pair.asked(&mut count), (3.0, 0.0));
    // A pull may be late, if nothing shows it.
    pause_replay(&mut pair.standby);
    push(&mut pair.primary, "team", &[put(3, "c", 1)]);
    assert_eq!(pair.ask(PULL, json!({}))["nextCursor"], 2);
    assert_eq!(pair.asked(&mut count), (1.0, 0.0));
    // Nothing else is.
    let exchange = json!({"deviceId": "d", "cursor": 2, "ops": []});
    assert_eq!(pair.ask("/workspaces/team/exchange", exchange)["pull"]["nextCursor"], 3);
    let cursor = json!({"deviceId": "d", "version": 3});
    assert_eq!(pair.ask("/workspaces/team/cursor", cursor)["advanced"], true);
    let listed = pair.gateway.get("/workspaces", None).json();
    assert_eq!(listed["workspaces"][0]["serverVersion"], 3);
    let state = pair.gateway.get("/workspaces/team/status", None).json();
    assert_eq!(state["workspaces"][0]["serverVersion"], 3);
    assert_eq!(pair.asked(&mut count), (0.0, 0.0));
    resume_replay(&mut pair.standby);
}

fn what_the_caller_has_seen_is_not_missing(clusters: &[Cluster; 2]) {
    let mut pair = Pair::new(clusters, "seen");
    let mut count = (0.0, 0.0);
    pause_replay(&mut pair.standby);
    push(&mut pair.primary, "team", &[put(3, "c", 1), put(4, "d", 1)]);
    push(&mut pair.primary, "new", &[put(1, "a", 1)]);
    // A device that has come to 3, and one with a proof of 4, but only the changes to 3.
    let pulled = pair.ask(PULL, json!({"cursor": 3}));
    assert_eq!((&pulled["nextCursor"], &pulled["requiresSnapshot"]), (&json!(4), &json!(false)));
    let proof = pulled["proof"].clone();
    let pulled = pair.ask(PULL, json!({"cursor": 2, "proof": proof}));
    assert_eq!(pulled["nextCursor"], 4);
    assert_eq!(pair.ask("/workspaces/new/pull", json!({}))["nextCursor"], 1);
    assert_eq!(pair.ask("/workspaces/new/snapshot", json!({}))["highWatermark"], 1);
    assert_eq!(pair.asked(&mut count), (4.0, 4.0));
    // Begun at the primary, which the standby is behind.
    let direct = "select sync_snapshot('team', null, 1)::text";
    let first: Value =
        serde_json::from_str(pair.primary.query_one(direct, &[]).unwrap().get(0)).unwrap();
    let next = pair.ask(SNAPSHOT, json!({"pageToken": first["nextPageToken"]}));
    assert_eq!(next["items"].as_array().unwrap().len(), 3);
    // What a lost history requires, the primary requires.
    let lost = format!("p1.2.{}", "0".repeat(32));
    let required = pair.ask(PULL, json!({"cursor": 1, "proof": lost}));
    assert_eq!(required["reason"], "history_diverged");
    assert_eq!(required["serverVersion"], 4, "{required}");
    assert_eq!(pair.asked(&mut count), (2.0, 2.0));
    // Pages before the last one have nothing to miss.
    assert_eq!(pair.ask(PULL, json!({"pageLimit": 1}))["nextCursor"], 1);
    assert_eq!(pair.asked(&mut count), (1.0, 0.0));
    resume_replay(&mut pair.standby);
}

fn what_a_hint_has_named_is_not_missing(clusters: &[Cluster; 2]) {
    let mut pair = Pair::new(clusters, "hinted");
    let live = Live::open(&pair.gateway, "/workspaces/team/live", None);
    assert_eq!(live.event().versions(), [1, 2]);
    pause_replay(&mut pair.standby);
    for id in 3..=4 {
        push(&mut pair.primary, "team", &[put(id, &format!("r{id}"), 1)]);
        assert_eq!(live.event().versions(), [id as i64]);
    }
    // Who pulls where a stream has been told.
    let mut count = (0.0, 0.0);
    pair.asked(&mut count);
    assert_eq!(pair.ask(PULL, json!({"cursor": 2}))["nextCursor"], 4);
    assert_eq!(pair.ask(SNAPSHOT, json!({}))["highWatermark"], 4);
    assert_eq!(pair.asked(&mut count), (2.0, 2.0));
    resume_replay(&mut pair.standby);
    until_replayed(&mut pair.primary, &mut pair.standby);
    assert_eq!(pair.ask(PULL, json!({"cursor": 2}))["nextCursor"], 4);
    assert_eq!(pair.asked(&mut count), (1.0, 0.0));
}

/// Its hints came before the stream was there, or while nobody listened.
fn what_nobody_has_named_is_not_missing_in_a_stream(clusters: &[Cluster; 2]) {
    let mut pair = Pair::new(clusters, "unnamed");
    pause_replay(&mut pair.standby);
    push(&mut pair.primary, "team", &[put(3, "c", 1)]);
    let live = Live::open(&pair.gateway, "/workspaces/team/live?pageLimit=1", None);
    assert_eq!([(); 3].map(|()| live.event().versions()), [[1], [2], [3]]);
    // The first page is the standby's, which has no more after the second.
    let mut count = (0.0, 0.0);
    assert_eq!(pair.asked(&mut count), (3.0, 2.0));

    pair.let_standby_have_all();
    pair.primary.batch_execute("set sync_ext.notify = off").unwrap();
    push(&mut pair.primary, "team", &[put(4, "d", 1)]);
    let unnamed = "select pg_notify('sync_ext', '{\"workspaceId\": null}')";
    pair.primary.batch_execute(unnamed).unwrap();
    assert_eq!(live.event().versions(), [4]);

    pair.let_standby_have_all();
    push(&mut pair.primary, "team", &[put(5, "e", 1)]);
    let ended = "select pg_terminate_backend(pid) from pg_stat_activity
                  where application_name = 'sync_ext_gateway listen'
                    and datname = current_database()";
    assert_eq!(pair.primary.query(ended, &[]).unwrap().len(), 1);
    assert_eq!(live.event().versions(), [5]);
    resume_replay(&mut pair.standby);
}

fn a_refusal_is_the_primarys(clusters: &[Cluster; 2]) {
    let mut pair = Pair::new(clusters, "refusals");
    pause_replay(&mut pair.standby);
    pair.primary.batch_execute("select sync_set_member('team', 'new', 'viewer')").unwrap();
    for path in [PULL, SNAPSHOT] {
        assert_eq!(pair.gateway.post(path, Some("new"), "{}").status, 200);
        assert_eq!(pair.gateway.post(path, Some("eve"), "{}").code(), "42501");
    }
    let mut count = (0.0, 0.0);
    assert_eq!(pair.asked(&mut count), (4.0, 4.0));
    resume_replay(&mut pair.standby);
}

fn a_standby_that_is_down_is_done_without(clusters: &mut [Cluster; 2]) {
    let Pair { mut primary, standby, gateway } = Pair::new(clusters, "gone");
    drop(standby);
    let pull = || {
        let answer = gateway.post(PULL, None, "{}");
        assert_eq!((answer.status, &answer.json()["nextCursor"]), (200, &json!(2)), "{answer:?}");
    };
    let up = || gauge(&gateway, "standbys_up{server=\"a\"}");
    let live = Live::open(&gateway, "/workspaces/team/live", None);
    assert_eq!(live.event().versions(), [1, 2]);
    clusters[1].stop_server(Stop::Immediately).unwrap();
    pull();
    assert_eq!(up(), 0.0);
    let reads = gauge(&gateway, "standby_reads_total{server=\"a\"}");
    pull();
    assert_eq!(gauge(&gateway, "standby_reads_total{server=\"a\"}"), reads);
    let health = gateway.health();
    assert_eq!(
        (&health["servers"][0]["standbys"], &health["servers"][0]["standbysUp"]),
        (&json!(1), &json!(0))
    );
    push(&mut primary, "team", &[put(3, "c", 1)]);
    assert_eq!(live.event().versions(), [3]);
    clusters[1].start_server().unwrap();
    until("it is asked again", || up() == 1.0);
    let log = gateway.log();
    assert!(log.contains("server{name=\"a\"}:standby{number=0}"), "{log}");
    let answer = gateway.post(PULL, None, r#"{"cursor": 3}"#);
    assert_eq!(answer.json()["nextCursor"], 3);
    assert_eq!(gauge(&gateway, "standby_reads_total{server=\"a\"}"), reads + 1.0);
}
