//! SIGKILL while sessions push as fast as they can, with fsync on: to a backend,
//! which makes the postmaster throw out all others, or to the postmaster.
//!
//! After each round, and recovery: every acknowledged op is where its push was
//! told, versions are 1..head, what was not acknowledged is there as a whole or
//! not at all, and tables and indexes are sound. What was not acknowledged is
//! sent again by the next round. Beside the pushers, in a workspace of their
//! own, devices edit, push, pull and acknowledge while GC runs; what they hold
//! at the end must be what the server holds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use postgres::Client;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sync_ext_cluster::batch;
use sync_ext_cluster::cluster::{Cluster, Stop};
use sync_ext_cluster::device::{Device, Pending, Revision, call};
use sync_ext_cluster::soundness;
use sync_ext_cluster::state::of_server;

use crate::tally::Tally;

const DATABASE: &str = "crash";
const PUSHERS: u64 = 3;
const DEVICES: u64 = 2;

pub fn start(name: &str) -> Result<Cluster> {
    let cluster = Cluster::start(name, &["fsync=on", "autovacuum_naptime=1s"])?;
    let mut client = cluster.create_database(DATABASE)?;
    client.execute("select sync_register_table('notes')", &[])?;
    Ok(cluster)
}

/// A batch whose push may or may not have come through.
#[derive(Clone)]
struct Batch {
    first: u64,
    ops: Vec<String>,
}

/// A session that pushes to the workspace `pushed`.
struct Pusher {
    number: u64,
    random: StdRng,
    ops_made: u64,
    unanswered: Option<Batch>,
    /// Batches of this round and the versions that they were told.
    acknowledged: Vec<(Batch, Vec<i64>)>,
}

impl Pusher {
    fn batch(&mut self) -> Batch {
        // With and without the subtransaction that large batches use.
        let count = *[1, 3, 7, 8, 40].choose(&mut self.random).unwrap_or(&1);
        let first = self.number << 40 | self.ops_made;
        self.ops_made += count;
        let ops = (first..first + count).map(|id| {
            let clock = self.random.random_range(1..4);
            match self.random.random_range(0..4) {
                0 => batch::delete(id, &format!("hot {}", id % 7), clock + 1),
                1 => batch::put(id, &format!("hot {}", id % 7), clock + 1),
                // Two pushers now and then create the same record.
                _ => batch::put(id, &format!("new {}", id & 0xffff), 1),
            }
        });
        Batch { first, ops: ops.collect() }
    }

