//! Streams: what arrives, from where, for whom, and how they end.

use std::io::{Read, Write};
use std::net::TcpStream;

use postgres::Client;
use serde_json::{Value, json};
use sync_ext_harness::batch::{op, push, put};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::device::{Device, call};
use sync_ext_harness::steps::{age, gc};

use crate::support::devices;
use crate::support::process::Gateway;
use crate::support::stand::{SERVER, Stand};
use crate::support::stream::{Event, Live, Said};

const TEAM: &str = "/workspaces/team/live";
const ANN: Option<&str> = Some("ann");
const BOB: Option<&str> = Some("bob");

#[test]
fn streams_send_changes() {
    let cluster = Cluster::start("gateway-live", &SERVER).unwrap();
    an_edit_of_one_device_arrives_at_another(&cluster);
    an_event_is_the_reply_of_a_pull(&cluster);
    a_push_wakes_the_streams_of_its_workspace_alone(&cluster);
    a_stream_begins_at_its_cursor(&cluster);
    a_filtered_stream_passes_over_the_rest(&cluster);
    a_stream_of_scopes_tells_what_leaves(&cluster);
    a_required_snapshot_is_sent_and_ends_the_stream(&cluster);
    an_older_proof_shows_what_it_can(&cluster);
    a_stream_ends_when_its_user_is_removed(&cluster);
    private_records_arrive_at_their_owner_alone(&cluster);
    idle_streams_beat(&cluster);
    notifications_of_others_do_no_harm(&cluster);
    a_client_that_goes_away_leaves_nothing(&cluster);
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_resumes() {
    let settings = [&SERVER[..], &["sync_ext.max_page_bytes=256kB"]].concat();
    let cluster = Cluster::start("gateway-slow", &settings).unwrap();
    let mut stand = Stand::trusting(&cluster, "slow");
    a_slow_client_holds_up_nobody(&mut stand);
    it_is_cut_off_and_resumes(&stand);
}

fn an_edit_of_one_device_arrives_at_another(cluster: &Cluster) {
    let Stand { gateway, mut admin, .. } = Stand::trusting(cluster, "two_devices");
    let (mut phone, mut laptop) = (Device::new("phone", "team"), Device::new("laptop", "team"));
    let live = Live::open(&gateway, TEAM, None);
    for edit in 1..=3 {
        phone.put(edit, "note");
        assert!(devices::push(&mut phone, &gateway));
        let event = live.event();
        laptop.pull_answered(&event.data).unwrap();
        assert_eq!(event.id.as_deref(), Some(&*edit.to_string()));
        assert_eq!(laptop.cursor, edit as i64);
    }
    phone.pull(&mut admin, 100, false).unwrap();
    assert_eq!(laptop.state(), phone.state());
    assert_eq!(
        laptop.synced[&("notes".into(), "note".into())].payload.as_deref(),
        Some("{\"n\":3}")
    );
}

fn an_event_is_the_reply_of_a_pull(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "replies");
    let live = Live::open(&stand.gateway, TEAM, None);
    push(&mut stand.admin, "team", &[put(1, "a", 1)]);
    let reply = |admin: &mut Client, cursor: i64| {
        call(admin, "select sync_pull('team', $1)::text", &[&cursor]).unwrap()
    };
    let expected = reply(&mut stand.admin, 0);
    assert_eq!(
        live.event(),
        Event { name: "changes".into(), id: Some("1".into()), data: expected }
    );
    // A line's end in a payload is one in the event, and one that all clients know.
    push(&mut stand.admin, "team", &[op(2, "b", 1, "put", "{\"x\":1,\r\n \"y\":\r2,\n\n\"z\":3}")]);
    let (event, expected) = (live.event(), reply(&mut stand.admin, 1));
    assert_eq!(event.data, expected.replace('\r', "\n"));
    assert_eq!(event.json(), serde_json::from_str::<Value>(&expected).unwrap());
}

