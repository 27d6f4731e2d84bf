//! Reading rows through a named index, in its order.

use pgrx::pg_sys;
use uuid::Uuid;

use super::arena::Arena;
use super::compat;
use super::mvcc::MvccSnapshot;
use super::relation::{Index, Table};
use super::row::{Row, RowId};
use sync_ext_core::rules::op::Timestamp;

/// How the n-th column of an index is compared. The comparison must be of the column's
/// own type: it is found by function, not by the planner.
#[derive(Clone, Copy)]
pub enum By {
    Int8,
    Int8After,
    Int8UpTo,
    Text,
    TextAfter,
    TimeUntil,
    Uuid,
}

impl By {
    fn strategy(self) -> pg_sys::StrategyNumber {
        let strategy = match self {
            By::Int8 | By::Text | By::Uuid => pg_sys::BTEqualStrategyNumber,
            By::Int8After | By::TextAfter => pg_sys::BTGreaterStrategyNumber,
            By::Int8UpTo | By::TimeUntil => pg_sys::BTLessEqualStrategyNumber,
        };
        strategy as pg_sys::StrategyNumber
    }

    fn function(self) -> pg_sys::Oid {
        pg_sys::Oid::from(match self {
            By::Int8 => pg_sys::F_INT8EQ,
            By::Int8After => pg_sys::F_INT8GT,
            By::Int8UpTo => pg_sys::F_INT8LE,
            By::Text => pg_sys::F_TEXTEQ,
            By::TextAfter => pg_sys::F_TEXT_GT,
            By::TimeUntil => pg_sys::F_TIMESTAMPTZ_LE,
            By::Uuid => pg_sys::F_UUID_EQ,
        })
    }
}

/// A value to look up.
#[derive(Clone, Copy)]
pub enum Key<'a> {
    Int8(i64),
    Text(&'a str),
    Time(Timestamp),
    Uuid(Uuid),
}

/// A scan of an index whose leading columns are compared with keys. It can be
/// repositioned, which is much cheaper than a scan per look-up.
pub struct Scan<'s> {
    table: &'s Table,
    index: &'s Index,
    snapshot: &'s MvccSnapshot,
    /// Begun by the first `seek`: many scans are never needed.
    begun: Option<Begun>,
    found: Found,
    keys: Vec<pg_sys::ScanKeyData>,
    /// The values of the keys, until the next `seek`.
    key_values: Arena,
    /// Detoasted values of the current row.
    row_values: Arena,
}

/// Where the index points to the row that was found last, see [`Scan::find`].
#[derive(Clone, Copy)]
enum Found {
    Nothing,
    Somewhere(RowId),
    /// Right after the row before it.
    InTurn(RowId),
}

#[derive(Clone, Copy)]
struct Begun {
    scan: pg_sys::IndexScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
}

impl<'s> Scan<'s> {
    /// `by` has one comparison for each of the index's first columns.
    pub fn new(
        table: &'s Table,
        index: &'s Index,
        snapshot: &'s MvccSnapshot,
        by: &[By],
    ) -> Scan<'s> {
        let mut keys = vec![pg_sys::ScanKeyData::default(); by.len()];
        for (column, (key, by)) in keys.iter_mut().zip(by).enumerate() {
            // SAFETY: `key` is a valid target. ScanKeyInit compares with the C
            // collation, as the text columns do; the argument is set by `seek`.
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
            found: Found::Nothing,
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

    /// Moves to before the first row that satisfies the comparisons.
    pub fn seek(&mut self, values: &[Key<'_>]) {
        debug_assert_eq!(values.len(), self.keys.len());
        let Begun { scan, .. } = self.begun.unwrap_or_else(|| self.begin());
        self.key_values.reset();
        for (key, value) in self.keys.iter_mut().zip(values) {
            key.sk_argument = match value {
                Key::Int8(value) | Key::Time(value) => pg_sys::Datum::from(*value),
                Key::Text(text) => super::values::text_datum(&self.key_values, text),
                Key::Uuid(uuid) => super::values::uuid_datum(&self.key_values, uuid),
            };
        }
        // SAFETY: the scan was begun with this number of keys; it copies them, and
        // their values live until the next seek.
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
        // SAFETY: the slot holds a row, until the scan moves on.
        Some(unsafe { Row::in_slot(slot, &self.row_values, self.table) })
    }

    /// The last row in index order that satisfies the comparisons.
    pub fn last(&mut self, values: &[Key<'_>]) -> Option<Row<'_>> {
        self.seek(values);
        self.step(pg_sys::ScanDirection::BackwardScanDirection)
    }

    /// The row with a key that at most one row has.
    ///
    /// Rows that were stored together are looked up together, in the same order. So where the
    /// last rows were in turn on their page, the next one is tried first: read there by the same
    /// rules, it costs much less than through the index.
    pub fn find(&mut self, values: &[Key<'_>]) -> Option<Row<'_>> {
        let found = self.find_in_turn(values).or_else(|| self.find_by_index(values));
        let before = std::mem::replace(&mut self.found, Found::Nothing);
        let at = found?;
        self.found = match before {
            Found::Somewhere(last) | Found::InTurn(last) if at.follows(last) => Found::InTurn(at),
            _ => Found::Somewhere(at),
        };
        self.begun.map(|Begun { slot, .. }| {
            // SAFETY: the slot holds the row that was found, until the scan moves on.
            unsafe { Row::in_slot(slot, &self.row_values, self.table) }
        })
    }

    fn find_in_turn(&mut self, values: &[Key<'_>]) -> Option<RowId> {
        let (Some(Begun { scan, slot }), Found::InTurn(last)) = (self.begun, self.found) else {
            return None;
        };
        pg_sys::check_for_interrupts!();
        self.row_values.reset();
        let next = last.next();
        // SAFETY: scan and slot are valid and of the same table; `last` is on the same page, and
        // the snapshot has seen its row.
        let row = unsafe {
            if !compat::fetch_indexed_row(scan, next.0, slot) {
                return None;
            }
            Row::in_slot(slot, &self.row_values, self.table)
        };
        let mut columns = self.index.columns().zip(values);
        columns.all(|(column, value)| row.has(column, value)).then_some(next)
    }

    fn find_by_index(&mut self, values: &[Key<'_>]) -> Option<RowId> {
        self.seek(values);
        pg_sys::check_for_interrupts!();
        let Begun { scan, slot } = self.begun?;
        self.row_values.reset();
        loop {
            // SAFETY: scan and slot are valid and of the same table. The place is copied before
            // the fetch moves it to the version of the row that the snapshot sees.
            unsafe {
                let forward = pg_sys::ScanDirection::ForwardScanDirection;
                let tid = pg_sys::index_getnext_tid(scan, forward).as_ref()?;
                let at = RowId(*tid);
                if pg_sys::index_fetch_heap(scan, slot) {
                    return Some(at);
                }
            }
        }
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
