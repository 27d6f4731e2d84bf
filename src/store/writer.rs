//! Inserting and updating rows, with their index entries.

use std::slice::from_raw_parts_mut;

use pgrx::pg_sys;
use uuid::Uuid;

use super::Result;
use super::arena::Arena;
use super::compat::{self, IndexesToUpdate};
use super::mvcc::MvccSnapshot;
use super::relation::{Index, Table};
use super::row::{RowId, Slot};
use super::row_lock;
use super::values::{Value, fill_slot};

/// Rows that are stored together, with one page lock and one WAL record for many. More
/// rows than fit on a typical page.
const CHUNK: usize = 64;

/// Fewer if they are large, to limit the buffered memory.
const CHUNK_BYTES: usize = 64 * 1024;

/// Writes to one table. Rows are buffered; `finish` stores the last of them.
pub struct Writer<'t> {
    table: &'t Table,
    snapshot: &'t MvccSnapshot,
    indexes: Option<OpenIndexes>,
    sorted: Option<Sorted<'t>>,
    duplicates: Duplicates,
    has_duplicates: bool,
    slots: Vec<Slot>,
    update_slot: Option<Slot>,
    filled: usize,
    filled_bytes: usize,
    arena: Arena,
}

/// An index on a workspace and a uuid, to which `finish` adds the new rows, in the order
/// of their keys: of a large batch of random keys many share a page. Until then nobody looks
/// for the rows by it: other sessions wait for the lock of the workspace, and what fails in
/// between is rolled back.
struct Sorted<'t> {
    index: &'t Index,
    workspace_key: i64,
    /// The position of the uuid in a row, from 0.
    column: usize,
    /// Of the buffered rows.
    keys: Vec<Uuid>,
    stored: Vec<(Uuid, RowId)>,
}

/// What to do with a row that a unique index already has. Any index counts: while one
/// is rebuilt, it has a copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// 23505.
    Raise,
    /// `finish` is false, rows after the chunk are not stored, and the caller must roll
    /// back.
    Report,
}