fn a_push_wakes_the_streams_of_its_workspace_alone(cluster: &Cluster) {
    let mut stand = Stand::new(cluster, "wakes", &[]);
    stand
        .admin
        .batch_execute(
            "create sequence pulls;
             grant usage on sequence pulls to gateway;
             create function count_pull(text, place text) returns text language plpgsql as $$
               begin
                 if place = 'quiet' then perform nextval('public.pulls'); end if;
                 return 'owner';
               end $$;
             grant execute on function count_pull to gateway;
             alter database wakes set sync_ext.membership_function = 'public.count_pull'",
        )
        .unwrap();
    let gateway = Gateway::start(&stand.url(), &[]);
    let quiet = Live::open(&gateway, "/workspaces/quiet/live", ANN);
    let busy = Live::open(&gateway, TEAM, ANN);
    for id in 1..=20 {
        push(&mut stand.admin, "team", &[put(id, "a", id)]);
        assert_eq!(busy.event().versions(), [id as i64]);
    }
    push(&mut stand.admin, "quiet", &[put(1, "a", 1)]);
    assert_eq!(quiet.event().versions(), [1]);
    let pulls: i64 = stand.admin.query_one("select last_value from pulls", &[]).unwrap().get(0);
    assert_eq!(pulls, 2, "one for the stream's beginning, one for the push");
}

fn a_stream_begins_at_its_cursor(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "beginnings");
    let ops: Vec<String> = (1..=5).map(|id| put(id, &format!("r{id}"), 1)).collect();
    push(&mut stand.admin, "team", &ops);
    let gateway = &stand.gateway;
    let open = |query: &str| Live::open(gateway, &format!("{TEAM}{query}"), None);
    assert_eq!(open("").event().versions(), [1, 2, 3, 4, 5]);
    assert_eq!(open("?cursor=2").event().versions(), [3, 4, 5]);
    let path = format!("{TEAM}?cursor=2");
    assert_eq!(Live::resume(gateway, &path, None, "4").event().versions(), [5]);
    // Page by page, without anything pushed in between.
    let pages = open("?pageLimit=2");
    let pages = [pages.event(), pages.event(), pages.event()];
    assert_eq!(pages.each_ref().map(Event::versions), [vec![1, 2], vec![3, 4], vec![5]]);
    assert_eq!(pages.each_ref().map(Event::cursor), [2, 4, 5]);
    // At the head there is nothing to tell until something comes.
    let at_head = open("?cursor=5");
    push(&mut stand.admin, "team", &[put(6, "r6", 1)]);
    assert_eq!(at_head.event().versions(), [6]);

    for query in ["?cursor=x", "?cursor=-1", "?pageLimit=x", "?latest=1", "?proof=x", "?after=1"] {
        let answer = stand.gateway.get(&format!("{TEAM}{query}"), None);
        assert_eq!((answer.status, &*answer.code()), (400, "22023"), "{query}");
    }
    for last in ["x", "-1", "1;2"] {
        let answer =
            Live::try_open(&stand.gateway, TEAM, None, Some(last)).err().flatten().unwrap();
        assert_eq!((answer.status, &*answer.code()), (400, "22023"), "{last}");
    }
}

fn a_filtered_stream_passes_over_the_rest(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "filters");
    stand
        .admin
        .batch_execute("select sync_register_table('a,b'), sync_register_table('tags')")
        .unwrap();
    let in_table = |id, table: &str| put(id, "a", id).replace("notes", table);
    let filtered = format!("{TEAM}?tables=a%2Cb&tables=tags");
    let live = Live::open(&stand.gateway, &filtered, None);
    push(&mut stand.admin, "team", &[in_table(1, "notes")]);
    let passed = live.event();
    assert_eq!((passed.versions(), passed.cursor()), (vec![], 1));
    push(
        &mut stand.admin,
        "team",
        &[in_table(2, "a,b"), in_table(3, "notes"), in_table(4, "tags")],
    );
    let event = live.event();
    assert_eq!((event.versions(), event.cursor()), (vec![2, 4], 4));

    let latest = Live::open(&stand.gateway, &format!("{TEAM}?latest=true"), None);
    assert_eq!(latest.event().versions(), [2, 3, 4]);
    push(&mut stand.admin, "team", &[in_table(5, "tags"), in_table(6, "tags")]);
    assert_eq!(latest.event().versions(), [6]);
}

