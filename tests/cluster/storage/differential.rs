//! Random batches against the model of the contract: every reply and, at the
//! end, every row must be what the model says; and the indexes and heaps must be
//! sound.

use postgres::{Client, GenericClient, IsolationLevel};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use sync_ext_harness::batch;
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::soundness;
use sync_ext_model::Server;
use sync_ext_model::reply::{read, timeless};
use sync_ext_model::rows::{STORED_LOG, STORED_REST, difference};

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
                    3 => op.payload = op.payload.replace(':', " : "), // nor this
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

fn ops(ops: &[Op]) -> String {
    let ops: Vec<String> = ops.iter().map(Op::json).collect();
    format!("[{}]", ops.join(","))
}

fn expected(model: &mut Server, batch: &[Op]) -> Value {
    timeless(model.push(None, "w", &ops(batch), 0).unwrap())
}

/// Pushes to a server, which must reply what its model does.
fn push(client: &mut impl GenericClient, model: &mut Server, batch: &[Op]) {
    let sql = "select sync_push('w', $1::text::json)::text";
    let row = client.query_one(sql, &[&ops(batch)]).unwrap();
    assert_eq!(timeless(read(row.get(0)).unwrap()), expected(model, batch));
}

/// One to a few pushes, in one of the ways that callers push.
fn step(client: &mut Client, random: &mut StdRng, model: &mut Server, past: &mut Past) {
    let first = past.batch(random);
    let second = past.batch(random);
    match random.random_range(0..5) {
        // A statement of its own.
        0 => push(client, model, &first),
        // A transaction, a savepoint of which is rolled back.
        1 => {
            let mut transaction = client.transaction().unwrap();
            let mut savepoint = transaction.savepoint("lost").unwrap();
            push(&mut savepoint, &mut model.clone(), &second);
            savepoint.rollback().unwrap();
            push(&mut transaction, model, &first);
            push(&mut transaction, model, &second);
            transaction.commit().unwrap();
            past.batches.push(second);
        }
        2 => {
            let mut transaction = client
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .start()
                .unwrap();
            push(&mut transaction, model, &first);
            push(&mut transaction, model, &second);
            transaction.commit().unwrap();
            past.batches.push(second);
        }
        // A transaction that is rolled back as a whole.
        3 => {
            let mut transaction = client.transaction().unwrap();
            push(&mut transaction, &mut model.clone(), &first);
            transaction.rollback().unwrap();
            return;
        }
        // Two calls in one statement.
        _ => {
            let sql = "select sync_push('w', $1::text::json)::text,
                              sync_push('w', $2::text::json)::text";
            let row = client.query_one(sql, &[&ops(&first), &ops(&second)]).unwrap();
            for (place, batch) in [&first, &second].into_iter().enumerate() {
                assert_eq!(timeless(read(row.get(place)).unwrap()), expected(model, batch));
            }
            past.batches.push(second);
        }
    }
    past.batches.push(first);
}

fn check_rows(client: &mut Client, model: &Server) {
    let (all, no_times) = (None::<String>, None::<i64>);
    let mut rows = client.query(STORED_LOG, &[&all, &0_i64, &no_times]).unwrap();
    rows.append(&mut client.query(STORED_REST, &[&no_times]).unwrap());
    let mut stored: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    stored.sort_unstable();
    assert_eq!(difference(&stored, &model.lines(false)), None);
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
        let (mut model, mut past) = (Server::default(), Past::default());
        model.register(None, "notes", "id", None).unwrap();
        for _ in 0..STEPS {
            step(&mut client, &mut random, &mut model, &mut past);
        }
        check_rows(&mut client, &model);
        if soundness::is_checkable(&mut client).unwrap() {
            soundness::check(&mut client).unwrap();
        }
        let state = &model.workspaces["w"];
        println!("{} ops, {} records", state.head, state.records.len());
    }
}
