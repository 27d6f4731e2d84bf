//! Locking and deleting a row that a scan found.

use pgrx::pg_sys;

use super::Result;
use super::arena::Arena;
use super::compat;
use super::mvcc::MvccSnapshot;
use super::relation::Table;
use super::row::{Row, RowId, Slot};
use sync_ext_core::error::SyncError;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    Block,
    Skip,
}

pub enum Locked<T> {
    Row(T),
    /// Deleted since the snapshot was taken.
    Gone,
    /// Locked by another session, with [`Wait::Skip`].
    Busy,
}

/// Locks a row until the transaction ends, as UPDATE would, and reads its latest
/// version.
///
/// At READ COMMITTED that may be newer than the snapshot: the caller takes a fresh one.
/// At higher levels, except with the latest snapshot, a newer version raises 40001, as usual in Postgres: the
/// transaction's snapshot could not see what was committed with it.
pub fn lock<T>(
    table: &Table,
    row: RowId,
    snapshot: &MvccSnapshot,
    wait: Wait,
    read: impl FnOnce(Row<'_>) -> Result<T>,
) -> Result<Locked<T>> {
    let wait_policy = match wait {
        Wait::Block => pg_sys::LockWaitPolicy::LockWaitBlock,
        Wait::Skip => pg_sys::LockWaitPolicy::LockWaitSkip,
    };
    // SAFETY: the isolation level is a plain variable of this backend.
    let is_snapshot_kept = unsafe { pg_sys::XactIsoLevel } >= pg_sys::XACT_REPEATABLE_READ as i32;
    let repeatable = is_snapshot_kept && !snapshot.is_latest();
    let flags = if repeatable { 0 } else { pg_sys::TUPLE_LOCK_FLAG_FIND_LAST_VERSION as u8 };
    let mut tid = row.0;
    let slot = Slot::new(table);
    // SAFETY: the row was found in this table with this snapshot.
    let result = unsafe {
        let command = pg_sys::GetCurrentCommandId(true);
        compat::table_tuple_lock(
            table.as_ptr(),
            &mut tid,
            snapshot.as_ptr(),
            slot.0,
            command,
            wait_policy,
            flags,
        )
    };
    use pg_sys::TM_Result as tm;
    match result {
        tm::TM_Ok => {
            let values = Arena::new();
            // SAFETY: a successful lock leaves the row in the slot, which lives until
            // after `read`.
            let row = unsafe { Row::in_slot(slot.0, &values, table) };
            read(row).map(Locked::Row)
        }
        tm::TM_WouldBlock => Ok(Locked::Busy),
        tm::TM_Deleted if !repeatable => Ok(Locked::Gone),
        other => Err(not_ours(other)),
    }
}

/// Deletes a row that no other session may be changing: its workspace, or the row
/// itself, is locked.
pub fn delete(table: &Table, row: RowId, snapshot: &MvccSnapshot) -> Result<()> {
    table.require_deletable();
    let mut tid = row.0;
    // SAFETY: the row was found in this table, which is open for writing.
    match unsafe { compat::table_tuple_delete(table.as_ptr(), &mut tid, snapshot.as_ptr()) } {
        pg_sys::TM_Result::TM_Ok => Ok(()),
        other => Err(not_ours(other)),
    }
}

/// The error if a row could not be changed.
pub fn not_ours(result: pg_sys::TM_Result::Type) -> SyncError {
    use pg_sys::TM_Result as tm;
    match result {
        // Changed by hand, without the lock.
        tm::TM_Updated | tm::TM_Deleted => SyncError::ConcurrentSync,
        tm::TM_SelfModified => {
            SyncError::Damaged { what: "A row was changed twice in one command.".to_owned() }
        }
        _ => SyncError::Damaged { what: "A row to change is not visible.".to_owned() },
    }
}
