//! Workspaces, members and state over HTTP, each call under its caller's role.

use serde_json::json;
use sync_ext_harness::batch::{delete, op_id, push, put};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::device::call;

use crate::support::process::{Answer, Door};
use crate::support::stand::{SERVER, Stand};

const ANN: Option<&str> = Some("ann");
const BOB: Option<&str> = Some("bob");
const EVE: Option<&str> = Some("eve");

#[test]
fn workspaces_are_administered() {
    let cluster = Cluster::start("gateway-admin", &SERVER).unwrap();
    users_have_their_workspaces(&cluster);
    owners_choose_the_members(&cluster);
    owners_see_the_state(&cluster);
    trusted_callers_may_all(&cluster);
}

fn refused(answer: Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &*answer.code()), (status, code), "{answer:?}");
}

fn done(answer: Answer) {
    assert_eq!((answer.status, &*answer.body), (204, ""));
}

fn names(door: &Door, user: Option<&str>) -> Vec<String> {
    let listed = door.get("/workspaces", user).json();
    let listed = listed["workspaces"].as_array().unwrap().iter();
    listed.map(|one| one["workspaceId"].as_str().unwrap().to_owned()).collect()
}

fn users_have_their_workspaces(cluster: &Cluster) {
    let stand = Stand::new(cluster, "workspaces", &[]);
    let door = &*stand.gateway;
    // A name that a path cannot hold as it is.
    done(door.send("PUT", "/workspaces/eve%2F1%20%25", EVE, ""));
    done(door.send("PUT", "/workspaces/second", EVE, r#"{"owner": "eve"}"#));
    assert_eq!(names(door, EVE), ["eve/1 %", "second"]);
    assert_eq!(names(door, ANN), ["team"]);
    refused(door.send("PUT", "/workspaces/third", EVE, r#"{"owner": "ann"}"#), 403, "42501");
    refused(door.send("PUT", "/workspaces/second", EVE, ""), 409, "42710");
    refused(door.send("PUT", "/workspaces/team", EVE, ""), 403, "42501");
    refused(door.send("PUT", "/workspaces/third", EVE, r#"{"name": "x"}"#), 400, "22023");
    refused(door.send("PUT", "/workspaces/third", None, ""), 401, "28000");

    refused(door.send("DELETE", "/workspaces/team", EVE, ""), 403, "42501");
    refused(door.send("DELETE", "/workspaces/team", BOB, ""), 403, "42501");
    let dropped = door.send("DELETE", "/workspaces/eve%2F1%20%25", EVE, "");
    assert_eq!((dropped.status, &dropped.json()["dropped"]), (200, &json!(true)));
    assert_eq!(names(door, EVE), ["second"]);
    refused(door.send("POST", "/workspaces/second", EVE, ""), 405, "42883");
}

fn owners_choose_the_members(cluster: &Cluster) {
    let mut stand = Stand::new(cluster, "members", &[]);
    let (door, members) = (&*stand.gateway, "/workspaces/team/members");
    let listed = door.get(members, ANN);
    let expected = call(&mut stand.admin, "select sync_list_members('team')::text", &[]).unwrap();
    assert_eq!((listed.status, listed.body), (200, expected));
    let eve = &format!("{members}/eve%2F%C3%A9");
    done(door.send("PUT", eve, ANN, r#"{"role": "viewer"}"#));
    assert!(door.get(members, ANN).body.contains("\"eve/é\""));
    let role = "select sync_get_role('team', 'eve/é')";
    assert_eq!(call(&mut stand.admin, role, &[]).unwrap(), "viewer");
    done(door.send("DELETE", eve, ANN, ""));
    assert!(!door.get(members, ANN).body.contains("eve"));

    for user in [BOB, EVE] {
        refused(door.get(members, user), 403, "42501");
        refused(door.send("PUT", eve, user, r#"{"role": "owner"}"#), 403, "42501");
        refused(door.send("DELETE", &format!("{members}/ann"), user, ""), 403, "42501");
    }
    refused(door.send("PUT", eve, ANN, r#"{"role": "king"}"#), 400, "22023");
    refused(door.send("PUT", eve, ANN, ""), 400, "22023");
    // It would fail as often as it is tried again.
    refused(door.send("DELETE", &format!("{members}/ann"), ANN, ""), 409, "55000");
}

fn owners_see_the_state(cluster: &Cluster) {
    let mut stand = Stand::new(cluster, "state", &[]);
    push(&mut stand.admin, "team", &[put(1, "a&b", 1), delete(2, "a&b", 2)]);
    let door = &*stand.gateway;
    let state = door.get("/workspaces/team/status", ANN);
    assert_eq!((state.status, &state.json()["workspaces"][0]["tombstones"]), (200, &json!(1)));
    let explained = door.get("/workspaces/team/explain?table=notes&pk=a%26b", ANN).json();
    assert_eq!(explained["state"], "tombstone");
    assert_eq!(explained["winner"]["revision"]["opId"], op_id(2));
    refused(door.get("/workspaces/team/explain?table=notes", ANN), 400, "22023");
    for path in ["status", "explain?table=notes&pk=a"] {
        refused(door.get(&format!("/workspaces/team/{path}"), BOB), 403, "42501");
        refused(door.get(&format!("/workspaces/team/{path}"), None), 401, "28000");
    }
}

fn trusted_callers_may_all(cluster: &Cluster) {
    let stand = Stand::trusting(cluster, "trusted_admin");
    let door = &*stand.gateway;
    done(door.send("PUT", "/workspaces/new", None, r#"{"owner": "eve"}"#));
    refused(door.send("PUT", "/workspaces/newer", None, ""), 400, "22023");
    assert_eq!(names(door, None), ["team", "new"]);
    let nowhere = "/workspaces/nowhere/members/ann";
    refused(door.send("PUT", nowhere, None, r#"{"role": "owner"}"#), 404, "42704");
}
