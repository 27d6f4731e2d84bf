//! What happens before a transaction commits, and when it has ended.

use std::ffi::c_void;

use pgrx::pg_sys;

use super::Result;
use super::entry;
use super::subtransaction::SubtransactionId;

pub struct Hooks {
    /// Is there anything to do before the commit? It cannot fail, and costs nothing.
    pub is_due: fn() -> bool,
    /// It may write and fail. Deferred triggers have fired, and Postgres will fire none
    /// that this queues.
    pub before: fn() -> Result<()>,
    /// It cannot fail.
    pub after: fn(),
    /// A subtransaction was rolled back. It cannot fail.
    pub rolled_back: fn(SubtransactionId),
}

/// Once per backend. Postgres calls the hooks that were registered last first.
pub fn register(hooks: &'static Hooks) {
    // SAFETY: the callbacks have the required signatures and live as long as the library.
    unsafe {
        let hooks = (&raw const *hooks).cast_mut().cast();
        pg_sys::RegisterXactCallback(Some(at_transaction), hooks);
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction), hooks);
    }
}

/// # Safety
/// Called by Postgres.
unsafe extern "C-unwind" fn at_transaction(event: pg_sys::XactEvent::Type, hooks: *mut c_void) {
    use pg_sys::XactEvent::*;
    // SAFETY: the pointer that was registered; nothing here is left to drop.
    unsafe {
        let hooks = &*hooks.cast::<Hooks>();
        match event {
            XACT_EVENT_PRE_COMMIT | XACT_EVENT_PRE_PREPARE if (hooks.is_due)() => {
                entry::call_back(hooks.before);
            }
            XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE => (hooks.after)(),
            _ => {}
        }
    }
}

/// # Safety
/// Called by Postgres.
unsafe extern "C-unwind" fn at_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    this: SubtransactionId,
    _parent: SubtransactionId,
    hooks: *mut c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        // SAFETY: the pointer that was registered.
        unsafe { ((*hooks.cast::<Hooks>()).rolled_back)(this) };
    }
}
