//! Devices that are served by a primary and a standby in turn, as behind a
//! load balancer, while replay pauses and goes on, others push and delete, and
//! GC runs. Nobody goes back, misses anything, or is sent to a snapshot.

use std::collections::BTreeMap;

use postgres::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sync_ext_harness::cluster::{Cluster, Stop};
use sync_ext_harness::device::{Device, Listed, Listing, Pulled, Revision};
use sync_ext_harness::replica::{pause_replay, promote, resume_replay, until_replayed};
use sync_ext_harness::state::{Line, live, of_server};
use sync_ext_harness::steps::age;

const SEEDS: std::ops::Range<u64> = 0..6;
const STEPS: usize = 500;
const RECORDS: u64 = 20;

struct Servers {
    primary: Client,
    standby: Client,
    is_paused: bool,
    seen: Seen,
}

/// What must have happened for the run to mean something.
#[derive(Debug, Default)]
struct Seen {
    changes_from_standby: usize,
    lags: usize,
    purged: i64,
    tombstones_purged: i64,
    snapshots: usize,
    behind: usize,
    expired: usize,
    old: usize,
}

/// The devices of one workspace.
struct World {
    workspace: String,
    random: StdRng,
    ids: u64,
    /// The highest edit of each record: what all must come to.
    winners: BTreeMap<String, (Revision, bool)>,
    /// They edit, and are served by the primary.
    writers: Vec<Device>,
    /// It edits, pushes to the primary, and is served by both.
    roamer: Device,
    /// The head of the page that the roamer has its proof from.
    proved: i64,
    /// A snapshot read from both, a page here and a page there.
    rescan: Rescan,
}

struct Rescan {
    device: Device,
    listing: Listing,
    /// Where the last page came from.
    on_standby: bool,
}

impl Rescan {
    fn new(device: Device) -> Rescan {
        Rescan { device, listing: Listing::default(), on_standby: false }
    }
}

impl World {
    fn new(seed: u64) -> World {
        let workspace = format!("seed {seed}");
        let device = |id: &str| Device::new(id, &workspace);
        World {
            random: StdRng::seed_from_u64(seed),
            ids: 0,
            winners: BTreeMap::new(),
            writers: ["first", "second", "third"].map(device).into(),
            roamer: device("roamer"),
            proved: 0,
            rescan: Rescan::new(device("fresh")),
            workspace,
        }
    }

    /// A first op. Then all acknowledge: who does not may be passed by GC.
    fn begin(&mut self, primary: &mut Client) {
        self.edit(0);
        self.push(0, primary);
        for device in self.writers.iter_mut().chain([&mut self.roamer]) {
            goes_to_the_end(device, primary);
            device.acknowledge(primary).unwrap();
        }
        self.proved = 1;
    }

    fn push(&mut self, device: usize, primary: &mut Client) {
        primary.batch_execute("begin").unwrap();
        assert_eq!(self.device(device).push(primary).unwrap().refused, 0);
        // Before anybody can have a proof of it.
        age(primary);
        primary.batch_execute("commit").unwrap();
    }

    fn edit(&mut self, number: usize) {
        self.ids += 1;
        let (id, pk) = (self.ids, format!("pk-{}", self.random.random_range(0..RECORDS)));
        let is_delete = self.random.random_bool(0.4);
        let device = self.device(number);
        if is_delete {
            device.delete(id, &pk);
        } else {
            device.put(id, &pk);
        }
        let revision = device.outbox.last().unwrap().revision.clone();
        let winner = self.winners.entry(pk).or_insert_with(|| (revision.clone(), is_delete));
        if winner.0 < revision {
            *winner = (revision, is_delete);
        }
    }

    /// The writers, then the roamer.
    fn device(&mut self, number: usize) -> &mut Device {
        match self.writers.get_mut(number) {
            Some(writer) => writer,
            None => &mut self.roamer,
        }
    }

    fn step(&mut self, servers: &mut Servers) {
        match self.random.random_range(0..20) {
            0..6 => self.write(&mut servers.primary),
            6..13 => self.roam(servers),
            13..16 => self.rescan(servers),
            16..18 => self.collect(servers),
            _ => self.turn(servers),
        }
    }

