//! Keys of workspaces, which never stand for another workspace than the one they
//! were made for.

use pgrx::{IntoDatum, Spi, direct_function_call, pg_sys};

use super::relation::{Access, Table, lookup};
use super::scan::Scan;
use super::shape::{IndexShape, Shape};
use super::snapshot::Snapshot;
use super::{Result, device, dropped, log, record, workspace};
use crate::error::SyncError;

/// Moves the sequence of keys forward where it lags behind a key that has rows: as
/// on a subscriber of logical replication, which gets rows but not sequences. Such a
/// key would show its new owner what is left of the old one.
pub fn bring_sequence_forward() -> Result<()> {
    if next()? > highest()? {
        return Ok(());
    }
    let sequence = lookup(c"workspace_workspace_key_seq")?;
    // Self-exclusive, and against those who have taken a key and not committed: a
    // sequence must not be moved back before what another one has just been given.
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

/// The key that the sequence would give next.
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
    // What is committed now: a key that a waiting transaction has taken is seen
    // once it has.
    let snapshot = Snapshot::latest();
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
