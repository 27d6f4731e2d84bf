//! Writes that may have to be undone.

use pgrx::pg_sys;

/// A subtransaction, as a PL/pgSQL block with an EXCEPTION clause has one. What
/// it wrote is as if it had never been, for this transaction and for logical
/// decoding, if it is rolled back: at the latest when it is dropped, also by an
/// error, whose handler expects to find its own subtransaction.
///
/// Whatever is opened within must be closed before it ends.
pub struct Subtransaction {
    context: pg_sys::MemoryContext,
    owner: pg_sys::ResourceOwner,
    is_open: bool,
}

/// Half of the 64 subtransactions with writes that a transaction has room for in
/// shared memory; of one with more, other backends look up each in pg_subtrans.
/// The other half is the caller's.
const MAX: u8 = 32;

impl Subtransaction {
    /// May this transaction have one more without being a burden to others?
    pub fn is_cheap() -> bool {
        // SAFETY: a backend's own entry among the processes; only it changes
        // its count of subtransactions.
        unsafe { (*pg_sys::MyProc).subxidStatus.count < MAX }
    }

    pub fn begin() -> Subtransaction {
        // SAFETY: writers run neither in parallel mode nor outside a
        // transaction. What is allocated within must outlive the
        // subtransaction, so the context stays the caller's.
        unsafe {
            let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
            pg_sys::BeginInternalSubTransaction(std::ptr::null());
            pg_sys::CurrentMemoryContext = context;
            Subtransaction { context, owner, is_open: true }
        }
    }

    pub fn commit(mut self) {
        // SAFETY: begun by `begin` and, being innermost, the current one. It is
        // open until the call returns: if the call raises an error, it is rolled
        // back.
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
