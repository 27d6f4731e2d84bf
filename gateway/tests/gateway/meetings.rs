//! Streams that begin, or are busy, while something is pushed.

use std::sync::mpsc::{TryRecvError, channel};
use std::thread;

use postgres::Client;
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::device::Device;

use crate::support::devices::Follower;
use crate::support::process::{Gateway, until};
use crate::support::stand::{SERVER, Stand};
use crate::support::stream::{Live, Said};

const TEAM: &str = "/workspaces/team/live";
const ANN: Option<&str> = Some("ann");
const ROUNDS: i64 = 150;

#[test]
fn streams_meet_pushes() {
    let cluster = Cluster::start("gateway-meetings", &SERVER).unwrap();
    a_push_during_the_first_pull_arrives(&cluster);
    a_push_during_a_later_pull_arrives(&cluster);
    what_keeps_a_pull_from_its_answer_passes(&cluster);
    a_stream_with_more_to_send_ends_with_the_gateway(&cluster);
    a_stream_ends_when_it_has_come_of_age(&cluster);
    streams_that_end_while_others_push_lose_nothing(&cluster);
    pushes_that_race_with_connecting_arrive_once(&cluster);
    streams_that_come_and_go_under_pushes_send_each_version_once(&cluster);
}

/// A gateway whose pulls for users wait, once their snapshot is taken, while a
/// session holds the gate.
fn with_gate<'a>(cluster: &'a Cluster, database: &'a str) -> Stand<'a> {
    let mut stand = Stand::new(cluster, database, &[]);
    stand
        .admin
        .batch_execute(&format!(
            "create function pass(text, text) returns text language plpgsql as
               $$ begin perform pg_advisory_xact_lock_shared(1); return 'owner'; end $$;
             grant execute on function pass to gateway;
             alter database {database} set sync_ext.membership_function = 'public.pass'"
        ))
        .unwrap();
    stand.gateway = Gateway::start(&stand.url(), &[]);
    stand
}

fn close_gate(session: &mut Client) {
    session.batch_execute("select pg_advisory_lock(1)").unwrap();
}

fn open_gate(session: &mut Client) {
    session.batch_execute("select pg_advisory_unlock(1)").unwrap();
}

fn until_one_waits(admin: &mut Client) {
    let sql = "select count(*) from pg_locks where locktype = 'advisory' and not granted
                and database = (select oid from pg_database where datname = current_database())";
    until("a pull waits", || admin.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 1);
}

/// Who pulled first and listened then would not be told of it.
fn a_push_during_the_first_pull_arrives(cluster: &Cluster) {
    let mut stand = with_gate(cluster, "first_pull");
    let mut keeper = stand.session();
    close_gate(&mut keeper);
    let live = thread::scope(|scope| {
        let gateway = &stand.gateway;
        let opening = scope.spawn(|| Live::open(gateway, TEAM, ANN));
        until_one_waits(&mut stand.admin);
        push(&mut stand.admin, "team", &[put(1, "a", 1)]);
        open_gate(&mut keeper);
        opening.join().unwrap()
    });
    assert_eq!(live.event().versions(), [1]);
}

/// Who takes the hint for told when its pull is done would not pull again.
fn a_push_during_a_later_pull_arrives(cluster: &Cluster) {
    let mut stand = with_gate(cluster, "later_pull");
    let mut keeper = stand.session();
    let live = Live::open(&stand.gateway, TEAM, ANN);
    close_gate(&mut keeper);
    push(&mut stand.admin, "team", &[put(1, "a", 1)]);
    until_one_waits(&mut stand.admin);
    push(&mut stand.admin, "team", &[put(2, "b", 1)]);
    open_gate(&mut keeper);
    assert_eq!([live.event().versions(), live.event().versions()], [[1], [2]]);
}

/// The stream goes on, and tells what was pushed meanwhile, without another hint.
fn what_keeps_a_pull_from_its_answer_passes(cluster: &Cluster) {
    let mut stand = with_gate(cluster, "failing");
    let live = Live::open(&stand.gateway, TEAM, ANN);
    let answer = |admin: &mut Client, answer: &str| {
        let sql = "create or replace function pass(text, text) returns text language plpgsql as";
        let count = "perform nextval('public.pulls')";
        admin.batch_execute(&format!("{sql} $$ begin {count}; {answer}; end $$")).unwrap();
    };
    stand
        .admin
        .batch_execute("create sequence pulls; grant usage on sequence pulls to gateway")
        .unwrap();
    answer(&mut stand.admin, "raise exception using errcode = 'disk_full'");
    push(&mut stand.admin, "team", &[put(1, "a", 1)]);
    let pulls = "select last_value from pulls";
    until("it was tried again", || {
        stand.admin.query_one(pulls, &[]).unwrap().get::<_, i64>(0) >= 3
    });
    // One who comes meanwhile is not sent away: an EventSource would not come again.
    let newcomer = Live::open(&stand.gateway, TEAM, ANN);
    answer(&mut stand.admin, "return 'owner'");
    assert_eq!(live.event().versions(), [1]);
    assert_eq!(newcomer.event().versions(), [1]);

    answer(&mut stand.admin, "raise exception using errcode = 'disk_full'");
    let stranger = Live::open(&stand.gateway, TEAM, ANN);
    answer(&mut stand.admin, "return null");
    assert_eq!(stranger.event().json()["error"]["code"], "42501");
    assert_eq!(stranger.said(), Said::End { whole: true });
    assert_eq!(stand.gateway.get(TEAM, ANN).status, 403);
}

