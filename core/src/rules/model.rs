//! A workspace in memory that uses the rules as `sync` does, and the properties that
//! must hold for every history.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use uuid::Uuid;

use super::batch::Batch;
use super::history::Progress;
use super::merge::{Decision, Register, merge};
use super::op::{Op, Operation, RecordKey, Revision, Version};
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
        parent: None,
    }
}

pub fn delete(id: u128, pk: &'static str, clock: i64) -> Op<'static> {
    Op { operation: Operation::Delete, payload: None, ..op(id, pk, clock) }
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
    records: BTreeMap<RecordKey<'static>, Register<'static>>,
}

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
        let mut register = self.records.remove(&op.key);
        let decision = merge(&mut register, op, None, version);
        self.records.insert(op.key.clone(), register.unwrap());
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

    /// The state that every device must reach: key, revision, deleted.
    fn state(&self) -> Vec<(RecordKey<'static>, Revision<'static>, bool)> {
        self.records
            .iter()
            .map(|(key, register)| (key.clone(), register.revision.clone(), register.deleted))
            .collect()
    }
}

/// Ops with distinct opIds on two records, with ties in clock.
fn ops() -> impl Strategy<Value = Vec<Op<'static>>> {
    prop::collection::vec((select(vec!["a", "b"]), 0..4i64, any::<bool>()), 1..12).prop_map(
        |specs| {
            specs
                .into_iter()
                .enumerate()
                .map(|(id, (pk, clock, deleted))| match deleted {
                    true => delete(id as u128, pk, clock),
                    false => op(id as u128, pk, clock),
                })
                .collect()
        },
    )
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
        }
        prop_assert_eq!(actual.state(), expected.state());
        prop_assert_eq!(actual.progress.head.get(), ops.len() as i64);
        prop_assert_eq!(with_gc.state(), expected.state(), "GC changed the state");
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
                let (Outcome::Stored(version) | Outcome::Replayed(version)) = outcome else {
                    return Err(TestCaseError::fail(format!("refused: {outcome:?}")));
                };
                let first = *answered.entry(op.op_id()).or_insert(version);
                prop_assert_eq!(first, version);
            }
        }
        let versions: Vec<i64> = workspace.log.keys().map(|version| version.get()).collect();
        prop_assert_eq!(versions, (1..=ops.len() as i64).collect::<Vec<_>>());
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