    /// A device edits and pushes, a writer also pulls and acknowledges, or
    /// leaves some of it.
    fn write(&mut self, primary: &mut Client) {
        let number = self.random.random_range(0..=self.writers.len());
        for _ in 0..self.random.random_range(0..4) {
            self.edit(number);
        }
        if self.random.random_bool(0.8) {
            self.push(number, primary);
        }
        if number < self.writers.len() && self.random.random_bool(0.7) {
            goes_to_the_end(&mut self.writers[number], primary);
            self.writers[number].acknowledge(primary).unwrap();
        }
    }

    fn collect(&mut self, Servers { primary, seen, .. }: &mut Servers) {
        let batch: i32 = self.random.random_range(1..30);
        let sql = "select (reply ->> 'changesDeleted')::bigint,
                          (reply ->> 'tombstonesDeleted')::bigint
                     from sync_gc($1, batch_size => $2) reply";
        let row = primary.query_one(sql, &[&self.workspace, &batch]).unwrap();
        seen.purged += row.get::<_, i64>(0);
        seen.tombstones_purged += row.get::<_, i64>(1);
    }

    /// Replay stops or goes on; now and then the standby catches up.
    fn turn(&mut self, servers: &mut Servers) {
        let Servers { primary, standby, is_paused, .. } = servers;
        if !*is_paused {
            pause_replay(standby);
            *is_paused = true;
        } else if self.random.random_bool(0.4) {
            resume_replay(standby);
            *is_paused = false;
            if self.random.random_bool(0.7) {
                until_replayed(primary, standby);
            }
        }
    }

    /// A page from either server. What it must be, the same snapshot tells.
    fn roam(&mut self, servers: &mut Servers) {
        let on_standby = self.random.random_bool(0.6);
        let server = if on_standby { &mut servers.standby } else { &mut servers.primary };
        let (limit, latest) = (self.random.random_range(1..6), self.random.random_bool(0.3));
        self.roamer.reads_standby = on_standby;
        let before = self.roamer.clone();
        server.batch_execute("begin isolation level repeatable read").unwrap();
        let head = head(server, &self.workspace);
        let pulled = self.roamer.pull_page(server, limit, latest).unwrap();
        let state = of_server(server, &self.workspace).unwrap();
        server.batch_execute("commit").unwrap();

        let Pulled::Page { changes, has_more } = pulled else { panic!("{pulled:?} {before:?}") };
        if before.cursor > head || self.proved > head {
            assert!(on_standby, "the primary is never behind");
            assert_eq!((changes, has_more), (0, false));
            assert_eq!((self.roamer.cursor, &self.roamer.proof), (before.cursor, &before.proof));
            assert_eq!(self.roamer.synced, before.synced);
            servers.seen.lags += 1;
        } else {
            self.proved = head;
            assert!(self.roamer.cursor >= before.cursor, "{before:?}");
            if !has_more {
                assert_eq!((self.roamer.cursor, self.roamer.state()), (head, state));
            }
            if on_standby {
                servers.seen.changes_from_standby += changes;
            }
        }
        if self.random.random_bool(0.7) {
            self.roamer.acknowledge(&mut servers.primary).unwrap();
        }
    }

    /// The next page of the snapshot, from either server. Whole, it is
    /// completed by a pull; then another one begins, of a device that knows
    /// nothing or of one that knows a lot.
    fn rescan(&mut self, servers: &mut Servers) {
        if self.random.random_bool(0.2) {
            self.rescan.on_standby ^= true;
        }
        let Rescan { device, listing, on_standby } = &mut self.rescan;
        let server = if *on_standby { &mut servers.standby } else { &mut servers.primary };
        let cursor = device.cursor;
        let limit = self.random.random_range(1..6);
        match device.snapshot_page(listing, server, limit).unwrap() {
            Listed::More => return,
            Listed::Behind => {
                assert!(*on_standby, "the primary is never behind");
                servers.seen.behind += 1;
                return;
            }
            Listed::Expired => {
                servers.seen.expired += 1;
                *listing = Listing::default();
                return;
            }
            Listed::Old => {
                servers.seen.old += 1;
                *listing = Listing::default();
                return;
            }
            Listed::Whole | Listed::Joined => {}
        }
        assert!(device.cursor >= cursor, "a snapshot never goes back");
        servers.seen.snapshots += 1;
        device.pull(&mut servers.primary, 3, false).unwrap();
        let server = of_server(&mut servers.primary, &self.workspace).unwrap();
        assert_eq!(live(device.state()), live(server));
        let device = match self.random.random_bool(0.5) {
            true => Device::new("fresh", &self.workspace),
            false => Device { id: "again".to_owned(), outbox: Vec::new(), ..self.roamer.clone() },
        };
        self.rescan.listing = Listing::default();
        self.rescan.device = device;
    }

