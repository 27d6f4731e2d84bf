//! The listening connection lost, the database restarted, the gateway stopped and
//! killed: nothing that was pushed is missed or told twice.

use std::collections::BTreeSet;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgres::Client;
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::cluster::{Cluster, Stop};

use crate::support::gate::Gate;
use crate::support::kills;
use crate::support::process::{Door, Gateway, until};
use crate::support::stand::{SERVER, Stand, until_a_push_waits};
use crate::support::stream::{Live, Said};

const TEAM: &str = "/workspaces/team/live";

#[test]
fn nothing_is_lost_with_a_connection_or_a_process() {
    let mut cluster = Cluster::start("gateway-faults", &SERVER).unwrap();
    what_is_pushed_while_nobody_listens_arrives(&cluster);
    what_is_pushed_right_before_somebody_listens_arrives(&cluster);
    a_gateway_without_notifications_does_not_report_that_it_listens(&cluster);
    a_connection_that_does_not_answer_is_given_up(&cluster);
    a_call_without_an_answer_is_given_up(&cluster);
    a_gateway_that_stops_answers_what_it_was_asked(&cluster);
    a_stop_waits_only_so_long(&cluster);
    streams_outlive_the_database(&mut cluster);
    kills::run(&mut cluster, "killed", 200, 40);
}

const LISTENING: &str = "from pg_stat_activity where datname = current_database()
                          and application_name = 'sync_ext_gateway listen'";

/// Ends the gateway's listening connection.
fn end_listening(admin: &mut Client) {
    let ended = format!("select pg_terminate_backend(pid) {LISTENING}");
    assert_eq!(admin.query(&ended, &[]).unwrap().len(), 1);
}

fn until_none_listens(admin: &mut Client) {
    let left = format!("select count(*) {LISTENING}");
    until("the connection is gone", || admin.query_one(&left, &[]).unwrap().get::<_, i64>(0) == 0);
}

fn what_is_pushed_while_nobody_listens_arrives(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "listening");
    let live = Live::open(&stand.gateway, TEAM, None);
    stand.admin.batch_execute("alter role gateway nologin").unwrap();
    end_listening(&mut stand.admin);
    until_none_listens(&mut stand.admin);
    push(&mut stand.admin, "team", &[put(1, "a", 1)]);
    until("the gateway knows", || stand.gateway.get("/health", None).status == 503);
    // One who comes meanwhile is served what there is, and told the rest later.
    let newcomer = Live::open(&stand.gateway, TEAM, None);
    assert_eq!(newcomer.event().versions(), [1]);
    push(&mut stand.admin, "team", &[put(2, "b", 1)]);
    stand.admin.batch_execute("alter role gateway login").unwrap();
    assert_eq!(live.versions_until(2), [1, 2]);
    assert_eq!(newcomer.event().versions(), [2]);
}

/// Who catches up first and listens then would not be told of it.
fn what_is_pushed_right_before_somebody_listens_arrives(cluster: &Cluster) {
    let gate = Gate::before(cluster, "gate");
    let url = gate.url();
    let settings = [
        ("GATEWAY_TRUSTED", "on"),
        ("GATEWAY_POOL_SIZE", "1"),
        ("LISTEN_DATABASE_URL", url.as_str()),
    ];
    let mut stand = Stand::new(cluster, "gate", &settings);
    let live = Live::open(&stand.gateway, TEAM, None);
    let closed = gate.close();
    end_listening(&mut stand.admin);
    gate.until_one_waits();
    // Calls use the one connection in turn: a pull that was begun before is done.
    assert_eq!(stand.gateway.post("/workspaces/team/pull", None, "{}").status, 200);
    push(&mut stand.admin, "team", &[put(1, "a", 1)]);
    drop(closed);
    assert_eq!(live.event().versions(), [1]);
}

/// Streams then arrive late, when listening is tried again.
fn a_gateway_without_notifications_does_not_report_that_it_listens(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "told_here");
    let mut elsewhere = cluster.create_database("heard_there").unwrap();
    let url = cluster.connection_string("gateway", "heard_there");
    let settings = [
        ("GATEWAY_TRUSTED", "on"),
        ("GATEWAY_DATABASE_TIMEOUT", "0.5"),
        ("LISTEN_DATABASE_URL", url.as_str()),
    ];
    let gateway = Gateway::spawn(&stand.url(), "127.0.0.1:0", &settings);
    let live = Live::open(&gateway, TEAM, None);
    let listening = format!("select pid {LISTENING}");
    let mut connections = BTreeSet::new();
    until("it is tried again", || {
        let backends = elsewhere.query(&listening, &[]).unwrap();
        connections.extend(backends.iter().map(|row| row.get::<_, i32>(0)));
        assert_eq!(gateway.get("/health", None).status, 503);
        connections.len() >= 3
    });
    push(&mut stand.admin, "team", &[put(1, "a", 1)]);
    assert_eq!(live.event().versions(), [1]);
}

