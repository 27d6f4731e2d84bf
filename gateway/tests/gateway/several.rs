//! One stream for several workspaces of a user.

use serde_json::{Value, json};
use sync_ext_harness::batch::{delete, push, put};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::device::call;
use sync_ext_harness::steps::{age, gc};

use crate::support::stand::{SERVER, Stand};
use crate::support::stream::{Event, Live, Said};

const ANN: Option<&str> = Some("ann");
/// Not a name that goes into a query as it is.
const HOME: &str = "home & garden=1";
const HOME_IN_QUERIES: &str = "home+%26+garden%3D1";

#[test]
fn one_stream_follows_several_workspaces() {
    let cluster = Cluster::start("gateway-several", &SERVER).unwrap();
    each_event_names_its_workspace(&cluster);
    each_workspace_resumes_at_its_own_cursor(&cluster);
    without_names_it_follows_all_of_the_user(&cluster);
    one_that_is_refused_leaves_the_others(&cluster);
    one_that_needs_a_snapshot_leaves_the_others(&cluster);
    a_busy_workspace_does_not_keep_another_waiting(&cluster);
    what_cannot_be_followed_is_refused_at_once(&cluster);
}

fn stand<'a>(cluster: &'a Cluster, database: &'a str) -> Stand<'a> {
    let mut stand = Stand::new(cluster, database, &[]);
    let create = "select sync_create_workspace($1, 'ann')::text";
    stand.admin.execute(create, &[&HOME]).unwrap();
    stand
}

fn workspace(event: &Event) -> String {
    event.json()["workspaceId"].as_str().unwrap_or_else(|| panic!("{event:?}")).to_owned()
}

/// The workspace, versions and id of the next event.
fn told(live: &Live) -> (String, Vec<i64>, String) {
    let event = live.event();
    (workspace(&event), event.versions(), event.id.clone().unwrap())
}

fn each_event_names_its_workspace(cluster: &Cluster) {
    let mut stand = stand(cluster, "several");
    let path = format!("/live?workspace=team&workspace={HOME_IN_QUERIES}");
    let live = Live::open(&stand.gateway, &path, ANN);
    stand.gateway.until_streams(1);
    push(&mut stand.admin, HOME, &[put(1, "a", 1)]);
    let event = live.event();
    let pull = "select sync_pull($1)::text";
    let reply = call(&mut stand.admin, pull, &[&HOME]).unwrap();
    assert_eq!(event.data, format!("{{\"workspaceId\":\"{HOME}\",{}", &reply[1..]));
    assert_eq!(event.id, Some(format!("team=0&{HOME_IN_QUERIES}=1")));
    push(&mut stand.admin, "team", &[put(1, "b", 1)]);
    let id = format!("team=1&{HOME_IN_QUERIES}=1");
    assert_eq!(told(&live), ("team".into(), vec![1], id));
    drop(live);
    stand.gateway.until_streams(0);
}

fn each_workspace_resumes_at_its_own_cursor(cluster: &Cluster) {
    let mut stand = stand(cluster, "several_resume");
    push(&mut stand.admin, "team", &[put(1, "a", 1), put(2, "b", 1), put(3, "c", 1)]);
    push(&mut stand.admin, HOME, &[put(1, "a", 1), put(2, "b", 1)]);
    let path = format!("/live?workspace=team&cursor=2&workspace={HOME_IN_QUERIES}&cursor=1");
    let id = |team, home| format!("team={team}&{HOME_IN_QUERIES}={home}");
    let live = Live::open(&stand.gateway, &path, ANN);
    assert_eq!(told(&live), ("team".into(), vec![3], id(3, 1)));
    assert_eq!(told(&live), (HOME.into(), vec![2], id(3, 2)));
    // As a browser that reconnects, which names no cursor that it has moved.
    let live = Live::resume(&stand.gateway, &path, ANN, &id(3, 0));
    assert_eq!(told(&live), (HOME.into(), vec![1, 2], id(3, 2)));
    push(&mut stand.admin, "team", &[put(4, "d", 1)]);
    assert_eq!(told(&live), ("team".into(), vec![4], id(4, 2)));
    // A workspace that the id leaves out begins where the query says.
    let live = Live::resume(&stand.gateway, &path, ANN, "team=4");
    assert_eq!(told(&live), (HOME.into(), vec![2], id(4, 2)));
    // Each has its proof.
    let pull = "select sync_pull($1)::text";
    let reply = call(&mut stand.admin, pull, &[&HOME]).unwrap();
    let reply: Value = serde_json::from_str(&reply).unwrap();
    let proof = reply["proof"].as_str().unwrap();
    let path = format!("{path}&proof={proof}");
    let live = Live::open(&stand.gateway, &path, ANN);
    assert_eq!(told(&live), ("team".into(), vec![3, 4], id(4, 1)));
    assert_eq!(told(&live), (HOME.into(), vec![2], id(4, 2)));
    let path = format!("/live?workspace=team&proof={proof}&workspace={HOME_IN_QUERIES}");
    let event = Live::open(&stand.gateway, &path, ANN).event();
    assert_eq!((&*event.name, &*workspace(&event)), ("snapshot", "team"));
    assert_eq!(event.json()["reason"], "history_diverged");
}

