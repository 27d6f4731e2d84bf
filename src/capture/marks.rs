//! The records that this transaction may have changed.
//!
//! A mark stays when its savepoint is rolled back: the row is read again anyway. A mark
//! that was taken within the savepoint comes back, as the op written for it is gone.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use pgrx::pg_sys::Oid;

use super::Result;
use crate::guc;
use crate::store::RowId;
use crate::store::subtransaction::{self, SubtransactionId};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::capture::CaptureError;

/// The marks of a workspace by relation and primary key.
pub type Marked = HashMap<Oid, Pks>;
type Pks = HashMap<Box<str>, Mark>;

/// What is known of a marked row.
#[derive(Clone, Copy, Default)]
pub struct Mark {
    /// Where it was when it was changed last.
    pub at: Option<RowId>,
    /// This transaction inserted it: its record is probably unknown.
    pub is_new: bool,
}

#[derive(Default)]
struct Marks {
    /// In the order in which workspaces are locked.
    by_workspace: BTreeMap<String, Marked>,
    count: usize,
    /// Marks that were taken, and by which (sub)transaction.
    taken: Vec<(SubtransactionId, String, Marked)>,
    is_backfill: bool,
    /// The transaction is about to commit: nobody would read another mark.
    is_closed: bool,
}

impl Marks {
    fn has(&self, workspace_id: &str, relation: Oid, pk: &str) -> bool {
        let pks = self.by_workspace.get(workspace_id).and_then(|marked| marked.get(&relation));
        pks.is_some_and(|pks| pks.contains_key(pk))
    }
}

thread_local! {
    static MARKS: RefCell<Marks> = RefCell::default();
}

/// True if the row was not marked.
fn insert(pks: &mut Pks, pk: &str, mark: Mark) -> bool {
    match pks.get_mut(pk) {
        Some(known) => {
            known.at = mark.at;
            false
        }
        None => pks.insert(pk.into(), mark).is_none(),
    }
}

pub fn add(workspace_id: &str, relation: Oid, pk: &str, mark: Mark) -> Result<()> {
    MARKS.with_borrow_mut(|marks| {
        if marks.is_closed {
            return Err(CaptureError::TooLate.into());
        }
        let max = guc::max_captured_rows();
        if marks.count >= max && !marks.has(workspace_id, relation, pk) {
            return Err(CaptureError::TooManyRows { max }.into());
        }
        let marked = match marks.by_workspace.get_mut(workspace_id) {
            Some(marked) => marked,
            None => marks.by_workspace.entry(workspace_id.to_owned()).or_default(),
        };
        let pks = marked.entry(relation).or_default();
        pks.try_reserve(1).map_err(|_| SyncError::OutOfMemory)?;
        marks.count += usize::from(insert(pks, pk, mark));
        Ok(())
    })
}

/// Takes the marks of the first workspace, before the transaction commits.
pub fn take_first() -> Option<(String, Marked)> {
    MARKS.with_borrow_mut(|marks| {
        let (workspace_id, marked) = marks.by_workspace.pop_first()?;
        marks.count -= marked.values().map(HashMap::len).sum::<usize>();
        Some((workspace_id, marked))
    })
}

/// Takes one.
pub fn remove(workspace_id: &str, relation: Oid, pk: &str) {
    let by = subtransaction::current();
    MARKS.with_borrow_mut(|marks| {
        let marked = marks.by_workspace.get_mut(workspace_id);
        let pks = marked.and_then(|marked| marked.get_mut(&relation));
        let Some((pk, mark)) = pks.and_then(|pks| pks.remove_entry(pk)) else { return };
        marks.count -= 1;
        match marks.taken.last_mut() {
            Some((last, of, taken)) if *last == by && of == workspace_id => {
                taken.entry(relation).or_default().insert(pk, mark);
            }
            _ => {
                let taken = Marked::from([(relation, HashMap::from([(pk, mark)]))]);
                marks.taken.push((by, workspace_id.to_owned(), taken));
            }
        }
    });
}

/// Takes those of one workspace.
pub fn take(workspace_id: &str) -> Option<Marked> {
    let by = subtransaction::current();
    MARKS.with_borrow_mut(|marks| {
        let marked = marks.by_workspace.remove(workspace_id)?;
        marks.count -= marked.values().map(HashMap::len).sum::<usize>();
        marks.taken.push((by, workspace_id.to_owned(), marked.clone()));
        Some(marked)
    })
}

/// A subtransaction is rolled back, and with it what was written for the marks that it
/// took, or that a later one, within it, took.
pub fn give_back(of: SubtransactionId) {
    MARKS.with_borrow_mut(|marks| {
        let all = std::mem::take(&mut marks.taken);
        let (back, taken) = all.into_iter().partition(|(by, ..)| *by >= of);
        marks.taken = taken;
        let back: Vec<(SubtransactionId, String, Marked)> = back;
        for (_, workspace_id, back) in back {
            let marked = marks.by_workspace.entry(workspace_id).or_default();
            for (relation, pks) in back {
                let known = marked.entry(relation).or_default();
                let new = pks.iter().filter(|(pk, mark)| insert(known, pk, **mark));
                marks.count += new.count();
            }
        }
    });
}

pub fn begin_backfill() {
    MARKS.with_borrow_mut(|marks| marks.is_backfill = true);
}

/// Records that this transaction creates lose to every edit of a device.
pub fn is_backfill() -> bool {
    MARKS.with_borrow(|marks| marks.is_backfill)
}

/// Before the transaction commits: takes no more marks. True if there are any.
pub fn close() -> bool {
    MARKS.with_borrow_mut(|marks| {
        marks.is_closed = true;
        !marks.by_workspace.is_empty()
    })
}

/// At the end of the transaction.
pub fn forget() {
    MARKS.set(Marks::default());
}
