//! Pushers, GC, pullers and snapshots at once, as the server's scheduler has
//! it: whatever the order, an active device is never told to begin again, and
//! all come to the highest revision of every record.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use postgres::error::SqlState;
use postgres::{Client, IsolationLevel};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sync_ext_harness::batch::{delete, op_id, put};
use sync_ext_harness::database::Database;
use sync_ext_harness::device::{Device, Listed, Listing, Pulled, call};
use sync_ext_harness::state::{Line, live, of_server};
use sync_ext_harness::steps::{Stage, age};

const PUSHERS: u64 = 3;
const PUSHES: u64 = 120;
const OPS: u64 = 3;

/// The highest revision of each record: clock, opId, whether it is a delete.
type Winners = BTreeMap<String, (u64, String, bool)>;

struct Race<'a> {
    database: &'a Database,
    is_over: AtomicBool,
}

#[test]
fn pushers_gc_pullers_and_snapshots_race() {
    let mut stage = Stage::new();
    // The pullers are active from the start.
    let first = format!("[{}]", put(0, "first", 1));
    call(&mut stage.admin, "select sync_push('w', $1::text::json)::text", &[&first]).unwrap();
    age(&mut stage.admin);
    let race = Race { database: &stage.database, is_over: AtomicBool::new(false) };
    let pullers = ["all", "latest"].map(|id| {
        let mut device = Device::new(id, "w");
        let mut session = race.session();
        device.pull(&mut session, 10, false).unwrap();
        device.acknowledge(&mut session).unwrap();
        (device, session)
    });
    let mut winners = Winners::from([("first".to_owned(), (1, op_id(0), false))]);
    thread::scope(|scope| {
        let race = &race;
        let pullers = pullers.map(|(device, session)| scope.spawn(|| race.pull(device, session)));
        let readers: [_; 2] = std::array::from_fn(|_| scope.spawn(|| race.snapshot()));
        let collector = scope.spawn(|| race.collect());
        let pushers: Vec<_> =
            (1..=PUSHERS).map(|pusher| scope.spawn(move || race.push(pusher))).collect();
        // The others end also when a pusher fails.
        let pushed: Vec<_> = pushers.into_iter().map(|pusher| pusher.join()).collect();
        race.is_over.store(true, Ordering::SeqCst);
        for result in pushed {
            for (pk, op) in result.unwrap() {
                let winner = winners.entry(pk).or_insert_with(|| op.clone());
                if *winner < op {
                    *winner = op;
                }
            }
        }
        let expected = lines(winners);
        for puller in pullers {
            assert_eq!(puller.join().unwrap().state(), expected);
        }
        for reader in readers {
            let (device, snapshots) = reader.join().unwrap();
            assert_eq!(live(device.state()), live(expected.clone()));
            println!("{snapshots} snapshots");
        }
        let purged = collector.join().unwrap();
        assert_eq!(of_server(&mut race.session(), "w").unwrap(), expected);
        println!("{purged:?} entries and tombstones purged");
        assert!(purged.0 > 0 && purged.1 > 0);
    });
}

fn lines(winners: Winners) -> Vec<Line> {
    let line = |(pk, (clock, op_id, is_delete))| {
        let operation = if is_delete { "delete" } else { "put" };
        Line("notes".to_owned(), pk, clock as i64, "h".to_owned(), op_id, operation.to_owned())
    };
    winners.into_iter().map(line).collect()
}

