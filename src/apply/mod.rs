//! Apply: pushes to attached tables are written to their typed rows, under the tables'
//! own constraints, triggers and row security, in the transaction of the push.
//!
//! All rows of a push are written at once. If a row refuses, smaller groups are written,
//! in the end each row alone, so that one op never harms another.

mod rows;
mod tables;
mod yielding;

pub use rows::{Edit, RowChange};
pub use tables::{Attachments, Tables};
pub use yielding::until_rows_are_free;

use crate::store::attempt::{Failure, attempt};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::apply::{RowError, Verdict, verdict};
use sync_ext_core::rules::refusal::{Refusal, RowRefusal};

type Result<T> = std::result::Result<T, SyncError>;

/// Rows that are tried together when all together were refused: few enough that the
/// subtransactions of a push with one bad op stay cheap for other sessions.
const GROUP: usize = 32;

/// How often rows without parents are tried again. Against their order and with it in
/// turn, so that a chain of any length needs two.
const PASSES: usize = 6;

/// Writes rows; returns for each why it was refused, if it was. They are those of a batch of so
/// many ops, or of its rest: then what it has written before counts as well.
pub fn apply(
    tables: &Tables,
    changes: &[RowChange<'_>],
    ops: usize,
    workspace_id: &str,
) -> Result<Vec<Option<Refusal>>> {
    let refused = vec![None; changes.len()];
    let mut apply = Apply { tables, changes, ops, workspace_id, refused };
    let all: Vec<usize> = (0..changes.len()).collect();
    if apply.try_together(&all)? {
        return Ok(apply.refused);
    }
    for group in all.chunks(GROUP) {
        if all.len() <= GROUP || !apply.try_together(group)? {
            group.iter().try_for_each(|one| apply.try_one(*one))?;
        }
    }
    apply.retry_children()?;
    Ok(apply.refused)
}

struct Apply<'p> {
    tables: &'p Tables,
    changes: &'p [RowChange<'p>],
    ops: usize,
    workspace_id: &'p str,
    refused: Vec<Option<Refusal>>,
}

/// Why a group was undone without an error.
enum Stop {
    Moved,
    Failed(SyncError),
}

impl Apply<'_> {
    /// False if one of them was refused: then nothing was written.
    fn try_together(&mut self, some: &[usize]) -> Result<bool> {
        Ok(self.attempt(some)?.is_none())
    }

    fn try_one(&mut self, at: usize) -> Result<()> {
        let mut refusal = self.attempt(&[at])?;
        // A row that came to be since it was looked for is found now. If it is not, another
        // row has the key, such as one that a trigger inserts.
        if refusal.as_ref().is_some_and(|refusal| self.is_of_pk(at, refusal)) {
            refusal = self.attempt(&[at])?;
        }
        if refusal.is_some() {
            self.refused[at] = refusal;
        }
        Ok(())
    }

    /// Writes rows together; returns why they were undone, if they were.
    fn attempt(&mut self, some: &[usize]) -> Result<Option<Refusal>> {
        match attempt(|| self.write(some)) {
            Ok(Ok(refused)) => {
                some.iter().for_each(|at| self.refused[*at] = None);
                for (at, refusal) in refused {
                    self.refused[at] = Some(refusal);
                }
                Ok(None)
            }
            Ok(Err(Stop::Failed(error))) => Err(error),
            Ok(Err(Stop::Moved)) => Ok(Some(row(RowRefusal::Moved))),
            Err(failure) => refusal(*failure, self.ops).map(Some),
        }
    }

    fn write(&self, some: &[usize]) -> std::result::Result<Vec<(usize, Refusal)>, Stop> {
        let changes: Vec<_> = some.iter().map(|at| &self.changes[*at]).collect();
        let refused = rows::write(self.tables, &changes, self.workspace_id)?;
        Ok(refused.into_iter().map(|(at, refusal)| (some[at], row(refusal))).collect())
    }

    fn is_of_pk(&self, at: usize, refusal: &Refusal) -> bool {
        let constraint = refusal.row().and_then(RowRefusal::constraint);
        constraint.is_some_and(|name| self.tables.writable(self.changes[at].table).is_pk(name))
    }

    /// The parent of a row that was refused may have been written after it, or be among
    /// those that were refused. Not all orders are tried: a device pushes the rest again.
    fn retry_children(&mut self) -> Result<()> {
        let mut before = usize::MAX;
        for pass in 0..PASSES {
            let mut children = self.children();
            if children.is_empty() || children.len() == before || self.try_together(&children)? {
                break;
            }
            before = children.len();
            if pass % 2 == 0 {
                children.reverse();
            }
            children.into_iter().try_for_each(|child| self.try_one(child))?;
        }
        Ok(())
    }

    /// The rows that were refused because they have no parent, or have children.
    fn children(&self) -> Vec<usize> {
        let may_come = |at: &usize| {
            let refusal = self.refused[*at].as_ref();
            refusal.and_then(Refusal::row).is_some_and(RowRefusal::may_come)
        };
        (0..self.changes.len()).filter(may_come).collect()
    }
}

/// Why the op that caused an error is refused. Raises the error if no op did.
fn refusal(failure: Failure, ops: usize) -> Result<Refusal> {
    let error = RowError {
        sqlstate: &failure.sqlstate,
        message: &failure.message,
        constraint: failure.constraint.as_deref(),
        is_of_policy: failure.is_of_policy(),
        is_own: failure.is_own(),
    };
    match verdict(&error) {
        Verdict::Refuse(refusal) => Ok(refusal),
        Verdict::Wait => Err(SyncError::RowsHeld),
        Verdict::Split if ops > 1 => Err(SyncError::TooMuchTogether {
            why: "They change more rows than sync_ext.max_captured_rows allows.",
        }),
        Verdict::Split | Verdict::Fail => failure.raise(),
    }
}

fn row(refusal: RowRefusal) -> Refusal {
    Refusal::Row(Box::new(refusal))
}