/// As when the machine of the server has gone without a word.
fn a_connection_that_does_not_answer_is_given_up(cluster: &Cluster) {
    let settings = [("GATEWAY_TRUSTED", "on"), ("GATEWAY_DATABASE_TIMEOUT", "1")];
    let mut stand = Stand::new(cluster, "silent", &settings);
    let live = Live::open(&stand.gateway, TEAM, None);
    let listening = format!("select pid {LISTENING}");
    let _stopped = Stopped::new(stand.admin.query_one(&listening, &[]).unwrap().get(0));
    push(&mut stand.admin, "team", &[put(1, "a", 1)]);
    assert_eq!(live.event().versions(), [1]);
}

/// The same with the connection of the calls: neither they nor streams wait for it.
fn a_call_without_an_answer_is_given_up(cluster: &Cluster) {
    let settings =
        [("GATEWAY_TRUSTED", "on"), ("GATEWAY_POOL_SIZE", "1"), ("GATEWAY_CALL_TIMEOUT", "1")];
    let mut stand = Stand::new(cluster, "unanswered", &settings);
    let live = Live::open(&stand.gateway, TEAM, None);
    let pull = || stand.gateway.post("/workspaces/team/pull", None, "{}");
    let calling = "select pid from pg_stat_activity where datname = current_database()
                    and application_name = 'sync_ext_gateway'";
    assert_eq!(pull().status, 200);
    let backend = stand.admin.query_one(calling, &[]).unwrap().get(0);
    let stopped = Stopped::new(backend);
    let answer = pull();
    assert_eq!((answer.status, &*answer.code()), (503, "08006"), "{answer:?}");
    assert_eq!(pull().status, 200);
    drop(stopped);

    let gone = "select count(*) from pg_stat_activity where pid = $1";
    until("the backend notices", || {
        stand.admin.query_one(gone, &[&backend]).unwrap().get::<_, i64>(0) == 0
    });
    let _stopped = Stopped::new(stand.admin.query_one(calling, &[]).unwrap().get(0));
    push(&mut stand.admin, "team", &[put(1, "a", 1)]);
    assert_eq!(live.event().versions(), [1]);
}

/// A backend that does nothing until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn new(backend: i32) -> Stopped {
        let backend = Pid::from_raw(backend);
        kill(backend, Signal::SIGSTOP).unwrap();
        Stopped(backend)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

fn a_gateway_that_stops_answers_what_it_was_asked(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "stopping");
    let live = Live::open(&stand.gateway, TEAM, None);
    let mut session = stand.session();
    let mut transaction = session.transaction().unwrap();
    push(&mut transaction, "team", &[put(1, "a", 1)]);
    let (gateway, body) = (&stand.gateway, format!("[{}]", put(2, "b", 1)));
    let answer = thread::scope(|scope| {
        let asked = scope.spawn(|| gateway.post("/workspaces/team/push", None, &body));
        until_a_push_waits(&mut stand.admin);
        gateway.terminate();
        // Streams end at once, and nobody else is let in.
        assert_eq!(live.said(), Said::End { whole: true });
        until("the gateway accepts nothing", || {
            Live::try_open(gateway, TEAM, None, None).err() == Some(None)
        });
        transaction.commit().unwrap();
        asked.join().unwrap()
    });
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["serverVersion"], 2);
    assert!(stand.gateway.until_stopped().success());
}

fn a_stop_waits_only_so_long(cluster: &Cluster) {
    let mut stand = Stand::new(
        cluster,
        "patience",
        &[("GATEWAY_TRUSTED", "on"), ("GATEWAY_STOP_TIMEOUT", "0.1")],
    );
    let mut session = stand.session();
    let mut transaction = session.transaction().unwrap();
    push(&mut transaction, "team", &[put(1, "a", 1)]);
    let door: &Door = &stand.gateway.clone();
    thread::scope(|scope| {
        let body = format!("[{}]", put(2, "b", 1));
        let asked = scope.spawn(move || door.try_post("/workspaces/team/push", None, &body));
        until_a_push_waits(&mut stand.admin);
        stand.gateway.terminate();
        assert!(stand.gateway.until_stopped().success());
        assert!(asked.join().unwrap().is_err());
    });
}

fn streams_outlive_the_database(cluster: &mut Cluster) {
    let Stand { gateway, admin, .. } = Stand::trusting(cluster, "restarts");
    drop(admin);
    let live = Live::open(&gateway, TEAM, None);
    for (version, stop) in (1..).zip([Stop::Cleanly, Stop::Immediately, Stop::Kill]) {
        cluster.stop_server(stop).unwrap();
        until("the gateway knows", || gateway.get("/health", None).status == 503);
        let newcomer = Live::open(&gateway, TEAM, None);
        cluster.start_server().unwrap();
        let mut admin = cluster.connect("restarts").unwrap();
        // It may be back already, or not yet.
        push(&mut admin, "team", &[put(version, "a", version)]);
        assert_eq!(live.event().versions(), [version as i64]);
        assert_eq!(
            newcomer.versions_until(version as i64),
            (1..=version as i64).collect::<Vec<i64>>()
        );
    }
}
