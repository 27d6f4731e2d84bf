//! Reading rows through a named index, in its order.

use pgrx::pg_sys;
use uuid::Uuid;

use super::Result;
use super::arena::Arena;
use super::compat;
use super::relation::{Index, Table};
use super::row_lock::RowId;
use super::snapshot::Snapshot;
use crate::error::SyncError;
use crate::rules::op::Timestamp;

/// What the n-th column of an index is compared by. The comparison must be of
/// the column's own type: it is looked up by function, not by planner.
#[derive(Clone, Copy)]
pub enum By {
    Int8,
    Int8After,
    Text,
    TextAfter,
    Uuid,
}

impl By {
    fn strategy(self) -> pg_sys::StrategyNumber {
        let strategy = match self {
            By::Int8 | By::Text | By::Uuid => pg_sys::BTEqualStrategyNumber,
            By::Int8After | By::TextAfter => pg_sys::BTGreaterStrategyNumber,
        };
        strategy as pg_sys::StrategyNumber
    }

    fn function(self) -> pg_sys::Oid {
        pg_sys::Oid::from(match self {
            By::Int8 => pg_sys::F_INT8EQ,
            By::Int8After => pg_sys::F_INT8GT,
            By::Text => pg_sys::F_TEXTEQ,
            By::TextAfter => pg_sys::F_TEXT_GT,
            By::Uuid => pg_sys::F_UUID_EQ,
        })
    }
}

/// A value to look for.
#[derive(Clone, Copy)]
pub enum Key<'a> {
    Int8(i64),
    Text(&'a str),
    Uuid(Uuid),
}

/// A scan of an index whose leading columns are compared with keys. It can be
/// repositioned at will, which is much cheaper than a scan per look-up.
pub struct Scan<'s> {
    table: &'s Table,
    index: &'s Index,
    snapshot: &'s Snapshot,
    /// Begun by the first `seek`: many a scan is never needed.
    begun: Option<Begun>,
    keys: Vec<pg_sys::ScanKeyData>,
    /// What the keys point at, until the next `seek`.
    key_values: Arena,
    /// Detoasted values of the current row.
    row_values: Arena,
}

#[derive(Clone, Copy)]
struct Begun {
    scan: pg_sys::IndexScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
}

impl<'s> Scan<'s> {
    /// `by` compares the index's first columns, one each.
    pub fn new(table: &'s Table, index: &'s Index, snapshot: &'s Snapshot, by: &[By]) -> Scan<'s> {
        let mut keys = vec![pg_sys::ScanKeyData::default(); by.len()];
        for (column, (key, by)) in keys.iter_mut().zip(by).enumerate() {
            // SAFETY: `key` is ours to fill in. ScanKeyInit compares with the C
            // collation, which is our text columns' own; the argument is set
            // by `seek`.
            unsafe {
                pg_sys::ScanKeyInit(
                    key,
                    column as pg_sys::AttrNumber + 1,
                    by.strategy(),
                    by.function(),
                    pg_sys::Datum::from(0),
                );
            }
        }
        Scan {
            table,
            index,
            snapshot,
            begun: None,
            keys,
            key_values: Arena::new(),
            row_values: Arena::new(),
        }
    }

    fn begin(&mut self) -> Begun {
        // SAFETY: relations and snapshot are borrowed for as long as the scan
        // lives; the slot is made for this table.
        let begun = unsafe {
            let scan = compat::index_beginscan(
                self.table.as_ptr(),
                self.index.as_ptr(),
                self.snapshot.as_ptr(),
                self.keys.len() as i32,
            );
            Begun {
                scan,
                slot: pg_sys::table_slot_create(self.table.as_ptr(), std::ptr::null_mut()),
            }
        };
        *self.begun.insert(begun)
    }

    /// Goes to before the first row that satisfies the comparisons.
    pub fn seek(&mut self, values: &[Key<'_>]) {
        debug_assert_eq!(values.len(), self.keys.len());
        let Begun { scan, .. } = self.begun.unwrap_or_else(|| self.begin());
        self.key_values.reset();
        for (key, value) in self.keys.iter_mut().zip(values) {
            key.sk_argument = match value {
                Key::Int8(value) => pg_sys::Datum::from(*value),
                Key::Text(text) => super::values::text_datum(&self.key_values, text),
                Key::Uuid(uuid) => super::values::uuid_datum(&self.key_values, uuid),
            };
        }
        // SAFETY: the scan was begun with as many keys; it copies them, and
        // what they point at lives until the next seek.
        unsafe {
            pg_sys::index_rescan(
                scan,
                self.keys.as_mut_ptr(),
                self.keys.len() as i32,
                std::ptr::null_mut(),
                0,
            );
        }
    }

    /// The next row, in index order; none before the first `seek`.
    pub fn next(&mut self) -> Option<Row<'_>> {
        self.step(pg_sys::ScanDirection::ForwardScanDirection)
    }

    fn step(&mut self, direction: pg_sys::ScanDirection::Type) -> Option<Row<'_>> {
        pg_sys::check_for_interrupts!();
        let Begun { scan, slot } = self.begun?;
        self.row_values.reset();
        // SAFETY: scan and slot are valid and of the same table.
        let found = unsafe { pg_sys::index_getnext_slot(scan, direction, slot) };
        if !found {
            return None;
        }
        // SAFETY: the slot holds a row; this reads all its columns into it.
        unsafe {
            let columns = (*(*slot).tts_tupleDescriptor).natts;
            pg_sys::slot_getsomeattrs_int(slot, columns);
        }
        Some(Row { slot, values: &self.row_values })
    }

