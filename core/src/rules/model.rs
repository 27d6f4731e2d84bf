//! A workspace in memory that uses the rules as `sync` does, and the properties that
//! must hold for every history.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use uuid::Uuid;

use super::batch::Batch;
use super::history::Progress;
use super::merge::{Decision, RecordState, apply, turn};
use super::op::{Op, Operation, Patch, RecordKey, Revision, Version};
use super::refusal::Refusal;
use super::retention::{self, Purge, PurgedKind};

/// A put on table `t`; each op has another payload.
pub fn op(id: u128, pk: &'static str, clock: i64) -> Op<'static> {
    Op {
        key: RecordKey { table: "t".into(), pk: pk.into() },
        operation: Operation::Put,
        payload: Some(if clock % 2 == 0 { r#"{"v":0}"# } else { r#"{"v":1}"# }),
        revision: Revision { clock, hlc: "h".into(), op_id: Uuid::from_u128(id) },
        device_id: "d".into(),
        patch: None,
        parent: None,
        expected: None,
    }
}

pub fn delete(id: u128, pk: &'static str, clock: i64) -> Op<'static> {
    Op { operation: Operation::Delete, payload: None, ..op(id, pk, clock) }
}

/// A patch of the record that `base` put.
pub fn patch(id: u128, base: &Op<'static>, clock: i64, fields: &[&'static str]) -> Op<'static> {
    let fields = fields.iter().map(|name| ((*name).into(), "1")).collect();
    Op {
        operation: Operation::Patch,
        patch: Some(Box::new(Patch { base: base.revision.clone(), fields })),
        ..op(id, "", clock).with_key(base)
    }
}

impl Op<'static> {
    fn with_key(self, other: &Op<'static>) -> Op<'static> {
        Op { key: other.key.clone(), ..self }
    }
}

struct Logged {
    op: Op<'static>,
    applied: bool,
    supersedes: Option<Version>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Refused(Refusal),
    Stored(Version),
    Replayed(Version),
}

#[derive(Default)]
struct Workspace {
    progress: Progress,
    log: BTreeMap<Version, Logged>,
    records: BTreeMap<RecordKey<'static>, RecordState<'static>>,
    /// What took a version, purged or not.
    accepted: Vec<Op<'static>>,
}

/// Register, live or deleted, and who holds the fields.
type Merged = (Revision<'static>, bool, Vec<(String, Uuid)>);

impl Workspace {
    fn push(&mut self, ops: Vec<Result<Op<'static>, Refusal>>) -> Vec<Outcome> {
        let batch = Batch::gather(ops.into_iter().map(|op| (None, op)), str::to_owned);
        let outcomes: Vec<Outcome> = batch.ops.iter().map(|op| self.take(op)).collect();
        let outcome = |op: Result<usize, Refusal>| match op {
            Ok(place) => outcomes[place].clone(),
            Err(refusal) => Outcome::Refused(refusal),
        };
        batch.items.into_iter().map(|item| outcome(item.op)).collect()
    }

    fn take(&mut self, op: &Op<'static>) -> Outcome {
        if let Some((version, logged)) =
            self.log.iter().find(|(_, logged)| logged.op.op_id() == op.op_id())
        {
            return match op.same_content(&logged.op, |a, b| a == b) {
                true => Outcome::Replayed(*version),
                false => Outcome::Refused(Refusal::ConflictWithLog),
            };
        }
        let version = self.progress.head.next().unwrap();
        let turn = match turn(op, self.records.get(&op.key)) {
            Ok(turn) => turn,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let mut record = self.records.remove(&op.key);
        let decision = apply(&mut record, op, &turn, None, None, version);
        self.records.insert(op.key.clone(), record.unwrap());
        self.accepted.push(op.clone());
        let Decision { applied, supersedes, .. } = decision;
        self.log.insert(version, Logged { op: op.clone(), applied, supersedes });
        self.progress.head = version;
        Outcome::Stored(version)
    }

    /// GC as if every entry before the head were old.
    fn collect(&mut self) {
        let last = retention::ceiling(
            self.progress,
            &retention::Deadlines { now: 0, retention: 0, device_ttl: 0 },
            [],
        );
        while self.progress.gc_through < last {
            let version = self.progress.gc_through.next().unwrap();
            self.progress.gc_through = version;
            let Some(logged) = self.log.get(&version) else { continue };
            let candidate = retention::Candidate {
                operation: logged.op.operation,
                applied: logged.applied,
                supersedes: logged.supersedes,
            };
            let Purge { superseded, itself } =
                retention::purge(&candidate, self.records[&logged.op.key].version == version);
            if let Some(superseded) = superseded {
                self.log.remove(&superseded);
            }
            if itself.is_some() {
                self.log.remove(&version);
            }
            if itself == Some(PurgedKind::Tombstone) {
                self.progress.horizon = version;
            }
        }
    }

    /// The state that every device must reach.
    fn state(&self) -> BTreeMap<RecordKey<'static>, Merged> {
        let merged = |record: &RecordState<'static>| {
            let fields = record.fields().into_iter().flatten();
            let fields = fields.map(|(name, by)| (name.to_string(), by.op_id)).collect();
            (record.register.clone(), record.deleted, fields)
        };
        self.records.iter().map(|(key, record)| (key.clone(), merged(record))).collect()
    }

    /// The same as the contract says it, of the accepted ops in any order.
    fn expected_state(&self) -> BTreeMap<RecordKey<'static>, Merged> {
        let mut state = BTreeMap::new();
        let of_records = self.accepted.iter().filter(|op| op.patch.is_none());
        for op in of_records {
            let register = (op.revision.clone(), op.operation == Operation::Delete, vec![]);
            let known = state.entry(op.key.clone()).or_insert_with(|| register.clone());
            *known = register.max(known.clone());
        }
        for (key, (register, deleted, fields)) in &mut state {
            let patches = self.accepted.iter().filter(|op| op.key == *key && !*deleted);
            let mut held: BTreeMap<String, &Revision<'_>> = BTreeMap::new();
            for op in patches.filter(|op| op.base() == Some(register)) {
                for (name, _) in op.patch.iter().flat_map(|patch| &patch.fields) {
                    let by = held.entry(name.to_string()).or_insert(&op.revision);
                    *by = (*by).max(&op.revision);
                }
            }
            *fields = held.into_iter().map(|(name, by)| (name, by.op_id)).collect();
        }
        state
    }
}

/// Ops with distinct opIds on two records, with ties in clock; patches of puts that come
/// before them.
fn ops() -> impl Strategy<Value = Vec<Op<'static>>> {
    let spec = (select(vec!["a", "b"]), 0..4i64, 0..6, any::<prop::sample::Index>(), 1..4usize);
    prop::collection::vec(spec, 1..12).prop_map(|specs| {
        let mut ops: Vec<Op<'static>> = Vec::new();
        for (id, (pk, clock, kind, base, fields)) in (0..).zip(specs) {
            let puts: Vec<_> = ops.iter().filter(|op| op.operation == Operation::Put).collect();
            ops.push(match kind {
                0 => delete(id, pk, clock),
                1..=3 if !puts.is_empty() => {
                    let base = puts[base.index(puts.len())];
                    let fields = [&["x"][..], &["y"], &["x", "y"]][fields - 1];
                    patch(id, base, base.revision.clock + clock / 2, fields)
                }
                _ => op(id, pk, clock),
            });
        }
        ops
    })
}

