//! The attached tables that a push writes.

use std::rc::Rc;

use super::Result;
use crate::store::attached::{self, AttachedTable};
use crate::store::known;
use crate::store::typed::TypedTable;
use crate::store::typed_write::WritableTable;
use crate::store::typed_write::lock;
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::apply::admit_op;
use sync_ext_core::rules::op::Op;
use sync_ext_core::rules::refusal::Refusal;

/// What was attached when a push began. Nothing keeps the table of JSON records from being
/// attached while the push waits for its workspace.
#[derive(Clone, Copy)]
pub struct Attachments(u64);

impl Attachments {
    pub fn now() -> Attachments {
        known::catch_up();
        Attachments(attached::generation())
    }

    /// Under the workspace's lock: an error if an op is of a table that was attached since.
    pub fn require_same(self, ops: &[Op<'_>], tables: Option<&Tables>) -> Result<()> {
        known::catch_up();
        if attached::generation() == self.0 {
            return Ok(());
        }
        let is_missed = |table: &Rc<AttachedTable>| {
            tables.is_none_or(|tables| tables.find(&table.name).is_none())
                && ops.iter().any(|op| op.key.table == table.name)
        };
        if attached::all()?.iter().any(is_missed) { Err(SyncError::ConcurrentSync) } else { Ok(()) }
    }
}

/// Each is locked as for writing, until the transaction ends: it cannot be altered or
/// detached meanwhile, and the push does not wait for that while it holds a workspace.
pub struct Tables {
    /// In the order of their names.
    tables: Vec<(Rc<AttachedTable>, TypedTable, WritableTable)>,
}

impl Tables {
    /// `None` if the ops write JSON tables alone.
    pub fn of(ops: &[Op<'_>]) -> Result<Option<Tables>> {
        loop {
            let all = attached::all()?;
            if all.is_empty() {
                return Ok(None);
            }
            let is_written =
                |table: &&Rc<AttachedTable>| ops.iter().any(|op| op.key.table == table.name);
            let written: Vec<_> = all.iter().filter(is_written).map(Rc::clone).collect();
            if written.is_empty() {
                return Ok(None);
            }
            let gone = |table: &AttachedTable| {
                Err(SyncError::AttachedTableGone { table: table.name.clone() })
            };
            for table in &written {
                if !lock(table) {
                    return gone(table);
                }
            }
            // Whoever had a lock on one of them may have changed it.
            if !Rc::ptr_eq(&all, &attached::all()?) {
                continue;
            }
            let mut tables = Vec::with_capacity(written.len());
            for table in written {
                let writable = WritableTable::of(&table)?;
                let Some(typed) = TypedTable::open(&table)? else { return gone(&table) };
                tables.push((table, typed, writable));
            }
            tables.sort_by(|(a, ..), (b, ..)| a.name.cmp(&b.name));
            return Ok(Some(Tables { tables }));
        }
    }

    /// One of them.
    pub fn of_table(table: &Rc<AttachedTable>) -> Result<Tables> {
        let gone = || SyncError::AttachedTableGone { table: table.name.clone() };
        if !lock(table) {
            return Err(gone());
        }
        let writable = WritableTable::of(table)?;
        let typed = TypedTable::open(table)?.ok_or_else(gone)?;
        Ok(Tables { tables: vec![(Rc::clone(table), typed, writable)] })
    }

    /// The place of a table.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.tables.binary_search_by(|(table, ..)| (*table.name).cmp(name)).ok()
    }

    pub fn attached(&self, at: usize) -> &AttachedTable {
        &self.tables[at].0
    }

    pub fn typed(&self, at: usize) -> &TypedTable {
        &self.tables[at].1
    }

    pub fn writable(&self, at: usize) -> &WritableTable {
        &self.tables[at].2
    }

    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// Checks an op of any table.
    pub fn admit(&self, op: &Op<'_>, max_clock: i64) -> Result<std::result::Result<(), Refusal>> {
        let Some(at) = self.find(&op.key.table) else { return Ok(Ok(())) };
        let table = self.attached(at);
        let is_canonical = self.typed(at).is_canonical(&op.key.pk)?;
        Ok(admit_op(op, table.is_read_only, is_canonical, max_clock))
    }
}