fn a_stream_of_scopes_tells_what_leaves(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "scopes");
    let register = "select sync_register_table('notes', scope_field => 'list')";
    stand.admin.batch_execute(register).unwrap();
    let to = |id, list: &str| op(id, "a", id, "put", &format!(r#"{{"list":"{list}"}}"#));
    let of_list = |list: &str| Live::open(&stand.gateway, &format!("{TEAM}?scopes={list}"), None);
    let (x, none) = (of_list("%5B%22x%22%5D"), of_list("%5B%5D"));
    push(&mut stand.admin, "team", &[to(1, "x")]);
    let ops = |event: Event| {
        event.json()["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|change| change["op"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ops(x.event()), ["put"]);
    push(&mut stand.admin, "team", &[to(2, "y"), to(3, "y")]);
    assert_eq!(ops(x.event()), ["leave"]);
    let passed = none.event();
    assert_eq!(passed.versions(), [0; 0]);
    let of_two = "/live?workspace=team&scopes=%5B%22y%22%5D&workspace=other&scopes=null";
    assert_eq!(ops(Live::open(&stand.gateway, of_two, None).event()), ["put", "put"]);
    // Another list than that of the proof.
    let proof = call(&mut stand.admin, "select sync_pull('team', scopes => '{y}')->>'proof'", &[]);
    let other = format!("%5B%22x%22%5D&cursor=3&proof={}", proof.unwrap());
    assert_eq!(of_list(&other).event().json()["reason"], "scopes_changed");
    let answer = stand.gateway.get(&format!("{TEAM}?scopes=x"), None);
    assert_eq!(answer.status, 400);
}

/// At once, or when the server turns out to have another history.
fn a_required_snapshot_is_sent_and_ends_the_stream(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "anew");
    push(&mut stand.admin, "team", &[put(1, "a", 1)]);
    let ahead = Live::open(&stand.gateway, &format!("{TEAM}?cursor=9"), None);
    let event = ahead.event();
    assert_eq!((&*event.name, event.id.as_deref()), ("snapshot", None));
    let expected = call(&mut stand.admin, "select sync_pull('team', 9)::text", &[]).unwrap();
    assert_eq!(event.data, expected);
    assert_eq!(ahead.said(), Said::End { whole: true });

    push(&mut stand.admin, "other", &[put(1, "a", 1)]);
    let proof = call(&mut stand.admin, "select sync_pull('other', 0)->>'proof'", &[]).unwrap();
    let proved = Live::open(&stand.gateway, &format!("{TEAM}?cursor=1&proof={proof}"), None);
    assert_eq!(proved.event().json()["reason"], "history_diverged");

    // The proof goes along from page to page: version numbers alone would not tell.
    let live = Live::open(&stand.gateway, TEAM, None);
    assert_eq!(live.event().versions(), [1]);
    let anew = "select sync_drop_workspace('team')";
    stand.admin.batch_execute(anew).unwrap();
    push(&mut stand.admin, "team", &[put(2, "a", 1), put(3, "b", 1)]);
    let event = live.event();
    assert_eq!((&*event.name, &event.json()["reason"]), ("snapshot", &json!("history_diverged")));
    assert_eq!(live.next(), None);
}

/// Of a restore, to a browser that connects again with the proof of its first URL;
/// who opens anew with the last one is told of any.
fn an_older_proof_shows_what_it_can(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "proofs");
    let restore = |admin: &mut Client, head: i64| {
        for sql in [
            "delete from sync_ext.change_log where server_version > $1",
            "update sync_ext.workspace set head = $1",
        ] {
            admin.execute(sql, &[&head]).unwrap();
        }
    };
    let puts = |ids: std::ops::RangeInclusive<u64>| -> Vec<String> {
        ids.map(|id| put(id, &format!("r{id}"), 1)).collect()
    };
    let [first, last] = [1..=3, 4..=5].map(|ids| {
        push(&mut stand.admin, "team", &puts(ids));
        call(&mut stand.admin, "select sync_pull('team')->>'proof'", &[]).unwrap()
    });
    let gateway = &stand.gateway;
    let again = || {
        let path = format!("{TEAM}?cursor=3&proof={first}");
        Live::resume(gateway, &path, None, "5").event()
    };
    let anew = || Live::open(gateway, &format!("{TEAM}?cursor=5&proof={last}"), None).event();
    let is_told = |event: Event| {
        assert_eq!(event.name, "snapshot", "{event:?}");
        assert_eq!(event.json()["reason"], "history_diverged");
    };

    restore(&mut stand.admin, 4);
    push(&mut stand.admin, "team", &puts(6..=8));
    assert_eq!(again().versions(), [6, 7]);
    is_told(anew());
    restore(&mut stand.admin, 2);
    push(&mut stand.admin, "team", &puts(9..=13));
    is_told(again());
    is_told(anew());

    // What it costs: a snapshot once the proof's entry is purged.
    push(&mut stand.admin, "purged", &[put(1, "a", 1)]);
    let proof = call(&mut stand.admin, "select sync_pull('purged')->>'proof'", &[]).unwrap();
    push(&mut stand.admin, "purged", &[put(2, "a", 2), put(3, "b", 1)]);
    age(&mut stand.admin);
    gc(&mut stand.admin, "purged");
    let path = format!("/workspaces/purged/live?cursor=1&proof={proof}");
    let event = Live::resume(&stand.gateway, &path, None, "3").event();
    assert_eq!(event.json()["reason"], "cursor_expired");
}

fn a_stream_ends_when_its_user_is_removed(cluster: &Cluster) {
    let mut stand = Stand::new(cluster, "removed", &[]);
    let [anns, bobs] = [ANN, BOB].map(|user| Live::open(&stand.gateway, TEAM, user));
    push(&mut stand.admin, "team", &[put(1, "a", 1)]);
    assert_eq!([&anns, &bobs].map(|live| live.event().versions()), [[1], [1]]);
    stand.admin.batch_execute("select sync_remove_member('team', 'bob')").unwrap();
    push(&mut stand.admin, "team", &[put(2, "b", 1)]);
    assert_eq!(anns.event().versions(), [2]);
    let refused = bobs.event();
    assert_eq!((&*refused.name, &refused.id), ("refused", &None));
    assert_eq!(refused.json()["error"]["code"], "42501");
    assert_eq!(bobs.said(), Said::End { whole: true });
    assert_eq!(stand.gateway.get(TEAM, BOB).status, 403);
}

fn private_records_arrive_at_their_owner_alone(cluster: &Cluster) {
    // Notifications with changes, too, tell nobody more.
    let mut stand = Stand::new(cluster, "private", &[]);
    stand.admin.batch_execute("alter database private set sync_ext.notify = 'changes'").unwrap();
    let gateway = Gateway::start(&stand.url(), &[]);
    let [anns, bobs] = [ANN, BOB].map(|user| Live::open(&gateway, TEAM, user));
    let (secret, shared) = (put(7001, "secret", 1).replace("notes", "diary"), put(2, "a", 1));
    for (op, user) in [(&secret, ANN), (&shared, BOB)] {
        assert_eq!(gateway.post("/workspaces/team/push", user, &format!("[{op}]")).status, 200);
    }
    assert_eq!(anns.versions_until(2), [1, 2]);
    let mut cursor = 0;
    while cursor < 2 {
        let event = bobs.event();
        assert!(!event.data.contains("secret") && !event.data.contains("7001"), "{event:?}");
        assert!(event.versions().iter().all(|version| *version == 2), "{event:?}");
        cursor = event.cursor();
    }
    // Nor to one who looks on from the start.
    assert_eq!(Live::open(&gateway, TEAM, BOB).event().versions(), [2]);
}

fn idle_streams_beat(cluster: &Cluster) {
    let settings = [("GATEWAY_TRUSTED", "on"), ("GATEWAY_HEARTBEAT", "0.05")];
    let mut stand = Stand::new(cluster, "idle", &settings);
    let live = Live::open(&stand.gateway, TEAM, None);
    let beat = || assert_eq!(live.said(), Said::Comment("heartbeat".into()));
    beat();
    beat();
    push(&mut stand.admin, "team", &[put(1, "a", 1)]);
    assert_eq!(live.event().versions(), [1]);
    beat();
}

fn notifications_of_others_do_no_harm(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "others");
    let odd = "alter database others set sync_ext.notify_channel = 'odd \"name';";
    stand.admin.batch_execute(odd).unwrap();
    let channel = [("GATEWAY_TRUSTED", "on"), ("GATEWAY_CHANNEL", "odd \"name")];
    let gateway = Gateway::start(&stand.url(), &channel);
    let live = Live::open(&gateway, TEAM, None);
    let mut session = stand.session();
    for payload in ["", "[]", "{}", r#"{"workspaceId":7}"#, r#"{"workspaceId":"team"}"#] {
        session.execute("select pg_notify('odd \"name', $1)", &[&payload]).unwrap();
    }
    push(&mut session, "team", &[put(1, "a", 1)]);
    assert_eq!(live.event().versions(), [1]);
}

