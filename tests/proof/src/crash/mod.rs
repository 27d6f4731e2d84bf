//! SIGKILL while sessions push as fast as they can, with fsync on: to a backend,
//! which makes the postmaster throw out all others, or to the postmaster.
//!
//! After each round, and recovery: every acknowledged op has the version
//! of its reply, versions are 1..head, what was not acknowledged is there as a whole or
//! not at all, and tables and indexes are sound. What was not acknowledged is
//! sent again by the next round. Beside the pushers, in a workspace of their
//! own, devices edit, push, pull and acknowledge while GC runs; what they hold
//! at the end must be what the server holds.

mod peer;
mod pusher;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};
use postgres::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sync_ext_harness::cluster::{Cluster, Stop};
use sync_ext_harness::soundness;

use crate::common::tally::Tally;
use peer::{Peer, check_peers, collect};
use pusher::{Pusher, check_round};

const DATABASE: &str = "crash";
const PUSHERS: u64 = 3;
const DEVICES: u64 = 2;

pub fn start(name: &str) -> Result<Cluster> {
    let cluster = Cluster::start(name, &["fsync=on", "autovacuum_naptime=1s"])?;
    let mut client = cluster.create_database(DATABASE)?;
    client.execute("select sync_register_table('notes')", &[])?;
    Ok(cluster)
}

pub fn run(cluster: &mut Cluster, seed: u64, rounds: usize) -> Result<Tally> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut tally = Tally::default();
    let mut pushers: Vec<Pusher> =
        (0..PUSHERS).map(|number| Pusher::new(number, random.random())).collect();
    let mut peers: Vec<Peer> =
        (0..DEVICES).map(|number| Peer::new(number, random.random())).collect();
    let amcheck = soundness::is_checkable(&mut cluster.connect(DATABASE)?)?;
    for round in 0..rounds {
        let said = || format!("seed {seed}, round {round}");
        let pushes = random.random_range(5..120);
        storm(cluster, &mut pushers, &mut peers, pushes, random.random(), &mut tally)
            .with_context(said)?;
        let mut client = cluster.connect(DATABASE)?;
        check_round(&mut client, &pushers, &mut tally).with_context(said)?;
        if amcheck {
            soundness::check(&mut client).with_context(said)?;
            tally.add("checks by amcheck", 1);
        }
    }
    let mut client = cluster.connect(DATABASE)?;
    check_peers(&mut client, &mut peers).with_context(|| format!("seed {seed}, at the end"))?;
    tally.add("ops of devices", peers.iter().map(|peer| peer.ops_made).sum());
    Ok(tally)
}

/// All at once, until so many pushes were acknowledged; then the kill.
fn storm(
    cluster: &mut Cluster,
    pushers: &mut [Pusher],
    peers: &mut [Peer],
    pushes: usize,
    kill_backend: bool,
    tally: &mut Tally,
) -> Result<()> {
    let pushed = AtomicUsize::new(0);
    let connections = 1 + pushers.len() + peers.len();
    let mut clients: Vec<Client> =
        (0..connections).map(|_| cluster.connect(DATABASE)).collect::<Result<_, _>>()?;
    let victim: i32 = clients[1].query_one("select pg_backend_pid()", &[])?.get(0);
    thread::scope(|scope| {
        let mut clients = clients.into_iter();
        let mut next = || clients.next().context("a connection each");
        let mut collector = next()?;
        scope.spawn(move || collect(&mut collector));
        for pusher in pushers {
            let (mut client, pushed) = (next()?, &pushed);
            scope.spawn(move || pusher.run(&mut client, pushed));
        }
        for peer in peers {
            let mut client = next()?;
            scope.spawn(move || peer.run(&mut client));
        }
        while pushed.load(Ordering::SeqCst) < pushes {
            thread::yield_now();
        }
        match kill_backend {
            true => cluster.kill_backend(victim),
            false => cluster.signal_server(Stop::Kill),
        }
        anyhow::Ok(())
    })?;
    if kill_backend {
        tally.add("backends killed", 1);
        cluster.until_ready()
    } else {
        tally.add("postmasters killed", 1);
        cluster.stop_server(Stop::Kill)?;
        cluster.start_server()
    }
}