    /// Everybody pushes and pulls until all have the same.
    fn end(&mut self, server: &mut Client) {
        self.roamer.reads_standby = false;
        for _ in 0..2 {
            for device in self.writers.iter_mut().chain([&mut self.roamer]) {
                device.push(server).unwrap();
                goes_to_the_end(device, server);
                device.acknowledge(server).unwrap();
            }
        }
        let state = of_server(server, &self.workspace).unwrap();
        let winners: Vec<Line> = self
            .winners
            .iter()
            .map(|(pk, (Revision { clock, hlc, op_id }, is_delete))| {
                let operation = if *is_delete { "delete" } else { "put" };
                let [table, pk, hlc, op_id, operation] =
                    ["notes", pk, hlc, op_id, operation].map(str::to_owned);
                Line(table, pk, *clock, hlc, op_id, operation)
            })
            .collect();
        assert_eq!(state, winners);
        for device in self.writers.iter().chain([&self.roamer]) {
            assert_eq!(device.state(), state, "{}", device.id);
            assert!(device.outbox.is_empty(), "{}", device.id);
        }
    }
}

/// Pulls all there is; a snapshot must not be asked for.
fn goes_to_the_end(device: &mut Device, server: &mut Client) {
    loop {
        match device.pull_page(server, 7, false).unwrap() {
            Pulled::Page { has_more: true, .. } => {}
            Pulled::Page { .. } => return,
            told => panic!("{told:?} {device:?}"),
        }
    }
}

fn head(server: &mut Client, workspace: &str) -> i64 {
    let sql = "select coalesce(max(head), 0) from sync_ext.workspace where workspace_id = $1";
    server.query_one(sql, &[&workspace]).unwrap().get(0)
}

#[test]
fn devices_between_a_primary_and_a_standby_never_go_back_nor_miss_anything() {
    let mut cluster = Cluster::start("between", &["fsync=off"]).unwrap();
    let mut primary = cluster.create_database("app").unwrap();
    primary.execute("select sync_register_table('notes')", &[]).unwrap();
    let follower = cluster.standby("follows").unwrap();
    let mut standby = follower.connect("app").unwrap();
    until_replayed(&mut primary, &mut standby);
    let mut servers = Servers { primary, standby, is_paused: false, seen: Seen::default() };
    let mut worlds = Vec::new();
    for seed in SEEDS {
        println!("seed {seed}");
        let mut world = World::new(seed);
        world.begin(&mut servers.primary);
        for _ in 0..STEPS {
            world.step(&mut servers);
        }
        worlds.push(world);
    }

    let Servers { mut primary, mut standby, is_paused, seen } = servers;
    println!("{seen:?}");
    let Seen { changes_from_standby, lags, snapshots, behind, expired, .. } = seen;
    assert!(changes_from_standby > 0 && lags > 0 && snapshots > 0);
    assert!(seen.purged > 0 && seen.tombstones_purged > 0);
    assert!(behind > 0 && expired > 0);

    // The standby catches up and takes over; what the writers had not sent, or
    // not seen arrive, they send there.
    if is_paused {
        resume_replay(&mut standby);
    }
    until_replayed(&mut primary, &mut standby);
    cluster.stop_server(Stop::Cleanly).unwrap();
    promote(&mut standby);
    for world in &mut worlds {
        world.end(&mut standby);
    }
}
