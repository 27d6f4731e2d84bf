//! A small world, exhausted: three devices, two records and a few ops each, in
//! every order of arrival and every batching, with one repetition anywhere.
//!
//! A device's ops arrive in its order, the last device's in the opposite one. It
//! pushes any stretch of them that begins with the next one, or repeats any
//! stretch that begins with an earlier one: a retry, whole, in part, or cut anew
//! with ops that follow. What is decided depends only on the order in which ops
//! were logged, so histories that logged alike are followed together and counted
//! one by one.
//!
//! Each op is of either record. LWW does not ask whether an op deletes, so that
//! goes by its place among its device's ops, in every combination of places.
//! SYNC_EXT_SMALL_WORLD is the number of ops of each device, 2 unless it is set.

use std::collections::HashMap;

use super::batch::{Batch, Item};
use super::merge::{Register, merge};
use super::model::{delete, op, shared};
use super::op::{Op, Version};

const DEVICES: usize = 3;
const RECORDS: [&str; 2] = ["a", "b"];

/// An op's device, and its place among that device's ops.
type Place = (usize, usize);

/// What is left of a history: the order in which ops were logged, and the
/// registers of the records.
#[derive(Clone, PartialEq, Debug)]
struct State {
    log: Vec<Place>,
    registers: Vec<Option<Register<'static>>>,
}

/// How many histories there are from a state on, without and with a repetition.
#[derive(Clone, Copy, Default)]
struct Histories {
    without: u128,
    with: u128,
}

struct World {
    ops: Vec<Vec<Op<'static>>>,
    /// What was found to follow an order of logging.
    followed: HashMap<Vec<Place>, (State, Histories)>,
    pushes: u64,
}

impl World {
    fn new(ops: Vec<Vec<Op<'static>>>) -> World {
        World { ops, followed: HashMap::new(), pushes: 0 }
    }

    fn arrived(&self, state: &State, device: usize) -> usize {
        state.log.iter().filter(|(of, _)| *of == device).count()
    }

    fn follow(&mut self, state: State) -> Histories {
        if let Some((known, histories)) = self.followed.get(&state.log) {
            assert_eq!(*known, state, "two ways to log alike decided differently");
            return *histories;
        }
        let mut histories = Histories::default();
        let total: usize = self.ops.iter().map(Vec::len).sum();
        if state.log.len() == total {
            self.check_end(&state);
            histories.without = 1;
        }
        let mut repetitions = Histories::default();
        for device in 0..DEVICES {
            let (arrived, count) = (self.arrived(&state, device), self.ops[device].len());
            for end in 1..=count {
                for start in 0..end.min(arrived + 1) {
                    let next = self.push(&state, device, start, end);
                    if end <= arrived {
                        assert_eq!(next, state, "a repetition changed something");
                        repetitions.with += 1;
                        continue;
                    }
                    let after = self.follow(next);
                    match start == arrived {
                        true => {
                            histories.without += after.without;
                            histories.with += after.with;
                        }
                        false => histories.with += after.without,
                    }
                }
            }
        }
        // A repetition that changes nothing can be followed by any history that
        // has none.
        histories.with += repetitions.with * histories.without;
        self.followed.insert(state.log.clone(), (state, histories));
        histories
    }

    /// One batch, and what must be true of its versions.
    fn push(&mut self, state: &State, device: usize, start: usize, end: usize) -> State {
        self.pushes += 1;
        let batch = self.ops[device][start..end].iter().cloned().map(Ok);
        let batch = Batch::gather(batch, str::to_owned);
        assert_eq!(batch.items, (0..end - start).map(Item::Op).collect::<Vec<_>>());
        let mut turns = Vec::new();
        let mut log = state.log.clone();
        for (number, op) in (start..end).zip(&batch.ops) {
            let known = state.log.iter().position(|place| *place == (device, number));
            if known.is_none() {
                let record = RECORDS.iter().position(|pk| *pk == op.key.pk).unwrap();
                turns.push(shared(op, record));
                log.push((device, number));
            }
        }
        let head = Version::stored(state.log.len() as i64);
        let merged = merge(head, &turns, state.registers.clone());
        let versions = merged.decisions.iter().map(|decision| decision.version.get());
        assert!(versions.eq(head.get() + 1..=log.len() as i64), "versions are contiguous");
        assert_eq!(merged.head.get(), log.len() as i64);
        State { log, registers: merged.registers }
    }

