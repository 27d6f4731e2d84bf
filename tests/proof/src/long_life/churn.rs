//! A day of changes to the same records with GC every minute, compressed: each
//! round is a minute, pushes updates and deletes of 1000 records, and purges
//! what is older than an hour. In the middle another session holds an old
//! snapshot for a sixth of the day, so that nothing can be cleaned up.
//!
//! Time: `created_at` of a push's entries is set to the round's minute in the
//! transaction of the push, and the retention that GC is given counts back from
//! there. That costs a dead row per entry, which is young when it dies: the log
//! here has twice the garbage that it has in life, so its bounds hold all the
//! more. A VACUUM every ten rounds stands for autovacuum, which would do it at
//! times of its own.
//!
//! What must hold:
//!
//! * every reply, and at every tenth of the day and at the end every row, is that
//!   of the model of the contract;
//! * before the snapshot, nine in ten updates of records are HOT;
//! * the snapshot costs what it keeps from being cleaned up: at the largest, all
//!   tables and indexes together are larger than before by no more than
//!   [`KEPT_PER_OP`] for each op pushed while it was held;
//! * nothing grows once it is gone: in the last quarter of the day no table and
//!   no index is larger than it was in the third, but for [`SLACK`] pages;
//! * the log itself becomes as small as it was, within a tenth: VACUUM finds its
//!   last pages empty and gives them back. Indexes keep their pages, empty, for what comes,
//!   and record rows stand where they were put: of the snapshot's cost no more
//!   than [`LEFT_PER_OP`] for each of those ops is left.
//!
//! Measured on a day of 86,400 ops: log 736 kB before, 4,456 kB at the largest,
//! 736 kB at the end; all together 2,928 kB, 10,960 kB (571 bytes per op) and
//! 5,976 kB (217 bytes per op); every update HOT.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use postgres::{Client, IsolationLevel};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sync_ext_harness::batch;
use sync_ext_harness::cluster::Cluster;
use sync_ext_model::refusal::unexpected;
use sync_ext_model::reply::{read, timeless};
use sync_ext_model::{Cutoffs, Server};

use crate::common::rows::{self, check_reply};
use crate::common::tally::Tally;

const DATABASE: &str = "churn";
const LOG: &str = "change_log";
const RECORDS: usize = 1000;
const OPS: usize = 60;
/// Rounds for which an entry is young.
const HOUR: usize = 60;
const VACUUM_EVERY: usize = 10;
/// Rounds after which the device acknowledges what it has seen.
const LAG: usize = 5;

/// A vacuum of autovacuum's must not come between.
pub const SETTINGS: [&str; 2] = ["fsync=off", "autovacuum=off"];

/// Bytes per op pushed while the snapshot was held.
const KEPT_PER_OP: i64 = 640;
const LEFT_PER_OP: i64 = 256;
/// Bytes that a relation may still grow by when all is settled.
const SLACK: i64 = 2 * 8192;

/// `rounds` minutes, a day has 1440; fewer than 480 are too few for the log to
/// become small again.
pub fn run(cluster: &Cluster, seed: u64, rounds: usize) -> Result<Tally> {
    prepare(cluster)?;
    measure(cluster, seed, rounds)
}

pub fn prepare(cluster: &Cluster) -> Result<Client> {
    let mut client = cluster.create_database(DATABASE)?;
    client.batch_execute("select sync_register_table('notes')")?;
    Ok(client)
}

/// The run, in the database that [`prepare`] made.
pub fn measure(cluster: &Cluster, seed: u64, rounds: usize) -> Result<Tally> {
    let mut client = cluster.connect(DATABASE)?;
    let epoch = client.query_one("select (now() - interval '10 days')::text", &[])?.get(0);
    let mut churn = Churn {
        client,
        epoch,
        random: StdRng::seed_from_u64(seed),
        model: Server::default(),
        clocks: BTreeMap::new(),
        heads: Vec::new(),
        sizes: Vec::new(),
        tally: Tally::default(),
    };
    let mut other = cluster.connect(DATABASE)?;
    churn.model.register(None, "notes", "id", None, false).map_err(unexpected)?;
    churn.day(&mut other, rounds).with_context(|| format!("seed {seed}, {rounds} rounds"))?;
    Ok(churn.tally)
}

