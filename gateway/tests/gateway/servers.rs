//! Several servers: each call goes to the one that the map says, and one that is down takes
//! no other with it.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::cluster::Stop;

use crate::support::fleet::{BUCKET, Fleet, NAMES, Site, gauge};
use crate::support::process::{Answer, Door, Gateway, until};
use crate::support::stream::Live;

const ANN: Option<&str> = Some("ann");
const TRUSTED: (&str, &str) = ("GATEWAY_TRUSTED", "on");

#[test]
fn calls_go_to_the_server_of_their_workspace() {
    let mut fleet = Fleet::start("gateway-servers");
    names_are_spread_as_sql_spreads_them(&fleet);
    every_kind_of_call_goes_there(&fleet);
    workspaces_that_are_placed_are_there(&fleet);
    lists_are_of_all_servers(&fleet);
    one_that_moves_is_listed_once(&fleet);
    streams_hear_of_each_server(&fleet);
    a_server_that_is_heard_again_catches_up(&fleet);
    a_server_that_is_down_takes_no_other_with_it(&mut fleet);
}

#[test]
fn the_map_is_read_again() {
    let fleet = Fleet::start("gateway-maps");
    a_map_that_is_wrong_is_not_taken(&fleet);
    a_file_is_read_like_the_routers_map(&fleet);
    it_is_read_from_time_to_time(&fleet);
    without_a_map_calls_may_succeed_later(&fleet);
    what_cannot_be_served_is_not_started(&fleet);
}

fn push_to(door: &Door, workspace: &str, user: Option<&str>, id: u64) -> Answer {
    // In a path, every byte may be written so.
    let path: String = workspace.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let body = format!("[{}]", put(id, &format!("r{id}"), 1));
    door.post(&format!("/workspaces/{path}/push"), user, &body)
}

fn pushed(door: &Door, workspace: &str, id: u64) {
    let answer = push_to(door, workspace, None, id);
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &*answer.code()), (status, code), "{answer:?}");
}

fn listed(door: &Door, user: Option<&str>) -> Vec<String> {
    let listed = door.get("/workspaces", user).json();
    let listed = listed["workspaces"].as_array().unwrap().iter();
    listed.map(|one| one["workspaceId"].as_str().unwrap().to_owned()).collect()
}

fn names_are_spread_as_sql_spreads_them(fleet: &Fleet) {
    let mut site = fleet.site("spread", &[TRUSTED]);
    let odd = ["é", "a/b", "😀", "\u{e000}", "  ", "%", "e\u{301}", "\u{1}"];
    let names = (0..992).map(|n| format!("w{n}")).chain(odd.map(str::to_owned));
    let names: BTreeSet<String> = names.collect();
    assert_eq!(names.len(), 1000);
    for name in &names {
        pushed(&site.gateway, name, 1);
    }
    let mut found = BTreeSet::new();
    let mut buckets = BTreeSet::new();
    for (server, admin) in site.admins.iter_mut().enumerate() {
        let sql = format!("select workspace_id, {BUCKET} from sync_ext.workspace");
        for row in admin.query(&sql, &[]).unwrap() {
            let (name, bucket): (String, i32) = (row.get(0), row.get(1));
            assert_eq!(bucket % 3, server as i32, "{name:?}");
            buckets.insert(bucket);
            assert!(found.insert(name));
        }
    }
    assert_eq!(found, names);
    // As a hash would spread them: 1,024 × (1 - 1/e).
    assert!((600..700).contains(&buckets.len()), "{}", buckets.len());
}

