//! A small world of patches, exhausted: every set of a few puts, deletes and patches of
//! one record, in every order of arrival, with one op pushed once more at a later turn, as
//! after its entry was purged.
//!
//! Clocks tie on purpose. An op that is refused because its base is missing is pushed again
//! at the end, as clients do. Then all ops are accepted, and every order must end in the
//! state that the contract gives for the set. A set has up to two ops more than
//! SYNC_EXT_SMALL_WORLD, which is 2 unless it is set.

use std::collections::BTreeMap;

use super::merge::{RecordState, apply, turn};
use super::model::{delete, op, patch};
use super::op::{Op, Operation, Revision, Version};
use super::refusal::Refusal;

type Fields = BTreeMap<String, Revision<'static>>;

/// Two puts and a delete, and patches of either put on two fields.
fn pool() -> Vec<Op<'static>> {
    let puts = [op(1, "a", 1), op(5, "a", 3)];
    let mut pool = vec![puts[0].clone(), puts[1].clone(), delete(4, "a", 2), delete(9, "a", 4)];
    for (put, clocks) in puts.iter().zip([[2, 3], [4, 5]]) {
        for (clock, fields) in clocks
            .iter()
            .flat_map(|clock| [&["x"][..], &["y"], &["x", "y"]].map(|fields| (*clock, fields)))
        {
            pool.push(patch(10 + pool.len() as u128, put, clock, fields));
        }
    }
    pool
}

/// What the contract says of a set of accepted ops.
fn expected_state(ops: &[&Op<'static>]) -> Option<(Revision<'static>, bool, Fields)> {
    let whole = ops.iter().filter(|op| op.operation != Operation::Patch);
    let register = whole.max_by_key(|op| op.revision.clone())?;
    let mut fields = Fields::new();
    let deleted = register.operation == Operation::Delete;
    for op in ops.iter().filter(|op| !deleted && op.base() == Some(&register.revision)) {
        for (name, _) in op.patch.iter().flat_map(|patch| &patch.fields) {
            let held = fields.entry(name.to_string()).or_insert_with(|| op.revision.clone());
            *held = op.revision.clone().max(held.clone());
        }
    }
    Some((register.revision.clone(), deleted, fields))
}

fn state(record: &Option<RecordState<'static>>) -> Option<(Revision<'static>, bool, Fields)> {
    let record = record.as_ref()?;
    let fields = record.fields().cloned().into_iter().flatten();
    let fields = fields.map(|(name, by)| (name.into_owned(), by)).collect();
    Some((record.register.clone(), record.deleted, fields))
}

/// Takes each op at its turn; gives those that were refused.
fn take<'o>(
    record: &mut Option<RecordState<'static>>,
    version: &mut i64,
    ops: impl IntoIterator<Item = &'o Op<'static>>,
) -> Vec<&'o Op<'static>> {
    let mut refused = Vec::new();
    for op in ops {
        match turn(op, record.as_ref()) {
            Ok(turn) => {
                *version += 1;
                apply(record, op, &turn, None, None, Version::stored(*version));
            }
            Err(refusal) => {
                assert_eq!(refusal, Refusal::BaseMissing);
                refused.push(op);
            }
        }
    }
    refused
}

/// Calls `visit` with every order of `ops`.
fn orders<'o>(ops: &mut [&'o Op<'static>], from: usize, visit: &mut dyn FnMut(&[&'o Op<'static>])) {
    if from == ops.len() {
        return visit(ops);
    }
    for place in from..ops.len() {
        ops.swap(from, place);
        orders(ops, from + 1, visit);
        ops.swap(from, place);
    }
}

/// Are the puts there that the set's patches edit?
fn is_complete(ops: &[&Op<'static>]) -> bool {
    let is_there = |base: &Revision<'static>| ops.iter().any(|op| op.revision == *base);
    ops.iter().all(|op| op.base().is_none_or(is_there))
}

#[test]
fn every_order_of_a_small_set_of_patches_ends_in_the_same_state() {
    let size = std::env::var("SYNC_EXT_SMALL_WORLD").map_or(2, |size| size.parse().unwrap());
    let count: usize = 2 + size;
    let pool = pool();
    let (mut sets, mut histories, mut refusals) = (0_u64, 0_u64, 0_u64);
    for chosen in 1_u32..1 << pool.len() {
        if chosen.count_ones() as usize > count {
            continue;
        }
        let is_chosen = |(place, _): &(usize, &Op<'static>)| chosen & (1 << place) != 0;
        let set = pool.iter().enumerate().filter(is_chosen);
        let mut ops: Vec<&Op<'static>> = set.map(|(_, op)| op).collect();
        if !is_complete(&ops) {
            continue;
        }
        sets += 1;
        let expected = expected_state(&ops);
        orders(&mut ops, 0, &mut |order| {
            for again in 0..order.len() {
                for at in again..order.len() {
                    let (mut record, mut version) = (None, 0);
                    let (before, after) = order.split_at(at + 1);
                    let sent = before.iter().chain([&order[again]]).chain(after).copied();
                    let refused = take(&mut record, &mut version, sent);
                    refusals += refused.len() as u64;
                    assert!(take(&mut record, &mut version, refused).is_empty());
                    assert_eq!(state(&record), expected, "{order:?}, {again} again after {at}");
                    histories += 1;
                }
            }
        });
    }
    println!("{histories} histories of {sets} sets, {refusals} refusals");
    assert!(refusals > 0);
    assert!(EXPECTED.contains(&(count, sets, histories)), "not all of them");
}

/// Sets and histories by the number of ops: counted once, so that none gets lost
/// unnoticed.
const EXPECTED: [(usize, u64, u64); 3] = [(3, 92, 2_632), (4, 295, 51_352), (5, 799, 958_552)];
