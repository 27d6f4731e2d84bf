//! Workspaces that move between servers under load, with stale maps, killed movers and
//! crashing servers.
//!
//! Devices push, pull and acknowledge at the server that their copy of the map names, or at
//! any, or through a router or a gateway, whose maps are sometimes old as well; replies are
//! lost. Movers stop between any two calls and are resumed, or cancel; backends are terminated,
//! and killed so that a server recovers. Afterwards there is one copy of each workspace that is
//! served, every acknowledged op is at its version, versions are 1..head, no device was ever
//! sent to a snapshot, and all have what the server has.

mod follower;
mod mover;
pub mod session;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use postgres::Client;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;
use sync_ext_harness::batch::{delete, push, put};
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::router;
use sync_ext_harness::steps::{age, gc};

use crate::common::tally::Tally;
use follower::Follower;
use session::Session;

pub const DATABASE: &str = "moves";
const SERVERS: usize = 3;
const WORKSPACES: [&str; 3] = ["w0", "w1", "w2"];
/// For each workspace.
const DEVICES: usize = 2;

/// Begins a session with a gateway, which is told the map by [`Servers::map_file`].
pub type Gateway<'a> = Option<&'a (dyn Fn() -> Box<dyn Session> + Sync)>;

pub struct Servers {
    pub clusters: Vec<Cluster>,
    /// Where there is PL/Proxy.
    router: Option<Cluster>,
    /// Where each workspace is.
    map: Mutex<BTreeMap<String, usize>>,
    next_move: AtomicU64,
    is_over: AtomicBool,
}

/// Servers with keys of their own, and workspaces with graves at the first.
pub fn start(name: &str) -> Result<Servers> {
    let clusters = (0..SERVERS).map(|number| Cluster::start(&format!("{name}-{number}"), &[]));
    let clusters = clusters.collect::<Result<Vec<_>>>()?;
    for (number, cluster) in clusters.iter().enumerate() {
        let mut admin = cluster.create_database(DATABASE)?;
        admin.batch_execute("select sync_register_table('notes', patches => true)")?;
        admin.execute("select sync_set_key_range($1)", &[&(number as i32)])?;
        let own = "select sync_own_buckets(array(select b from generate_series(0, 1023) b
          where $1 or b not in (select sync_ext.bucket_of(w) from unnest($2::text[]) w)))";
        admin.execute(own, &[&(number == 0), &&WORKSPACES[..]])?;
    }
    let mut admin = clusters[0].connect(DATABASE)?;
    for workspace in WORKSPACES {
        for pk in 0..20 {
            let (id, pk) = (pk * 2 + 1, &format!("grave{pk}"));
            push(&mut admin, workspace, &[put(id, pk, 1), delete(id + 1, pk, 2)]);
        }
        age(&mut admin);
        // Young: GC would rightly send a device to a snapshot that has its proof of an old one.
        push(&mut admin, workspace, &[put(0, "young", 1)]);
        ensure!(gc(&mut admin, workspace)["tombstonesDeleted"] == 20, "graves");
    }
    let map = WORKSPACES.iter().map(|workspace| (workspace.to_string(), 0)).collect();
    let router = start_router(&format!("{name}-router"), &clusters)?;
    Ok(Servers {
        clusters,
        router,
        map: Mutex::new(map),
        next_move: AtomicU64::new(1),
        is_over: AtomicBool::new(false),
    })
}

fn start_router(name: &str, shards: &[Cluster]) -> Result<Option<Cluster>> {
    let cluster = Cluster::start(name, &["statement_timeout=5s"])?;
    if !router::is_possible(&cluster)? {
        return Ok(None);
    }
    cluster.connect("postgres")?.batch_execute(&format!("create database {DATABASE}"))?;
    router::install(&cluster, DATABASE)?;
    let addresses: Vec<String> = shards.iter().map(|shard| shard.address(DATABASE)).collect();
    let mut admin = cluster.connect(DATABASE)?;
    for server in ["sync", "sync_reads"] {
        admin.batch_execute(&router::foreign_server(server, &addresses))?;
    }
    admin.batch_execute(
        "insert into sync_router.bucket select b, 0 from generate_series(0, 1023) as b",
    )?;
    Ok(Some(cluster))
}