struct Churn {
    client: Client,
    /// The minute of round 0.
    epoch: String,
    random: StdRng,
    model: Server,
    /// The winner's, by record; 0 before there is one.
    clocks: BTreeMap<usize, u64>,
    /// By round.
    heads: Vec<i64>,
    /// By round, after its VACUUM: each relation's size.
    sizes: Vec<(usize, Sizes)>,
    tally: Tally,
}

impl Churn {
    fn day(&mut self, other: &mut Client, rounds: usize) -> Result<()> {
        let (from, to) = (rounds / 3, rounds / 2);
        self.rounds(0..from, rounds)?;
        self.expect_hot_updates()?;
        {
            let level = IsolationLevel::RepeatableRead;
            let mut old = other.build_transaction().isolation_level(level).start()?;
            let count = "select count(*) from sync_ext.change_log";
            let seen: i64 = old.query_one(count, &[])?.get(0);
            self.rounds(from..to, rounds)?;
            let still: i64 = old.query_one(count, &[])?.get(0);
            ensure!(seen == still, "the old snapshot saw {seen} entries, now {still}");
            old.commit()?;
        }
        self.rounds(to..rounds, rounds)?;
        self.expect_sizes(from, to, rounds)
    }

    fn expect_hot_updates(&mut self) -> Result<()> {
        self.client.execute("select pg_stat_force_next_flush()", &[])?;
        let row = self.client.query_one(
            "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables
              where schemaname = 'sync_ext' and relname = 'record'",
            &[],
        )?;
        let (all, hot): (i64, i64) = (row.get(0), row.get(1));
        ensure!(all > 0 && hot * 10 >= all * 9, "of {all} updates of records {hot} are HOT");
        self.tally.add("updates of records before the snapshot", all as u64);
        self.tally.add("of them HOT", hot as u64);
        Ok(())
    }

    /// The snapshot was held for the rounds `from..to`.
    fn expect_sizes(&mut self, from: usize, to: usize, rounds: usize) -> Result<()> {
        let within = |range: std::ops::Range<usize>| -> Vec<&Sizes> {
            self.sizes.iter().filter(|(at, _)| range.contains(at)).map(|(_, sizes)| sizes).collect()
        };
        let total = |sizes: &&Sizes| sizes.values().sum::<i64>();
        let largest = |of: &[&Sizes]| of.iter().map(total).max().unwrap_or(0);
        let of = |name: &str, of: &[&Sizes]| of.iter().map(|sizes| sizes[name]).max().unwrap_or(0);
        let before = within(from / 2..from);
        let held = ((to - from) * OPS) as i64;
        let peak = largest(&within(0..rounds));
        let last = within(rounds - rounds / 4..rounds);
        let end = last.last().context("no size was taken")?;
        let figures = format!(
            "{} bytes before, {peak} at the largest, {} at the end; of the log {}, {}, {}",
            largest(&before),
            total(end),
            of(LOG, &before),
            of(LOG, &within(0..rounds)),
            end[LOG]
        );
        ensure!(peak <= largest(&before) + KEPT_PER_OP * held, "the snapshot cost more: {figures}");
        let third = within(rounds / 2..rounds - rounds / 4);
        for name in end.keys() {
            let (was, is) = (of(name, &third), of(name, &last));
            ensure!(is <= was + SLACK, "{name} goes on growing: {was}, then {is} bytes");
        }
        ensure!(end[LOG] * 10 <= of(LOG, &before) * 11, "the log stays large: {figures}");
        ensure!(total(end) <= largest(&before) + LEFT_PER_OP * held, "more is left: {figures}");
        let all = [("bytes before the snapshot", largest(&before)), ("at the largest", peak)];
        for (what, bytes) in all.into_iter().chain([("at the end", total(end))]) {
            self.tally.add(what, bytes as u64);
        }
        Ok(())
    }

    fn rounds(&mut self, range: std::ops::Range<usize>, of: usize) -> Result<()> {
        for round in range {
            self.push(round)?;
            self.acknowledge(round)?;
            self.collect(round)?;
            if round % VACUUM_EVERY == VACUUM_EVERY - 1 {
                self.client.batch_execute(
                    "vacuum sync_ext.change_log, sync_ext.record, sync_ext.workspace,
                            sync_ext.device_cursor",
                )?;
                self.sizes.push((round, sizes(&mut self.client)?));
            }
            if round % (of / 10) == 0 || round + 1 == of {
                rows::check(&mut self.client, &self.model, None)
                    .with_context(|| format!("round {round}"))?;
            }
        }
        Ok(())
    }