fn a_client_that_goes_away_leaves_nothing(cluster: &Cluster) {
    let settings = [("GATEWAY_TRUSTED", "on"), ("GATEWAY_HEARTBEAT", "0.05")];
    let stand = Stand::new(cluster, "gone", &settings);
    let streams: Vec<Live> = (0..5).map(|_| Live::open(&stand.gateway, TEAM, None)).collect();
    stand.gateway.until_streams(5);
    drop(streams);
    stand.gateway.until_streams(0);
    let refused = stand.gateway.get(&format!("{TEAM}?cursor=-1"), None);
    assert_eq!(refused.status, 400);
    stand.gateway.until_streams(0);
}

/// 16 MB, more than sockets hold.
const OPS: u64 = 160;

/// Asks for a stream of pages, and does not read it.
fn ask(gateway: &Gateway) -> TcpStream {
    let mut client = TcpStream::connect(gateway.address()).unwrap();
    write!(client, "GET {TEAM}?pageLimit=2 HTTP/1.1\r\nhost: gateway\r\n\r\n").unwrap();
    client
}

fn a_slow_client_holds_up_nobody(stand: &mut Stand) {
    // It is not cut off while somebody waits.
    let settings = [("GATEWAY_TRUSTED", "on"), ("GATEWAY_WRITE_TIMEOUT", "600")];
    let gateway = Gateway::start(&stand.url(), &settings);
    let _slow = ask(&gateway);
    let live = Live::open(&gateway, &format!("{TEAM}?pageLimit=2"), None);
    gateway.until_streams(2);
    let memory = gateway.memory("VmHWM");

    let large = "x".repeat(100_000);
    for id in (1..=OPS).step_by(20) {
        let one = |id| op(id, &format!("r{id}"), 1, "put", &format!("{{\"text\":\"{large}\"}}"));
        let ops: Vec<String> = (id..id + 20).map(one).collect();
        push(&mut stand.admin, "team", &ops);
    }
    assert_eq!(live.versions_until(OPS as i64), (1..=OPS as i64).collect::<Vec<i64>>());
    let grown = gateway.memory("VmHWM") - memory;
    assert!(grown < 8_000, "16 MB to be read made the gateway grow by {grown} kB");
}

fn it_is_cut_off_and_resumes(stand: &Stand) {
    let settings = [("GATEWAY_TRUSTED", "on"), ("GATEWAY_WRITE_TIMEOUT", "2")];
    let gateway = Gateway::start(&stand.url(), &settings);
    let mut slow = ask(&gateway);
    slow.peek(&mut [0]).unwrap();
    gateway.until_streams(0);

    // What it gets still are whole events up to where it was cut off.
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.ends_with("0\r\n\r\n"), "it was cut off, not ended");
    let (whole, _) = rest.rsplit_once("\n\n").unwrap_or_default();
    let ids: Vec<i64> = whole
        .split("\nid: ")
        .skip(1)
        .map(|at| at.split('\n').next().unwrap().parse().unwrap())
        .collect();
    let last = *ids.last().expect("some events arrive");
    assert!(last < OPS as i64, "all arrived: it was not slow");
    let path = format!("{TEAM}?pageLimit=2");
    let resumed = Live::resume(&gateway, &path, None, &last.to_string());
    let missed: Vec<i64> = (last + 1..=OPS as i64).collect();
    assert_eq!(resumed.versions_until(OPS as i64), missed);
}