impl Servers {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    fn home(&self, workspace: &str) -> usize {
        self.map.lock().expect("nobody panics with it")[workspace]
    }

    fn set_home(&self, workspace: &str, server: usize) {
        self.map.lock().expect("nobody panics with it").insert(workspace.to_owned(), server);
    }

    /// A session with the router.
    fn connect_to_router(&self) -> Result<Option<Client>> {
        self.router.as_ref().map(|router| router.connect(DATABASE)).transpose().map_err(Into::into)
    }

    /// Of the last time that it was told, as a gateway reads it.
    pub fn map_file(&self) -> PathBuf {
        self.clusters[0].data_dir().with_extension("map")
    }

    /// Gives the router and the gateway the map as it is.
    pub fn tell_map(&self) -> Result<()> {
        let map = self.map.lock().expect("nobody panics with it").clone();
        let placed: BTreeMap<_, _> = map.iter().map(|(id, server)| (id, name(*server))).collect();
        let document = json!({"buckets": {name(0): "0-1023"}, "placed": placed});
        let file = self.map_file();
        let new = file.with_extension("new");
        fs::write(&new, document.to_string())?;
        fs::rename(new, file)?;
        let Some(mut router) = self.connect_to_router()? else { return Ok(()) };
        let place = "insert into sync_router.placed values ($1, $2)
                     on conflict (workspace_id) do update set shard = excluded.shard";
        for (workspace, server) in map {
            router.execute(place, &[&workspace, &(server as i32)])?;
        }
        Ok(())
    }

