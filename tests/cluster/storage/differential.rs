//! Random batches against the model of the contract: every reply and, at the
//! end, every row must be what the model says; and the indexes and heaps must be
//! sound.

use std::collections::{BTreeMap, BTreeSet};

use postgres::{Client, GenericClient, IsolationLevel};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use sync_ext_harness::batch;
use sync_ext_harness::cluster::Cluster;
use sync_ext_harness::soundness;
use sync_ext_model::reply::{read, timeless};
use sync_ext_model::rows::{STORED_LOG, STORED_REST, difference};
use sync_ext_model::{Cutoffs, Revision, Server, Workspace};

const SEEDS: std::ops::Range<u64> = 0..4;
const STEPS: usize = 60;

#[derive(Clone, Debug)]
struct Op {
    id: u64,
    pk: String,
    clock: u64,
    kind: Kind,
    payload: String,
    /// The op that its author saw as the newest, or `Some(None)` for none.
    parent: Option<Option<u64>>,
    /// As JSON.
    expected: Option<String>,
}

#[derive(Clone, Debug)]
enum Kind {
    Put,
    Delete,
    /// With its base.
    Patch(Revision),
}

impl Op {
    fn json(&self) -> String {
        let op = |operation| batch::op(self.id, &self.pk, self.clock, operation, &self.payload);
        let op = match &self.kind {
            Kind::Put => op("put"),
            Kind::Delete => batch::delete(self.id, &self.pk, self.clock),
            Kind::Patch(base) => batch::with(&op("patch"), "base", &base.json().to_string()),
        };
        let op = match &self.expected {
            None => op,
            Some(expected) => batch::with(&op, "expected", expected),
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
    tally: Tally,
}

/// Replies by what they say.
type Tally = BTreeMap<String, u64>;

impl Past {
    fn any_op(&self, random: &mut StdRng) -> Option<&Op> {
        self.batches.choose(random)?.choose(random)
    }

    /// A batch that was pushed, as it was, or in part, or with others.
    fn retry(&mut self, random: &mut StdRng, state: &Workspace) -> Vec<Op> {
        let count = self.batches.len();
        // Often the last one: its reply was lost.
        let at = if random.random_bool(0.5) { count - 1 } else { random.random_range(0..count) };
        let mut ops = self.batches[at].clone();
        match random.random_range(0..5) {
            0 => ops.retain(|_| random.random_bool(0.8)),
            1 => {
                let place = random.random_range(0..=ops.len());
                let op = self.fresh(random, &ops, state);
                ops.insert(place, op);
            }
            // The opId of one of them, of another record.
            2 if !ops.is_empty() => {
                let place = random.random_range(0..ops.len());
                ops[place].pk = format!("pk-{}", random.random_range(0..25));
            }
            3 => ops.extend(self.batches[random.random_range(0..count)].clone()),
            _ => {}
        }
        ops
    }

    fn batch(&mut self, random: &mut StdRng, state: &Workspace) -> Vec<Op> {
        if !self.batches.is_empty() && random.random_bool(0.3) {
            return self.retry(random, state);
        }
        let count = *[0, 1, 2, 7, 40, 150].choose(random).unwrap();
        let mut ops: Vec<Op> = Vec::new();
        for _ in 0..count {
            let op = self.op(random, &ops, state);
            ops.push(op);
        }
        ops
    }

    fn op(&mut self, random: &mut StdRng, batch: &[Op], state: &Workspace) -> Op {
        let again =
            if random.random_bool(0.5) { self.any_op(random) } else { batch.choose(random) };
        let again = again.cloned();
        match again {
            Some(mut op) if random.random_bool(0.15) => {
                match random.random_range(0..12) {
                    0 => op.clock += 1,               // another content under a known opId,
                    1 => op.pk = self.ascending_pk(), // or of a new record
                    2 => op.parent = Some(None),      // which this is no part of
                    3 => op.payload = op.payload.replace(':', " : "), // nor this
                    4 => op.expected = condition(random, &op, state), // nor this
                    5 => op.kind = patch_of(random, &op.pk, batch, state), // another base
                    _ => {}
                }
                op
            }
            _ => self.fresh(random, batch, state),
        }
    }

    fn ascending_pk(&mut self) -> String {
        self.ascending += 1;
        format!("new-{:06}", self.ascending)
    }

    fn fresh(&mut self, random: &mut StdRng, batch: &[Op], state: &Workspace) -> Op {
        // Runs of new names in a batch, now and then with an old one between.
        let ascends = match batch.last() {
            Some(op) => op.pk.starts_with("new") != random.random_bool(0.02),
            None => random.random_bool(0.2),
        };
        let pk = match ascends {
            true => self.ascending_pk(),
            false if random.random_bool(0.2) && self.ascending > 0 => {
                format!("new-{:06}", random.random_range(1..=self.ascending))
            }
            false => format!("pk-{}", random.random_range(0..25)),
        };
        let mut op = fresh_op(random, pk);
        let is_known =
            state.records.contains_key(&key(&op.pk)) || batch.iter().any(|other| other.pk == op.pk);
        if random.random_bool(if is_known { 0.75 } else { 0.02 }) {
            op.kind = patch_of(random, &op.pk, batch, state);
            op.payload = patch_payload(random);
            if let Kind::Patch(base) = &op.kind {
                op.clock = base.clock as u64 + random.random_range(0..6);
            }
        }
        if random.random_bool(0.15) {
            op.expected = condition(random, &op, state);
        }
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
    let text = text(random, bytes);
    let more = *["", "", r#","a":1"#, r#", "a" : 1 , "\u0061":2 "#, r#","b":{"a":"}"}"#]
        .choose(random)
        .unwrap();
    let delete = random.random_bool(0.15);
    Op {
        id: random.random(),
        pk,
        clock: random.random_range(0..12),
        kind: if delete { Kind::Delete } else { Kind::Put },
        payload: format!("{{\"text\":\"{text}\"{more}}}"),
        parent: None,
        expected: None,
    }
}

fn text(random: &mut StdRng, bytes: usize) -> String {
    (0..bytes / 8).map(|_| format!("{:08x}", random.random::<u32>())).collect()
}

fn key(pk: &str) -> (String, String) {
    ("notes".to_owned(), pk.to_owned())
}

/// Mostly of the record's register, or of a put of the same batch.
fn patch_of(random: &mut StdRng, pk: &str, batch: &[Op], state: &Workspace) -> Kind {
    let puts = batch.iter().filter(|op| op.pk == pk && matches!(op.kind, Kind::Put));
    let mut of_batch = puts.map(|op| Revision {
        clock: op.clock as i64,
        hlc: "h".to_owned(),
        op_id: batch::op_id(op.id),
    });
    let register = state.records.get(&key(pk)).map(|record| record.revision.clone());
    let mut base = match random.random_range(0..10) {
        0 => of_batch.next_back().or(register),
        _ => of_batch.chain(register).max(),
    }
    .unwrap_or_else(|| Revision { clock: 3, hlc: "h".to_owned(), op_id: batch::op_id(7) });
    match random.random_range(0..40) {
        0 => base.clock += 1,
        1 => base.clock = (base.clock - 1).max(0),
        2 => base.hlc = "g".to_owned(),
        3 => base.op_id = batch::op_id(random.random()),
        _ => {}
    }
    Kind::Patch(base)
}

const FIELDS: [&str; 6] = ["text", "a", "\\u0061", "b", "c\\\"", "é"];

fn patch_payload(random: &mut StdRng) -> String {
    let members: Vec<String> = (0..random.random_range(1..4))
        .map(|_| {
            let bytes = match random.random_range(0..100) {
                0..2 => 140_000,
                2..5 => 9_000,
                _ => random.random_range(0..60),
            };
            let value = match random.random_range(0..4) {
                0 => "null".to_owned(),
                1 => r#"{ "a" :[1.50, "}"]}"#.to_owned(),
                _ => format!("\"{}\"", text(random, bytes)),
            };
            format!("\"{}\":{value}", FIELDS.choose(random).unwrap())
        })
        .collect();
    format!("{{{}}}", members.join(", "))
}

/// What its author may expect; often true.
fn condition(random: &mut StdRng, op: &Op, state: &Workspace) -> Option<String> {
    let record = state.records.get(&key(&op.pk));
    let newest = record.map(|record| state.newest_id(record).to_owned());
    let newest = newest.filter(|_| random.random_bool(0.8));
    let newest = newest.unwrap_or_else(|| batch::op_id(random.random()));
    Some(match (&op.kind, random.random_range(0..4)) {
        (_, kind) if kind == 0 || record.is_none() => "\"none\"".to_owned(),
        (Kind::Patch(base), 1 | 2) => {
            let fields = record.map(|record| state.fields(record)).unwrap_or_default();
            let by = fields.get("a").unwrap_or(base).op_id.clone();
            match random.random_range(0..4) {
                0 => format!("{{\"a\":\"{newest}\"}}"),
                1 => format!("{{\"\\u0061\":\"{by}\",\"text\":\"{newest}\"}}"),
                _ => format!("{{\"a\":\"{by}\",\"b\":null}}"),
            }
        }
        _ => format!("\"{newest}\""),
    })
}

fn ops(ops: &[Op]) -> String {
    let ops: Vec<String> = ops.iter().map(Op::json).collect();
    format!("[{}]", ops.join(","))
}

fn expected(model: &mut Server, batch: &[Op], tally: &mut Tally) -> Value {
    let reply = timeless(model.push(None, "w", &ops(batch), 0).unwrap());
    let results = reply["results"].as_array().unwrap();
    let mut add = |what: &str| *tally.entry(what.to_owned()).or_default() += 1;
    for (op, result) in batch.iter().zip(results) {
        let is_patch = matches!(op.kind, Kind::Patch(_));
        let is_replay = result["replayed"] == true;
        let said = match result["errorCode"].as_str() {
            Some(code) => code,
            None if op.expected.is_some() => "condition met",
            None if !is_patch => continue,
            None if is_replay => "patch replayed",
            None if result["applied"] == false => "patch lost",
            None if result["lost"].is_array() => "patch applied in part",
            None => "patch applied",
        };
        add(said);
    }
    reply
}

/// Pushes to a server, which must reply what its model does.
fn push(client: &mut impl GenericClient, model: &mut Server, batch: &[Op], tally: &mut Tally) {
    let sql = "select sync_push('w', $1::text::json)::text";
    let row = client.query_one(sql, &[&ops(batch)]).unwrap();
    assert_eq!(timeless(read(row.get(0)).unwrap()), expected(model, batch, tally));
}

/// One to a few pushes, in one of the ways that callers push.
fn step(client: &mut Client, random: &mut StdRng, model: &mut Server, past: &mut Past) {
    if random.random_bool(0.15) {
        collect(client, random, model);
    }
    let state = model.workspaces.get("w").cloned().unwrap_or_default();
    let first = past.batch(random, &state);
    let second = past.batch(random, &state);
    let tally = &mut past.tally;
    match random.random_range(0..5) {
        // A statement of its own.
        0 => push(client, model, &first, tally),
        // A transaction, a savepoint of which is rolled back.
        1 => {
            let mut transaction = client.transaction().unwrap();
            let mut savepoint = transaction.savepoint("lost").unwrap();
            push(&mut savepoint, &mut model.clone(), &second, tally);
            savepoint.rollback().unwrap();
            push(&mut transaction, model, &first, tally);
            push(&mut transaction, model, &second, tally);
            transaction.commit().unwrap();
            past.batches.push(second);
        }
        2 => {
            let mut transaction = client
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .start()
                .unwrap();
            push(&mut transaction, model, &first, tally);
            push(&mut transaction, model, &second, tally);
            transaction.commit().unwrap();
            past.batches.push(second);
        }
        // A transaction that is rolled back as a whole.
        3 => {
            let mut transaction = client.transaction().unwrap();
            push(&mut transaction, &mut model.clone(), &first, tally);
            transaction.rollback().unwrap();
            return;
        }
        // Two calls in one statement.
        _ => {
            let sql = "select sync_push('w', $1::text::json)::text,
                              sync_push('w', $2::text::json)::text";
            let row = client.query_one(sql, &[&ops(&first), &ops(&second)]).unwrap();
            for (place, batch) in [&first, &second].into_iter().enumerate() {
                assert_eq!(timeless(read(row.get(place)).unwrap()), expected(model, batch, tally));
            }
            past.batches.push(second);
        }
    }
    past.batches.push(first);
}

/// Purges some of what others replaced: what is sent again then is new.
fn collect(client: &mut Client, random: &mut StdRng, model: &mut Server) {
    let batch = random.random_range(1..400);
    client.batch_execute("update sync_ext.change_log set created_at = 'epoch'").unwrap();
    let sql = "select sync_gc('w', interval '1 h', $1)::text";
    let reply: String = client.query_one(sql, &[&batch]).unwrap().get(0);
    let cutoffs = Cutoffs { entries: i64::MAX, heartbeats: i64::MIN, forgotten: i64::MIN };
    let collected = model.collect(None, Some("w"), cutoffs, batch.into(), &BTreeSet::new());
    assert_eq!(read(&reply).unwrap(), collected.unwrap().reply());
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
    let mut total = Tally::new();
    for seed in SEEDS {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let mut client = cluster.create_database("app").unwrap();
        client.execute("select sync_register_table('notes', patches => true)", &[]).unwrap();
        if seed % 2 == 1 {
            // On what every update changes: then none of them is HOT.
            client.batch_execute("create index own on sync_ext.record (server_version)").unwrap();
        }
        let (mut model, mut past) = (Server::default(), Past::default());
        model.register(None, "notes", "id", None, true).unwrap();
        for _ in 0..STEPS {
            step(&mut client, &mut random, &mut model, &mut past);
        }
        check_rows(&mut client, &model);
        if soundness::is_checkable(&mut client).unwrap() {
            soundness::check(&mut client).unwrap();
        }
        let state = &model.workspaces["w"];
        println!("{} ops, {} records, {:?}", state.head, state.records.len(), past.tally);
        for (what, count) in past.tally {
            *total.entry(what).or_default() += count;
        }
    }
    for what in [
        "patch applied",
        "patch applied in part",
        "patch lost",
        "patch replayed",
        "condition met",
        "BASE_MISSING",
        "RECORD_CONFLICT",
        "FIELD_CONFLICT",
        "OVERSIZED",
        "VALIDATION_ERROR",
    ] {
        assert!(total.contains_key(what), "{what} in none of {total:?}");
    }
}
