//! The session that calls: what it says about its user, and its rights.

use std::ffi::{CStr, c_int};

use pgrx::{Spi, pg_sys};

use super::Result;
use super::compat;
use crate::error::SyncError;

/// The JWT claims that PostgREST and its like set for a transaction; empty if
/// there are none.
pub fn jwt_claims() -> Result<String> {
    // SAFETY: the name is NUL-terminated, and may be unknown; what is returned
    // lives until a setting changes, and is copied before.
    let claims = unsafe {
        let claims = pg_sys::GetConfigOption(c"request.jwt.claims".as_ptr(), true, false);
        if claims.is_null() { c"" } else { CStr::from_ptr(claims) }
    };
    claims.to_str().map(str::to_owned).map_err(|_| SyncError::Claims)
}

/// What `function` says about a user in a workspace. It is called with the
/// rights of the session's role, not with ours, and with our search_path, in
/// which nobody can plant anything but temporary tables.
pub fn membership(function: &CStr, user_id: &str, workspace_id: &str) -> Result<Option<String>> {
    let function = compat::quoted_name(function);
    let _rights = CallersRights::take();
    let answers = Spi::connect(|spi| {
        let sql = format!("select ({function}($1, $2))::pg_catalog.text");
        let rows = spi.select(&sql, None, &[user_id.into(), workspace_id.into()])?;
        rows.map(|row| row.get::<String>(1)).collect::<std::result::Result<Vec<_>, _>>()
    });
    // It may be one that returns a set.
    match answers.map_err(SyncError::sql)?.as_slice() {
        [] => Ok(None),
        [answer] => Ok(answer.clone()),
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
