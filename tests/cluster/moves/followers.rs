//! Devices that go on while their workspaces change servers: each edits, pushes, pulls and
//! acknowledges at the server that served it last, or else at the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use postgres::{Client, Config, NoTls};
use serde_json::Value;
use sync_ext_harness::device::{Device, Pulled};
use sync_ext_harness::state::{live, of_server};

pub struct Follower {
    pub device: Device,
    next_op: u64,
    /// The versions that were told, by op.
    acknowledged: Vec<(String, i64)>,
}

impl Follower {
    /// With a cursor and a proof.
    pub fn new(server: &mut Client, workspace: &str) -> Follower {
        let mut device = Device::new("follower", workspace);
        device.pull(server, 100, false).unwrap();
        let mut follower = Follower { device, next_op: 1000, acknowledged: Vec::new() };
        follower.go_on(server).unwrap();
        follower
    }

    /// A round of all that a device does.
    fn go_on(&mut self, server: &mut Client) -> anyhow::Result<()> {
        if self.device.outbox.is_empty() {
            self.next_op += 1;
            self.device.put(self.next_op, &format!("r{}", self.next_op % 7));
        }
        let sent = self.device.outbox.iter().map(|op| op.revision.op_id.clone());
        let sent: Vec<String> = sent.collect();
        let ops = self.device.outbox.iter().map(|op| op.json.as_str()).collect::<Vec<_>>();
        let sql = "select sync_push($1, $2::text::json)::text";
        let ops = format!("[{}]", ops.join(","));
        let reply = server.query_one(sql, &[&self.device.workspace, &ops])?;
        self.device.push_answered(&sent, reply.get(0))?;
        let reply: Value = serde_json::from_str(reply.get(0))?;
        let results = reply["results"].as_array().unwrap();
        let versions = results.iter().map(|result| result["serverVersion"].as_i64().unwrap());
        self.acknowledged.extend(sent.into_iter().zip(versions));
        loop {
            match self.device.pull_page(server, 100, false)? {
                Pulled::Page { has_more: true, .. } => {}
                Pulled::Page { .. } => break,
                Pulled::SnapshotRequired { reason } => panic!("sent to a snapshot: {reason}"),
            }
        }
        self.device.acknowledge(server)
    }

    /// All that it was told is there, and it has what the server has.
    pub fn check(&mut self, server: &mut Client) {
        let name = self.device.workspace.clone();
        while !self.device.outbox.is_empty() {
            self.go_on(server).unwrap();
        }
        let (ids, versions): (Vec<String>, Vec<i64>) = self.acknowledged.iter().cloned().unzip();
        let sql = "select count(*) from unnest($1::text[], $2::int8[]) as a (op_id, version)
                     join sync_ext.workspace w on w.workspace_id = $3
                     join sync_ext.change_log l on l.workspace_key = w.workspace_key
                      and l.op_id = a.op_id::uuid and l.server_version = a.version";
        let found: i64 = server.query_one(sql, &[&ids, &versions, &name]).unwrap().get(0);
        assert_eq!(found as usize, ids.len(), "{name}: acknowledged ops that are there");
        self.device.pull(server, 500, false).unwrap();
        let there = live(of_server(server, &name).unwrap());
        assert_eq!(live(self.device.state()), there, "{name}");
    }
}

/// They go on until they are stopped.
pub struct Followers {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(Follower, usize)>>,
}

impl Followers {
    /// A thread for each; all begin at the first server.
    pub fn start(servers: &[Config], followers: Vec<Follower>) -> Followers {
        let is_over = Arc::new(AtomicBool::new(false));
        let threads = followers.into_iter().map(|mut follower| {
            let (is_over, servers) = (is_over.clone(), servers.to_vec());
            thread::spawn(move || {
                let (mut at, mut session, mut rounds) = (0, None, 0);
                while !is_over.load(Ordering::SeqCst) {
                    match round(&mut follower, &mut session, &servers[at]) {
                        Ok(()) => rounds += 1,
                        Err(error) => {
                            require_expected(&error);
                            (at, session) = ((at + 1) % servers.len(), None);
                        }
                    }
                }
                (follower, rounds)
            })
        });
        Followers { threads: threads.collect(), is_over }
    }

    /// Each with the number of its rounds.
    pub fn stop(self) -> Vec<(Follower, usize)> {
        self.is_over.store(true, Ordering::SeqCst);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }
}

fn round(
    follower: &mut Follower,
    session: &mut Option<Client>,
    server: &Config,
) -> anyhow::Result<()> {
    match session {
        Some(session) => follower.go_on(session),
        None => follower.go_on(session.insert(server.connect(NoTls)?)),
    }
}

/// What a device repeats elsewhere: the workspace is not there, or the server takes no writes,
/// or is just being promoted.
fn require_expected(error: &anyhow::Error) {
    let error = error.downcast_ref::<postgres::Error>().unwrap_or_else(|| panic!("{error:?}"));
    let code = error.code().map_or("", |code| code.code());
    let is_expected = ["SX004", "25006", "57P01", "57P03", "40001"].contains(&code);
    assert!(is_expected || error.code().is_none(), "{error:?}");
}
