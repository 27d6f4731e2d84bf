//! The primary keys of typed tables: scans of their indexes, and their texts.

use std::borrow::Cow;
use std::ffi::CString;
use std::marker::PhantomData;

use pgrx::pg_sys;
use uuid::Uuid;

use super::arena::Arena;
use super::attempt::attempt;
use super::compat;
use super::image::{SETTINGS, scalar_text};
use super::mvcc::MvccSnapshot;
use super::settings::Changed;
use super::typed::{KeyColumns, TypedTable, read_values};
use super::values::{text_datum, uuid_datum};
use sync_ext_core::error::SyncError;
use sync_ext_core::wire::pk::split;

/// In access/nbtree.h.
const BTORDER_PROC: i16 = 1;

/// A scan of the index, with the row that it is at.
pub struct PkScan<'s> {
    index: pg_sys::Relation,
    scan: pg_sys::IndexScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
    _of: PhantomData<&'s MvccSnapshot>,
}

impl<'s> PkScan<'s> {
    /// It will be given this number of keys.
    pub fn begin(
        table: &'s TypedTable,
        columns: &KeyColumns,
        keys: usize,
        snapshot: &'s MvccSnapshot,
    ) -> PkScan<'s> {
        // SAFETY: the index is the table's own; both and the snapshot outlive the scan.
        unsafe {
            let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
            let index = pg_sys::index_open(columns.pk_index, lock);
            let count = i32::try_from(keys).unwrap_or(0);
            let scan = compat::index_beginscan(table.relation, index, snapshot.as_ptr(), count);
            let slot = pg_sys::table_slot_create(table.relation, std::ptr::null_mut());
            PkScan { index, scan, slot, _of: PhantomData }
        }
    }

    /// The comparison of a column of the index with a value, which the caller sets.
    pub fn comparison(&self, place: usize, strategy: u32) -> pg_sys::ScanKeyData {
        // SAFETY: the index is open and has a column of this number.
        unsafe {
            let (family, kind) = self.operators(place);
            let operator = pg_sys::get_opfamily_member(family, kind, kind, strategy as i16);
            self.scan_key(place, strategy, 0, pg_sys::get_opcode(operator))
        }
    }

    /// The same of one column of several that are compared together.
    pub fn part_of_row(&self, place: usize, strategy: u32, is_last: bool) -> pg_sys::ScanKeyData {
        let end = if is_last { pg_sys::SK_ROW_END } else { 0 };
        // SAFETY: as in `comparison`.
        unsafe {
            let (family, kind) = self.operators(place);
            let function = pg_sys::get_opfamily_proc(family, kind, kind, BTORDER_PROC);
            self.scan_key(place, strategy, pg_sys::SK_ROW_MEMBER | end, function)
        }
    }

    /// # Safety
    /// The index has a column of this number.
    unsafe fn operators(&self, place: usize) -> (pg_sys::Oid, pg_sys::Oid) {
        // SAFETY: an open index has arrays with an element for each of its columns.
        unsafe { (*(*self.index).rd_opfamily.add(place), *(*self.index).rd_opcintype.add(place)) }
    }

    /// # Safety
    /// The index has a column of this number; the function compares its values.
    unsafe fn scan_key(
        &self,
        place: usize,
        strategy: u32,
        flags: u32,
        function: pg_sys::Oid,
    ) -> pg_sys::ScanKeyData {
        let mut key = pg_sys::ScanKeyData::default();
        // SAFETY: the caller's promise.
        unsafe {
            pg_sys::ScanKeyEntryInitialize(
                &mut key,
                flags as i32,
                place as pg_sys::AttrNumber + 1,
                strategy as pg_sys::StrategyNumber,
                pg_sys::InvalidOid,
                *(*self.index).rd_indcollation.add(place),
                function,
                pg_sys::Datum::from(0),
            );
        }
        key
    }

    /// Moves to before the first row that satisfies the keys. What they refer to lives
    /// until the next call.
    pub fn seek(&mut self, keys: &mut [pg_sys::ScanKeyData]) {
        // SAFETY: the scan was begun with as many keys, and copies them.
        unsafe {
            let count = keys.len() as i32;
            pg_sys::index_rescan(self.scan, keys.as_mut_ptr(), count, std::ptr::null_mut(), 0);
        }
    }

    /// Moves to the next row, and reads its values; false if there is none.
    pub fn next(&mut self) -> bool {
        pg_sys::check_for_interrupts!();
        let forward = pg_sys::ScanDirection::ForwardScanDirection;
        // SAFETY: the slot is of the scan's table.
        unsafe {
            let is_found = pg_sys::index_getnext_slot(self.scan, forward, self.slot);
            if is_found {
                read_values(self.slot);
            }
            is_found
        }
    }

    pub fn slot(&self) -> *mut pg_sys::TupleTableSlot {
        self.slot
    }
}

