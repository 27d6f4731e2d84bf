//! No hint is lost, whoever is killed.

use std::time::{Duration, Instant};

use fallible_iterator::FallibleIterator;
use postgres::Client;
use sync_ext_harness::batch::put;
use sync_ext_harness::cluster::{Cluster, Stop};

use super::hints::{App, DEADLINE, Hint, WORKER, hint, pid};

/// Listens, and after each interruption listens again: then, as after a hint of all, what
/// was committed before is known.
struct Listener {
    client: Option<Client>,
    /// The latest head that was told of each workspace.
    heads: [i64; WORKSPACES.len()],
    /// When everything was last told, or found out.
    all_at: Instant,
}

const WORKSPACES: [&str; 3] = ["a", "b", "c"];

impl Listener {
    fn hear(&mut self, cluster: &Cluster, time: Duration) {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => {
                let Ok(mut client) = cluster.connect("app") else { return };
                if client.batch_execute("listen sync_ext").is_err() {
                    return;
                }
                self.all_at = Instant::now();
                client
            }
        };
        loop {
            let told = client.notifications().timeout_iter(time).next();
            match told.map(|told| told.map(|told| hint(told.payload()))) {
                Ok(None) => break,
                Ok(Some(Hint::All)) => self.all_at = Instant::now(),
                Ok(Some(Hint::Of(workspace, head))) => {
                    // That of the push that called for the first worker may come as late as this.
                    if let Some(place) = WORKSPACES.iter().position(|name| *name == workspace) {
                        self.heads[place] = head.max(self.heads[place]);
                    }
                }
                Err(_) => return,
            }
        }
        self.client = Some(client);
    }
}

/// What was acknowledged is hinted at, whoever is killed.
#[test]
fn every_acknowledged_commit_is_hinted_at() {
    let App { mut cluster, admin, listener } = App::start("hints-killed", &[]);
    drop((admin, listener));
    let mut heard = Listener { client: None, heads: [0; WORKSPACES.len()], all_at: Instant::now() };
    let (mut told_by_worker, mut acknowledged) = (0, 0);
    for round in 0..40_u64 {
        let mut waits: Vec<(usize, i64, Instant)> = Vec::new();
        heard.hear(&cluster, Duration::ZERO);
        for n in 0..10_u64 {
            let place = (round + n) as usize % WORKSPACES.len();
            let begun = Instant::now();
            let id = 1_000 + round * 10 + n;
            let sql = format!(
                "select sync_push('{}', '[{}]'::json) -> 'results' -> 0 ->> 'serverVersion'",
                WORKSPACES[place],
                put(id, "a", id)
            );
            let pushed = cluster.connect("app").and_then(|mut pusher| pusher.query_one(&sql, &[]));
            if let Ok(row) = pushed {
                let version: &str = row.get(0);
                waits.push((place, version.parse().unwrap(), begun));
                acknowledged += 1;
            }
            if n == round % 10 {
                kill(&mut cluster, round);
            }
        }
        let deadline = Instant::now() + DEADLINE;
        loop {
            told_by_worker += waits.len();
            waits.retain(|(place, version, _)| heard.heads[*place] < *version);
            told_by_worker -= waits.len();
            waits.retain(|(.., begun)| heard.all_at < *begun);
            if waits.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "round {round}: {waits:?} {}", cluster.log());
            heard.hear(&cluster, Duration::from_millis(20));
        }
    }
    println!("{acknowledged} acknowledged, {told_by_worker} of them told by their head");
    assert!(acknowledged > 200 && told_by_worker > 100);
}

fn kill(cluster: &mut Cluster, round: u64) {
    let end = |backend: &str| {
        let sql = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = '{backend}'"
        );
        if let Ok(mut admin) = cluster.connect("postgres") {
            let _ = admin.batch_execute(&sql);
        }
    };
    match round % 8 {
        0 | 4 => end("sync_ext notifier"),
        2 => end("sync_ext launcher"),
        3 => {
            let mut admin = cluster.connect("app").unwrap();
            if let Some(worker) = admin.query_one(WORKER, &[]).unwrap().get(0) {
                cluster.kill_backend(worker);
            }
            cluster.until_ready().unwrap();
        }
        5 => {
            let mut victim = cluster.connect("app").unwrap();
            cluster.kill_backend(pid(&mut victim));
            cluster.until_ready().unwrap();
        }
        7 => {
            cluster.stop_server(Stop::Immediately).unwrap();
            cluster.start_server().unwrap();
        }
        _ => {}
    }
}