fn a_stream_with_more_to_send_ends_with_the_gateway(cluster: &Cluster) {
    let mut stand = with_gate(cluster, "stopping_early");
    let ops: Vec<String> = (1..=9).map(|id| put(id, &format!("r{id}"), 1)).collect();
    push(&mut stand.admin, "team", &ops);
    let mut keeper = stand.session();
    close_gate(&mut keeper);
    let live = thread::scope(|scope| {
        let gateway = &stand.gateway;
        let opening = scope.spawn(|| Live::open(gateway, &format!("{TEAM}?pageLimit=1"), ANN));
        until_one_waits(&mut stand.admin);
        gateway.terminate();
        // Without a user, so that it never waits at the gate itself.
        until("the gateway accepts nothing", || {
            Live::try_open(gateway, TEAM, None, None).err() == Some(None)
        });
        open_gate(&mut keeper);
        opening.join().unwrap()
    });
    assert_eq!(live.event().versions(), [1]);
    assert_eq!(live.said(), Said::End { whole: true });
    assert!(stand.gateway.until_stopped().success());
}

/// Between two events, however much there is to tell, and when there is nothing.
fn a_stream_ends_when_it_has_come_of_age(cluster: &Cluster) {
    let settings = [("GATEWAY_TRUSTED", "on"), ("GATEWAY_STREAM_AGE", "0.000001")];
    let mut stand = Stand::new(cluster, "ages", &settings);
    let ops: Vec<String> = (1..=5).map(|id| put(id, &format!("r{id}"), 1)).collect();
    push(&mut stand.admin, "team", &ops);
    let one_event = |after: &str| {
        let path = format!("{TEAM}?pageLimit=2&cursor={after}");
        let live = Live::open(&stand.gateway, &path, None);
        let versions = live.event().versions();
        assert_eq!(live.said(), Said::End { whole: true });
        versions
    };
    assert_eq!(["0", "2", "4"].map(one_event), [vec![1, 2], vec![3, 4], vec![5]]);
    let idle = Live::open(&stand.gateway, &format!("{TEAM}?cursor=5"), None);
    assert_eq!(idle.said(), Said::End { whole: true });
}

fn streams_that_end_while_others_push_lose_nothing(cluster: &Cluster) {
    let settings = [("GATEWAY_TRUSTED", "on"), ("GATEWAY_STREAM_AGE", "0.05")];
    let Stand { gateway, mut admin, .. } = Stand::new(cluster, "aging", &settings);
    let mut follower = Follower::new(Device::new("laptop", "team"));
    let head = thread::scope(|scope| {
        let (told, enough) = channel::<()>();
        let pushing = scope.spawn(move || {
            let ids = 1..;
            ids.take_while(|id| {
                push(&mut admin, "team", &[put(*id, &format!("r{}", id % 7), *id)]);
                enough.try_recv() == Err(TryRecvError::Empty)
            })
            .count() as i64
                + 1
        });
        until("streams end", || {
            follower.follow(&gateway);
            follower.connections >= 10
        });
        drop(told);
        pushing.join().unwrap()
    });
    until("the rest is told", || {
        follower.follow(&gateway);
        follower.device.cursor == head
    });
    assert_eq!(follower.seen, (1..=head).collect::<Vec<i64>>());
}

/// One push each round, so that no later hint covers for one that was missed.
fn pushes_that_race_with_connecting_arrive_once(cluster: &Cluster) {
    let Stand { gateway, mut admin, .. } = Stand::trusting(cluster, "connecting");
    let (begin, rounds) = channel();
    let (told, done) = channel();
    thread::scope(|scope| {
        let gateway = &gateway;
        scope.spawn(move || {
            for round in rounds {
                let live = Live::open(gateway, &format!("{TEAM}?cursor={}", round - 1), None);
                assert_eq!(live.event().versions(), [round]);
                told.send(()).unwrap();
            }
        });
        for round in 1..=ROUNDS {
            begin.send(round).unwrap();
            // Sooner or later, compared with what it takes to connect.
            for _ in 0..round % 10 {
                admin.batch_execute("select 1").unwrap();
            }
            push(&mut admin, "team", &[put(round as u64, "a", round as u64)]);
            done.recv().expect("the stream tells");
        }
        drop(begin);
    });
}

fn streams_that_come_and_go_under_pushes_send_each_version_once(cluster: &Cluster) {
    let Stand { gateway, mut admin, .. } = Stand::trusting(cluster, "coming");
    let head = 1_000;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let gateway = &gateway;
                scope.spawn(move || come_and_go(gateway, head, client))
            })
            .collect();
        for id in 1..=head as u64 {
            push(&mut admin, "team", &[put(id, &format!("r{}", id % 7), id)]);
        }
        for client in clients {
            assert_eq!(client.join().unwrap(), (1..=head).collect::<Vec<i64>>());
        }
    });
}

/// Reads some events of a stream, then resumes after the last one.
fn come_and_go(gateway: &Gateway, head: i64, client: usize) -> Vec<i64> {
    let (mut seen, mut last) = (Vec::new(), 0);
    while last < head {
        let live = Live::resume(gateway, TEAM, None, &last.to_string());
        for _ in 0..=client * 3 {
            let event = live.event();
            seen.extend(event.versions());
            last = event.cursor();
            if last == head {
                break;
            }
        }
    }
    seen
}
