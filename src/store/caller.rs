//! The session that calls: what it says about its user, and its rights.

use std::ffi::{CStr, c_int};

use pgrx::{Spi, pg_sys};

use super::Result;
use super::compat;
use crate::error::SyncError;

/// Reads a setting that a caller may set to anything, of any size; `None` if there
/// is none. It is not copied.
pub fn setting<T>(name: &CStr, read: impl FnOnce(&CStr) -> T) -> Option<T> {
    // SAFETY: the name is NUL-terminated, and may be unknown; what is returned
    // lives until a setting changes, which `read` cannot bring about.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| read(CStr::from_ptr(value)))
    }
}

/// Is this inside of a function that an index, a materialized view or ANALYZE
/// evaluates? It runs with the rights of the table's owner, whoever's session it is,
/// and may have been written by anybody.
pub fn is_restricted() -> bool {
    // SAFETY: reads variables of this process.
    unsafe { pg_sys::InSecurityRestrictedOperation() }
}

/// What `function` says about a user in a workspace. It is called with the
/// rights of the session's role, not with ours, and with our search_path.
///
/// It must belong to somebody who could do everything anyway. The session's role
/// may have more rights than who called us, a function or an index of somebody
/// else's, say; code that such a one could change must not run with them.
pub fn membership(function: &CStr, user_id: &str, workspace_id: &str) -> Result<Option<String>> {
    let function = compat::function_of_texts(function);
    let rights = CallersRights::take();
    // SAFETY: a look-up by oid.
    let is_superusers = unsafe { pg_sys::superuser_arg(function.owner) };
    if !is_superusers && function.owner != rights.user {
        return Err(SyncError::MembershipFunctionsOwner);
    }
    let sql = format!("select ({}($1, $2))::pg_catalog.text", function.name);
    let roles = Spi::connect(|spi| {
        let rows = spi.select(&sql, None, &[user_id.into(), workspace_id.into()])?;
        rows.map(|row| row.get::<String>(1)).collect::<std::result::Result<Vec<_>, _>>()
    });
    // It may return a set, of one role or none.
    match roles.map_err(SyncError::sql)?.as_mut_slice() {
        [] => Ok(None),
        [role] => Ok(role.take()),
        _ => Err(SyncError::NoRole),
    }
}

/// While it lives, the session's role is the current user: who logged in, or
/// the role that SET ROLE chose. A function of ours runs as its owner, and
/// Postgres does not tell which function, of whose rights, has called it.
struct CallersRights {
    user: pg_sys::Oid,
    context: c_int,
}

impl CallersRights {
    fn take() -> CallersRights {
        let mut before = CallersRights { user: pg_sys::InvalidOid, context: 0 };
        // SAFETY: the first fills in both. The flag keeps what runs from changing
        // its role, as in any function that does not run as its caller; other
        // restrictions that are in force stay.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut before.user, &mut before.context);
            let local = pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int;
            pg_sys::SetUserIdAndSecContext(pg_sys::GetOuterUserId(), before.context | local);
        }
        before
    }
}

impl Drop for CallersRights {
    fn drop(&mut self) {
        // SAFETY: what was in force before, also when an error unwinds.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) };
    }
}
