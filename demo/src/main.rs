//! The main job on real input: devices push a real op log into a throw-away
//! cluster, others catch up, the log is collected, and all must agree.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use postgres::Client;
use sync_ext_cluster::cluster::Cluster;
use sync_ext_cluster::device::{Answered, Device, call};
use sync_ext_cluster::state::{digest, of_server};
use sync_ext_demo::oplog;

const WORKSPACE: &str = "pgrx";
const SEED: u64 = 20_260_101;

/// Where Ctrl-C finds the cluster to stop and remove.
static CLUSTER: Mutex<Option<Cluster>> = Mutex::new(None);

/// What fails from now on fails because its cluster is going.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if INTERRUPTED.load(Ordering::SeqCst) => loop {
            // The handler ends the process when the cluster is gone.
            std::thread::park();
        },
        Err(error) => {
            eprintln!("demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    ctrlc::set_handler(|| {
        INTERRUPTED.store(true, Ordering::SeqCst);
        // Whoever holds the lock is starting or stopping the cluster already.
        if let Ok(mut cluster) = CLUSTER.lock() {
            drop(cluster.take());
        }
        std::process::exit(130);
    })?;
    println!("starting a throw-away cluster");
    let mut connect = start_cluster()?;
    let result = replay(&mut connect);
    if let Ok(mut cluster) = CLUSTER.lock() {
        drop(cluster.take());
    }
    result
}

/// Starts the cluster; gives a way to connect to its database.
fn start_cluster() -> Result<impl FnMut() -> Result<Client>> {
    let mut held = CLUSTER.lock().expect("no other thread has failed with the lock");
    let cluster = Cluster::start("demo", &["max_connections=200"])?;
    drop(cluster.create_database("demo")?);
    *held = Some(cluster);
    Ok(|| {
        let held = CLUSTER.lock().expect("no other thread has failed with the lock");
        let cluster = held.as_ref().context("interrupted")?;
        Ok(cluster.connect("demo")?)
    })
}

/// A device and its connection.
struct Peer {
    device: Device,
    client: Client,
}

impl Peer {
    fn new(id: &str, connect: &mut impl FnMut() -> Result<Client>) -> Result<Peer> {
        Ok(Peer { device: Device::new(id, WORKSPACE), client: connect()? })
    }

    fn push(&mut self) -> Result<Answered> {
        self.device.push(&mut self.client)
    }

    fn pull(&mut self, latest: bool) -> Result<usize> {
        self.device.pull(&mut self.client, 1000, latest)
    }
}

fn replay(connect: &mut impl FnMut() -> Result<Client>) -> Result<()> {
    let mut pushes = oplog::read()?;
    oplog::shuffle_neighbours(&mut pushes, SEED);
    let mut admin = connect()?;
    admin.batch_execute("select sync_register_table('files'), sync_register_table('commits')")?;

    let mut report = Report::default();
    let mut peers: BTreeMap<String, Peer> = BTreeMap::new();
    push_all(pushes, &mut peers, connect, &mut report)?;
    converge(&mut peers)?;

    let mut puller = Peer::new("fresh-by-pull", connect)?;
    let mut lister = Peer::new("fresh-by-snapshot", connect)?;
    puller.pull(false)?;
    lister.device.snapshot(&mut lister.client, 500)?;
    lister.pull(false)?;
    report.by_pull = digest(puller.device.state())?;
    report.by_snapshot = digest(lister.device.state())?;

    for peer in peers.values_mut().chain([&mut puller, &mut lister]) {
        peer.device.acknowledge(&mut peer.client)?;
    }
    report.log_before = count(&mut admin, "select count(*) from sync_ext.change_log")?;
    collect(&mut admin)?;
    report.log_after = count(&mut admin, "select count(*) from sync_ext.change_log")?;

    report.head = count(&mut admin, "select head from sync_ext.workspace")?;
    report.live = count(&mut admin, "select count(*) from sync_ext.record where not deleted")?;
    report.deleted = count(&mut admin, "select count(*) from sync_ext.record where deleted")?;
    report.by_server = digest(of_server(&mut admin, WORKSPACE)?)?;
    report.devices = peers.len();
    report.print();
    report.check()
}