    /// The last row in index order.
    pub fn last(&mut self) -> Option<Row<'_>> {
        self.seek(&[]);
        self.step(pg_sys::ScanDirection::BackwardScanDirection)
    }

    /// `seek` for a key that at most one row has.
    pub fn find(&mut self, values: &[Key<'_>]) -> Option<Row<'_>> {
        self.seek(values);
        self.next()
    }
}

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        // While an error unwinds, the resource owner drops pins and scans.
        if let (Some(Begun { scan, slot }), false) = (self.begun, std::thread::panicking()) {
            // SAFETY: begun and created by `begin`, ended once.
            unsafe {
                pg_sys::index_endscan(scan);
                pg_sys::ExecDropSingleTupleTableSlot(slot);
            }
        }
    }
}

/// A row that the slot holds: its columns by number, from 1. Valid until the
/// scan moves on, which the borrow of the scan ensures.
pub struct Row<'r> {
    slot: *mut pg_sys::TupleTableSlot,
    values: &'r Arena,
}

impl<'r> Row<'r> {
    /// # Safety
    /// The slot holds a row, read into its values, and keeps it for `'r`.
    pub(super) unsafe fn new(slot: *mut pg_sys::TupleTableSlot, values: &'r Arena) -> Row<'r> {
        Row { slot, values }
    }

    pub fn id(&self) -> RowId {
        // SAFETY: the slot holds a stored row, so its tid is set.
        RowId(unsafe { (*self.slot).tts_tid })
    }

    fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        // SAFETY: the slot's values are filled for all columns of the table;
        // ours are among the first of them.
        unsafe {
            let place = column - 1;
            debug_assert!(place < (*self.slot).tts_nvalid as usize);
            (!*(*self.slot).tts_isnull.add(place)).then(|| *(*self.slot).tts_values.add(place))
        }
    }

    fn required(&self, column: usize) -> Result<pg_sys::Datum> {
        self.datum(column).ok_or_else(|| SyncError::Damaged {
            what: format!("Column {column} of a row is NULL and must not be."),
        })
    }

    pub fn int8(&self, column: usize) -> Result<i64> {
        Ok(self.required(column)?.value() as i64)
    }

    pub fn int8_or_null(&self, column: usize) -> Option<i64> {
        self.datum(column).map(|datum| datum.value() as i64)
    }

    pub fn timestamp(&self, column: usize) -> Result<Timestamp> {
        self.int8(column)
    }

    pub fn bool(&self, column: usize) -> Result<bool> {
        Ok(self.required(column)?.value() & 0xff != 0)
    }

    pub fn uuid(&self, column: usize) -> Result<Uuid> {
        self.required(column).map(as_uuid)
    }

    pub fn uuid_or_null(&self, column: usize) -> Option<Uuid> {
        self.datum(column).map(as_uuid)
    }

    pub fn text(&self, column: usize) -> Result<&'r str> {
        Ok(self.as_text(self.required(column)?))
    }

    /// A text or json column that may be NULL.
    pub fn text_or_null(&self, column: usize) -> Option<&'r str> {
        self.datum(column).map(|datum| self.as_text(datum))
    }

    fn as_text(&self, datum: pg_sys::Datum) -> &'r str {
        // SAFETY: the row's memory, which the slot pins for 'r; copies go into
        // `values`, which lives for 'r too.
        unsafe {
            super::values::text_of(datum, |packed| {
                self.values.enter(|| pg_sys::pg_detoast_datum_packed(packed))
            })
        }
    }
}

fn as_uuid(datum: pg_sys::Datum) -> Uuid {
    // SAFETY: a uuid is 16 bytes by reference, in the row's memory.
    Uuid::from_bytes(unsafe { *datum.cast_mut_ptr::<[u8; 16]>() })
}
