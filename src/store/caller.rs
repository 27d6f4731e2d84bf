//! The calling session: its user and its rights.

use std::ffi::CStr;

use pgrx::{Spi, pg_sys};

use super::rights::{self, Rights};
use super::{Result, compat};
use sync_ext_core::error::SyncError;

/// Reads a setting, which a caller may set to any value of any size; `None` if it is
/// not set. It is not copied.
pub fn setting<T>(name: &CStr, read: impl FnOnce(&CStr) -> T) -> Option<T> {
    // SAFETY: the name is NUL-terminated, and may be unknown; the result lives until a
    // setting changes, which `read` cannot do.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| read(CStr::from_ptr(value)))
    }
}

/// Whether an index, a materialized view or ANALYZE evaluates the calling function. It
/// then runs with the rights of the table's owner in any session, and anybody may have
/// written it.
pub fn is_restricted() -> bool {
    // SAFETY: reads variables of this process.
    unsafe { pg_sys::InSecurityRestrictedOperation() }
}

/// The result of `function` for a user in a workspace. It is called with the rights of
/// the session's role, and finds names in pg_catalog only.
///
/// It must belong to a superuser or the owner of the extension. The session's role may
/// have more rights than the calling code, such as a function or an index of another
/// role; code that such a role can change must not run with them.
pub fn membership(function: &CStr, user_id: &str, workspace_id: &str) -> Result<Option<String>> {
    let _rights = Rights::of_session();
    let function = compat::function_of_texts(function);
    if !rights::is_trusted(function.owner)? {
        return Err(SyncError::MembershipFunctionsOwner);
    }
    let sql = format!("select ({}($1, $2))::pg_catalog.text", function.name);
    let roles = Spi::connect(|spi| {
        let rows = spi.select(&sql, None, &[user_id.into(), workspace_id.into()])?;
        rows.map(|row| row.get::<String>(1)).collect::<std::result::Result<Vec<_>, _>>()
    });
    // It may return a set; one role or none is valid.
    match roles.map_err(SyncError::sql)?.as_mut_slice() {
        [] => Ok(None),
        [role] => Ok(role.take()),
        _ => Err(SyncError::NoRole),
    }
}
