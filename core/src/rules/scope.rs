//! The scope of a record: a part of the workspace that a device may follow alone.

use std::borrow::Cow;

use super::merge::{RecordState, Turn};
use super::op::{Op, Operation};

/// Of a record. `None` in a table without a scope field, and for a record that was never
/// live.
pub type Scope = Option<Box<str>>;

/// What an op's payload says about the scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeField<'a> {
    /// The table has no scope field.
    Unasked,
    /// The payload does not have the field.
    Absent,
    /// Empty for null.
    Named(Cow<'a, str>),
    /// The value of the field cannot be a scope.
    Invalid,
}

impl ScopeField<'_> {
    /// The scope of a record whose payload says so. One that says nothing that can be a scope
    /// has the empty one.
    pub fn of_record(&self) -> Scope {
        match self {
            ScopeField::Unasked => None,
            ScopeField::Named(scope) => Some(scope.as_ref().into()),
            ScopeField::Absent | ScopeField::Invalid => Some("".into()),
        }
    }
}

/// How an entry is told to who follows some scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Op,
    Leave,
}

/// By whether its record was inside after it, and whether the scope that it left is followed;
/// `None` if it is not told.
pub fn told(is_inside: bool, left_followed: bool) -> Option<Told> {
    match (is_inside, left_followed) {
        (true, _) => Some(Told::Op),
        (false, true) => Some(Told::Leave),
        (false, false) => None,
    }
}

/// Whether it is told to who wants the latest alone, by whether it is its record's newest
/// entry, and whether that is inside now. Who had the record while it was inside is told that it
/// left, by whichever entry; if it is inside again, by the newest.
pub fn is_latest(told: Told, is_newest: bool, is_inside: bool) -> bool {
    match told {
        Told::Op => is_newest,
        Told::Leave => !is_inside,
    }
}

/// The scope of a record after an op that was applied as `turn` says. A record keeps it
/// through deletes, so that those who follow it are told whatever comes next. `field` is the
/// scope field of its table.
pub fn scope_after(
    record: Option<&RecordState<'_>>,
    op: &Op<'_>,
    turn: &Turn,
    field: Option<&str>,
    said: &ScopeField<'_>,
) -> Scope {
    let before = || record.and_then(|record| record.scope.clone());
    let wins = |name: &str| match (turn, &op.patch) {
        (Turn::Merges { won }, Some(patch)) => {
            patch.fields.iter().zip(won).any(|((written, _), won)| *won && written == name)
        }
        _ => true,
    };
    let field = field?;
    match (op.operation, said) {
        (Operation::Put, said) => said.of_record(),
        (Operation::Patch, ScopeField::Named(_)) if wins(field) => said.of_record(),
        (Operation::Delete | Operation::Patch, _) => before(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::merge::{apply, turn};
    use crate::rules::model::{delete, op, patch};
    use crate::rules::op::Version;

    type Record = Option<RecordState<'static>>;

    fn named(scope: &'static str) -> ScopeField<'static> {
        ScopeField::Named(scope.into())
    }

    /// Applies an op to a record; returns the scopes of its entry and the one that was left.
    fn take(
        record: &mut Record,
        op: &Op<'static>,
        said: &ScopeField<'_>,
        version: i64,
    ) -> (Scope, Scope) {
        let turn = turn(op, record.as_ref()).unwrap();
        let scope = scope_after(record.as_ref(), op, &turn, Some("x"), said);
        let decision = apply(record, op, &turn, None, scope, Version::stored(version));
        let left = decision.left_scope().map(Into::into);
        (decision.scope, left)
    }

    #[test]
    fn a_record_moves_with_its_puts_and_stays_through_deletes() {
        let mut record = None;
        let a = || Some("a".into());
        assert_eq!(take(&mut record, &op(1, "a", 1), &named("a"), 1), (a(), None));
        assert_eq!(take(&mut record, &op(2, "a", 2), &named("a"), 2), (a(), None));
        assert_eq!(take(&mut record, &delete(3, "a", 3), &ScopeField::Absent, 3), (a(), None));
        let revived = take(&mut record, &op(4, "a", 4), &ScopeField::Absent, 4);
        assert_eq!(revived, (Some("".into()), a()), "what was deleted in a is left by a put");
        assert_eq!(record.unwrap().scope, Some("".into()));
    }

    #[test]
    fn a_loser_is_in_the_scope_that_the_record_has() {
        let mut record = None;
        let _ = take(&mut record, &op(1, "a", 5), &named("a"), 1);
        let lost = take(&mut record, &op(2, "a", 1), &named("b"), 2);
        assert_eq!(lost, (Some("a".into()), None));
    }

    #[test]
    fn what_was_never_live_has_no_scope_and_leaves_none() {
        let mut record = None;
        assert_eq!(take(&mut record, &delete(1, "a", 1), &ScopeField::Absent, 1), (None, None));
        let put = take(&mut record, &op(2, "a", 2), &named("b"), 2);
        assert_eq!(put, (Some("b".into()), None));
    }

    #[test]
    fn a_patch_moves_a_record_if_it_wins_the_field() {
        let mut record = None;
        let base = op(1, "a", 1);
        let _ = take(&mut record, &base, &named("a"), 1);
        let other = patch(2, &base, 2, &["y"]);
        let (scope, left) = take(&mut record, &other, &ScopeField::Absent, 2);
        assert_eq!((scope, left), (Some("a".into()), None));
        let moves = patch(3, &base, 9, &["x"]);
        let (scope, left) = take(&mut record, &moves, &named("b"), 3);
        assert_eq!((scope, left), (Some("b".into()), Some("a".into())));
        // It wins another field, not this one.
        let half = patch(4, &base, 4, &["x", "z"]);
        let (scope, left) = take(&mut record, &half, &named("c"), 4);
        assert_eq!((scope, left), (Some("b".into()), None));
    }
}
