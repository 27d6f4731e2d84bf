//! Versions and LWW for the new ops of one batch, in their order.

use uuid::Uuid;

use super::op::{Op, Operation, Parent, Revision, Version};
use super::ownership::Owner;

/// A record as LWW sees it: the winner's revision and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register<'a> {
    pub revision: Revision<'a>,
    pub version: Version,
    pub deleted: bool,
    pub owner: Owner,
}

/// A new op and the place of its record among the registers.
#[derive(Clone, Debug)]
pub struct Turn<'b, 'a> {
    pub op: &'b Op<'a>,
    pub record: usize,
    /// The record's owner, also where this op is its first.
    pub owner: Owner,
    pub filled: Option<Filled>,
}

/// A payload to which the server added the owner.
#[derive(Clone, Debug)]
pub struct Filled {
    pub field: String,
    pub payload: String,
}

impl Turn<'_, '_> {
    /// The payload to be stored.
    pub fn payload(&self) -> Option<&str> {
        self.filled.as_ref().map(|filled| filled.payload.as_str()).or(self.op.payload)
    }
}

/// What the log will say about an op.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub version: Version,
    pub applied: bool,
    /// The version of the winner that this op replaced.
    pub supersedes: Option<Version>,
    /// It is a put that won where no live record was.
    pub created: bool,
    /// The winner that this op replaced, if the author had not seen it.
    pub overwrote: Option<Uuid>,
}

/// The outcome of a batch: one decision per turn; the registers as they are
/// afterwards, and which of them changed.
#[derive(Debug)]
pub struct Merge<'a> {
    pub decisions: Vec<Decision>,
    pub registers: Vec<Option<Register<'a>>>,
    pub changed: Vec<bool>,
    pub head: Version,
}

/// Every turn takes the next version, losers too. An op wins when its revision
/// is strictly greater than its record's, graves included; the ops of a batch
/// see each other in order.
pub fn merge<'a>(
    head: Version,
    turns: &[Turn<'_, 'a>],
    mut registers: Vec<Option<Register<'a>>>,
) -> Merge<'a> {
    let mut decisions = Vec::with_capacity(turns.len());
    let mut changed = vec![false; registers.len()];
    let mut head = head;
    for Turn { op, record, owner, .. } in turns {
        head = head.next();
        let register = &mut registers[*record];
        let applied = register.as_ref().is_none_or(|winner| op.revision > winner.revision);
        let mut decision = Decision { version: head, applied, ..Decision::default() };
        if applied {
            if let Some(winner) = register {
                decision.supersedes = Some(winner.version);
                decision.overwrote = unseen(op.parent, winner.revision.op_id);
            }
            decision.created = op.operation == Operation::Put
                && register.as_ref().is_none_or(|winner| winner.deleted);
            *register = Some(Register {
                revision: op.revision.clone(),
                version: head,
                deleted: op.operation == Operation::Delete,
                owner: owner.clone(),
            });
            changed[*record] = true;
        }
        decisions.push(decision);
    }
    Merge { decisions, registers, changed, head }
}

