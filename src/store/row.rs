//! Rows in slots.

use pgrx::pg_sys;
use uuid::Uuid;

use super::Result;
use super::arena::Arena;
use super::compat;
use super::mvcc::MvccSnapshot;
use super::relation::Table;
use super::scan::Key;
use super::values::text_of;
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::op::Timestamp;

/// The location of a row's version. Valid while its workspace, or the row itself, is
/// locked.
#[derive(Clone, Copy)]
pub struct RowId(pub(super) pg_sys::ItemPointerData);

impl RowId {
    /// # Safety
    /// The slot holds a stored row, so its tid is set.
    pub(super) unsafe fn of(slot: *mut pg_sys::TupleTableSlot) -> RowId {
        // SAFETY: the caller's promise.
        RowId(unsafe { (*slot).tts_tid })
    }

    pub(super) fn block(self) -> pg_sys::BlockNumber {
        let id = self.0.ip_blkid;
        u32::from(id.bi_hi) << 16 | u32::from(id.bi_lo)
    }

    /// The place after it on its page, which need not exist.
    pub(super) fn next(self) -> RowId {
        RowId(pg_sys::ItemPointerData { ip_posid: self.0.ip_posid + 1, ..self.0 })
    }

    /// Whether a row here may have been stored right after the one at `last`: on the same page
    /// or as the first of another.
    pub(super) fn follows(self, last: RowId) -> bool {
        match self.block() == last.block() {
            true => self.0.ip_posid == last.0.ip_posid + 1,
            false => self.0.ip_posid == 1,
        }
    }
}

/// A slot of a table.
pub struct Slot(pub(super) *mut pg_sys::TupleTableSlot);

impl Slot {
    pub fn new(table: &Table) -> Slot {
        // SAFETY: the table is open; the slot holds its own reference to the
        // table's descriptor.
        Slot(unsafe { pg_sys::table_slot_create(table.as_ptr(), std::ptr::null_mut()) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // While an error unwinds, the resource owner drops pins and references.
        if !std::thread::panicking() {
            // SAFETY: created by `new`, dropped once.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.0) };
        }
    }
}

impl Table {
    /// Reads the version of a row that is at this place, if the snapshot sees it. After the
    /// snapshot that it was found with it may be another row's.
    pub fn visible<T>(
        &self,
        row: RowId,
        snapshot: &MvccSnapshot,
        read: impl FnOnce(Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let (slot, values, mut tid) = (Slot::new(self), Arena::new(), row.0);
        // SAFETY: the table is open, and the slot of it; a row that is found stays in it until
        // after `read`.
        unsafe {
            let (table, snapshot) = (self.as_ptr(), snapshot.as_ptr());
            if !compat::fetch_visible_row(table, &mut tid, snapshot, slot.0) {
                return Ok(None);
            }
            read(Row::in_slot(slot.0, &values, self)).map(Some)
        }
    }
}

/// The first columns of a row say what it is of. Many rows are passed over by these alone, and
/// the others need all.
const NAMES: usize = 4;

/// A row in a slot: its columns by number, from 1. Valid until the scan moves on, which
/// the borrow of the scan ensures.
pub struct Row<'r> {
    slot: *mut pg_sys::TupleTableSlot,
    values: &'r Arena,
    places: Option<&'r [Option<usize>]>,
}

impl<'r> Row<'r> {
    /// # Safety
    /// The slot holds a row of the table, and keeps it for `'r`.
    pub unsafe fn in_slot(
        slot: *mut pg_sys::TupleTableSlot,
        values: &'r Arena,
        table: &'r Table,
    ) -> Row<'r> {
        Row { slot, values, places: table.places() }
    }

    pub fn id(&self) -> RowId {
        // SAFETY: the slot holds a stored row.
        unsafe { RowId::of(self.slot) }
    }

    /// Whether this transaction has written this version of the row.
    pub fn is_of_this_transaction(&self) -> bool {
        let (mut is_null, xmin) = (false, pg_sys::MinTransactionIdAttributeNumber);
        // SAFETY: the slot holds a stored row, which has system columns.
        unsafe {
            let read = (*(*self.slot).tts_ops).getsysattr;
            let xmin = read.map(|read| read(self.slot, xmin, &mut is_null).value() as u32);
            xmin.is_some_and(|xmin| pg_sys::TransactionIdIsCurrentTransactionId(xmin.into()))
        }
    }

    fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        let place = match self.places {
            None => column - 1,
            Some(places) => places[column - 1]?,
        };
        // SAFETY: the slot holds a row of the table, whose shape was checked; its values are
        // filled before they are read.
        unsafe {
            if place >= (*self.slot).tts_nvalid as usize {
                let all = (*(*self.slot).tts_tupleDescriptor).natts;
                let columns = if place < NAMES { all.min(NAMES as i32) } else { all };
                pg_sys::slot_getsomeattrs_int(self.slot, columns);
            }
            debug_assert!(place < (*self.slot).tts_nvalid as usize);
            (!*(*self.slot).tts_isnull.add(place)).then(|| *(*self.slot).tts_values.add(place))
        }
    }

    pub(super) fn has(&self, column: usize, key: &Key<'_>) -> bool {
        self.datum(column).is_some_and(|datum| match *key {
            Key::Int8(value) | Key::Time(value) => datum.value() as i64 == value,
            Key::Text(text) => self.as_text(datum) == text,
            Key::Uuid(uuid) => as_uuid(datum) == uuid,
        })
    }

    fn required(&self, column: usize) -> Result<pg_sys::Datum> {
        self.datum(column).ok_or_else(|| SyncError::Damaged {
            what: format!("Column {column} of a row is NULL and must not be."),
        })
    }

    pub fn int8(&self, column: usize) -> Result<i64> {
        Ok(self.required(column)?.value() as i64)
    }

    pub fn oid_or_null(&self, column: usize) -> Option<pg_sys::Oid> {
        self.datum(column).map(|datum| pg_sys::Oid::from(datum.value() as u32))
    }

    pub fn int8_or_null(&self, column: usize) -> Option<i64> {
        self.datum(column).map(|datum| datum.value() as i64)
    }

    pub fn timestamp(&self, column: usize) -> Result<Timestamp> {
        self.int8(column)
    }

    pub fn timestamp_or_null(&self, column: usize) -> Option<Timestamp> {
        self.int8_or_null(column)
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
        // SAFETY: the row's memory, which the slot pins for 'r; copies are in `values`,
        // which lives for 'r too.
        unsafe {
            text_of(datum, |packed| self.values.enter(|| pg_sys::pg_detoast_datum_packed(packed)))
        }
    }
}

fn as_uuid(datum: pg_sys::Datum) -> Uuid {
    // SAFETY: a uuid is 16 bytes by reference, in the row's memory.
    Uuid::from_bytes(unsafe { *datum.cast_mut_ptr::<[u8; 16]>() })
}
