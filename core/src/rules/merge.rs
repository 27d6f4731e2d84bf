//! LWW, by record and by field: an op at its turn.
//!
//! A record's register is its put or delete of the highest revision. Each field of a
//! live record is held by the patch of the highest revision among those whose base is
//! the register, or by the register. So the state depends only on the set of accepted
//! ops: a patch of a replaced put never counts again, whatever arrives in between.

use std::borrow::Cow;
use std::collections::BTreeMap;

use uuid::Uuid;

use super::op::{Expected, Op, Operation, Parent, Patch, Revision, Version};
use super::ownership::Owner;
use super::refusal::Refusal;
use super::scope::Scope;

/// The fields that patches hold, each with its patch's revision.
pub type Fields<'a> = BTreeMap<Cow<'a, str>, Revision<'a>>;

/// A record as merging sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordState<'a> {
    /// The put or delete of the highest revision.
    pub register: Revision<'a>,
    pub deleted: bool,
    /// Of the newest entry.
    pub version: Version,
    pub newest: Newest<'a>,
    pub owner: Owner,
    pub scope: Scope,
}

/// The newest entry of a record, that of its last applied op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Newest<'a> {
    /// It was not read, see [`needs_newest`].
    Unread,
    /// It is the register's.
    Register,
    Patch(Box<Patched<'a>>),
}

/// The last patch that was applied, and what the patches hold after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patched<'a> {
    pub op_id: Uuid,
    pub fields: Fields<'a>,
}

impl<'a> RecordState<'a> {
    /// What patches hold; `None` if they hold nothing.
    pub fn fields(&self) -> Option<&Fields<'a>> {
        match &self.newest {
            Newest::Patch(patched) => Some(&patched.fields),
            Newest::Unread | Newest::Register => None,
        }
    }

    /// The patch that holds a field.
    fn holder(&self, name: &str) -> Option<&Revision<'a>> {
        self.fields()?.get(name)
    }

    /// The op of the newest entry.
    fn newest_op(&self) -> Option<Uuid> {
        match &self.newest {
            Newest::Unread => None,
            Newest::Register => Some(self.register.op_id),
            Newest::Patch(patched) => Some(patched.op_id),
        }
    }
}

/// What happens to an op at its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    Loses,
    /// A put or delete becomes the register.
    Replaces,
    /// A patch changes these of its fields, at least one.
    Merges {
        won: Vec<bool>,
    },
}

/// What is logged about an op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub version: Version,
    pub applied: bool,
    /// The newest entry that this op replaced.
    pub supersedes: Option<Version>,
    /// The op is a put that won, and there was no live record.
    pub created: bool,
    /// The op of the replaced entry, if the author of this op had not seen it.
    pub overwrote: Option<Uuid>,
    /// Of the record after the op.
    pub scope: Scope,
    /// Of the record before the op.
    pub scope_before: Scope,
}

impl Decision {
    /// The scope that the record left with the op.
    pub fn left_scope(&self) -> Option<&str> {
        self.scope_before.as_deref().filter(|before| self.scope.as_deref() != Some(before))
    }
}

/// Must the newest entry of the record be read before this op takes its turn? A put
/// or delete that names neither parent nor condition is decided by the register.
pub fn needs_newest(op: &Op<'_>, record: &RecordState<'_>) -> bool {
    record.newest == Newest::Unread
        && (op.operation == Operation::Patch || op.parent.is_some() || op.expected.is_some())
}

/// Decides an op. The caller must have read the newest entry if [`needs_newest`] says so.
pub fn turn(op: &Op<'_>, record: Option<&RecordState<'_>>) -> Result<Turn, Refusal> {
    debug_assert!(record.is_none_or(|record| !needs_newest(op, record)));
    let base = match (&op.patch, record) {
        (None, _) => None,
        (Some(_), None) => return Err(Refusal::BaseMissing),
        (Some(patch), Some(record)) if patch.base > record.register => {
            return Err(Refusal::BaseMissing);
        }
        (Some(patch), Some(record)) => Some((&**patch, record)),
    };
    if let Some(expected) = &op.expected {
        check(expected, op, record)?;
    }
    Ok(match (base, record) {
        (Some((patch, record)), _) if patch.base < record.register || record.deleted => Turn::Loses,
        (Some((patch, record)), _) => merges(op, patch, record),
        (None, Some(record)) if op.revision <= record.register => Turn::Loses,
        (None, _) => Turn::Replaces,
    })
}