/// The newest entry's op, if an author who saw `parent` did not see it.
fn unseen(parent: Option<Parent>, newest: Uuid) -> Option<Uuid> {
    match parent? {
        Parent::Op(seen) if seen == newest => None,
        Parent::Op(_) | Parent::None => Some(newest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::model::{delete, op, shared};

    fn on_one_record<'a>(
        ops: &'a [Op<'static>],
        before: Option<Register<'static>>,
    ) -> Merge<'static> {
        let turns: Vec<Turn<'a, 'static>> = ops.iter().map(|op| shared(op, 0)).collect();
        merge(Version::stored(10), &turns, vec![before])
    }

    fn register(op: &Op<'static>, version: i64) -> Register<'static> {
        Register {
            revision: op.revision.clone(),
            version: Version::stored(version),
            deleted: op.operation == Operation::Delete,
            owner: None,
        }
    }

    #[test]
    fn versions_go_on_from_the_head_and_losers_take_one_too() {
        let merge = on_one_record(&[op(1, "a", 2), op(2, "a", 1), op(3, "a", 3)], None);
        let versions: Vec<i64> = merge.decisions.iter().map(|d| d.version.get()).collect();
        assert_eq!(versions, [11, 12, 13]);
        assert_eq!(merge.head.get(), 13);
        let applied: Vec<bool> = merge.decisions.iter().map(|d| d.applied).collect();
        assert_eq!(applied, [true, false, true]);
    }

    #[test]
    fn supersedes_is_the_winner_replaced_at_that_turn() {
        let before = register(&op(9, "a", 1), 4);
        let merge = on_one_record(&[op(1, "a", 2), op(2, "a", 1), op(3, "a", 3)], Some(before));
        let supersedes: Vec<_> =
            merge.decisions.iter().map(|d| d.supersedes.map(Version::get)).collect();
        assert_eq!(supersedes, [Some(4), None, Some(11)]);
    }

    #[test]
    fn the_same_revision_again_does_not_win() {
        let deletion = delete(1, "a", 5);
        let merge = on_one_record(std::slice::from_ref(&deletion), Some(register(&deletion, 4)));
        assert!(!merge.decisions[0].applied);
        assert_eq!(merge.registers[0], Some(register(&deletion, 4)));
        assert_eq!(merge.changed, [false]);
    }

    #[test]
    fn an_older_put_loses_to_a_delete_and_a_newer_one_brings_the_record_back() {
        let grave = register(&delete(1, "a", 5), 4);
        let merge = on_one_record(&[op(2, "a", 4), op(3, "a", 6)], Some(grave));
        assert!(!merge.decisions[0].applied);
        assert!(merge.decisions[1].applied);
        assert_eq!(merge.registers[0], Some(register(&op(3, "a", 6), 12)));
    }

    #[test]
    fn a_delete_of_an_unknown_record_is_a_tombstone() {
        let merge = on_one_record(&[delete(1, "a", 1)], None);
        assert!(merge.registers[0].as_ref().unwrap().deleted);
        assert!(!merge.decisions[0].created);
    }

    #[test]
    fn a_put_creates_where_no_live_record_is() {
        let ops = [
            op(1, "a", 2),
            op(2, "a", 3),
            op(3, "a", 1),
            delete(4, "a", 4),
            op(5, "a", 3),
            op(6, "a", 5),
        ];
        let created = |merge: Merge<'_>| -> Vec<bool> {
            merge.decisions.iter().map(|decision| decision.created).collect()
        };
        assert_eq!(
            created(on_one_record(&ops, None)),
            [true, false, false, false, false, true],
            "neither an update, nor what loses, nor a delete creates"
        );
        let live = register(&op(9, "a", 1), 4);
        assert_eq!(created(on_one_record(&ops[..1], Some(live))), [false]);
    }

    #[test]
    fn an_op_that_wins_tells_the_entry_that_its_author_had_not_seen() {
        let by = |parent, op: Op<'static>| Op { parent, ..op };
        let (seen, unseen) = (Uuid::from_u128(9), Uuid::from_u128(8));
        let overwrote = |op: Op<'static>| {
            let before = register(&super::super::model::op(9, "a", 1), 4);
            on_one_record(&[op], Some(before)).decisions[0].overwrote
        };
        assert_eq!(overwrote(op(1, "a", 2)), None, "who does not tell is told nothing");
        assert_eq!(overwrote(by(Some(Parent::Op(seen)), op(1, "a", 2))), None);
        assert_eq!(overwrote(by(Some(Parent::Op(unseen)), op(1, "a", 2))), Some(seen));
        assert_eq!(overwrote(by(Some(Parent::None), op(1, "a", 2))), Some(seen));
        assert_eq!(overwrote(by(Some(Parent::None), delete(1, "a", 2))), Some(seen));
        assert_eq!(overwrote(by(Some(Parent::None), op(1, "a", 0))), None, "it lost");
        let first = by(Some(Parent::Op(unseen)), op(1, "a", 2));
        assert_eq!(on_one_record(&[first], None).decisions[0].overwrote, None, "nothing was there");
    }

    #[test]
    fn ops_of_a_batch_are_each_others_newest_entries() {
        let ops = [
            Op { parent: Some(Parent::None), ..op(1, "a", 1) },
            Op { parent: Some(Parent::Op(Uuid::from_u128(1))), ..op(2, "a", 2) },
            Op { parent: Some(Parent::Op(Uuid::from_u128(1))), ..delete(3, "a", 3) },
        ];
        let overwrote: Vec<_> =
            on_one_record(&ops, None).decisions.iter().map(|d| d.overwrote).collect();
        assert_eq!(overwrote, [None, None, Some(Uuid::from_u128(2))]);
    }

    #[test]
    fn a_record_gets_its_owner_with_its_first_op_and_keeps_it() {
        let (put, gone) = (op(1, "a", 1), delete(2, "a", 2));
        let turn = |op| Turn { owner: Some("ann".into()), ..shared(op, 0) };
        let merge = merge(Version::ZERO, &[turn(&put), turn(&gone)], vec![None]);
        let register = merge.registers[0].as_ref().unwrap();
        assert!(register.deleted && register.owner.as_deref() == Some("ann"));
    }
}
