//! A memory context of our own, for values that live as long as one row or
//! one chunk of rows.

use std::cell::Cell;

use pgrx::pg_sys;

/// Freed as a whole: by `reset`, by Drop, or with its parent, the context of
/// the calling function, when an error is being raised.
pub struct Arena {
    context: pg_sys::MemoryContext,
    /// Nothing to reset: most rows leave nothing behind.
    is_empty: Cell<bool>,
}

impl Arena {
    pub fn new() -> Arena {
        // SAFETY: CurrentMemoryContext is valid whenever Rust runs under
        // Postgres; the name is a constant, as the call demands.
        let context = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurrentMemoryContext,
                c"sync_ext rows".as_ptr(),
                0,
                8 * 1024,
                8 * 1024 * 1024,
            )
        };
        Arena { context, is_empty: Cell::new(true) }
    }

    /// Frees all that was allocated; nothing borrowed may be left, hence `mut`.
    pub fn reset(&mut self) {
        if !self.is_empty.replace(true) {
            // SAFETY: the context is ours and alive.
            unsafe { pg_sys::MemoryContextReset(self.context) };
        }
    }

    pub fn allocate(&self, bytes: usize) -> *mut u8 {
        self.is_empty.set(false);
        // SAFETY: the context is alive; too large a request is an error there.
        unsafe { pg_sys::MemoryContextAlloc(self.context, bytes).cast() }
    }

    /// Runs `f` with this as the current context. If `f` raises an error, the
    /// handler that catches it restores the context of its own.
    pub fn enter<T>(&self, f: impl FnOnce() -> T) -> T {
        self.is_empty.set(false);
        // SAFETY: both contexts are alive; what was current is current again.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.context;
            let result = f();
            pg_sys::CurrentMemoryContext = before;
            result
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the context is ours, and `enter` never leaves it current.
            unsafe { pg_sys::MemoryContextDelete(self.context) };
        }
    }
}
