//! Connections: those that ask slowly or not at all, and more of them than the gateway
//! takes at once.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit};
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::cluster::Cluster;

use crate::support::process::{Door, Gateway, PATIENCE};
use crate::support::stand::{SERVER, Stand, until_a_push_waits};
use crate::support::stream::{Live, Said};

const TEAM: &str = "/workspaces/team/live";

#[test]
fn connections_are_bounded() {
    let cluster = Cluster::start("gateway-connections", &SERVER).unwrap();
    half_sent_requests_block_nobody_for_long(&cluster);
    half_sent_requests_leave_alone_what_is_there(&cluster);
    more_than_the_most_wait_for_a_place(&cluster);
    running_out_of_files_passes(&cluster);
}

fn connect(door: &Door) -> TcpStream {
    let stream = TcpStream::connect(door.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends the beginning of a request on more connections than the process may have
/// files.
fn half_send(door: &Door) -> Vec<TcpStream> {
    let half_sent = |_| {
        let mut client = connect(door);
        client.write_all(b"GET /health HTTP/1.1\r\nhost: gate").unwrap();
        client
    };
    (0..150).map(half_sent).collect()
}

fn with_few_files(stand: &Stand, header_timeout: &str) -> Gateway {
    let settings = [
        ("GATEWAY_TRUSTED", "on"),
        ("GATEWAY_POOL_SIZE", "2"),
        ("GATEWAY_HEADER_TIMEOUT", header_timeout),
    ];
    Gateway::start_with_files(&stand.url(), &settings, 100)
}

fn half_sent_requests_block_nobody_for_long(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "half_sent");
    let gateway = with_few_files(&stand, "0.5");
    let half_sent = half_send(&gateway);
    let live = Live::open(&gateway, TEAM, None);
    push(&mut stand.admin, "team", &[put(1, "a", 1)]);
    assert_eq!(live.event().versions(), [1]);
    for mut client in half_sent {
        let mut answer = Vec::new();
        // Closed without an answer; reset, if there is something that was not read.
        match client.read_to_end(&mut answer) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            read => assert_eq!(read.unwrap(), 0, "{answer:?}"),
        }
        assert!(answer.is_empty(), "{answer:?}");
    }
}

/// Also if that takes one more connection to the database.
fn half_sent_requests_leave_alone_what_is_there(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "there");
    let gateway = with_few_files(&stand, "600");
    let live = Live::open(&gateway, "/workspaces/other/live", None);
    let mut session = stand.session();
    let mut transaction = session.transaction().unwrap();
    push(&mut transaction, "team", &[put(1, "a", 1)]);
    let _half_sent = half_send(&gateway);
    // One that is idle would have given its place up.
    let mut asked = connect(&gateway);
    let body = format!("[{}]", put(2, "b", 1));
    let length = body.len();
    write!(
        asked,
        "POST /workspaces/team/push HTTP/1.1\r\nhost: gateway\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    until_a_push_waits(&mut stand.admin);
    push(&mut stand.admin, "other", &[put(1, "a", 1)]);
    assert_eq!(live.event().versions(), [1]);
    transaction.commit().unwrap();
    let mut answer = [0; 12];
    asked.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

fn more_than_the_most_wait_for_a_place(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "places");
    let settings = [("GATEWAY_TRUSTED", "on"), ("GATEWAY_MAX_CONNECTIONS", "2")];
    let gateway = Gateway::spawn(&stand.url(), "127.0.0.1:0", &settings);
    let [first, second] = [0, 1].map(|_| Live::open(&gateway, TEAM, None));
    let mut third = connect(&gateway);
    write!(third, "GET {TEAM} HTTP/1.1\r\nhost: gateway\r\n\r\n").unwrap();
    third.set_nonblocking(true).unwrap();
    let mut answer = [0; 12];
    for id in 1..=20 {
        push(&mut stand.admin, "team", &[put(id, "a", id)]);
        for live in [&first, &second] {
            assert_eq!(live.event().versions(), [id as i64]);
        }
        let read = third.read(&mut answer).map_err(|error| error.kind());
        assert_eq!(read, Err(ErrorKind::WouldBlock));
    }
    third.set_nonblocking(false).unwrap();
    drop(first);
    push(&mut stand.admin, "team", &[put(21, "a", 21)]);
    third.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    assert_eq!(second.event().versions(), [21]);
}

/// As when something else in the process has used them up.
fn running_out_of_files_passes(cluster: &Cluster) {
    let settings = [("GATEWAY_TRUSTED", "on"), ("GATEWAY_HEARTBEAT", "0.05")];
    let stand = Stand::new(cluster, "files", &settings);
    let gateway = &stand.gateway;
    let live = Live::open(gateway, TEAM, None);
    let no_files = Files::limit(gateway, 3);
    let mut waiting = connect(gateway);
    write!(waiting, "GET /health HTTP/1.1\r\nhost: gateway\r\n\r\n").unwrap();
    let (begin, used) = (Instant::now(), cpu_ticks(gateway));
    for _ in 0..20 {
        assert_eq!(live.said(), Said::Comment("heartbeat".into()));
    }
    let (ticks, elapsed) = (cpu_ticks(gateway) - used, begin.elapsed());
    // Ticks are hundredths of a second.
    let share = ticks as f64 / 100.0 / elapsed.as_secs_f64();
    assert!(share < 0.5, "it used {ticks} ticks in {elapsed:?}");
    drop(no_files);
    let mut answer = [0; 12];
    waiting.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// Lets a process open no more files than that, until this is dropped.
struct Files<'g>(&'g Gateway);

impl<'g> Files<'g> {
    fn limit(gateway: &'g Gateway, files: u64) -> Files<'g> {
        set_limit(gateway, files);
        Files(gateway)
    }
}

impl Drop for Files<'_> {
    fn drop(&mut self) {
        // The gateway has inherited ours.
        let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        set_limit(self.0, files);
    }
}

fn set_limit(gateway: &Gateway, files: u64) {
    let options = [format!("--pid={}", gateway.pid()), format!("--nofile={files}:")];
    assert!(Command::new("prlimit").args(options).status().unwrap().success());
}

/// What the process has computed, in user and in kernel mode.
fn cpu_ticks(gateway: &Gateway) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
    // After the program's name, which may have spaces.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
