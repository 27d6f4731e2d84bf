//! The rows of a typed table, in the order of its primary key.

use std::borrow::Cow;

use pgrx::pg_sys;

use super::Result;
use super::arena::Arena;
use super::mvcc::MvccSnapshot;
use super::rights::Rights;
use super::typed::{KeyColumns, RowPlace, TypedTable};
use super::typed_pk::{PkScan, key_values};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::repair::RepairError;

/// All rows, or those after a primary key, which need not be there any more. There is no
/// plan, so an interrupted walk goes on at the cost of a look-up.
pub struct TypedWalk<'s> {
    table: &'s TypedTable,
    columns: &'s KeyColumns,
    scan: PkScan<'s>,
    values: Arena,
    _after: Option<After>,
    _rights: Option<Rights>,
}

/// The row that the walk is at.
pub struct WalkedRow<'w> {
    walk: &'w TypedWalk<'w>,
    pub pk: Cow<'w, str>,
    place: RowPlace<'w>,
    is_hidden: bool,
}

impl<'s> TypedWalk<'s> {
    pub(super) fn begin(
        table: &'s TypedTable,
        after: Option<&str>,
        snapshot: &'s MvccSnapshot,
    ) -> Result<TypedWalk<'s>> {
        let columns = table.columns()?;
        let mut scan = PkScan::begin(table, columns, usize::from(after.is_some()), snapshot);
        let _after = match after {
            Some(pk) => Some(After::begin(pk, columns, &mut scan)?),
            None => {
                scan.seek(&mut []);
                None
            }
        };
        let _rights = table.rights();
        Ok(TypedWalk { table, columns, scan, values: Arena::new(), _after, _rights })
    }

    pub fn next(&mut self) -> Option<WalkedRow<'_>> {
        self.values.reset();
        if !self.scan.next() {
            return None;
        }
        let (table, columns, slot) = (self.table, self.columns, self.scan.slot());
        // SAFETY: the slot holds the row that was found, until the walk goes on.
        let (pk, (place, is_hidden)) =
            self.values.enter(|| unsafe { (columns.pk(slot), table.place(columns, slot)) });
        Some(WalkedRow { walk: self, pk: pk?, place, is_hidden })
    }
}

impl WalkedRow<'_> {
    /// The workspace whose record the row is.
    pub fn workspace(&self) -> Option<&str> {
        self.place.workspace.as_deref().filter(|_| !self.is_hidden)
    }

    pub fn image(&self) -> String {
        let TypedWalk { table, scan, values, .. } = self.walk;
        let mut image = String::new();
        // SAFETY: the walk stays at this row while it is borrowed.
        values.enter(|| unsafe { table.write_image(&mut image, scan.slot()) });
        image
    }
}

/// What a scan compares with as long as it goes on.
struct After {
    _keys: Vec<pg_sys::ScanKeyData>,
    _values: Arena,
}

impl After {
    /// Moves to before the first row whose key is greater. Primary keys are indexed in
    /// ascending order.
    fn begin(pk: &str, columns: &KeyColumns, scan: &mut PkScan<'_>) -> Result<After> {
        let after = pg_sys::BTGreaterStrategyNumber;
        let _values = Arena::new();
        let values =
            key_values(pk, columns, &_values).ok_or(SyncError::Repair(RepairError::Position))?;
        let mut _keys: Vec<_> = (0..values.len())
            .map(|place| match values.len() {
                1 => scan.comparison(place, after),
                count => scan.part_of_row(place, after, place + 1 == count),
            })
            .collect();
        for (key, value) in _keys.iter_mut().zip(values) {
            key.sk_argument = value;
        }
        if let [_] = _keys.as_slice() {
            scan.seek(&mut _keys);
            return Ok(After { _keys, _values });
        }
        // Several columns are compared as a row, as in (a, b) > (1, 2).
        let mut row = pg_sys::ScanKeyData {
            sk_flags: pg_sys::SK_ROW_HEADER as i32,
            sk_attno: 1,
            sk_strategy: after as pg_sys::StrategyNumber,
            sk_argument: pg_sys::Datum::from(_keys.as_mut_ptr()),
            ..Default::default()
        };
        scan.seek(std::slice::from_mut(&mut row));
        Ok(After { _keys, _values })
    }
}