impl Race<'_> {
    fn session(&self) -> Client {
        self.database.session()
    }

    /// Pushes what it then says was committed. Some of it is rolled back, some
    /// pushed at a higher level and, as callers do, tried again on 40001.
    fn push(&self, pusher: u64) -> Vec<(String, (u64, String, bool))> {
        let mut random = StdRng::seed_from_u64(pusher);
        let mut client = self.session();
        let mut committed = Vec::new();
        for round in 0..PUSHES {
            let mut ops = Vec::new();
            for place in 0..OPS {
                let id = (pusher * PUSHES + round) * OPS + place;
                let pk = format!("pk-{}", random.random_range(0..30));
                let clock = random.random_range(round / 2..round + 10);
                let is_delete = random.random_bool(0.4);
                let op = if is_delete { delete(id, &pk, clock) } else { put(id, &pk, clock) };
                ops.push((op, pk, (clock, op_id(id), is_delete)));
            }
            let json: Vec<&str> = ops.iter().map(|(json, ..)| json.as_str()).collect();
            let json = format!("[{}]", json.join(","));
            let level = match random.random_bool(0.2) {
                true => IsolationLevel::RepeatableRead,
                false => IsolationLevel::ReadCommitted,
            };
            let commits = random.random_bool(0.85);
            while let Err(error) = push_once(&mut client, &json, level, commits) {
                let code = error.code();
                assert_eq!(code, Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{error:?}");
            }
            if commits {
                committed.extend(ops.into_iter().map(|(_, pk, op)| (pk, op)));
            }
        }
        committed
    }

    /// GC of this workspace, or of those that are free, in small batches.
    fn collect(&self) -> (i64, i64) {
        let mut client = self.session();
        let mut random = StdRng::seed_from_u64(0);
        let mut purged = (0, 0);
        while !self.is_over.load(Ordering::SeqCst) {
            let workspace = Some("w").filter(|_| random.random_bool(0.5));
            let sql = "select (reply ->> 'changesDeleted')::bigint,
                              (reply ->> 'tombstonesDeleted')::bigint
                         from sync_gc($1, batch_size => $2) reply";
            let batch: i32 = random.random_range(1..40);
            let row = client.query_one(sql, &[&workspace, &batch]).unwrap();
            purged = (purged.0 + row.get::<_, i64>(0), purged.1 + row.get::<_, i64>(1));
        }
        purged
    }

    /// Follows, and acknowledges now and then.
    fn pull(&self, mut device: Device, mut session: Client) -> Device {
        let latest = device.id == "latest";
        for round in 0.. {
            let last_round = self.is_over.load(Ordering::SeqCst);
            let before = device.cursor;
            match device.pull_page(&mut session, 5, latest).unwrap() {
                Pulled::Page { has_more: false, .. } if last_round => break,
                Pulled::Page { .. } => assert!(device.cursor >= before),
                told => panic!("{told:?} at {before}"),
            }
            if round % 3 == 0 {
                device.acknowledge(&mut session).unwrap();
            }
        }
        device
    }

    /// Snapshot after snapshot, none acknowledged, each completed by a pull.
    fn snapshot(&self) -> (Device, usize) {
        let mut session = self.session();
        let mut snapshots = 0;
        loop {
            let last_round = self.is_over.load(Ordering::SeqCst);
            let (mut device, mut listing) = (Device::new("reader", "w"), Listing::default());
            let listed = loop {
                match device.snapshot_page(&mut listing, &mut session, 4).unwrap() {
                    Listed::More => {}
                    listed => break listed,
                }
            };
            match listed {
                Listed::Whole => snapshots += 1,
                Listed::Expired => continue,
                other => panic!("{other:?} on a primary"),
            }
            // One view of the server for both, as it moves on.
            session.batch_execute("begin isolation level repeatable read").unwrap();
            device.pull(&mut session, 5, false).unwrap();
            let server = of_server(&mut session, "w").unwrap();
            session.batch_execute("commit").unwrap();
            assert_eq!(live(device.state()), live(server));
            if last_round {
                return (device, snapshots);
            }
        }
    }
}

fn push_once(
    client: &mut Client,
    ops: &str,
    level: IsolationLevel,
    commits: bool,
) -> Result<(), postgres::Error> {
    let mut transaction = client.build_transaction().isolation_level(level).start()?;
    let sql = "select sync_push('w', $1::text::json) ->> 'results'";
    let results: String = transaction.query_one(sql, &[&ops])?.get(0);
    assert!(!results.contains("\"success\":false"), "{results}");
    // Before anybody can have a proof of it.
    age(&mut transaction);
    if commits { transaction.commit() } else { transaction.rollback() }
}
