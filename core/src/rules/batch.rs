//! Ops with the same opId in one batch, before any table is read.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::op::Op;
use super::refusal::Refusal;

/// A batch in which every opId occurs once.
pub struct Batch<'a> {
    /// The elements as received, in their order.
    pub items: Vec<Item<'a>>,
    /// The distinct well-formed ops, in order of first occurrence.
    pub ops: Vec<Op<'a>>,
}

/// An element of the array that was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// As written; `None` without one.
    pub op_id: Option<&'a str>,
    /// The index of its op in [`Batch::ops`]; equal items share it.
    pub op: Result<usize, Refusal>,
}

impl<'a> Batch<'a> {
    /// Joins ops with the same opId and equal content; different content makes all of
    /// them conflicts, whichever came first. `digest` is that of a payload's value,
    /// computed at most once for each payload.
    pub fn gather<D: PartialEq>(
        parsed: impl IntoIterator<Item = (Option<&'a str>, Result<Op<'a>, Refusal>)>,
        digest: impl Fn(&str) -> D,
    ) -> Batch<'a> {
        let parsed = parsed.into_iter();
        let (count, _) = parsed.size_hint();
        let mut items = Vec::with_capacity(count);
        let mut ops: Vec<Option<Op<'a>>> = Vec::with_capacity(count);
        let mut seen = BTreeMap::new();
        let mut conflicting = Vec::with_capacity(count);
        for (op_id, op) in parsed {
            let op = op.map(|op| match seen.entry(op.op_id()) {
                Entry::Vacant(entry) => {
                    entry.insert((ops.len(), None));
                    ops.push(Some(op));
                    conflicting.push(false);
                    ops.len() - 1
                }
                Entry::Occupied(mut entry) => {
                    let (first, first_digest) = entry.get_mut();
                    let is_same = |first: &str, other: &str| {
                        *first_digest.get_or_insert_with(|| digest(first)) == digest(other)
                    };
                    // A conflict is final: no need to compare again.
                    conflicting[*first] = conflicting[*first]
                        || !ops[*first]
                            .as_ref()
                            .is_some_and(|known| known.same_content(&op, is_same));
                    *first
                }
            });
            items.push(Item { op_id, op });
        }
        if conflicting.contains(&true) {
            drop_conflicts(&mut items, &mut ops, &conflicting);
        }
        Batch { items, ops: ops.into_iter().flatten().collect() }
    }
}

/// Refuses the items of conflicting ops and closes the gaps that they leave.
fn drop_conflicts(items: &mut [Item<'_>], ops: &mut [Option<Op<'_>>], conflicting: &[bool]) {
    let mut kept = 0;
    let place: Vec<Option<usize>> = conflicting
        .iter()
        .map(|&conflict| {
            (!conflict).then(|| {
                kept += 1;
                kept - 1
            })
        })
        .collect();
    for item in items {
        if let Ok(index) = item.op {
            item.op = place[index].ok_or(Refusal::ConflictInBatch);
        }
    }
    for (op, &conflict) in ops.iter_mut().zip(conflicting) {
        if conflict {
            *op = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::model::op;

    fn gather(ops: Vec<Result<Op<'static>, Refusal>>) -> Batch<'static> {
        Batch::gather(ops.into_iter().map(|op| (None, op)), str::to_owned)
    }

    fn places(batch: &Batch<'_>) -> Vec<Result<usize, Refusal>> {
        batch.items.iter().map(|item| item.op.clone()).collect()
    }

    #[test]
    fn equal_ops_are_one_op() {
        let batch = gather(vec![Ok(op(1, "a", 1)), Ok(op(2, "b", 1)), Ok(op(1, "a", 1))]);
        assert_eq!(places(&batch), [Ok(0), Ok(1), Ok(0)]);
        assert_eq!(batch.ops.len(), 2);
    }

    #[test]
    fn different_content_under_one_op_id_refuses_all_of_them_and_no_other() {
        let batch = gather(vec![
            Ok(op(1, "a", 1)),
            Ok(op(2, "b", 1)),
            Ok(op(1, "a", 2)),
            Ok(op(3, "c", 1)),
            Ok(op(1, "a", 1)),
        ]);
        let refused = || Err(Refusal::ConflictInBatch);
        assert_eq!(places(&batch), [refused(), Ok(0), refused(), Ok(1), refused()]);
        assert_eq!(batch.ops.len(), 2);
        assert_eq!(batch.ops[1].key.pk, "c");
    }

    #[test]
    fn payloads_are_digested_once_and_no_more_once_in_conflict() {
        let with = |payload| Op { payload: Some(payload), ..op(1, "a", 1) };
        for (others, digests) in [(["{ }", "{ }", "{ }"], 4), (["[]", "{ }", "{ }"], 2)] {
            let asked = std::cell::Cell::new(0);
            let digest = |payload: &str| {
                asked.set(asked.get() + 1);
                payload.replace(' ', "")
            };
            let batch = [with("{}")].into_iter().chain(others.map(with)).map(|op| (None, Ok(op)));
            Batch::gather(batch, digest);
            assert_eq!(asked.get(), digests, "{others:?}");
        }
    }

    #[test]
    fn a_malformed_op_keeps_its_place_and_its_refusal() {
        let batch = gather(vec![Err(Refusal::Clock), Ok(op(1, "a", 1)), Err(Refusal::OpId)]);
        assert_eq!(places(&batch), [Err(Refusal::Clock), Ok(0), Err(Refusal::OpId)]);
    }
}
