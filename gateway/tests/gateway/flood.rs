//! More connections than the gateway takes at once, none of which sends a whole request:
//! they keep nobody out, and end nothing that is at work.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::cluster::Cluster;

use crate::support::process::{Door, PATIENCE};
use crate::support::stand::{SERVER, Stand, until_a_push_waits};
use crate::support::stream::Live;

const TEAM: &str = "/workspaces/team/live";
const FLOOD: usize = 1_100;
const HALF_A_HEADER: &str = "GET /health HTTP/1.1\r\nhost: gate";
const HALF_A_BODY: &str = "POST /workspaces/team/push HTTP/1.1\r\nhost: gateway\r\n\
                           content-type: application/json\r\ncontent-length: 100\r\n\r\n[";
const WHOLE: &str = "GET /nowhere HTTP/1.1\r\nhost: gateway\r\n\r\n";

#[test]
fn floods_keep_nobody_out() {
    // Ours, too, are more than a process usually has.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(20_000), hard).unwrap();
    let cluster = Cluster::start("gateway-flood", &SERVER).unwrap();
    for (database, sent) in [
        ("flood_nothing", ""),
        ("flood_headers", HALF_A_HEADER),
        ("flood_bodies", HALF_A_BODY),
        ("flood_idle", WHOLE),
    ] {
        a_flood_keeps_nobody_out(&cluster, database, sent);
    }
    what_is_at_work_keeps_its_place(&cluster);
}

/// No timeout helps within the test.
const SETTINGS: [(&str, &str); 3] =
    [("GATEWAY_TRUSTED", "on"), ("GATEWAY_HEADER_TIMEOUT", "600"), ("GATEWAY_BODY_TIMEOUT", "600")];

fn flood(door: &Door, sent: &str, count: usize) -> Vec<TcpStream> {
    let connection = |_| {
        let mut stream = TcpStream::connect(door.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Those before may have been closed for this one, and this for the next.
        let _ = stream.write_all(sent.as_bytes());
        if sent == WHOLE {
            let read = stream.read(&mut [0; 12]).map_err(|error| error.kind());
            assert_ne!(read, Err(ErrorKind::WouldBlock), "it is answered or closed");
        }
        stream
    };
    (0..count).map(connection).collect()
}

fn a_flood_keeps_nobody_out(cluster: &Cluster, database: &str, sent: &str) {
    let mut stand = Stand::new(cluster, database, &SETTINGS);
    let before = Live::open(&stand.gateway, TEAM, None);
    let _flood = flood(&stand.gateway, sent, FLOOD);
    // Nor does one that goes on meanwhile.
    for id in 1..=3 {
        let live = Live::open(&stand.gateway, &format!("{TEAM}?cursor={}", id - 1), None);
        push(&mut stand.admin, "team", &[put(id, "a", id)]);
        assert_eq!(live.event().versions(), [id as i64]);
        assert_eq!(before.event().versions(), [id as i64]);
        let _more = flood(&stand.gateway, sent, 100);
    }
}

fn what_is_at_work_keeps_its_place(cluster: &Cluster) {
    let settings = [&SETTINGS[..], &[("GATEWAY_MAX_CONNECTIONS", "20")]].concat();
    let mut stand = Stand::new(cluster, "flood_work", &settings);
    let lives: Vec<Live> = (0..5).map(|_| Live::open(&stand.gateway, TEAM, None)).collect();
    let mut session = stand.session();
    let mut transaction = session.transaction().unwrap();
    push(&mut transaction, "team", &[put(1, "a", 1)]);
    thread::scope(|scope| {
        let (door, body) = (&*stand.gateway, format!("[{}]", put(2, "b", 1)));
        let asked = scope.spawn(move || door.post("/workspaces/team/push", None, &body));
        until_a_push_waits(&mut stand.admin);
        let _flood = flood(door, HALF_A_HEADER, 100);
        transaction.commit().unwrap();
        assert_eq!(asked.join().unwrap().status, 200);
    });
    for live in lives {
        assert_eq!(live.versions_until(2), [1, 2]);
    }
}
