//! Which rows a scan sees.

use std::marker::PhantomData;

use pgrx::pg_sys;

/// An active snapshot. Not `Send`: it belongs to this backend's stack of them.
pub struct MvccSnapshot {
    pushed: bool,
    _stack: PhantomData<*const ()>,
}

impl MvccSnapshot {
    /// The calling statement's snapshot: a reader sees one state, the same as the rest
    /// of its statement.
    pub fn of_statement() -> MvccSnapshot {
        MvccSnapshot { pushed: false, _stack: PhantomData }
    }

    /// A new snapshot, for a writer that has waited for a lock. At READ COMMITTED it
    /// sees everything committed before now; at higher levels it is the transaction's
    /// own. Either way it sees this transaction's earlier commands.
    pub fn fresh() -> MvccSnapshot {
        // SAFETY: a function runs inside a transaction; the pushed copy lives until it
        // is popped.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        MvccSnapshot { pushed: true, _stack: PhantomData }
    }

    /// What is committed now, at every isolation level: for rows that others change
    /// without the lock that the caller holds.
    pub fn latest() -> MvccSnapshot {
        // SAFETY: as in `fresh`.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
        MvccSnapshot { pushed: true, _stack: PhantomData }
    }

    pub fn as_ptr(&self) -> pg_sys::Snapshot {
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