impl Drop for PkScan<'_> {
    fn drop(&mut self) {
        // While an error unwinds, the resource owner drops pins and scans.
        if !std::thread::panicking() {
            // SAFETY: begun and opened by `begin`, ended once.
            unsafe {
                pg_sys::index_endscan(self.scan);
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
                pg_sys::index_close(self.index, pg_sys::NoLock as pg_sys::LOCKMODE);
            }
        }
    }
}

/// The values of a primary key, in the arena; `None` if it is not written as the table
/// writes it: then it names no row.
pub fn key_values(pk: &str, columns: &KeyColumns, arena: &Arena) -> Option<Vec<pg_sys::Datum>> {
    let parts = parts(pk, columns.pk.len())?;
    parts.iter().zip(&columns.pk).map(|(part, (_, kind))| read(part, *kind, -1, arena)).collect()
}

/// The texts of the columns of a primary key.
pub fn parts(pk: &str, columns: usize) -> Option<Vec<Cow<'_, str>>> {
    if columns == 1 {
        return Some(vec![pk.into()]);
    }
    let parts = split(pk).filter(|parts| parts.len() == columns)?;
    Some(parts.into_iter().map(Cow::Owned).collect())
}

/// The value of a text of a base type with a type modifier, in the arena; `None` if it is
/// not written as the type writes it.
pub fn read(part: &str, kind: pg_sys::Oid, length: i32, arena: &Arena) -> Option<pg_sys::Datum> {
    fn parsed<T: std::str::FromStr + ToString>(part: &str) -> Option<T> {
        part.parse::<T>().ok().filter(|value| value.to_string() == part)
    }
    match kind {
        pg_sys::TEXTOID | pg_sys::VARCHAROID if length < 0 => Some(text_datum(arena, part)),
        pg_sys::BOOLOID => parsed::<bool>(part).map(pg_sys::Datum::from),
        pg_sys::INT2OID => parsed::<i16>(part).map(pg_sys::Datum::from),
        pg_sys::INT4OID => parsed::<i32>(part).map(pg_sys::Datum::from),
        pg_sys::INT8OID => parsed::<i64>(part).map(pg_sys::Datum::from),
        pg_sys::UUIDOID => parsed::<Uuid>(part).map(|uuid| uuid_datum(arena, &uuid)),
        _ => read_other(part, kind, length, arena),
    }
}

/// What only the type itself can decide.
fn read_other(part: &str, kind: pg_sys::Oid, length: i32, arena: &Arena) -> Option<pg_sys::Datum> {
    let _settings = Changed::begin(&SETTINGS);
    let read = attempt(|| {
        arena.enter(|| {
            let value = of_text(part, kind, length);
            // SAFETY: the value is of the type.
            let written = unsafe { scalar_text(value, kind) };
            Ok::<_, SyncError>((written == part).then_some(value))
        })
    });
    match read {
        Ok(value) => value.unwrap_or(None),
        Err(failure) if failure.sqlstate.starts_with("22") => None,
        Err(failure) => failure.raise(),
    }
}

/// A value of a primary key, in the current memory context. An error if the text is not
/// one.
fn of_text(text: &str, kind: pg_sys::Oid, length: i32) -> pg_sys::Datum {
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: the type's own input function, with a NUL-terminated text.
    unsafe {
        let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        pg_sys::getTypeInputInfo(kind, &mut input, &mut parameter);
        pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), parameter, length)
    }
}
