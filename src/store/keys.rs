//! Keys of workspaces, which are never reused for another workspace.
//!
//! Each of several servers takes its keys from a range of its own, so that rows can be
//! replicated from one to another: where the sequence stands tells which.

use pgrx::{IntoDatum, Spi, direct_function_call, pg_sys};

use super::mvcc::MvccSnapshot;
use super::relation::{Access, Table, lookup};
use super::rights::Rights;
use super::scan::{By, Key, Scan};
use super::shape::{IndexShape, Shape};
use super::{Result, device, dropped, log, record, workspace};
use sync_ext_core::error::SyncError;

/// So many keys are in the range of a server.
const RANGE_BITS: u32 = 40;

/// A range is named by a number from 0 to this.
pub const MAX_RANGE: i64 = (1 << (63 - RANGE_BITS)) - 1;

/// Moves the sequence of keys forward if it is behind a key of its range that has rows, as
/// on a subscriber of logical replication, which receives rows but not sequences. A reused
/// key would show a new workspace the remaining rows of the old one.
pub fn bring_sequence_forward(workspaces: &Table) -> Result<()> {
    let _rights = Rights::of_owner(workspaces);
    let range = |next: i64| next >> RANGE_BITS;
    let current = next()?;
    if current > highest(range(current))? {
        return Ok(());
    }
    move_sequence(range)
}

/// Takes further keys from this range.
pub fn set_range(workspaces: &Table, range: i64) -> Result<()> {
    let _rights = Rights::of_owner(workspaces);
    move_sequence(|_| range)
}

/// Moves the sequence behind all keys of a range, chosen by its next key.
fn move_sequence(range: impl Fn(i64) -> i64) -> Result<()> {
    let sequence = lookup(c"workspace_workspace_key_seq")?;
    // Conflicts with itself, and with sessions that have taken a key and not committed:
    // the sequence must not be set below a key that another session has just taken.
    // SAFETY: the oid is a relation's; the lock is held until the transaction ends.
    unsafe {
        pg_sys::LockRelationOid(sequence, pg_sys::ShareRowExclusiveLock as pg_sys::LOCKMODE);
    }
    let current = next()?;
    let range = range(current);
    let first_free = highest(range)?.max(range << RANGE_BITS) + 1;
    if !(first_free..=last_of(range)).contains(&current) {
        // SAFETY: setval takes a sequence, its next value, and whether that is taken.
        unsafe {
            let arguments = [sequence.into_datum(), first_free.into_datum(), false.into_datum()];
            direct_function_call::<i64>(pg_sys::setval3_oid, &arguments);
        }
    }
    Ok(())
}

fn last_of(range: i64) -> i64 {
    (range << RANGE_BITS) + ((1 << RANGE_BITS) - 1)
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

/// The highest key of a range, or of one before it, with a row in any table; 0 if there is
/// none.
fn highest(range: i64) -> Result<i64> {
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
        let mut scan = Scan::new(&table, &index, &snapshot, &[By::Int8UpTo]);
        // The key is the first column of each.
        let last = scan.last(&[Key::Int8(last_of(range))]).map(|row| row.int8(1)).transpose()?;
        Ok(last.map_or(highest, |key| key.max(highest)))
    })
}