    fn push(&mut self, round: usize) -> Result<()> {
        let before = self.model.head("w");
        let ops: Vec<String> = (1..=OPS).map(|n| self.op((before + n as i64) as u64)).collect();
        let ops = format!("[{}]", ops.join(","));
        let expected = self.model.push(None, "w", &ops, round as i64).map_err(unexpected)?;
        let mut transaction = self.client.transaction()?;
        let sql = "select sync_push('w', $1::text::json)::text";
        let reply = read(transaction.query_one(sql, &[&ops])?.get(0))?;
        transaction.execute(
            "update sync_ext.change_log
                set created_at = $1::text::timestamptz + $2 * interval '1 minute'
              where workspace_key = (select workspace_key from sync_ext.workspace)
                and server_version > $3",
            &[&self.epoch, &(round as f64), &before],
        )?;
        transaction.commit()?;
        check_reply("a push", &timeless(reply), &timeless(expected))?;
        self.heads.push(self.model.head("w"));
        self.tally.add("ops", OPS as u64);
        Ok(())
    }

    /// One that wins, mostly.
    fn op(&mut self, id: u64) -> String {
        let record = self.random.random_range(0..RECORDS);
        let (wins, deletes) = (self.random.random_bool(0.95), self.random.random_bool(0.15));
        let known = self.clocks.entry(record).or_default();
        let wins = wins || *known == 0;
        *known += u64::from(wins);
        let clock = if wins { *known } else { 0 };
        let pk = format!("record {record}");
        if deletes {
            return batch::delete(id, &pk, clock);
        }
        // Now and then one that is stored out of line.
        if self.random.random_bool(0.02) {
            let noise: String =
                (0..4000).map(|_| char::from(self.random.random_range(b'a'..=b'z'))).collect();
            return batch::op(id, &pk, clock, "put", &format!("{{\"text\":\"{noise}\"}}"));
        }
        batch::put(id, &pk, clock)
    }

    fn acknowledge(&mut self, round: usize) -> Result<()> {
        let seen = self.heads[round.saturating_sub(LAG)];
        let expected = self.model.acknowledge(None, "w", "phone", seen, 0).map_err(unexpected)?;
        let sql = "select sync_update_cursor('w', 'phone', $1)::text";
        let reply = read(self.client.query_one(sql, &[&seen])?.get(0))?;
        check_reply("an acknowledgement", &reply, &expected)
    }

    fn collect(&mut self, round: usize) -> Result<()> {
        let oldest = round as f64 - HOUR as f64 + 0.5;
        let row = self.client.query_one(
            "select sync_gc('w', clock_timestamp() -
               ($1::text::timestamptz + $2 * interval '1 minute'))::text",
            &[&self.epoch, &oldest],
        )?;
        // The device is always active.
        let entries = round as i64 - HOUR as i64;
        let cutoffs = Cutoffs { entries, heartbeats: i64::MIN, forgotten: i64::MIN };
        let collected = self.model.collect(None, Some("w"), cutoffs, 10_000, &BTreeSet::new());
        let collected = collected.map_err(unexpected)?;
        check_reply("gc", &read(row.get(0))?, &collected.reply())?;
        self.tally.add("changes purged", collected.changes as u64);
        self.tally.add("tombstones purged", collected.tombstones as u64);
        self.tally.add("rounds", 1);
        Ok(())
    }
}

/// Bytes by relation.
type Sizes = BTreeMap<String, i64>;

/// Each table and index of ours, what is stored out of line included.
fn sizes(client: &mut Client) -> Result<Sizes> {
    let rows = client.query(
        "with ours as (
           select oid, relname::text as name, reltoastrelid from pg_class
            where relnamespace = 'sync_ext'::regnamespace and relkind in ('r', 'i'))
         select name, pg_relation_size(oid) from ours
         union all
         select name || ' (toast)', pg_relation_size(reltoastrelid) from ours
          where reltoastrelid <> 0
         union all
         select name || ' (toast index)', pg_relation_size(i.indexrelid)
           from ours join pg_index i on i.indrelid = reltoastrelid",
        &[],
    )?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
