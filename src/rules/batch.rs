//! One batch before the database is asked: ops with the same opId.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::op::Op;
use super::refusal::Refusal;

/// A batch in which every opId stands once.
pub struct Batch<'a> {
    /// What became of each item, in the order received.
    pub items: Vec<Item>,
    /// The distinct well-formed ops, in order of first occurrence.
    pub ops: Vec<Op<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Refused(Refusal),
    /// An index into [`Batch::ops`]; items that are the same op share it.
    Op(usize),
}

impl<'a> Batch<'a> {
    /// Ops with the same opId and equal content are one op; different content
    /// makes all of them conflicts, whichever came first. `digest` is of a payload's
    /// value, and asked once for each payload at most.
    pub fn gather<D: PartialEq>(
        parsed: impl IntoIterator<Item = Result<Op<'a>, Refusal>>,
        digest: impl Fn(&str) -> D,
    ) -> Batch<'a> {
        let mut items = Vec::new();
        let mut ops: Vec<Option<Op<'a>>> = Vec::new();
        let mut seen = BTreeMap::new();
        let mut conflicting = Vec::new();
        for op in parsed {
            items.push(match op {
                Err(refusal) => Item::Refused(refusal),
                Ok(op) => match seen.entry(op.op_id()) {
                    Entry::Vacant(entry) => {
                        entry.insert((ops.len(), None));
                        ops.push(Some(op));
                        conflicting.push(false);
                        Item::Op(ops.len() - 1)
                    }
                    Entry::Occupied(mut entry) => {
                        let (first, first_digest) = entry.get_mut();
                        let is_same = |first: &str, other: &str| {
                            *first_digest.get_or_insert_with(|| digest(first)) == digest(other)
                        };
                        // Once in conflict, always: no need to compare again.
                        conflicting[*first] = conflicting[*first]
                            || !ops[*first]
                                .as_ref()
                                .is_some_and(|known| known.same_content(&op, is_same));
                        Item::Op(*first)
                    }
                },
            });
        }
        if conflicting.contains(&true) {
            drop_conflicts(&mut items, &mut ops, &conflicting);
        }
        Batch { items, ops: ops.into_iter().flatten().collect() }
    }
}

/// Refuses the items of conflicting ops and closes the gaps they leave.
fn drop_conflicts(items: &mut [Item], ops: &mut [Option<Op<'_>>], conflicting: &[bool]) {
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
        if let Item::Op(index) = *item {
            *item = match place[index] {
                Some(index) => Item::Op(index),
                None => Item::Refused(Refusal::ConflictInBatch),
            };
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
        Batch::gather(ops, str::to_owned)
    }

    #[test]
    fn equal_ops_are_one_op() {
        let batch = gather(vec![Ok(op(1, "a", 1)), Ok(op(2, "b", 1)), Ok(op(1, "a", 1))]);
        assert_eq!(batch.items, [Item::Op(0), Item::Op(1), Item::Op(0)]);
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
        let refused = Item::Refused(Refusal::ConflictInBatch);
        assert_eq!(
            batch.items,
            [refused.clone(), Item::Op(0), refused.clone(), Item::Op(1), refused]
        );
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
            let batch = [with("{}")].into_iter().chain(others.map(with)).map(Ok);
            Batch::gather(batch, digest);
            assert_eq!(asked.get(), digests, "{others:?}");
        }
    }

    #[test]
    fn a_malformed_op_keeps_its_place_and_its_refusal() {
        let batch = gather(vec![Err(Refusal::Clock), Ok(op(1, "a", 1)), Err(Refusal::OpId)]);
        assert_eq!(
            batch.items,
            [Item::Refused(Refusal::Clock), Item::Op(0), Item::Refused(Refusal::OpId)]
        );
    }
}
