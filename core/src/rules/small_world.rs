//! All histories of a small world: three devices, two records and a few ops each, in
//! every order of arrival and every batching, with one repetition anywhere.
//!
//! A device's ops arrive in its order, the last device's in reverse. A device pushes
//! any run of ops that begins with its next one, or repeats any run that begins with an
//! earlier one: a whole retry, a part of it, or one combined with the ops that follow.
//! Decisions depend only on the order in which ops were logged, so histories with the
//! same order are processed together and counted individually.
//!
//! Each op belongs to either record. LWW does not depend on whether an op deletes, so the
//! op's place among its device's ops determines that, in every combination of places.
//! SYNC_EXT_SMALL_WORLD is the number of ops of each device, 2 by default.

use std::collections::HashMap;

use super::batch::Batch;
use super::merge::{RecordState, apply, turn};
use super::model::{delete, op};
use super::op::{Op, Version};

const DEVICES: usize = 3;
const RECORDS: [&str; 2] = ["a", "b"];

/// An op's device, and its place among that device's ops.
type Place = (usize, usize);

/// The remaining state of a history: the order in which ops were logged, and the
/// registers of the records.
#[derive(Clone, PartialEq, Debug)]
struct State {
    log: Vec<Place>,
    registers: Vec<Option<RecordState<'static>>>,
}

/// The number of histories from a state on, without and with a repetition.
#[derive(Clone, Copy, Default)]
struct Histories {
    without: u128,
    with: u128,
}

struct World {
    ops: Vec<Vec<Op<'static>>>,
    /// The results for each order of logging.
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
        // After a repetition that changes nothing, every history without one can
        // follow.
        histories.with += repetitions.with * histories.without;
        self.followed.insert(state.log.clone(), (state, histories));
        histories
    }

    /// Pushes one batch and checks its versions.
    fn push(&mut self, state: &State, device: usize, start: usize, end: usize) -> State {
        self.pushes += 1;
        let batch = self.ops[device][start..end].iter().cloned().map(|op| (None, Ok(op)));
        let batch = Batch::gather(batch, str::to_owned);
        assert!(batch.items.iter().map(|item| item.op.clone()).eq((0..end - start).map(Ok)));
        let State { mut log, mut registers } = state.clone();
        for (number, op) in (start..end).zip(&batch.ops) {
            if !state.log.contains(&(device, number)) {
                let record = RECORDS.iter().position(|pk| *pk == op.key.pk).unwrap();
                log.push((device, number));
                let version = Version::stored(log.len() as i64);
                let turn = turn(op, registers[record].as_ref()).unwrap();
                apply(&mut registers[record], op, &turn, None, None, version);
            }
        }
        State { log, registers }
    }

    /// Each record is its op of the highest revision, at the version of that op.
    fn check_end(&self, state: &State) {
        for (record, pk) in RECORDS.iter().enumerate() {
            let ops = state.log.iter().map(|(device, number)| &self.ops[*device][*number]);
            let of_record = ops.zip(1..).filter(|(op, _)| op.key.pk == *pk);
            let winner = of_record.max_by_key(|(op, _)| {
                (op.revision.clock, op.revision.hlc.clone(), *op.op_id().as_bytes())
            });
            let register = state.registers[record].as_ref();
            assert_eq!(
                register.map(|record| (&record.register, record.version.get())),
                winner.map(|(op, version)| (&op.revision, version)),
            );
            let deleted = winner.map(|(op, _)| op.payload.is_none());
            assert_eq!(register.map(|register| register.deleted), deleted);
        }
    }
}

/// All ways for a device to make up to `count` ops: the record of each, and whether it
/// deletes.
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

/// A device knows only its own edits: its clocks count those of the record.
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

/// Whether the ops of each place either all delete or all do not.
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

/// Worlds and histories by the number of ops of each device, so that a lost case is
/// noticed.
const EXPECTED: [(u64, u128); 3] = [(53, 889), (1_317, 2_181_337), (25_573, 4_067_038_297)];
