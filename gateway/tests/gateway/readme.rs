//! The client of a stream that the README shows, run by Node as it is written there.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};
use sync_ext_harness::batch::{delete, push, put};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::steps::{age, gc};

use crate::support::process::{Door, PATIENCE};
use crate::support::stand::{SERVER, Stand};

/// Nobody serves there.
const NOWHERE: &str = "http://127.0.0.1:1";

#[test]
fn the_readmes_client_of_a_stream_keeps_up() {
    let cluster = Cluster::start("gateway-readme", &SERVER).unwrap();
    it_follows_a_server_that_lost_history(&cluster);
    it_forgets_the_snapshot_of_a_standby_that_lags(&cluster);
    it_finishes_a_snapshot_before_it_opens_a_stream(&cluster);
}

struct Client {
    node: Child,
    said: Receiver<Value>,
}

impl Client {
    /// Starts with nothing but a cursor.
    fn start(gateway: &Door, snapshots: &[&str], cursor: i64) -> Client {
        let folder = env!("CARGO_MANIFEST_DIR");
        let stored = json!({
            "cursor": cursor, "proof": null, "snapshotBegun": false, "historyLost": false
        });
        let options = json!({"gateway": gateway.url, "snapshots": snapshots, "stored": stored});
        let mut node = Command::new("node")
            .arg(format!("{folder}/tests/support/readme.js"))
            .arg(format!("{folder}/README.md"))
            .arg(options.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("no Node: run scripts/setup.sh tests");
        let lines = BufReader::new(node.stdout.take().unwrap()).lines();
        let (sender, said) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    break;
                }
            }
        });
        Client { node, said }
    }

    fn said(&self) -> Value {
        self.said.recv_timeout(PATIENCE).expect("the client goes on")
    }

    /// What it does next besides opening streams.
    fn done(&self) -> Value {
        std::iter::repeat_with(|| self.said()).find(|said| said["open"].is_null()).unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.node.kill();
        let _ = self.node.wait();
    }
}

fn begun(history_lost: bool) -> Value {
    json!({"store": {"snapshotBegun": true, "historyLost": history_lost}})
}

/// The snapshot lies below the cursor for good.
fn it_follows_a_server_that_lost_history(cluster: &Cluster) {
    let mut before = Stand::trusting(cluster, "before_loss");
    push(&mut before.admin, "team", &[put(1, "a", 1), put(2, "b", 1), put(3, "c", 1)]);
    let client = Client::start(&before.gateway, &[&before.gateway.url], 0);
    assert_eq!(client.said(), json!({"open": 0}));
    assert_eq!(client.said(), json!({"apply": 3, "records": ["a", "b", "c"]}));

    let mut after = Stand::trusting(cluster, "after_loss");
    push(&mut after.admin, "team", &[put(1, "a", 1), put(4, "d", 1)]);
    let _gateway = before.gateway.start_again(&after.url(), &[("GATEWAY_TRUSTED", "on")]);
    assert_eq!(client.done(), begun(true));
    assert_eq!(client.done(), json!({"replace": 2, "records": ["a", "d"]}));
    push(&mut after.admin, "team", &[put(5, "e", 1)]);
    assert_eq!(client.done(), json!({"apply": 3, "records": ["a", "d", "e"]}));
}

/// And takes that of the primary later.
fn it_forgets_the_snapshot_of_a_standby_that_lags(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "expired_cursor");
    let ops = [put(1, "a", 1), put(2, "b", 1), delete(3, "a", 2), put(4, "c", 1)];
    push(&mut stand.admin, "team", &ops);
    age(&mut stand.admin);
    gc(&mut stand.admin, "team");
    let mut standby = Stand::trusting(cluster, "lagging");
    push(&mut standby.admin, "team", &ops[..1]);

    let snapshots = [&*standby.gateway.url, &*stand.gateway.url];
    let client = Client::start(&stand.gateway, &snapshots, 2);
    for said in [
        json!({"open": 2}),
        begun(false),
        json!({"store": {"snapshotBegun": false}}),
        json!({"open": 2}),
        begun(false),
        json!({"replace": 4, "records": ["b", "c"]}),
        json!({"open": 4}),
    ] {
        assert_eq!(client.said(), said);
    }
}

fn it_finishes_a_snapshot_before_it_opens_a_stream(cluster: &Cluster) {
    let mut stand = Stand::trusting(cluster, "interrupted");
    push(&mut stand.admin, "team", &[put(1, "a", 1)]);
    let client = Client::start(&stand.gateway, &[NOWHERE, &stand.gateway.url], 9);
    for said in [
        json!({"open": 9}),
        begun(true),
        begun(true),
        json!({"replace": 1, "records": ["a"]}),
        json!({"open": 1}),
    ] {
        assert_eq!(client.said(), said);
    }
}
