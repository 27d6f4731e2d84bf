//! Keys of workspaces, which are never reused for another workspace.

use pgrx::{IntoDatum, Spi, direct_function_call, pg_sys};

use super::mvcc::MvccSnapshot;
use super::relation::{Access, Table, lookup};
use super::rights::Rights;
use super::scan::Scan;
use super::shape::{IndexShape, Shape};
use super::{Result, device, dropped, log, record, workspace};
use sync_ext_core::error::SyncError;

/// Moves the sequence of keys forward if it is behind a key that has rows, as on a
/// subscriber of logical replication, which receives rows but not sequences. A reused
/// key would show a new workspace the remaining rows of the old one.
pub fn bring_sequence_forward(workspaces: &Table) -> Result<()> {
    let _rights = Rights::of_owner(workspaces);
    if next()? > highest()? {
        return Ok(());
    }
    let sequence = lookup(c"workspace_workspace_key_seq")?;
    // Conflicts with itself, and with sessions that have taken a key and not committed:
    // the sequence must not be set below a key that another session has just taken.
    // SAFETY: the oid is a relation's; the lock is held until the transaction ends.
    unsafe {
        pg_sys::LockRelationOid(sequence, pg_sys::ShareRowExclusiveLock as pg_sys::LOCKMODE);
    }
    let highest = highest()?;
    if next()? <= highest {
        // SAFETY: setval takes a sequence and a value.
        unsafe {
            let arguments = [sequence.into_datum(), highest.into_datum()];
            direct_function_call::<i64>(pg_sys::setval_oid, &arguments);
        }
    }
    Ok(())
}

/// The next key of the sequence.
fn next() -> Result<i64> {
    Spi::connect(|spi| {
        let next = "select case when is_called then last_value + 1 else last_value end \
                    from sync_ext.workspace_workspace_key_seq";
        spi.select(next, None, &[])?.first().get_one::<i64>()
    })
    .map_err(SyncError::sql)
    .map(Option::unwrap_or_default)
}

/// The highest key with a row in any table, 0 if there is none.
fn highest() -> Result<i64> {
    // What is committed now: waiting for the lock makes the keys of other transactions
    // visible.
    let snapshot = MvccSnapshot::latest();
    let tables: [(&'static Shape, &'static IndexShape); 5] = [
        (&workspace::TABLE, &workspace::BY_KEY),
        (&dropped::TABLE, &dropped::BY_KEY),
        (&log::TABLE, &log::BY_VERSION),
        (&record::TABLE, &record::BY_NAME),
        (&device::TABLE, &device::BY_DEVICE),
    ];
    tables.into_iter().try_fold(0, |highest, (table, index)| {
        let table = Table::open(table, Access::Read)?;
        let index = table.index(index)?;
        let mut scan = Scan::new(&table, &index, &snapshot, &[]);
        // The key is the first column of each.
        let last = scan.last().map(|row| row.int8(1)).transpose()?;
        Ok(last.map_or(highest, |key| key.max(highest)))
    })
}