    /// Pushes until the server dies.
    fn run(&mut self, client: &mut Client, pushed: &AtomicUsize) {
        self.acknowledged.clear();
        loop {
            let batch = self.unanswered.take().unwrap_or_else(|| self.batch());
            let ops = format!("[{}]", batch.ops.join(","));
            self.unanswered = Some(batch.clone());
            let sql = "select sync_push('pushed', $1::text::json)::text";
            let Ok(row) = client.query_one(sql, &[&ops]) else { return };
            self.unanswered = None;
            self.acknowledged.push((batch, batch::versions(row.get(0), "results")));
            pushed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A device in the workspace `synced`.
struct Peer {
    device: Device,
    random: StdRng,
    ops_made: u64,
}

impl Peer {
    fn edit(&mut self) {
        self.ops_made += 1;
        let pk = format!("r{}", self.random.random_range(0..20));
        let key = ("notes".to_owned(), pk.clone());
        let pending = self.device.outbox.iter().filter(|op| op.pk == pk);
        let pending = pending.map(|op| op.revision.clock).max();
        let clock = 1 + self.device.clocks.get(&key).copied().max(pending).unwrap_or(0);
        let id = self.random.random();
        let json = match self.random.random_bool(0.3) {
            true => batch::delete(id, &pk, clock as u64),
            false => batch::put(id, &pk, clock as u64),
        };
        let revision = Revision { clock, hlc: "h".to_owned(), op_id: batch::op_id(id) };
        let pending = Pending { json, table: key.0, pk, revision, told: None };
        self.device.outbox.push(pending);
    }

    fn exchange(&mut self, client: &mut Client) -> Result<()> {
        self.device.push(client)?;
        let limit = self.random.random_range(1..20);
        self.device.pull(client, limit, self.random.random())?;
        self.device.acknowledge(client)
    }

    /// Lives until the server dies.
    fn run(&mut self, client: &mut Client) {
        loop {
            for _ in 0..self.random.random_range(1..12) {
                self.edit();
            }
            if self.exchange(client).is_err() {
                return;
            }
        }
    }
}

/// Ages and collects the devices' workspace until the server dies. Proofs that
/// devices hold of entries of the last day are not broken: those stay as young
/// as they are.
fn collect(client: &mut Client) {
    let age = "update sync_ext.change_log set created_at = created_at - interval '40 days'
                where created_at > now() - interval '1 day' and server_version < (
                  select min(last_seen_version) from sync_ext.device_cursor)
                  and workspace_key = (select workspace_key from sync_ext.workspace where workspace_id = 'synced')";
    while client.execute(age, &[]).is_ok() {
        if client.execute("select sync_gc('synced', batch_size => 50)", &[]).is_err() {
            return;
        }
    }
}

pub fn run(cluster: &mut Cluster, seed: u64, rounds: usize) -> Result<Tally> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut tally = Tally::default();
    let mut pushers: Vec<Pusher> = (0..PUSHERS)
        .map(|number| Pusher {
            number,
            random: StdRng::seed_from_u64(random.random()),
            ops_made: 0,
            unanswered: None,
            acknowledged: Vec::new(),
        })
        .collect();
    let mut peers: Vec<Peer> = (0..DEVICES)
        .map(|number| Peer {
            device: Device::new(&format!("device {number}"), "synced"),
            random: StdRng::seed_from_u64(random.random()),
            ops_made: 0,
        })
        .collect();
    let amcheck = soundness::is_checkable(&mut cluster.connect(DATABASE)?)?;
    for round in 0..rounds {
        let told = || format!("seed {seed}, round {round}");
        let pushes = random.random_range(5..120);
        storm(cluster, &mut pushers, &mut peers, pushes, random.random(), &mut tally)
            .with_context(told)?;
        let mut client = cluster.connect(DATABASE)?;
        check_round(&mut client, &pushers, &mut tally).with_context(told)?;
        if amcheck {
            soundness::check(&mut client).with_context(told)?;
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

fn check_round(client: &mut Client, pushers: &[Pusher], tally: &mut Tally) -> Result<()> {
    let row = client.query_one(
        "select count(*), coalesce(min(server_version), 1), coalesce(max(server_version), 0),
                count(distinct op_id), w.head
           from sync_ext.workspace w left join sync_ext.change_log l using (workspace_key)
          where w.workspace_id = 'pushed' group by w.head",
        &[],
    )?;
    let (count, min, max, ops, head): (i64, i64, i64, i64, i64) =
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
    ensure!((count, min, max, ops) == (head, 1, head, head), "not 1..head: {row:?}");
    for pusher in pushers {
        for (batch, versions) in &pusher.acknowledged {
            let stored = stored(client, batch)?;
            ensure!(stored == *versions, "told {versions:?}, stored {stored:?}");
            tally.add("ops acknowledged", versions.len() as u64);
        }
        if let Some(batch) = &pusher.unanswered {
            let stored = stored(client, batch)?;
            let whole = stored.len() == batch.ops.len();
            ensure!(stored.is_empty() || whole, "a push was stored in part: {stored:?}");
            tally.add(if whole { "pushes stored but unanswered" } else { "pushes lost whole" }, 1);
        }
    }
    let wrong: i64 = client
        .query_one(
            "select count(*) from sync_ext.record r
               join (select distinct on (workspace_key, table_name, pk) * from sync_ext.change_log
                      order by workspace_key, table_name, pk, clock desc, hlc desc, op_id desc) l
                 using (workspace_key, table_name, pk)
               join sync_ext.workspace w using (workspace_key)
              where w.workspace_id = 'pushed' and (r.server_version, r.clock, r.hlc, r.op_id, r.deleted)
                 is distinct from (l.server_version, l.clock, l.hlc, l.op_id, l.operation = 'delete')",
            &[],
        )?
        .get(0);
    ensure!(wrong == 0, "{wrong} records are not their ops of the highest revision");
    Ok(())
}

/// The versions of a batch's ops in the log, in its order.
fn stored(client: &mut Client, batch: &Batch) -> Result<Vec<i64>> {
    let ids: Vec<String> =
        (batch.first..batch.first + batch.ops.len() as u64).map(batch::op_id).collect();
    let rows = client.query(
        "select l.server_version from unnest($1::text[]) with ordinality as i (id, place)
           join sync_ext.change_log l on l.op_id = i.id::uuid
           join sync_ext.workspace w using (workspace_key)
          where w.workspace_id = 'pushed' order by i.place",
        &[&ids],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Until no outbox holds anything, and all have seen the same head.
fn check_peers(client: &mut Client, peers: &mut [Peer]) -> Result<()> {
    for _ in 0..10 {
        for peer in &mut *peers {
            peer.exchange(client)?;
        }
    }
    let head = call(
        client,
        "select head::text from sync_ext.workspace where workspace_id = 'synced'",
        &[],
    )?;
    let server = of_server(client, "synced")?;
    for Peer { device, .. } in peers {
        ensure!(device.outbox.is_empty(), "{} still holds {:?}", device.id, device.outbox);
        ensure!(device.cursor.to_string() == head, "{} is at {}", device.id, device.cursor);
        let state = device.state();
        let wrong = state.iter().find(|line| !server.contains(line));
        ensure!(wrong.is_none(), "{} has {wrong:?}, which the server has not", device.id);
        let live = |line: &&sync_ext_cluster::state::Line| line.5 == "put";
        let missing = server.iter().filter(live).find(|line| !state.contains(line));
        ensure!(missing.is_none(), "{} has not {missing:?}", device.id);
    }
    Ok(())
}