impl<'t> Writer<'t> {
    pub fn new(table: &'t Table, snapshot: &'t MvccSnapshot, duplicates: Duplicates) -> Writer<'t> {
        Writer {
            table,
            snapshot,
            indexes: None,
            sorted: None,
            duplicates,
            has_duplicates: false,
            slots: Vec::new(),
            update_slot: None,
            filled: 0,
            filled_bytes: 0,
            arena: Arena::new(),
        }
    }

    /// For new rows of one workspace: adds their entries of this index, on the workspace
    /// and the uuid in a column from 0, in the order of their keys.
    pub fn sorting(self, index: &'t Index, workspace_key: i64, column: usize) -> Writer<'t> {
        let (keys, stored) = (Vec::new(), Vec::new());
        Writer { sorted: Some(Sorted { index, workspace_key, column, keys, stored }), ..self }
    }

    pub fn insert(&mut self, values: &[Value<'_>]) {
        if self.filled == CHUNK || self.filled_bytes > CHUNK_BYTES {
            self.flush();
        }
        if self.filled == self.slots.len() {
            self.slots.push(Slot::new(self.table));
        }
        // SAFETY: the slot is of this table; callers pass values of its columns' types.
        unsafe { fill_slot(self.slots[self.filled].0, self.table, &self.arena, values, None) };
        if let Some(sorted) = &mut self.sorted
            && let Value::Uuid(key) = values[sorted.column]
        {
            sorted.keys.push(key);
        }
        self.filled += 1;
        self.filled_bytes += values.iter().map(Value::bytes).sum::<usize>();
    }

    /// Replaces the first columns of a row that no other session may be changing: its
    /// workspace or, for a device, the row itself is locked. Additional columns keep
    /// their values.
    pub fn update(&mut self, row: RowId, values: &[Value<'_>]) -> Result<()> {
        assert!(self.sorted.is_none(), "an update would miss the index");
        self.table.require_updatable();
        let slot = self.update_slot.get_or_insert_with(|| Slot::new(self.table));
        let more = self.table.columns() > values.len() || self.table.places().is_some();
        let before = more.then(|| Slot::new(self.table));
        let mut tid = row.0;
        // SAFETY: as in `insert`; the arena keeps the values until the flush,
        // and `before` the old row's, which is after the row was stored.
        unsafe {
            if let Some(before) = &before
                && !compat::fetch_row(self.table.as_ptr(), &mut tid, before.0)
            {
                return Err(row_lock::not_ours(pg_sys::TM_Result::TM_Invisible));
            }
            let rest = before.as_ref().map(|before| before.0);
            fill_slot(slot.0, self.table, &self.arena, values, rest);
            let (table, snapshot) = (self.table.as_ptr(), self.snapshot.as_ptr());
            let which =
                self.arena.enter(|| compat::table_tuple_update(table, &mut tid, slot.0, snapshot));
            let which = which.map_err(row_lock::not_ours)?;
            if which != IndexesToUpdate::None {
                let indexes = self
                    .indexes
                    .get_or_insert_with(|| OpenIndexes::of(self.table, self.duplicates, None));
                self.has_duplicates |= self.arena.enter(|| indexes.insert(slot.0, Some(which)));
            }
            compat::clear_slot(slot.0);
        }
        Ok(())
    }

    /// False if there were duplicates.
    #[must_use]
    pub fn finish(mut self) -> bool {
        self.flush();
        if let Some(indexes) = self.indexes {
            if let (Some(mut sorted), false) = (self.sorted, self.has_duplicates) {
                sorted.stored.sort_unstable_by_key(|(key, _)| *key);
                let (index, workspace_key) = (sorted.index, sorted.workspace_key);
                self.has_duplicates = sorted.stored.chunks_mut(CHUNK).any(|rows| {
                    // SAFETY: the rows were just stored, and have no entry yet.
                    let insert = || unsafe {
                        indexes.insert_left_out(self.table, index, workspace_key, rows)
                    };
                    let is_duplicate = self.arena.enter(insert);
                    self.arena.reset();
                    is_duplicate
                });
            }
            indexes.close();
        }
        !self.has_duplicates
    }

    fn flush(&mut self) {
        if self.filled > 0 && !self.has_duplicates {
            let mut slots: Vec<_> = self.slots[..self.filled].iter().map(|slot| slot.0).collect();
            // SAFETY: the slots hold rows in the table's shape. The calls' allocations
            // are freed with the arena.
            unsafe {
                let command = pg_sys::GetCurrentCommandId(true);
                let last = self.sorted.as_ref().map(|sorted| sorted.index);
                let indexes = self
                    .indexes
                    .get_or_insert_with(|| OpenIndexes::of(self.table, self.duplicates, last));
                self.arena.enter(|| {
                    compat::table_multi_insert(self.table.as_ptr(), &mut slots, command);
                    for slot in &slots {
                        self.has_duplicates |= indexes.insert(*slot, None);
                    }
                });
                if let Some(Sorted { keys, stored, .. }) = &mut self.sorted {
                    assert_eq!(keys.len(), slots.len(), "each row has a key");
                    stored.extend(keys.drain(..).zip(slots.iter().map(|slot| RowId::of(*slot))));
                }
                for slot in slots {
                    compat::clear_slot(slot);
                }
            }
        }
        self.filled = 0;
        self.filled_bytes = 0;
        self.arena.reset();
    }
}

/// A table's indexes, open for the executor's code that fills them.
struct OpenIndexes {
    estate: *mut pg_sys::EState,
    target: *mut pg_sys::ResultRelInfo,
    /// What the executor knows of an index that it is not to fill.
    left_out: Option<*mut pg_sys::IndexInfo>,
    duplicates: Duplicates,
}

impl OpenIndexes {
    fn of(table: &Table, duplicates: Duplicates, leave_out: Option<&Index>) -> OpenIndexes {
        // SAFETY: the table is open for writing. Range table index 0: there is no
        // query, and the executor's index code uses it only for a hint. Both arrays have
        // ri_NumIndices elements.
        unsafe {
            let estate = pg_sys::CreateExecutorState();
            let target =
                pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            pg_sys::InitResultRelInfo(target, table.as_ptr(), 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(target, false);
            let left_out = leave_out.and_then(|index| {
                let count = (*target).ri_NumIndices as usize;
                let relations = from_raw_parts_mut((*target).ri_IndexRelationDescs, count);
                let infos = from_raw_parts_mut((*target).ri_IndexRelationInfo, count);
                let place = relations.iter().position(|relation| *relation == index.as_ptr())?;
                // One that includes further columns the executor fills.
                if (*infos[place]).ii_NumIndexAttrs != 2 {
                    return None;
                }
                relations.swap(place, count - 1);
                infos.swap(place, count - 1);
                (*target).ri_NumIndices -= 1;
                Some(infos[count - 1])
            });
            OpenIndexes { estate, target, left_out, duplicates }
        }
    }

    /// Whether it is a duplicate.
    ///
    /// # Safety
    /// `slot` is of the table and holds a row that was just stored.
    unsafe fn insert(
        &self,
        slot: *mut pg_sys::TupleTableSlot,
        update: Option<IndexesToUpdate>,
    ) -> bool {
        // SAFETY: the caller's promise; the indexes are open.
        unsafe {
            (*self.target).ri_NumIndices > 0
                && compat::insert_index_tuples(
                    self.target,
                    slot,
                    self.estate,
                    update,
                    self.duplicates == Duplicates::Report,
                )
        }
    }

    /// Adds entries of the index that was left out. Whether there is a duplicate, after which
    /// it adds no more.
    ///
    /// # Safety
    /// The rows were just stored in the table, with these keys, and without these entries.
    unsafe fn insert_left_out(
        &self,
        table: &Table,
        index: &Index,
        workspace_key: i64,
        rows: &mut [(Uuid, RowId)],
    ) -> bool {
        use pg_sys::IndexUniqueCheck::{UNIQUE_CHECK_PARTIAL, UNIQUE_CHECK_YES};
        let Some(info) = self.left_out else { return false };
        let check = match self.duplicates {
            Duplicates::Raise => UNIQUE_CHECK_YES,
            Duplicates::Report => UNIQUE_CHECK_PARTIAL,
        };
        rows.iter_mut().any(|(key, row)| {
            pgrx::check_for_interrupts!();
            let mut values = [workspace_key.into(), pg_sys::Datum::from(key.as_bytes().as_ptr())];
            // SAFETY: the index is on an int8 and a uuid, which is passed by reference, and both
            // are NOT NULL; the caller's promise for the row.
            let is_unique = unsafe {
                pg_sys::index_insert(
                    index.as_ptr(),
                    values.as_mut_ptr(),
                    [false; 2].as_mut_ptr(),
                    &mut row.0,
                    table.as_ptr(),
                    check,
                    false,
                    info,
                )
            };
            self.duplicates == Duplicates::Report && !is_unique
        })
    }

    /// Not reached while an error unwinds; the resource owner then closes the indexes.
    fn close(self) {
        // SAFETY: opened and created by `of`, closed once; the index that was left out is the
        // last in its array.
        unsafe {
            (*self.target).ri_NumIndices += i32::from(self.left_out.is_some());
            pg_sys::ExecCloseIndices(self.target);
            pg_sys::FreeExecutorState(self.estate);
        }
    }
}
