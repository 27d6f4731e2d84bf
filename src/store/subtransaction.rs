//! Writes that may be undone.

use pgrx::pg_sys;

/// Numbers the (sub)transactions of a transaction in the order in which they begin.
pub type SubtransactionId = pg_sys::SubTransactionId;

/// The innermost one.
pub fn current() -> SubtransactionId {
    // SAFETY: reads a variable of this backend.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

/// A subtransaction, like that of a PL/pgSQL block with an EXCEPTION clause. If it is
/// rolled back, its writes do not exist for this transaction and for logical decoding.
/// Dropping it rolls it back, also when an error unwinds: the handler of the error
/// expects its own subtransaction.
///
/// Relations opened within it must be closed before it ends.
pub struct Subtransaction {
    context: pg_sys::MemoryContext,
    owner: pg_sys::ResourceOwner,
    is_open: bool,
}

/// Half of the 64 subtransactions with writes that shared memory has room for in each
/// transaction. With more, other backends must look up each in pg_subtrans. The other
/// half is for the caller.
const MAX: u8 = 32;

impl Subtransaction {
    /// Whether this transaction can have one more without slowing other sessions.
    pub fn is_cheap() -> bool {
        // SAFETY: a backend's own entry in the process array; only the backend changes
        // its count of subtransactions.
        unsafe { (*pg_sys::MyProc).subxidStatus.count < MAX }
    }

    pub fn begin() -> Subtransaction {
        // SAFETY: writers run neither in parallel mode nor outside a transaction.
        // Allocations within must outlive the subtransaction, so the context stays the
        // caller's.
        unsafe {
            let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
            pg_sys::BeginInternalSubTransaction(std::ptr::null());
            pg_sys::CurrentMemoryContext = context;
            Subtransaction { context, owner, is_open: true }
        }
    }

    pub fn commit(mut self) {
        // SAFETY: begun by `begin`, and the current one because it is innermost. It is
        // open until the call returns: if the call raises an error, it is rolled back.
        unsafe {
            pg_sys::ReleaseCurrentSubTransaction();
            self.is_open = false;
            pg_sys::CurrentMemoryContext = self.context;
            pg_sys::CurrentResourceOwner = self.owner;
        }
    }

    pub fn roll_back(self) {
        drop(self);
    }
}

impl Drop for Subtransaction {
    fn drop(&mut self) {
        if self.is_open {
            // SAFETY: as in `commit`. An error that is unwinding was taken from
            // Postgres' error stack before.
            unsafe {
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
                pg_sys::CurrentMemoryContext = self.context;
                pg_sys::CurrentResourceOwner = self.owner;
            }
        }
    }
}