/// An op that was stored before and purged is not checked against its condition again: it
/// takes a version and loses to itself.
fn check(
    expected: &Expected<'_>,
    op: &Op<'_>,
    record: Option<&RecordState<'_>>,
) -> Result<(), Refusal> {
    let Some(record) = record else {
        return match expected {
            Expected::None => Ok(()),
            Expected::Op(_) => Err(Refusal::RecordConflict),
            Expected::Fields(_) => Err(Refusal::FieldConflict),
        };
    };
    let mut holders = record.fields().into_iter().flat_map(Fields::values);
    if record.register == op.revision || holders.any(|revision| *revision == op.revision) {
        return Ok(());
    }
    let holder = |name: &str| record.holder(name).unwrap_or(&record.register).op_id;
    match expected {
        Expected::None if record.deleted => Ok(()),
        Expected::Op(op_id) if record.newest_op() == Some(*op_id) => Ok(()),
        Expected::None | Expected::Op(_) => Err(Refusal::RecordConflict),
        Expected::Fields(fields)
            if !record.deleted && fields.iter().all(|(name, op_id)| holder(name) == *op_id) =>
        {
            Ok(())
        }
        Expected::Fields(_) => Err(Refusal::FieldConflict),
    }
}

/// A patch of the register.
fn merges(op: &Op<'_>, patch: &Patch<'_>, record: &RecordState<'_>) -> Turn {
    let wins = |name| record.holder(name).is_none_or(|by| *by < op.revision);
    let won: Vec<bool> = patch.fields.iter().map(|(name, _)| wins(name)).collect();
    if won.contains(&true) { Turn::Merges { won } } else { Turn::Loses }
}

/// Of a patch: does it hold this field?
pub fn holds(op: &Op<'_>, name: &str, record: &RecordState<'_>) -> bool {
    let is_base = op.base() == Some(&record.register) && !record.deleted;
    is_base && record.holder(name) == Some(&op.revision)
}

/// Merges `op`, which takes `version`, into its record, as [`turn`] decided. If it is
/// applied, the record then has this owner and this scope.
pub fn apply<'a>(
    record: &mut Option<RecordState<'a>>,
    op: &Op<'a>,
    turn: &Turn,
    owner: Owner,
    scope: Scope,
    version: Version,
) -> Decision {
    let before = record.as_ref().and_then(|record| record.scope.clone());
    let mut decision = Decision {
        version,
        applied: false,
        supersedes: None,
        created: false,
        overwrote: None,
        scope: before.clone(),
        scope_before: before,
    };
    if *turn == Turn::Loses {
        return decision;
    }
    decision.scope.clone_from(&scope);
    decision.applied = true;
    if let Some(record) = record {
        decision.supersedes = Some(record.version);
    }
    match (turn, &op.patch, &mut *record) {
        (Turn::Merges { won }, Some(patch), Some(record)) => {
            record.version = version;
            record.scope = scope;
            let mut fields = match std::mem::replace(&mut record.newest, Newest::Register) {
                Newest::Patch(patched) => patched.fields,
                Newest::Unread | Newest::Register => Fields::new(),
            };
            for ((name, _), _) in patch.fields.iter().zip(won).filter(|(_, won)| **won) {
                fields.insert(name.clone(), op.revision.clone());
            }
            record.newest = Newest::Patch(Box::new(Patched { op_id: op.op_id(), fields }));
        }
        _ => {
            let before = record.take();
            let was_live = before.as_ref().is_some_and(|before| !before.deleted);
            decision.created = op.operation == Operation::Put && !was_live;
            decision.overwrote = before.and_then(|before| unseen(op.parent?, before.newest_op()?));
            *record = Some(RecordState {
                register: op.revision.clone(),
                deleted: op.operation == Operation::Delete,
                version,
                newest: Newest::Register,
                owner,
                scope,
            });
        }
    }
    decision
}

/// The newest entry's op, unless the author, who saw `parent`, has seen it.
fn unseen(parent: Parent, newest: Uuid) -> Option<Uuid> {
    match parent {
        Parent::Op(seen) if seen == newest => None,
        Parent::Op(_) | Parent::None => Some(newest),
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
