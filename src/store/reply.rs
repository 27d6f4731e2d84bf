//! Replies as values of type json, which are laid out as text is.

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;

use crate::wire::reply::Reply;

// SAFETY: gives what the text itself would give.
unsafe impl BoxRet for Reply {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: the caller's promise; the text is copied.
        unsafe { self.as_str().box_into(fcinfo) }
    }
}

pgrx::impl_sql_translatable!(Reply, "json");
