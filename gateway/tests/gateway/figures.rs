//! `/metrics`, and the status page.

use std::thread;

use postgres::Client;
use serde_json::{Value, json};
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::cluster::{Cluster, Stop};

use crate::support::process::{Door, until};
use crate::support::stand::{SERVER, Stand, until_a_push_waits};
use crate::support::stream::Live;

const ANN: Option<&str> = Some("ann");
const PUSH: &str = "/workspaces/team/push";
const SCRIPT: &str = "<script>alert('x')</script>";
const ESCAPED: &str = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;";

#[test]
fn the_gateway_shows_its_figures() {
    let mut cluster = Cluster::start("gateway-metrics", &SERVER).unwrap();
    requests_count_by_route_and_status(&cluster);
    the_pool_shows_who_waits(&cluster);
    a_database_that_is_gone_is_down(&mut cluster);
}

#[test]
fn the_status_page_shows_what_its_reader_may_see() {
    let cluster = Cluster::start("gateway-page", &SERVER).unwrap();
    it_escapes_all_text(&cluster);
    it_shows_a_user_what_is_the_users(&cluster);
}

/// The value of a metric, by its name and labels.
fn metric(door: &Door, name: &str) -> f64 {
    let text = door.get("/metrics", None).body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}: {text}")).parse().unwrap()
}

fn gauge(door: &Door, name: &str) -> f64 {
    metric(door, &format!("sync_ext_gateway_{name}"))
}

fn requests_count_by_route_and_status(cluster: &Cluster) {
    let stand = Stand::new(cluster, "figures", &[]);
    let door = &*stand.gateway;
    for workspace in ["team", "team", "other"] {
        door.post(&format!("/workspaces/{workspace}/pull"), ANN, "{}");
    }
    door.get("/nowhere/at/all", ANN);
    let count = |labels: &str| {
        metric(door, &format!("sync_ext_gateway_request_duration_seconds_count{{{labels}}}"))
    };
    let pulls = "method=\"POST\",path=\"/workspaces/{id}/pull\"";
    assert_eq!(count(&format!("{pulls},status=\"200\"")), 2.0);
    assert_eq!(count(&format!("{pulls},status=\"403\"")), 1.0);
    assert_eq!(count("method=\"GET\",path=\"none\",status=\"404\""), 1.0);
    let bucket = "sync_ext_gateway_request_duration_seconds_bucket";
    let all = format!("{bucket}{{{pulls},status=\"200\",le=\"+Inf\"}}");
    assert_eq!(metric(door, &all), 2.0);
    let first = format!("{bucket}{{{pulls},status=\"200\",le=\"10\"}}");
    assert_eq!(metric(door, &first), 2.0);
    // Names of workspaces are nobody else's business, and there are many.
    let text = door.get("/metrics", None).body;
    assert!(!text.contains("team") && !text.contains("nowhere"), "{text}");

    let _live = Live::open(door, "/live", ANN);
    assert_eq!(gauge(door, "streams"), 1.0);
    assert!(gauge(door, "connections") >= 2.0);
    assert_eq!(gauge(door, "connections_max"), 1000.0);
    assert_eq!([gauge(door, "listening"), gauge(door, "database_up")], [1.0, 1.0]);
}

fn the_pool_shows_who_waits(cluster: &Cluster) {
    let settings = [("GATEWAY_TRUSTED", "on"), ("GATEWAY_POOL_SIZE", "1")];
    let mut stand = Stand::new(cluster, "pool", &settings);
    let mut session = stand.session();
    let mut transaction = session.transaction().unwrap();
    push(&mut transaction, "team", &[put(1, "a", 1)]);
    thread::scope(|scope| {
        let door = &*stand.gateway;
        scope.spawn(move || door.post(PUSH, None, &format!("[{}]", put(2, "b", 1))));
        until_a_push_waits(&mut stand.admin);
        // One to the same workspace would wait for the first, not for a connection.
        scope.spawn(move || door.post("/workspaces/other/pull", None, "{}"));
        until("a call waits for the pool", || gauge(door, "pool_waiting") == 1.0);
        assert_eq!([gauge(door, "pool_used"), gauge(door, "pool_max")], [1.0, 1.0]);
        transaction.commit().unwrap();
    });
    assert_eq!(gauge(&stand.gateway, "pool_waiting"), 0.0);
}

fn a_database_that_is_gone_is_down(cluster: &mut Cluster) {
    let Stand { gateway, admin, .. } = Stand::trusting(cluster, "down");
    drop(admin);
    cluster.stop_server(Stop::Immediately).unwrap();
    until("it is seen to be down", || gauge(&gateway, "database_up") == 0.0);
    cluster.start_server().unwrap();
    until("it is seen to be up", || gauge(&gateway, "database_up") == 1.0);
}

/// A workspace, a device, its user, a record and a conflict of that name.
fn fill(admin: &mut Client, name: &str) {
    let op = |id: &str, clock: u64| {
        json!({"tableName": "notes", "operation": "put", "pk": name, "payload": {},
               "stamp": {"deviceId": name, "hlc": "h", "clock": clock,
                         "opId": format!("00000000-0000-4000-8000-00000000000{id}")}})
    };
    let ops = Value::Array(vec![op("1", 2), op("2", 1)]).to_string();
    admin.execute("select sync_create_workspace($1, $1)::text", &[&name]).unwrap();
    admin.execute("select sync_push($1, $2::text::json)", &[&name, &ops]).unwrap();
    admin.execute("select set_config('sync_ext.user_id', $1, false)", &[&name]).unwrap();
    admin.execute("select sync_update_cursor($1, $1, 1)", &[&name]).unwrap();
    admin.batch_execute("reset sync_ext.user_id").unwrap();
}

fn it_escapes_all_text(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "page");
    fill(&mut stand.admin, SCRIPT);
    let page = stand.gateway.get("/status", None);
    assert_eq!(page.status, 200);
    assert!(!page.body.contains("<script"), "{}", page.body);
    // Workspace, who GC waits for; device, user, workspace; conflict: workspace, record,
    // and the two devices.
    assert_eq!(page.body.matches(ESCAPED).count(), 9, "{}", page.body);
    assert!(page.body.contains("holds GC back"), "{}", page.body);
    let page = stand.gateway.get("/status", Some(SCRIPT)).body;
    assert!(!page.contains("<script") && page.contains(&format!("that {ESCAPED} owns")));
}

fn it_shows_a_user_what_is_the_users(cluster: &Cluster) {
    let mut stand = Stand::new(cluster, "page_of_users", &[]);
    fill(&mut stand.admin, "eve");
    push(&mut stand.admin, "team", &[put(1, "a", 2), put(2, "a", 1)]);
    let of_ann = stand.gateway.get("/status", ANN).body;
    assert!(of_ann.contains(">team<") && !of_ann.contains("eve"), "{of_ann}");
    assert!(of_ann.contains("Conflicts <span class=\"dim\">1<"), "{of_ann}");
    assert_eq!(stand.gateway.get("/status", None).status, 401);
    let reply = stand.gateway.get_as("/status", ANN, "application/json").json();
    assert_eq!(reply["workspaces"][0]["workspaceId"], "team");

    // Without the view, the page has the rest.
    stand.admin.batch_execute("revoke select on sync_ext.conflict from gateway").unwrap();
    let page = stand.gateway.get("/status", ANN);
    assert!(page.status == 200 && page.body.contains("may not read"), "{page:?}");
    let revoke = "revoke execute on function sync_status from gateway";
    stand.admin.batch_execute(revoke).unwrap();
    assert_eq!(stand.gateway.get("/status", ANN).status, 403);
}
