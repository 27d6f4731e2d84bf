//! A memory context for values that last as long as one row or one chunk of rows.

use std::cell::Cell;

use pgrx::pg_sys;

/// Freed as a whole: by `reset`, by Drop, or, when an error is raised, with its parent,
/// the context of the calling function.
pub struct Arena {
    context: pg_sys::MemoryContext,
    /// Nothing to reset: most rows need no memory.
    is_empty: Cell<bool>,
}

impl Arena {
    pub fn new() -> Arena {
        // SAFETY: CurrentMemoryContext is valid whenever Rust runs under Postgres; the
        // name is a constant, as the call requires.
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

    /// Frees everything; nothing may be borrowed any more, hence `mut`.
    pub fn reset(&mut self) {
        if !self.is_empty.replace(true) {
            // SAFETY: this context is alive.
            unsafe { pg_sys::MemoryContextReset(self.context) };
        }
    }

    pub fn allocate(&self, bytes: usize) -> *mut u8 {
        self.is_empty.set(false);
        // SAFETY: the context is alive; a request that is too large raises an error.
        unsafe { pg_sys::MemoryContextAlloc(self.context, bytes).cast() }
    }

    /// Runs `f` with this as the current context. If `f` raises an error, the handler
    /// that catches it restores its own context.
    pub fn enter<T>(&self, f: impl FnOnce() -> T) -> T {
        self.is_empty.set(false);
        // SAFETY: both contexts are alive; the previous context is restored.
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
            // SAFETY: this context is alive, and `enter` never leaves it current.
            unsafe { pg_sys::MemoryContextDelete(self.context) };
        }
    }
}