/// Every push of the log through its device's own connection, every tenth
/// twice, as if its answer had been lost.
fn push_all(
    pushes: Vec<oplog::Push>,
    peers: &mut BTreeMap<String, Peer>,
    connect: &mut impl FnMut() -> Result<Client>,
    report: &mut Report,
) -> Result<()> {
    let bar = progress_bar(pushes.len(), "pushes");
    for (number, push) in pushes.into_iter().enumerate() {
        if !peers.contains_key(&push.device_id) {
            peers.insert(push.device_id.clone(), Peer::new(&push.device_id, connect)?);
        }
        let Some(peer) = peers.get_mut(&push.device_id) else { continue };
        peer.device.outbox.extend(push.ops);
        let unanswered = peer.device.outbox.clone();
        let begun = Instant::now();
        let answered = peer.push()?;
        report.time += begun.elapsed();
        report.count(answered);
        if number % 10 == 9 {
            peer.device.outbox = unanswered;
            let answered = peer.push()?;
            ensure!(answered.applied + answered.lost + answered.refused == 0, "not a replay");
            report.count(answered);
        }
        if number % 100 == 99 {
            peer.pull(true)?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Every device pulls until its outbox is empty: the server has all it made.
fn converge(peers: &mut BTreeMap<String, Peer>) -> Result<()> {
    let bar = progress_bar(peers.len(), "devices pull");
    for peer in peers.values_mut() {
        peer.pull(true)?;
        let (id, left) = (&peer.device.id, peer.device.outbox.len());
        ensure!(left == 0, "{id} has {left} ops that the server does not");
        let state = digest(peer.device.state())?;
        ensure!(state == oplog::STATE_SHA256, "{id} has another state: {state}");
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Lets 31 days pass for the log, then collects it.
fn collect(admin: &mut Client) -> Result<()> {
    admin.batch_execute(
        "update sync_ext.change_log set created_at = created_at - interval '31 days'",
    )?;
    while call(admin, "select (sync_gc() ->> 'hasMore')", &[])? == "true" {}
    Ok(())
}

fn count(client: &mut Client, sql: &str) -> Result<i64> {
    Ok(client.query_one(sql, &[])?.get(0))
}

fn progress_bar(length: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:14} [{bar:40}] {pos}/{len}  {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    ProgressBar::new(length as u64).with_style(style).with_message(what)
}

#[derive(Default)]
struct Report {
    pushes: usize,
    answered: Answered,
    time: Duration,
    devices: usize,
    head: i64,
    live: i64,
    deleted: i64,
    log_before: i64,
    log_after: i64,
    by_server: String,
    by_pull: String,
    by_snapshot: String,
}

impl Report {
    fn count(&mut self, answered: Answered) {
        self.pushes += 1;
        self.answered.applied += answered.applied;
        self.answered.lost += answered.lost;
        self.answered.replayed += answered.replayed;
        self.answered.refused += answered.refused;
    }

    fn print(&self) {
        let ops = self.answered.applied + self.answered.lost;
        let rate = ops as f64 / self.time.as_secs_f64();
        println!("devices            {:>8}", self.devices);
        println!("pushes             {:>8}", self.pushes);
        println!("ops                {:>8}", ops);
        println!("  replays          {:>8}", self.answered.replayed);
        println!("  conflicts lost   {:>8}", self.answered.lost);
        println!("  refused          {:>8}", self.answered.refused);
        println!("head               {:>8}", self.head);
        println!("records live       {:>8}", self.live);
        println!("records deleted    {:>8}", self.deleted);
        println!("log rows before GC {:>8}", self.log_before);
        println!("log rows after GC  {:>8}", self.log_after);
        println!("ops/s pushed       {rate:>8.0}");
        println!("state sha256");
        println!("  server           {}", self.by_server);
        println!("  device by pull   {}", self.by_pull);
        println!("  device by snap.  {}", self.by_snapshot);
        println!("  known            {}", oplog::STATE_SHA256);
    }

    fn check(&self) -> Result<()> {
        for state in [&self.by_server, &self.by_pull, &self.by_snapshot] {
            ensure!(state == oplog::STATE_SHA256, "the states differ");
        }
        let ops = (self.answered.applied + self.answered.lost) as i64;
        ensure!(self.head == ops, "the head is {} after {ops} ops", self.head);
        println!("all equal");
        Ok(())
    }
}
