//! Inserting and updating rows, with their index entries.

use pgrx::pg_sys;

use super::Result;
use super::arena::Arena;
use super::compat::{self, IndexesToUpdate};
use super::mvcc::MvccSnapshot;
use super::relation::Table;
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
    duplicates: Duplicates,
    has_duplicates: bool,
    slots: Vec<Slot>,
    update_slot: Option<Slot>,
    filled: usize,
    filled_bytes: usize,
    arena: Arena,
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
            duplicates,
            has_duplicates: false,
            slots: Vec::new(),
            update_slot: None,
            filled: 0,
            filled_bytes: 0,
            arena: Arena::new(),
        }
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
        self.filled += 1;
        self.filled_bytes += values.iter().map(Value::bytes).sum::<usize>();
    }

    /// Replaces the first columns of a row that no other session may be changing: its
    /// workspace or, for a device, the row itself is locked. Additional columns keep
    /// their values.
    pub fn update(&mut self, row: RowId, values: &[Value<'_>]) -> Result<()> {
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
                    .get_or_insert_with(|| OpenIndexes::of(self.table, self.duplicates));
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
                let indexes = self
                    .indexes
                    .get_or_insert_with(|| OpenIndexes::of(self.table, self.duplicates));
                self.arena.enter(|| {
                    compat::table_multi_insert(self.table.as_ptr(), &mut slots, command);
                    for slot in &slots {
                        self.has_duplicates |= indexes.insert(*slot, None);
                    }
                });
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
    duplicates: Duplicates,
}

impl OpenIndexes {
    fn of(table: &Table, duplicates: Duplicates) -> OpenIndexes {
        // SAFETY: the table is open for writing. Range table index 0: there is no
        // query, and the executor's index code uses it only for a hint.
        unsafe {
            let estate = pg_sys::CreateExecutorState();
            let target =
                pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            pg_sys::InitResultRelInfo(target, table.as_ptr(), 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(target, false);
            OpenIndexes { estate, target, duplicates }
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

    /// Not reached while an error unwinds; the resource owner then closes the indexes.
    fn close(self) {
        // SAFETY: opened and created by `of`, closed once.
        unsafe {
            pg_sys::ExecCloseIndices(self.target);
            pg_sys::FreeExecutorState(self.estate);
        }
    }
}
