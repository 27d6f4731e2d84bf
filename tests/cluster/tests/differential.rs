//! Random batches against a model of the contract in plain maps: every result
//! and, at the end, every row must be what the model says; and the indexes and
//! heaps must be sound.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use postgres::{Client, GenericClient, IsolationLevel};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use sync_ext_cluster::batch;
use sync_ext_cluster::cluster::Cluster;
use sync_ext_cluster::soundness;

const SEEDS: std::ops::Range<u64> = 0..4;
const STEPS: usize = 60;

#[derive(Clone, Debug)]
struct Op {
    id: u64,
    pk: String,
    clock: u64,
    delete: bool,
    payload: String,
    /// The op that its author saw as the newest, or `Some(None)` for none.
    parent: Option<Option<u64>>,
}

/// Of the content, which the parent is no part of.
impl PartialEq for Op {
    fn eq(&self, other: &Op) -> bool {
        let content = |op: &Op| (op.id, op.pk.clone(), op.clock, op.delete, op.payload.clone());
        content(self) == content(other)
    }
}

impl Op {
    fn json(&self) -> String {
        let op = match self.delete {
            true => batch::delete(self.id, &self.pk, self.clock),
            false => batch::op(self.id, &self.pk, self.clock, "put", &self.payload),
        };
        match self.parent {
            None => op,
            Some(seen) => {
                batch::with_parent(&op, &seen.map_or_else(|| "none".to_owned(), batch::op_id))
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Entry {
    op: Op,
    applied: bool,
    supersedes: Option<i64>,
    created: bool,
    overwrote: Option<u64>,
}

/// What the contract says of a workspace that GC has not touched.
#[derive(Clone, Debug, Default)]
struct Model {
    log: Vec<Entry>,
    by_id: HashMap<u64, i64>,
    winners: BTreeMap<String, i64>,
}

/// What a result tells of an op that is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stored {
    version: i64,
    applied: bool,
    replayed: bool,
    created: bool,
    overwrote: Option<String>,
    /// The winner's version, and the bytes of its payload if it is told.
    winner: Option<(i64, Option<usize>)>,
}

/// Or the error.
type Told = Result<Stored, String>;

/// What the payloads of a reply's winners stay below: the setting's default.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

impl Model {
    fn push(&mut self, ops: &[Op]) -> Vec<Told> {
        let mut told: Vec<Told> = Vec::new();
        let mut first: HashMap<u64, usize> = HashMap::new();
        for (place, op) in ops.iter().enumerate() {
            let conflict = ops.iter().any(|other| other.id == op.id && other != op);
            told.push(if conflict {
                Err("CONFLICT".to_owned())
            } else if let Some(&earlier) = first.get(&op.id) {
                told[earlier].clone()
            } else if let Some(&version) = self.by_id.get(&op.id) {
                let entry = &self.log[version as usize - 1];
                let overwrote = entry.overwrote.map(batch::op_id);
                match entry.op == *op {
                    true => Ok(Stored { version, replayed: true, overwrote, ..Stored::default() }),
                    false => Err("CONFLICT".to_owned()),
                }
            } else {
                let version = self.append(op);
                let Entry { applied, created, overwrote, .. } = self.log[version as usize - 1];
                let overwrote = overwrote.map(batch::op_id);
                Ok(Stored { version, applied, created, overwrote, ..Stored::default() })
            });
            first.entry(op.id).or_insert(place);
        }
        // Each payload once, with the first op that lost to it, while they fit.
        let (mut payloads, mut bytes) = (BTreeSet::new(), 0);
        for (op, told) in ops.iter().zip(&mut told) {
            let Ok(stored) = told else { continue };
            let now = self.winners[&op.pk];
            if stored.replayed {
                stored.applied = now == stored.version;
            }
            if stored.applied {
                continue;
            }
            let winner = &self.log[now as usize - 1].op;
            let size = winner.payload.len();
            let is_told =
                !winner.delete && payloads.insert(op.pk.clone()) && bytes + size < PAGE_BYTES;
            bytes += if is_told { size } else { 0 };
            stored.winner = Some((now, is_told.then_some(size)));
        }
        told
    }

    fn append(&mut self, op: &Op) -> i64 {
        let version = self.log.len() as i64 + 1;
        let winner = self.winners.get(&op.pk).copied();
        let revision = |op: &Op| (op.clock, batch::op_id(op.id));
        let applied =
            winner.is_none_or(|at| revision(op) > revision(&self.log[at as usize - 1].op));
        let supersedes = winner.filter(|_| applied);
        let replaced = supersedes.map(|at| &self.log[at as usize - 1].op);
        let created = applied && !op.delete && replaced.is_none_or(|op| op.delete);
        let overwrote = replaced.filter(|before| op.parent.is_some_and(|it| it != Some(before.id)));
        let overwrote = overwrote.map(|op| op.id);
        self.log.push(Entry { op: op.clone(), applied, supersedes, created, overwrote });
        self.by_id.insert(op.id, version);
        if applied {
            self.winners.insert(op.pk.clone(), version);
        }
        version
    }
}

/// What was pushed so far.
#[derive(Default)]
struct Past {
    batches: Vec<Vec<Op>>,
    /// New records whose names ascend.
    ascending: u64,
}

impl Past {
    fn any_op(&self, random: &mut StdRng) -> Option<&Op> {
        self.batches.choose(random)?.choose(random)
    }

    /// A batch that was pushed, as it was, or in part, or with others.
    fn retry(&mut self, random: &mut StdRng) -> Vec<Op> {
        let count = self.batches.len();
        // Often the last one: its reply was lost.
        let at = if random.random_bool(0.5) { count - 1 } else { random.random_range(0..count) };
        let mut ops = self.batches[at].clone();
        match random.random_range(0..5) {
            0 => ops.retain(|_| random.random_bool(0.8)),
            1 => {
                let place = random.random_range(0..=ops.len());
                let op = self.fresh(random, &ops);
                ops.insert(place, op);
            }
            // The opId of one of them, of another record.
            2 if !ops.is_empty() => {
                let place = random.random_range(0..ops.len());
                ops[place].pk = format!("pk-{}", random.random_range(0..60));
            }
            3 => ops.extend(self.batches[random.random_range(0..count)].clone()),
            _ => {}
        }
        ops
    }

    fn batch(&mut self, random: &mut StdRng) -> Vec<Op> {
        if !self.batches.is_empty() && random.random_bool(0.3) {
            return self.retry(random);
        }
        let count = *[0, 1, 2, 7, 40, 150].choose(random).unwrap();
        let mut ops: Vec<Op> = Vec::new();
        for _ in 0..count {
            let op = self.op(random, &ops);
            ops.push(op);
        }
        ops
    }

    fn op(&mut self, random: &mut StdRng, batch: &[Op]) -> Op {
        let again =
            if random.random_bool(0.5) { self.any_op(random) } else { batch.choose(random) };
        let again = again.cloned();
        match again {
            Some(mut op) if random.random_bool(0.15) => {
                match random.random_range(0..10) {
                    0 => op.clock += 1,               // another content under a known opId,
                    1 => op.pk = self.ascending_pk(), // or of a new record
                    2 => op.parent = Some(None),      // which this is no part of
                    _ => {}
                }
                op
            }
            _ => self.fresh(random, batch),
        }
    }

    fn ascending_pk(&mut self) -> String {
        self.ascending += 1;
        format!("new-{:06}", self.ascending)
    }

    fn fresh(&mut self, random: &mut StdRng, batch: &[Op]) -> Op {
        // Runs of new names in a batch, now and then with an old one between.
        let ascends = match batch.last() {
            Some(op) => op.pk.starts_with("new") != random.random_bool(0.02),
            None => random.random_bool(0.4),
        };
        let pk = match ascends {
            true => self.ascending_pk(),
            false if random.random_bool(0.1) && self.ascending > 0 => {
                format!("new-{:06}", random.random_range(1..=self.ascending))
            }
            false => format!("pk-{}", random.random_range(0..60)),
        };
        let mut op = fresh_op(random, pk);
        op.parent = match random.random_range(0..4) {
            0 => None,
            1 => Some(None),
            // Now and then of the same record, and then now and then its newest.
            _ => {
                let of_record = |other: &&Op| other.pk == op.pk;
                let seen = batch.iter().rev().find(of_record);
                let seen = seen.or_else(|| self.batches.last()?.iter().rev().find(of_record));
                Some(seen.or(self.any_op(random)).map(|op| op.id))
            }
        };
        op
    }
}

fn fresh_op(random: &mut StdRng, pk: String) -> Op {
    let bytes = match random.random_range(0..100) {
        0 => 256_000,
        1..=5 => 9_000,
        _ => random.random_range(0..900),
    };
    // Hardly compressible, so that large ones are really stored apart.
    let text: String = (0..bytes / 8).map(|_| format!("{:08x}", random.random::<u32>())).collect();
    Op {
        id: random.random(),
        pk,
        clock: random.random_range(0..12),
        delete: random.random_bool(0.15),
        payload: format!("{{\"text\":\"{text}\"}}"),
        parent: None,
    }
}

fn told(reply: &str) -> Vec<Told> {
    let reply: Value = serde_json::from_str(reply).unwrap();
    reply["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| match item["success"].as_bool().unwrap() {
            false => Err(item["errorCode"].as_str().unwrap().to_owned()),
            true => Ok(Stored {
                version: item["serverVersion"].as_i64().unwrap(),
                applied: item["applied"].as_bool().unwrap(),
                replayed: item.get("replayed").is_some(),
                created: item.get("created").is_some(),
                overwrote: item["overwrote"].as_str().map(str::to_owned),
                winner: item.get("winner").map(|winner| {
                    let payload = winner.get("payload").map(|payload| payload.to_string().len());
                    (winner["serverVersion"].as_i64().unwrap(), payload)
                }),
            }),
        })
        .collect()
}

fn push(client: &mut impl GenericClient, ops: &[Op]) -> Vec<Told> {
    let json: Vec<String> = ops.iter().map(Op::json).collect();
    let json = format!("[{}]", json.join(","));
    let row = client.query_one("select sync_push('w', $1::text::json)::text", &[&json]).unwrap();
    told(row.get(0))
}

/// One to a few pushes, in one of the ways that callers push.
fn step(client: &mut Client, random: &mut StdRng, model: &mut Model, past: &mut Past) {
    let first = past.batch(random);
    let second = past.batch(random);
    match random.random_range(0..5) {
        // A statement of its own.
        0 => assert_eq!(push(client, &first), model.push(&first)),
        // A transaction, a savepoint of which is rolled back.
        1 => {
            let mut transaction = client.transaction().unwrap();
            let mut savepoint = transaction.savepoint("lost").unwrap();
            assert_eq!(push(&mut savepoint, &second), model.clone().push(&second));
            savepoint.rollback().unwrap();
            assert_eq!(push(&mut transaction, &first), model.push(&first));
            assert_eq!(push(&mut transaction, &second), model.push(&second));
            transaction.commit().unwrap();
            past.batches.push(second);
        }
        2 => {
            let mut transaction = client
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .start()
                .unwrap();
            assert_eq!(push(&mut transaction, &first), model.push(&first));
            assert_eq!(push(&mut transaction, &second), model.push(&second));
            transaction.commit().unwrap();
            past.batches.push(second);
        }
        // A transaction that is rolled back as a whole.
        3 => {
            let mut transaction = client.transaction().unwrap();
            assert_eq!(push(&mut transaction, &first), model.clone().push(&first));
            transaction.rollback().unwrap();
            return;
        }
        // Two calls in one statement.
        _ => {
            let json = |ops: &[Op]| {
                format!("[{}]", ops.iter().map(Op::json).collect::<Vec<_>>().join(","))
            };
            let row = client
                .query_one(
                    "select sync_push('w', $1::text::json)::text, sync_push('w', $2::text::json)::text",
                    &[&json(&first), &json(&second)],
                )
                .unwrap();
            assert_eq!(told(row.get(0)), model.push(&first));
            assert_eq!(told(row.get(1)), model.push(&second));
            past.batches.push(second);
        }
    }
    past.batches.push(first);
}

fn check_tables(client: &mut Client, model: &Model) {
    let rows = client
        .query(
            "select server_version, pk, operation, payload::text, clock, op_id::text, applied, supersedes, overwrote::text
               from sync_ext.change_log order by server_version",
            &[],
        )
        .unwrap();
    assert_eq!(rows.len(), model.log.len());
    for (at, (row, entry)) in rows.iter().zip(&model.log).enumerate() {
        let Entry { op, applied, supersedes, overwrote, .. } = entry;
        assert_eq!(row.get::<_, i64>(0), at as i64 + 1);
        assert_eq!(row.get::<_, &str>(1), op.pk);
        assert_eq!(row.get::<_, &str>(2), if op.delete { "delete" } else { "put" });
        let payload: Option<&str> = row.get(3);
        assert_eq!(payload, (!op.delete).then_some(op.payload.as_str()));
        assert_eq!(row.get::<_, i64>(4), op.clock as i64);
        assert_eq!(row.get::<_, &str>(5), batch::op_id(op.id));
        assert_eq!(row.get::<_, bool>(6), *applied);
        assert_eq!(row.get::<_, Option<i64>>(7), *supersedes);
        assert_eq!(row.get::<_, Option<String>>(8), overwrote.map(batch::op_id));
    }
    let rows = client
        .query("select pk, server_version, clock, op_id::text, deleted from sync_ext.record order by pk", &[])
        .unwrap();
    assert_eq!(rows.len(), model.winners.len());
    for (row, (pk, version)) in rows.iter().zip(&model.winners) {
        let op = &model.log[*version as usize - 1].op;
        assert_eq!(row.get::<_, &str>(0), pk);
        assert_eq!(row.get::<_, i64>(1), *version);
        assert_eq!(row.get::<_, i64>(2), op.clock as i64);
        assert_eq!(row.get::<_, &str>(3), batch::op_id(op.id));
        assert_eq!(row.get::<_, bool>(4), op.delete);
    }
}

#[test]
fn random_batches_do_what_the_model_does() {
    let cluster = Cluster::start("differential", &["fsync=off"]).unwrap();
    for seed in SEEDS {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let mut client = cluster.create_database("app").unwrap();
        client.execute("select sync_register_table('notes')", &[]).unwrap();
        if seed % 2 == 1 {
            // On what every update changes: then none of them is HOT.
            client.batch_execute("create index own on sync_ext.record (server_version)").unwrap();
        }
        let (mut model, mut past) = (Model::default(), Past::default());
        for _ in 0..STEPS {
            step(&mut client, &mut random, &mut model, &mut past);
        }
        check_tables(&mut client, &model);
        if soundness::is_checkable(&mut client).unwrap() {
            soundness::check(&mut client).unwrap();
        }
        println!("{} ops, {} records", model.log.len(), model.winners.len());
    }
}