fn without_names_it_follows_all_of_the_user(cluster: &Cluster) {
    let mut stand = stand(cluster, "several_all");
    stand.admin.batch_execute("select sync_create_workspace('bobs', 'bob')").unwrap();
    for workspace in ["bobs", HOME, "team"] {
        push(&mut stand.admin, workspace, &[put(1, "a", 1)]);
    }
    let live = Live::open(&stand.gateway, "/live?tables=notes", ANN);
    let mut seen = [told(&live), told(&live)].map(|(workspace, versions, _)| (workspace, versions));
    seen.sort();
    assert_eq!(seen, [(HOME.into(), vec![1]), ("team".into(), vec![1])]);
    let live = Live::resume(&stand.gateway, "/live", ANN, &format!("{HOME_IN_QUERIES}=1"));
    assert_eq!(told(&live).0, "team");
    let refusal = Live::try_open(&stand.gateway, "/live", None, None).err().unwrap().unwrap();
    assert_eq!((refusal.status, &*refusal.code()), (401, "28000"));
}

fn one_that_is_refused_leaves_the_others(cluster: &Cluster) {
    let mut stand = stand(cluster, "several_refused");
    let path = format!("/live?workspace=nowhere&workspace=team&workspace={HOME_IN_QUERIES}");
    let live = Live::open(&stand.gateway, &path, ANN);
    let event = live.event();
    assert_eq!((&*event.name, &event.id, &*workspace(&event)), ("refused", &None, "nowhere"));
    assert_eq!(event.json()["error"]["code"], "42501");
    push(&mut stand.admin, "team", &[put(1, "a", 1)]);
    let id = |team, home| format!("team={team}&{HOME_IN_QUERIES}={home}");
    assert_eq!(told(&live), ("team".into(), vec![1], id(1, 0)));
    stand
        .admin
        .batch_execute(
            "select sync_set_member('team', 'bob', 'owner'), sync_remove_member('team', 'ann')",
        )
        .unwrap();
    push(&mut stand.admin, "team", &[put(2, "a", 2)]);
    let event = live.event();
    assert_eq!((&*event.name, &*workspace(&event)), ("refused", "team"));
    push(&mut stand.admin, HOME, &[put(1, "a", 1)]);
    assert_eq!(told(&live), (HOME.into(), vec![1], format!("{HOME_IN_QUERIES}=1")));
    // With the last one it ends.
    stand.admin.execute("select sync_drop_workspace($1)::text", &[&HOME]).unwrap();
    let path = format!("/live?workspace={HOME_IN_QUERIES}");
    let live = Live::open(&stand.gateway, &path, ANN);
    assert_eq!(live.event().name, "refused");
    assert_eq!(live.said(), Said::End { whole: true });
}

fn one_that_needs_a_snapshot_leaves_the_others(cluster: &Cluster) {
    let mut stand = stand(cluster, "several_snapshots");
    push(&mut stand.admin, "team", &[put(1, "a", 1), delete(2, "a", 2), put(3, "b", 1)]);
    age(&mut stand.admin);
    gc(&mut stand.admin, "team");
    let path = format!("/live?workspace=team&workspace={HOME_IN_QUERIES}");
    let live = Live::open(&stand.gateway, &path, ANN);
    let event = live.event();
    assert_eq!((&*event.name, &event.id, &*workspace(&event)), ("snapshot", &None, "team"));
    assert_eq!(event.json()["reason"], "cursor_expired");
    push(&mut stand.admin, HOME, &[put(1, "a", 1)]);
    assert_eq!(told(&live).0, HOME);
}

fn a_busy_workspace_does_not_keep_another_waiting(cluster: &Cluster) {
    let mut stand = stand(cluster, "several_busy");
    let ops: Vec<String> = (1..=50).map(|id| put(id, &format!("r{id}"), 1)).collect();
    push(&mut stand.admin, "team", &ops);
    push(&mut stand.admin, HOME, &ops[..2]);
    let path = format!("/live?workspace=team&workspace={HOME_IN_QUERIES}&pageLimit=1");
    let live = Live::open(&stand.gateway, &path, ANN);
    let seen: Vec<String> = (0..4).map(|_| told(&live).0).collect();
    assert_eq!(seen, ["team", HOME, "team", HOME]);
    // The filter and the limit are those of each.
    assert_eq!(told(&live).1, [3]);
}

fn what_cannot_be_followed_is_refused_at_once(cluster: &Cluster) {
    let stand = stand(cluster, "several_malformed");
    let many: String = (0..101).map(|id| format!("&workspace=w{id}")).collect();
    for (query, reason) in [
        ("cursor=1", "after its workspace"),
        ("proof=x&workspace=team", "after its workspace"),
        ("scopes=%5B%5D&workspace=team", "after its workspace"),
        ("workspace=team&workspace=team", "twice"),
        ("workspace=team&cursor=one", "cursor is invalid"),
        ("workspace=team&device=phone", "no parameter device"),
        (&many[1..], "at most 100"),
    ] {
        let answer = stand.gateway.get(&format!("/live?{query}"), ANN);
        assert_eq!((answer.status, &*answer.code()), (400, "22023"), "{query}");
        let detail = answer.json()["error"]["detail"].clone();
        assert!(detail.as_str().unwrap().contains(reason), "{detail}");
    }
    let path = "/live?workspace=team";
    let refusal = Live::try_open(&stand.gateway, path, ANN, Some("7")).err().unwrap().unwrap();
    assert_eq!(refusal.status, 400);
    let one = stand.gateway.get("/workspaces/team/live?workspace=other", ANN);
    assert_eq!(one.json()["error"]["detail"], json!("There is no parameter workspace."));
}
