//! Which rows a scan sees.

use std::marker::PhantomData;

use pgrx::pg_sys;

/// An active snapshot. Not `Send`: it belongs to this backend's stack of them.
pub struct MvccSnapshot {
    pushed: bool,
    is_latest: bool,
    is_tracked: bool,
    _stack: PhantomData<*const ()>,
}

impl MvccSnapshot {
    /// The calling statement's snapshot: a reader sees one state, the same as the rest
    /// of its statement.
    pub fn of_statement() -> MvccSnapshot {
        MvccSnapshot { pushed: false, is_latest: false, is_tracked: true, _stack: PhantomData }
    }

    /// A new snapshot, for a writer that has waited for a lock. At READ COMMITTED it
    /// sees everything committed before now; at higher levels it is the transaction's
    /// own. Either way it sees this transaction's earlier commands.
    pub fn fresh() -> MvccSnapshot {
        // SAFETY: a function runs inside a transaction; the pushed copy lives until it
        // is popped.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        MvccSnapshot { pushed: true, is_latest: false, is_tracked: true, _stack: PhantomData }
    }

    /// What is committed now, at every isolation level: for rows that others change
    /// without the lock that the caller holds.
    pub fn latest() -> MvccSnapshot {
        // SAFETY: as in `fresh`.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
        MvccSnapshot { pushed: true, is_latest: true, is_tracked: true, _stack: PhantomData }
    }

    /// The same, but a serializable transaction does not depend on what it reads with it.
    /// Postgres would take versions of a row that others have replaced since the
    /// transaction began for reads of what is outdated, and raise 40001.
    ///
    /// Only for rows that no other session can change, because the caller has their
    /// workspace locked; another row may be found in two versions, or in none.
    pub fn latest_of_lock() -> MvccSnapshot {
        // SAFETY: the isolation level is a plain variable of this backend.
        let is_serializable = unsafe { pg_sys::XactIsoLevel } == pg_sys::XACT_SERIALIZABLE as i32;
        let mut snapshot = MvccSnapshot::latest();
        snapshot.is_tracked = !is_serializable;
        snapshot
    }

    /// Takes it again: it then sees what this transaction has done meanwhile. No scan with
    /// it goes on.
    pub fn renew(&mut self) {
        if self.pushed {
            // SAFETY: pushed by `fresh` or `latest`, and on top; as in these.
            unsafe {
                pg_sys::PopActiveSnapshot();
                let snapshot = if self.is_latest {
                    pg_sys::GetLatestSnapshot()
                } else {
                    pg_sys::GetTransactionSnapshot()
                };
                pg_sys::PushActiveSnapshot(snapshot);
            }
        }
    }

    pub fn is_latest(&self) -> bool {
        self.is_latest
    }

    pub fn as_ptr(&self) -> pg_sys::Snapshot {
        if !self.is_tracked {
            // It sees what is committed when a row is read. A constant that Postgres
            // happens to declare as a variable.
            return &raw mut pg_sys::SnapshotSelfData;
        }
        // SAFETY: a function called by SQL always has an active snapshot. This one is
        // on top: a later one is dropped before this one is used again.
        unsafe { pg_sys::GetActiveSnapshot() }
    }
}

impl Drop for MvccSnapshot {
    fn drop(&mut self) {
        // While an error unwinds, the abort of the (sub)transaction pops it.
        if self.pushed && !std::thread::panicking() {
            // SAFETY: pushed by `fresh` or `latest`, popped once, last pushed first.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}
