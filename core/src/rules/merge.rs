//! LWW: an op at its turn.

use uuid::Uuid;

use super::op::{Op, Operation, Parent, Revision, Version};
use super::ownership::Owner;

/// The LWW state of a record: the winner's revision and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register<'a> {
    pub revision: Revision<'a>,
    pub version: Version,
    pub deleted: bool,
    pub owner: Owner,
}

/// What is logged about an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub version: Version,
    pub applied: bool,
    /// The version of the winner that this op replaced.
    pub supersedes: Option<Version>,
    /// The op is a put that won, and there was no live record.
    pub created: bool,
    /// The replaced winner, if the author of this op had not seen it.
    pub overwrote: Option<Uuid>,
}

/// Merges `op`, which takes `version`, into its record. It wins if its revision is
/// strictly greater than the record's, graves included.
pub fn merge<'a>(
    register: &mut Option<Register<'a>>,
    op: &Op<'a>,
    owner: Owner,
    version: Version,
) -> Decision {
    let mut decision =
        Decision { version, applied: false, supersedes: None, created: false, overwrote: None };
    if register.as_ref().is_some_and(|winner| op.revision <= winner.revision) {
        return decision;
    }
    decision.applied = true;
    decision.created =
        op.operation == Operation::Put && register.as_ref().is_none_or(|winner| winner.deleted);
    if let Some(winner) = register {
        decision.supersedes = Some(winner.version);
        decision.overwrote = unseen(op.parent, winner.revision.op_id);
    }
    *register = Some(Register {
        revision: op.revision.clone(),
        version,
        deleted: op.operation == Operation::Delete,
        owner,
    });
    decision
}

/// The newest entry's op, unless the author, who saw `parent`, has seen it.
fn unseen(parent: Option<Parent>, newest: Uuid) -> Option<Uuid> {
    match parent? {
        Parent::Op(seen) if seen == newest => None,
        Parent::Op(_) | Parent::None => Some(newest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::model::{delete, op};

    /// The first op has version 11.
    fn on_one_record(
        ops: &[Op<'static>],
        mut register: Option<Register<'static>>,
    ) -> (Vec<Decision>, Option<Register<'static>>) {
        let decide = |(op, version)| merge(&mut register, op, None, Version::stored(version));
        let decisions = ops.iter().zip(11..).map(decide).collect();
        (decisions, register)
    }

    fn register_of(op: &Op<'static>, version: i64) -> Register<'static> {
        Register {
            revision: op.revision.clone(),
            version: Version::stored(version),
            deleted: op.operation == Operation::Delete,
            owner: None,
        }
    }

    #[test]
    fn the_highest_revision_wins() {
        let ops = [op(1, "a", 2), op(2, "a", 1), op(3, "a", 3)];
        let (decisions, register) = on_one_record(&ops, None);
        let applied: Vec<bool> = decisions.iter().map(|d| d.applied).collect();
        assert_eq!(applied, [true, false, true]);
        assert_eq!(register, Some(register_of(&ops[2], 13)));
    }

    #[test]
    fn supersedes_is_the_winner_replaced_at_that_turn() {
        let before = register_of(&op(9, "a", 1), 4);
        let ops = [op(1, "a", 2), op(2, "a", 1), op(3, "a", 3)];
        let (decisions, _) = on_one_record(&ops, Some(before));
        let supersedes: Vec<_> = decisions.iter().map(|d| d.supersedes.map(Version::get)).collect();
        assert_eq!(supersedes, [Some(4), None, Some(11)]);
    }

    #[test]
    fn the_same_revision_again_does_not_win() {
        let deletion = delete(1, "a", 5);
        let before = Some(register_of(&deletion, 4));
        let (decisions, after) = on_one_record(std::slice::from_ref(&deletion), before.clone());
        assert!(!decisions[0].applied);
        assert_eq!(after, before);
    }

    #[test]
    fn an_older_put_loses_to_a_delete_and_a_newer_one_brings_the_record_back() {
        let grave = register_of(&delete(1, "a", 5), 4);
        let (decisions, after) = on_one_record(&[op(2, "a", 4), op(3, "a", 6)], Some(grave));
        assert!(!decisions[0].applied);
        assert!(decisions[1].applied);
        assert_eq!(after, Some(register_of(&op(3, "a", 6), 12)));
    }

    #[test]
    fn a_delete_of_an_unknown_record_is_a_tombstone() {
        let (decisions, after) = on_one_record(&[delete(1, "a", 1)], None);
        assert!(after.unwrap().deleted);
        assert!(!decisions[0].created);
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
        let created = |ops, before| -> Vec<bool> {
            on_one_record(ops, before).0.iter().map(|decision| decision.created).collect()
        };
        assert_eq!(
            created(&ops, None),
            [true, false, false, false, false, true],
            "neither an update, nor what loses, nor a delete creates"
        );
        let live = register_of(&op(9, "a", 1), 4);
        assert_eq!(created(&ops[..1], Some(live)), [false]);
    }

    #[test]
    fn an_op_that_wins_overwrites_the_entry_that_its_author_had_not_seen() {
        let by = |parent, op: Op<'static>| Op { parent, ..op };
        let (seen, unseen) = (Uuid::from_u128(9), Uuid::from_u128(8));
        let overwrote = |op: Op<'static>| {
            let before = register_of(&super::super::model::op(9, "a", 1), 4);
            on_one_record(&[op], Some(before)).0[0].overwrote
        };
        assert_eq!(overwrote(op(1, "a", 2)), None, "without a parent nothing is overwritten");
        assert_eq!(overwrote(by(Some(Parent::Op(seen)), op(1, "a", 2))), None);
        assert_eq!(overwrote(by(Some(Parent::Op(unseen)), op(1, "a", 2))), Some(seen));
        assert_eq!(overwrote(by(Some(Parent::None), op(1, "a", 2))), Some(seen));
        assert_eq!(overwrote(by(Some(Parent::None), delete(1, "a", 2))), Some(seen));
        assert_eq!(overwrote(by(Some(Parent::None), op(1, "a", 0))), None, "it lost");
        let first = by(Some(Parent::Op(unseen)), op(1, "a", 2));
        assert_eq!(on_one_record(&[first], None).0[0].overwrote, None, "nothing was there");
    }

    #[test]
    fn ops_of_a_batch_are_each_others_newest_entries() {
        let ops = [
            Op { parent: Some(Parent::None), ..op(1, "a", 1) },
            Op { parent: Some(Parent::Op(Uuid::from_u128(1))), ..op(2, "a", 2) },
            Op { parent: Some(Parent::Op(Uuid::from_u128(1))), ..delete(3, "a", 3) },
        ];
        let overwrote: Vec<_> = on_one_record(&ops, None).0.iter().map(|d| d.overwrote).collect();
        assert_eq!(overwrote, [None, None, Some(Uuid::from_u128(2))]);
    }

    #[test]
    fn a_record_gets_its_owner_with_its_first_op_and_keeps_it() {
        let (mut register, ann) = (None, || Some("ann".into()));
        merge(&mut register, &op(1, "a", 1), ann(), Version::stored(1));
        merge(&mut register, &delete(2, "a", 2), ann(), Version::stored(2));
        let register = register.unwrap();
        assert!(register.deleted && register.owner.as_deref() == Some("ann"));
    }
}