fn every_kind_of_call_goes_there(fleet: &Fleet) {
    let mut site = fleet.site("kinds", &[]);
    for (server, name) in NAMES.iter().enumerate() {
        let team = site.workspace(server);
        let door = &*site.gateway;
        let path = |what: &str| format!("/workspaces/{team}{what}");
        let user = &format!("owner of {name}");
        let owner = Some(&**user);
        let done = |answer: Answer| assert_eq!(answer.status, 204, "{answer:?}");
        let ok = |answer: Answer| {
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.json()
        };
        done(door.send("PUT", &path(""), owner, ""));
        ok(push_to(door, &team, owner, 1));
        assert_eq!(ok(door.post(&path("/pull"), owner, "{}"))["nextCursor"], 1);
        assert_eq!(ok(door.post(&path("/snapshot"), owner, "{}"))["highWatermark"], 1);
        let cursor = r#"{"deviceId": "d", "version": 1}"#;
        assert_eq!(ok(door.post(&path("/cursor"), owner, cursor))["advanced"], true);
        let exchange = json!({"deviceId": "d", "cursor": 1, "ops": []}).to_string();
        assert_eq!(ok(door.post(&path("/exchange"), owner, &exchange))["pull"]["nextCursor"], 1);
        done(door.send("PUT", &path("/members/vic"), owner, r#"{"role": "viewer"}"#));
        done(door.send("DELETE", &path("/members/vic"), owner, ""));
        assert_eq!(ok(door.get(&path("/members"), owner))["members"].as_array().unwrap().len(), 1);
        assert_eq!(ok(door.get(&path("/status"), owner))["workspaces"][0]["liveRecords"], 1);
        let explain = path("/explain?table=notes&pk=r1");
        assert_eq!(ok(door.get(&explain, owner))["state"], "live");
        assert_eq!(Live::open(door, &path("/live"), owner).event().versions(), [1]);
        for other in 0..3 {
            assert_eq!(site.head(other, &team), (other == server).then_some(1));
        }
        ok(site.gateway.send("DELETE", &path(""), owner, ""));
        assert_eq!(site.head(server, &team), None);
    }
}

fn workspaces_that_are_placed_are_there(fleet: &Fleet) {
    let mut site = fleet.site("placed", &[TRUSTED]);
    let [team, other]: [String; 2] = site.workspaces(0, 2).try_into().unwrap();
    site.place(&team, 2);
    // It has not heard of that yet.
    pushed(&site.gateway, &other, 1);
    site.reload();
    pushed(&site.gateway, &team, 1);
    pushed(&site.gateway, &other, 2);
    assert_eq!([site.head(0, &team), site.head(2, &team)], [None, Some(1)]);
    assert_eq!([site.head(0, &other), site.head(2, &other)], [Some(2), None]);
}

fn lists_are_of_all_servers(fleet: &Fleet) {
    let mut site = fleet.site("lists", &[]);
    let teams = [0, 1, 2].map(|server| site.workspace(server));
    for (server, team) in teams.iter().enumerate() {
        let create =
            "select sync_create_workspace($1, 'ann'), sync_create_workspace($1 || '/', 'bob')";
        site.admins[server].execute(create, &[&team]).unwrap();
        push(&mut site.admins[server], team, &[put(1, "a", 2), put(2, "a", 1)]);
    }
    let door = &*site.gateway;
    assert_eq!(listed(door, ANN), teams);
    assert_eq!(listed(door, Some("vic")), [""; 0]);
    refused(&door.get("/workspaces", None), 401, "28000");
    let status = door.get_as("/status", ANN, "application/json").json();
    let known = status["workspaces"].as_array().unwrap().iter();
    assert!(known.map(|one| one["workspaceId"].as_str().unwrap()).eq(&teams), "{status}");
    let page = door.get("/status", ANN).body;
    for team in &teams {
        assert!(page.contains(&format!(">{team}<")), "{page}");
    }
    assert!(page.contains("Servers <span class=\"dim\">3<"), "{page}");
    assert!(page.contains("Conflicts <span class=\"dim\">3<"), "{page}");

    // A stream of all.
    let live = Live::open(door, "/live", ANN);
    let mut seen =
        [(); 3].map(|()| live.event().json()["workspaceId"].as_str().unwrap().to_owned());
    let mut expected = teams.clone();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
}

fn one_that_moves_is_listed_once(fleet: &Fleet) {
    let mut site = fleet.site("twice", &[]);
    let team = site.workspace(1);
    for (server, head) in [(0, 1), (1, 3), (2, 2)] {
        let create = "select sync_create_workspace($1, 'ann')";
        site.admins[server].execute(create, &[&team]).unwrap();
        let ops: Vec<String> = (1..=head).map(|id| put(id, "a", id)).collect();
        push(&mut site.admins[server], &team, &ops);
    }
    let expected = json!([{"workspaceId": team, "role": "owner", "serverVersion": 3}]);
    assert_eq!(site.gateway.get("/workspaces", ANN).json()["workspaces"], expected);
    site.place(&team, 2);
    site.reload();
    let expected = json!([{"workspaceId": team, "role": "owner", "serverVersion": 2}]);
    assert_eq!(site.gateway.get("/workspaces", ANN).json()["workspaces"], expected);
}

/// A workspace of each server, in their order, and a stream of them that has seen version 1.
fn followed(site: &mut Site) -> ([String; 3], Live) {
    let teams = [0, 1, 2].map(|server| site.workspace(server));
    for team in &teams {
        pushed(&site.gateway, team, 99);
    }
    let query: Vec<String> = teams.iter().map(|team| format!("workspace={team}")).collect();
    let live = Live::open(&site.gateway, &format!("/live?{}", query.join("&")), None);
    for team in &teams {
        assert_eq!(told(&live), (team.clone(), vec![1]));
    }
    (teams, live)
}

fn told(live: &Live) -> (String, Vec<i64>) {
    let event = live.event();
    (event.json()["workspaceId"].as_str().unwrap().to_owned(), event.versions())
}

fn streams_hear_of_each_server(fleet: &Fleet) {
    let mut site = fleet.site("heard", &[TRUSTED]);
    let (teams, live) = followed(&mut site);
    for id in 2..=3 {
        for (server, team) in teams.iter().enumerate() {
            push(&mut site.admins[server], team, &[put(id, "a", id)]);
            assert_eq!(told(&live), (team.clone(), vec![id as i64]));
        }
    }
}

const LISTENING: &str = "from pg_stat_activity where datname = current_database()
                          and application_name = 'sync_ext_gateway listen'";

fn a_server_that_is_heard_again_catches_up(fleet: &Fleet) {
    let mut site = fleet.site("deaf", &[TRUSTED]);
    let (teams, live) = followed(&mut site);
    let admin = &mut site.admins[1];
    admin.batch_execute("alter role gateway nologin").unwrap();
    let ended = format!("select pg_terminate_backend(pid) {LISTENING}");
    assert_eq!(admin.query(&ended, &[]).unwrap().len(), 1);
    let left = format!("select count(*) {LISTENING}");
    until("the connection is gone", || admin.query_one(&left, &[]).unwrap().get::<_, i64>(0) == 0);
    push(admin, &teams[1], &[put(1, "a", 1)]);
    until("the gateway knows", || site.gateway.health()["listening"] == false);
    let health = site.gateway.get("/health", None);
    let listening = health.json()["servers"].as_array().unwrap().clone();
    let listening = listening.iter().map(|one| one["listening"].as_bool().unwrap());
    assert!(health.status == 200 && listening.eq([true, false, true]), "{health:?}");
    // Others are heard meanwhile.
    push(&mut site.admins[2], &teams[2], &[put(1, "a", 1)]);
    assert_eq!(told(&live), (teams[2].clone(), vec![2]));
    site.admins[1].batch_execute("alter role gateway login").unwrap();
    assert_eq!(told(&live), (teams[1].clone(), vec![2]));
    site.gateway.until_listening();
}

fn a_server_that_is_down_takes_no_other_with_it(fleet: &mut Fleet) {
    let mut site = fleet.site("down", &[TRUSTED, ("GATEWAY_POOL_SIZE", "2")]);
    let (teams, live) = followed(&mut site);
    fleet.clusters[1].stop_server(Stop::Immediately).unwrap();
    until("the gateway knows", || site.gateway.health()["listening"] == false);
    let door = &site.gateway;
    for id in 1..=3 {
        refused(&push_to(door, &teams[1], None, id), 503, "08001");
        pushed(door, &teams[0], id);
        pushed(door, &teams[2], id);
    }
    for team in [&teams[0], &teams[2]] {
        let answer = door.post(&format!("/workspaces/{team}/pull"), None, "{}");
        assert_eq!(answer.json()["nextCursor"], 4, "{answer:?}");
    }
    // A part of a list would look like the whole. People can be told.
    refused(&door.get("/workspaces", None), 503, "08001");
    refused(&door.get_as("/status", None, "application/json"), 503, "08001");
    refused(&door.get("/live", None), 503, "08001");
    let page = door.get("/status", None).body;
    assert!(page.contains("no answer came: b<") && page.contains(&format!(">{}<", teams[0])));
    let up = NAMES.map(|name| site.gauge(&format!("database_up{{server=\"{name}\"}}")));
    assert_eq!(up, [1.0, 0.0, 1.0]);
    let health = door.get("/health", None);
    assert_eq!((health.status, &health.json()["servers"][1]["name"]), (200, &json!("b")));
    let log = door.log();
    assert!(log.contains("server{name=\"b\"}") && log.contains("no connection"), "{log}");
    assert!(!log.contains("server{name=\"a\"}: sync_ext_gateway::failure"), "{log}");
    assert!(!log.contains("host=") && !log.contains("dbname"), "{log}");

    fleet.clusters[1].start_server().unwrap();
    let mut admin = fleet.clusters[1].connect("down").unwrap();
    push(&mut admin, &teams[1], &[put(1, "a", 1)]);
    let mut seen = BTreeSet::new();
    while seen.len() < 7 {
        let (team, versions) = told(&live);
        seen.extend(versions.into_iter().map(|version| (team.clone(), version)));
    }
    assert!(seen.contains(&(teams[1].clone(), 2)), "{seen:?}");
    site.gateway.until_listening();
    pushed(&site.gateway, &teams[1], 2);
    // All of them: there is nobody to serve.
    let urls = fleet.urls("nowhere");
    let router = fleet.router_url("down");
    let settings = [("DATABASE_URLS", &*urls), ("GATEWAY_MAP", &*router)];
    let lost = Gateway::spawn("", "127.0.0.1:0", &settings);
    assert_eq!(lost.get("/health", None).status, 503);
}

fn a_map_that_is_wrong_is_not_taken(fleet: &Fleet) {
    let mut site = fleet.site("wrong", &[TRUSTED]);
    let team = site.workspace(0);
    site.place(&team, 1);
    site.reload();
    let before = "create table kept as select * from sync_router.bucket";
    site.router.batch_execute(before).unwrap();
    for (failures, (change, reason)) in (1..).zip([
        (
            "delete from sync_router.bucket where bucket between 7 and 9",
            "3 buckets have no server, the first is 7",
        ),
        (
            "update sync_router.bucket set shard = 3 where bucket = 1023",
            "bucket 1023 is on shard 3, but DATABASE_URLS has shards 0 to 2",
        ),
        ("update sync_router.placed set shard = -1", "is on shard -1"),
        ("drop table sync_router.placed", "internal error"),
    ]) {
        site.router.batch_execute(change).unwrap();
        site.reload();
        let log = site.gateway.log();
        let last = log.lines().rfind(|line| line.contains("the map is not taken"));
        assert!(last.unwrap().contains(reason), "{log}");
        assert_eq!(site.gauge("map_failures_total"), f64::from(failures));
        // It is where it was.
        pushed(&site.gateway, &team, failures as u64);
        assert_eq!(site.head(1, &team), Some(i64::from(failures)));
        let again = "truncate sync_router.bucket;
                     insert into sync_router.bucket select * from kept";
        site.router.batch_execute(again).unwrap();
    }
    assert!(site.gateway.health()["map"] == true);
}

fn a_file_is_read_like_the_routers_map(fleet: &Fleet) {
    let mut site = fleet.site("file", &[TRUSTED]);
    let [first, second]: [String; 2] = site.workspaces(0, 2).try_into().unwrap();
    let path = std::env::temp_dir().join(format!("map-{}.json", std::process::id()));
    let write = |map: Value| fs::write(&path, map.to_string()).unwrap();
    write(json!({"buckets": {"a": "0-1023"}, "placed": {&second: "c"}}));
    let file = path.to_str().unwrap();
    site.gateway = fleet.gateway("file", &[TRUSTED, ("GATEWAY_MAP", file)]);
    for team in [&first, &second] {
        pushed(&site.gateway, team, 1);
    }
    assert_eq!([site.head(0, &first), site.head(2, &second)], [Some(1), Some(1)]);
    write(json!({"buckets": {"a": "0-99", "b": "100-1022"}}));
    site.reload();
    let log = site.gateway.log();
    let reason = format!("{file}: 1 buckets have no server, the first is 1023");
    assert!(log.contains(&reason), "{log}");
    pushed(&site.gateway, &second, 2);
    assert_eq!(site.head(2, &second), Some(2));
    write(json!({"buckets": {"b": "0-1023"}}));
    site.reload();
    for team in [&first, &second] {
        pushed(&site.gateway, team, 3);
        assert_eq!(site.head(1, team), Some(1));
    }
    fs::remove_file(&path).unwrap();
    site.reload();
    pushed(&site.gateway, &first, 4);
    assert_eq!(site.head(1, &first), Some(2));
}

fn it_is_read_from_time_to_time(fleet: &Fleet) {
    let mut site = fleet.site("interval", &[TRUSTED]);
    let team = site.workspace(0);
    site.gateway = fleet.gateway("interval", &[TRUSTED, ("GATEWAY_MAP_INTERVAL", "0.1")]);
    site.place(&team, 1);
    let mut id = 0;
    until("it is there", || {
        id += 1;
        pushed(&site.gateway, &team, id);
        site.head(1, &team).is_some()
    });
}

fn without_a_map_calls_may_succeed_later(fleet: &Fleet) {
    drop(fleet.prepare("later", true));
    let gateway = fleet.spawn("later", &[TRUSTED]);
    let answer = push_to(&gateway, "w", None, 1);
    refused(&answer, 503, "08001");
    assert_eq!(answer.json()["error"]["message"], "the map of workspaces cannot be read");
    let health = gateway.get("/health", None);
    assert_eq!((health.status, &health.json()["map"]), (503, &json!(false)));
    assert_eq!(gauge(&gateway, "map"), 0.0);
    let live = Live::open(&gateway, "/workspaces/w/live", None);
    let mut router = fleet.router("later");
    let sql = "insert into sync_router.bucket select b, 2 from generate_series(0, 1023) as b";
    router.batch_execute(sql).unwrap();
    until("it is stored", || push_to(&gateway, "w", None, 1).status == 200);
    assert_eq!(live.event().versions(), [1]);
    gateway.until_listening();
    assert_eq!((gateway.get("/health", None).status, gauge(&gateway, "map")), (200, 1.0));
}

fn what_cannot_be_served_is_not_started(fleet: &Fleet) {
    let urls = fleet.urls("nowhere");
    let path = std::env::temp_dir().join(format!("no-map-{}.json", std::process::id()));
    fs::write(&path, r#"{"buckets": {"a": "0-1023", "d": "0"}}"#).unwrap();
    let file = path.to_str().unwrap();
    let servers = ("DATABASE_URLS", &*urls);
    let secret = r#"["postgres://gateway:hidden@localhost/app"]"#;
    for (settings, reason) in [
        (&[servers][..], "several servers need a map: GATEWAY_MAP is not set"),
        (&[servers, ("GATEWAY_MAP", file)], "DATABASE_URLS has no server \"d\""),
        (&[servers, ("GATEWAY_MAP", "/no/such/file")], "No such file"),
        (&[servers, ("DATABASE_URL", "postgres://a")], "cannot be used with"),
        (
            &[("DATABASE_URL", "postgres://a"), ("GATEWAY_MAP", file)],
            "in DATABASE_URLS, which is not",
        ),
        (&[("DATABASE_URLS", secret)], "DATABASE_URLS is not a JSON array"),
        (&[], "--database-url"),
    ] {
        let refusal = Gateway::refusal(settings);
        assert!(refusal.contains(reason) && !refusal.contains("hidden"), "{refusal}");
    }
    fs::remove_file(&path).unwrap();
}