    /// Each record is its op of the highest revision, at that op's version.
    fn check_end(&self, state: &State) {
        for (record, pk) in RECORDS.iter().enumerate() {
            let ops = state.log.iter().map(|(device, number)| &self.ops[*device][*number]);
            let of_record = ops.zip(1..).filter(|(op, _)| op.key.pk == *pk);
            let winner = of_record.max_by_key(|(op, _)| {
                (op.revision.clock, op.revision.hlc.clone(), *op.op_id().as_bytes())
            });
            let register = state.registers[record].as_ref();
            assert_eq!(
                register.map(|register| (&register.revision, register.version.get())),
                winner.map(|(op, version)| (&op.revision, version)),
            );
            let deleted = winner.map(|(op, _)| op.payload.is_none());
            assert_eq!(register.map(|register| register.deleted), deleted);
        }
    }
}

/// Every way for a device to make up to `count` ops: of which record, and
/// whether it deletes.
fn edits(count: usize) -> Vec<Vec<(usize, bool)>> {
    let mut all = vec![vec![]];
    let mut longest: Vec<Vec<(usize, bool)>> = vec![vec![]];
    for _ in 0..count {
        longest = longest
            .iter()
            .flat_map(|edits| {
                (0..4).map(|edit| [&edits[..], &[(edit / 2, edit % 2 == 1)]].concat())
            })
            .collect();
        all.extend(longest.clone());
    }
    all
}

/// A device knows its own edits only: its clocks count those of the record.
fn ops_of(device: usize, edits: &[(usize, bool)]) -> Vec<Op<'static>> {
    let mut clocks = [0; RECORDS.len()];
    let mut ops = Vec::new();
    for (number, (record, deletes)) in edits.iter().enumerate() {
        clocks[*record] += 1;
        let id = (device as u128 + 1) << 8 | number as u128;
        let make = if *deletes { delete } else { op };
        ops.push(make(id, RECORDS[*record], clocks[*record]));
    }
    if device == DEVICES - 1 {
        ops.reverse();
    }
    ops
}

/// Do the ops of each place all delete, or none of them?
fn goes_by_place(devices: [&Vec<(usize, bool)>; DEVICES]) -> bool {
    (0..3).all(|place| {
        let mut kinds =
            devices.iter().filter_map(|edits| edits.get(place)).map(|(_, deletes)| deletes);
        let first = kinds.next();
        kinds.all(|kind| Some(kind) == first)
    })
}

#[test]
fn every_history_of_a_small_world_ends_in_the_same_state() {
    let count = std::env::var("SYNC_EXT_SMALL_WORLD").map_or(2, |count| count.parse().unwrap());
    let edits = edits(count);
    let firsts: Vec<usize> = (0..edits.len()).collect();
    let chunk = firsts.len().div_ceil(std::thread::available_parallelism().map_or(1, usize::from));
    let explore = |firsts: &[usize]| {
        let (mut worlds, mut pushes, mut histories) = (0u64, 0u64, 0u128);
        for first in firsts {
            for second in &edits {
                for third in &edits {
                    let chosen = [&edits[*first], second, third];
                    if !goes_by_place(chosen) {
                        continue;
                    }
                    let ops =
                        chosen.iter().enumerate().map(|(device, edits)| ops_of(device, edits));
                    let mut world = World::new(ops.collect());
                    let start = State { log: vec![], registers: vec![None; RECORDS.len()] };
                    let found = world.follow(start);
                    worlds += 1;
                    pushes += world.pushes;
                    histories += found.without + found.with;
                }
            }
        }
        (worlds, pushes, histories)
    };
    let (worlds, pushes, histories) = std::thread::scope(|scope| {
        let runs: Vec<_> =
            firsts.chunks(chunk).map(|firsts| scope.spawn(move || explore(firsts))).collect();
        runs.into_iter()
            .map(|run| run.join().unwrap())
            .fold((0, 0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1, sum.2 + run.2))
    });
    println!("{histories} histories of {worlds} worlds, {pushes} pushes");
    assert_eq!((worlds, histories), EXPECTED[count - 1], "not all of them");
}

/// Worlds and histories by the number of ops of each device: counted once, so
/// that none gets lost unnoticed.
const EXPECTED: [(u64, u128); 3] = [(53, 889), (1_317, 2_181_337), (25_573, 4_067_038_297)];