/// The same ops in another order, some repeated, cut into batches.
fn deliveries(ops: Vec<Op<'static>>) -> impl Strategy<Value = Vec<Vec<Op<'static>>>> {
    let count = ops.len();
    subsequence(ops.clone(), 0..=count)
        .prop_flat_map(move |again| Just([ops.clone(), again].concat()).prop_shuffle())
        .prop_flat_map(|all| {
            let count = all.len();
            (Just(all), prop::collection::vec(any::<bool>(), count))
        })
        .prop_map(|(all, cuts)| {
            let mut batches = vec![Vec::new()];
            for (op, cut) in all.into_iter().zip(cuts) {
                batches.last_mut().unwrap().push(op);
                if cut {
                    batches.push(Vec::new());
                }
            }
            batches
        })
}

fn good(ops: Vec<Op<'static>>) -> Vec<Result<Op<'static>, Refusal>> {
    ops.into_iter().map(Ok).collect()
}

proptest! {
    #[test]
    fn any_order_batching_and_repetition_gives_one_state(
        (ops, deliveries, collect_after) in ops().prop_flat_map(|ops| {
            (Just(ops.clone()), deliveries(ops), prop::collection::vec(any::<bool>(), 24))
        })
    ) {
        let mut expected = Workspace::default();
        expected.push(good(ops.clone()));

        let mut actual = Workspace::default();
        let mut with_gc = Workspace::default();
        for (batch, collect) in deliveries.into_iter().zip(collect_after.into_iter().cycle()) {
            actual.push(good(batch.clone()));
            with_gc.push(good(batch));
            if collect {
                with_gc.collect();
            }
            prop_assert_eq!(actual.state(), actual.expected_state());
            prop_assert_eq!(with_gc.state(), with_gc.expected_state(), "GC changed the state");
        }
        // A patch that came before its put was refused, and comes again.
        for workspace in [&mut actual, &mut with_gc] {
            workspace.push(good(ops.clone()));
            prop_assert_eq!(workspace.state(), expected.state());
            prop_assert_eq!(workspace.state(), workspace.expected_state());
        }
        prop_assert_eq!(actual.progress.head.get(), ops.len() as i64);
    }

    #[test]
    fn versions_are_contiguous_and_replays_answer_the_first_one(
        (ops, deliveries) in ops().prop_flat_map(|ops| (Just(ops.clone()), deliveries(ops)))
    ) {
        let mut workspace = Workspace::default();
        let mut answered: HashMap<Uuid, Version> = HashMap::new();
        for batch in deliveries {
            let outcomes = workspace.push(good(batch.clone()));
            prop_assert_eq!(outcomes.len(), batch.len());
            for (op, outcome) in batch.iter().zip(outcomes) {
                let version = match outcome {
                    Outcome::Stored(version) | Outcome::Replayed(version) => version,
                    Outcome::Refused(Refusal::BaseMissing) => continue,
                    refused => return Err(TestCaseError::fail(format!("{refused:?}"))),
                };
                let first = *answered.entry(op.op_id()).or_insert(version);
                prop_assert_eq!(first, version);
            }
        }
        let versions: Vec<i64> = workspace.log.keys().map(|version| version.get()).collect();
        prop_assert_eq!(versions, (1..=answered.len() as i64).collect::<Vec<_>>());
        prop_assert!(ops.len() == answered.len() || ops.iter().any(|op| op.patch.is_some()));
    }

    #[test]
    fn bad_ops_change_nothing_about_the_good_ones(
        ops in ops(),
        places in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
    ) {
        let mut without = Workspace::default();
        let expected = without.push(good(ops.clone()));

        let mut mixed = good(ops);
        for place in places {
            let at = place.index(mixed.len() + 1);
            mixed.insert(at, Err(Refusal::Clock));
        }
        let mut with = Workspace::default();
        let outcomes = with.push(mixed);
        let kept: Vec<_> = outcomes
            .into_iter()
            .filter(|outcome| *outcome != Outcome::Refused(Refusal::Clock))
            .collect();
        prop_assert_eq!(kept, expected);
        prop_assert_eq!(with.state(), without.state());
    }

    #[test]
    fn gc_keeps_the_entry_of_every_live_record_and_raises_the_horizon_to_every_purged_delete(
        ops in ops(),
    ) {
        let mut workspace = Workspace::default();
        for op in ops {
            workspace.push(good(vec![op]));
            workspace.collect();
            for register in workspace.records.values() {
                let logged = workspace.log.contains_key(&register.version);
                prop_assert!(logged || register.deleted, "a live record lost its payload");
                prop_assert!(logged || register.version <= workspace.progress.horizon);
            }
            prop_assert!(workspace.log.contains_key(&workspace.progress.head));
            // The remaining entries are winners, or entries that GC has not read.
            for (version, logged) in &workspace.log {
                let winner = workspace.records[&logged.op.key].version == *version;
                prop_assert!(winner || *version > workspace.progress.gc_through
                    || workspace.records[&logged.op.key].version > workspace.progress.gc_through);
            }
        }
    }
}