    /// `None` while it recovers.
    fn connect(&self, server: usize) -> Result<Option<Client>> {
        match self.clusters[server].connect(DATABASE) {
            Ok(client) => Ok(Some(client)),
            Err(error) if is_cut(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The server, or the connection, was killed.
fn is_cut(error: &postgres::Error) -> bool {
    let state = error.code().map_or("00000", |state| state.code());
    // A router tells of its connections as class 08, and times out.
    error.is_closed() || error.code().is_none() || ["57", "08"].contains(&&state[..2])
}

/// The name of a server.
pub fn name(server: usize) -> String {
    format!("s{server}")
}

/// What may end any call: `Elsewhere`, or a kill. Everything else is a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Elsewhere,
    Cut,
}

impl Error for Ended {}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// How a call ended, if its error may be.
fn ended(error: anyhow::Error) -> Result<Ended> {
    if let Some(ended) = error.downcast_ref() {
        return Ok(*ended);
    }
    match error.downcast_ref::<postgres::Error>() {
        Some(error) if is_cut(error) => Ok(Ended::Cut),
        Some(error) if error.code().is_some_and(|state| state.code() == "SX004") => {
            Ok(Ended::Elsewhere)
        }
        _ => Err(error),
    }
}

pub fn run(servers: &Servers, seed: u64, time: Duration, gateway: Gateway<'_>) -> Result<Tally> {
    let mut random = StdRng::seed_from_u64(seed);
    let followers = WORKSPACES.iter().flat_map(|workspace| {
        (0..DEVICES).map(|number| Follower::new(servers, workspace, number, seed))
    });
    let mut followers = followers.collect::<Result<Vec<_>>>()?;
    servers.is_over.store(false, Ordering::SeqCst);
    let seeds: [u64; 2] = random.random();
    let mut tally = Tally::default();
    let tallies: Vec<Result<Tally>> = thread::scope(|scope| {
        let followers =
            followers.iter_mut().map(|one| scope.spawn(move || one.run(servers, gateway)));
        let mut sessions: Vec<_> = followers.collect();
        for (place, seed) in seeds.into_iter().enumerate() {
            // Each has workspaces of its own.
            let own = WORKSPACES.iter().skip(place).step_by(seeds.len());
            let own: Vec<&str> = own.copied().collect();
            sessions.push(scope.spawn(move || mover::run(servers, &own, seed)));
        }
        let disturbed = disturb(servers, time, &mut random);
        servers.is_over.store(true, Ordering::SeqCst);
        let panicked = |_| bail!("a session panicked");
        let joined = sessions.into_iter().map(|session| session.join().unwrap_or_else(panicked));
        joined.chain([disturbed]).collect()
    });
    for session in tallies {
        tally.join(&session.with_context(|| format!("seed {seed}"))?);
    }
    check(servers, &mut followers, &mut tally).with_context(|| format!("seed {seed}"))?;
    Ok(tally)
}

/// Collects, terminates backends, and kills some, so that their server recovers.
fn disturb(servers: &Servers, time: Duration, random: &mut StdRng) -> Result<Tally> {
    const OTHERS: &str = "from pg_stat_activity where datname = current_database()
      and pid <> pg_backend_pid() and state <> 'idle' order by random() limit 1";
    let (mut tally, begun) = (Tally::default(), Instant::now());
    while begun.elapsed() < time {
        thread::sleep(Duration::from_millis(random.random_range(5..50)));
        if random.random_bool(0.3) {
            servers.tell_map()?;
        }
        let server = random.random_range(0..SERVERS);
        let Some(mut admin) = servers.connect(server)? else { continue };
        let done = match random.random_range(0..20) {
            0 => admin.query_opt(&format!("select pid {OTHERS}"), &[]).map(|row| {
                if let Some(row) = row {
                    servers.clusters[server].kill_backend(row.get(0));
                    tally.add("servers crashed", 1);
                }
            }),
            1..8 => admin
                .query_opt(&format!("select pg_terminate_backend(pid) {OTHERS}"), &[])
                .map(|row| tally.add("backends terminated", row.is_some().into())),
            _ => admin.batch_execute("select sync_gc()").map(|()| tally.add("collections", 1)),
        };
        if let Err(error) = done {
            ended(error.into())?;
        }
    }
    Ok(tally)
}

fn check(servers: &Servers, followers: &mut [Follower], tally: &mut Tally) -> Result<()> {
    for cluster in &servers.clusters {
        cluster.until_ready()?;
    }
    for workspace in WORKSPACES {
        let mut served = Vec::new();
        for (number, cluster) in servers.clusters.iter().enumerate() {
            let mut client = cluster.connect(DATABASE)?;
            let here = "select from sync_ext.workspace where workspace_id = $1 and away is null";
            if !client.query(here, &[&workspace])?.is_empty() {
                served.push(number);
            }
        }
        ensure!(served == [servers.home(workspace)], "{workspace} is served by {served:?}");
        let mut client = servers.clusters[served[0]].connect(DATABASE)?;
        let row = client.query_one(
            "select w.head, count(*), min(server_version), max(server_version), count(distinct op_id)
               from sync_ext.workspace w join sync_ext.change_log using (workspace_key)
              where workspace_id = $1 group by w.head",
            &[&workspace],
        )?;
        let (head, count, first): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let (last, ops): (i64, i64) = (row.get(3), row.get(4));
        ensure!(
            (last, ops) == (head, count) && count == head - first + 1,
            "not contiguous to the head: {row:?}"
        );
    }
    for follower in followers {
        let home = servers.home(follower.workspace());
        let mut client = servers.clusters[home].connect(DATABASE)?;
        tally.add("acknowledged ops found", follower.check(&mut client)?);
        tally.add("devices equal to the server", 1);
    }
    Ok(())
}

/// A server, mostly the right one.
fn choose(random: &mut StdRng, known: usize) -> usize {
    let any: Vec<usize> = (0..SERVERS).collect();
    if random.random_bool(0.15) { *any.choose(random).unwrap_or(&known) } else { known }
}
