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
//! * at every tenth of the day and at the end the log has exactly the entries
//!   that a model of the contract keeps, and the workspace its head, horizon and
//!   gc_through; there are as many record rows as records ever pushed;
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

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use postgres::{Client, IsolationLevel};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sync_ext_cluster::batch::{op, push, put};
use sync_ext_cluster::cluster::Cluster;

use crate::tally::Tally;

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
        model: Model::default(),
        sizes: Vec::new(),
        tally: Tally::default(),
    };
    let mut other = cluster.connect(DATABASE)?;
    churn.day(&mut other, rounds).with_context(|| format!("seed {seed}, {rounds} rounds"))?;
    Ok(churn.tally)
}

struct Churn {
    client: Client,
    /// The minute of round 0.
    epoch: String,
    random: StdRng,
    model: Model,
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
                self.compare().with_context(|| format!("round {round}"))?;
            }
        }
        Ok(())
    }

    fn push(&mut self, round: usize) -> Result<()> {
        let before = self.model.head;
        let mut ops = Vec::with_capacity(OPS);
        for _ in 0..OPS {
            let record = self.random.random_range(0..RECORDS);
            let (wins, deletes) = (self.random.random_bool(0.95), self.random.random_bool(0.15));
            let clock = self.model.append(record, round, wins, deletes);
            let pk = format!("record {record}");
            ops.push(match deletes {
                true => op(self.model.head as u64, &pk, clock, "delete", "null"),
                // Now and then one that is stored out of line.
                false if self.random.random_bool(0.02) => {
                    let noise: String = (0..4000)
                        .map(|_| char::from(self.random.random_range(b'a'..=b'z')))
                        .collect();
                    op(
                        self.model.head as u64,
                        &pk,
                        clock,
                        "put",
                        &format!("{{\"text\":\"{noise}\"}}"),
                    )
                }
                false => put(self.model.head as u64, &pk, clock),
            });
        }
        let mut transaction = self.client.transaction()?;
        let versions = push(&mut transaction, "w", &ops);
        ensure!(versions == (before + 1..=self.model.head).collect::<Vec<_>>());
        transaction.execute(
            "update sync_ext.change_log
                set created_at = $1::text::timestamptz + $2 * interval '1 minute'
              where workspace_key = (select workspace_key from sync_ext.workspace)
                and server_version > $3",
            &[&self.epoch, &(round as f64), &before],
        )?;
        transaction.commit()?;
        self.tally.add("ops", OPS as u64);
        Ok(())
    }

    fn acknowledge(&mut self, round: usize) -> Result<()> {
        let seen = self.model.heads[round.saturating_sub(LAG)];
        self.client.query_one("select sync_update_cursor('w', 'phone', $1)::text", &[&seen])?;
        self.model.cursor = seen;
        Ok(())
    }

    fn collect(&mut self, round: usize) -> Result<()> {
        let oldest = round as f64 - HOUR as f64 + 0.5;
        let reply: String = self
            .client
            .query_one(
                "select sync_gc('w', clock_timestamp() -
                   ($1::text::timestamptz + $2 * interval '1 minute'))::text",
                &[&self.epoch, &oldest],
            )?
            .get(0);
        let purged = self.model.collect(round);
        let reply: serde_json::Value = serde_json::from_str(&reply)?;
        let told = reply["changesDeleted"].as_u64().zip(reply["tombstonesDeleted"].as_u64());
        ensure!(told == Some(purged), "round {round}: {purged:?} must go: {reply}");
        self.tally.add("changes purged", purged.0);
        self.tally.add("tombstones purged", purged.1);
        self.tally.add("rounds", 1);
        Ok(())
    }

    fn compare(&mut self) -> Result<()> {
        let rows =
            self.client.query("select server_version from sync_ext.change_log order by 1", &[])?;
        let stored: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let kept: Vec<i64> = self.model.log.keys().copied().collect();
        ensure!(stored == kept, "{} entries, by the model {}", stored.len(), kept.len());
        let row = self.client.query_one(
            "select head, horizon, gc_through, (select count(*) from sync_ext.record)
               from sync_ext.workspace",
            &[],
        )?;
        let Model { head, horizon, gc_through, winners, .. } = &self.model;
        let records = winners.len() as i64;
        ensure!(
            (row.get::<_, i64>(0), row.get::<_, i64>(1)) == (*head, *horizon)
                && (row.get::<_, i64>(2), row.get::<_, i64>(3)) == (*gc_through, records),
            "{row:?}, by the model {head}, {horizon}, {gc_through}, {records}"
        );
        Ok(())
    }
}

/// The contract's log, and GC as it describes it.
#[derive(Default)]
struct Model {
    log: BTreeMap<i64, Entry>,
    /// By record: the winner's version and clock.
    winners: BTreeMap<usize, (i64, u64)>,
    /// By round.
    heads: Vec<i64>,
    head: i64,
    horizon: i64,
    gc_through: i64,
    cursor: i64,
}

struct Entry {
    record: usize,
    round: usize,
    is_delete: bool,
    is_applied: bool,
    supersedes: Option<i64>,
}

impl Model {
    /// Gives the clock that makes the op win or lose.
    fn append(&mut self, record: usize, round: usize, wins: bool, is_delete: bool) -> u64 {
        self.head += 1;
        let winner = self.winners.get(&record).copied();
        let is_applied = wins || winner.is_none();
        let clock = if is_applied { winner.map_or(1, |(_, clock)| clock + 1) } else { 0 };
        if is_applied {
            self.winners.insert(record, (self.head, clock));
        }
        let supersedes = winner.filter(|_| is_applied).map(|(version, _)| version);
        self.log.insert(self.head, Entry { record, round, is_delete, is_applied, supersedes });
        self.heads.resize(round + 1, 0);
        self.heads[round] = self.head;
        clock
    }

    /// How many changes and tombstones go.
    fn collect(&mut self, round: usize) -> (u64, u64) {
        let first_young = self
            .log
            .range(self.gc_through + 1..)
            .find(|(_, entry)| entry.round + HOUR > round)
            .map_or(i64::MAX, |(version, _)| *version);
        let watermark = (self.head - 1).min(self.cursor - 1).min(first_young - 1);
        let (mut changes, mut tombstones) = (0, 0);
        for version in self.gc_through + 1..=watermark {
            let Some(entry) = self.log.get(&version) else { continue };
            let is_winner = self.winners[&entry.record].0 == version;
            let (is_delete, is_applied) = (entry.is_delete, entry.is_applied);
            let superseded = entry.supersedes.and_then(|it| self.log.remove(&it));
            changes += u64::from(superseded.is_some());
            if !is_applied {
                self.log.remove(&version);
                changes += 1;
            } else if is_delete && is_winner {
                self.log.remove(&version);
                tombstones += 1;
                self.horizon = version;
            }
        }
        self.gc_through = self.gc_through.max(watermark);
        (changes, tombstones)
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
