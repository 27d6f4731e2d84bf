//! The rights for code that needs some: SQL statements through SPI, and functions that
//! apps supply. Direct access to tables needs none, so the functions of this extension
//! run as their caller.

use std::ffi::{CStr, c_int};

use pgrx::datum::DatumWithOid;
use pgrx::{Spi, pg_sys};

use super::relation::Table;
use super::settings::Changed;
use super::{Result, member};
use sync_ext_core::error::SyncError;

/// While it exists, another role is the current user, and names without a schema are
/// found only in pg_catalog: as in a SECURITY DEFINER function of that role with SET
/// search_path.
pub struct Rights {
    user_before: pg_sys::Oid,
    context_before: c_int,
    _settings: Changed,
}

impl Rights {
    /// The rights of the tables' owner.
    pub fn of_owner(table: &Table) -> Rights {
        Rights::of(table.owner())
    }

    /// The rights of the session's role: the login, or the role chosen by SET ROLE. The
    /// current user may be another one, that of a calling function.
    pub fn of_session() -> Rights {
        // SAFETY: reads a variable of this process.
        Rights::of(unsafe { pg_sys::GetOuterUserId() })
    }

    /// The rights for writing typed rows: those of the session's role, or of the table's
    /// owner. Row security applies as it is, and names are found where the caller says.
    pub fn of_applier(owner: Option<pg_sys::Oid>) -> Rights {
        // SAFETY: reads a variable of this process.
        let user = owner.unwrap_or_else(|| unsafe { pg_sys::GetOuterUserId() });
        Rights::with(user, pg_sys::SECURITY_LOCAL_USERID_CHANGE, &[])
    }

    /// The rights for the functions that write a table's values, with settings: those of
    /// its owner, who may have defined them, as for the functions of an index.
    pub fn of_values(owner: pg_sys::Oid, settings: &[(&CStr, &CStr)]) -> Rights {
        let flags = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
        Rights::with(owner, flags | pg_sys::SECURITY_NOFORCE_RLS, settings)
    }

    pub fn of(user: pg_sys::Oid) -> Rights {
        // SECURITY_NOFORCE_RLS prevents row security that was forced on the tables from
        // hiding rows of the owner's statements; direct access ignores it too.
        let flags = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_NOFORCE_RLS;
        Rights::with(user, flags, &[(c"search_path", c"pg_catalog, pg_temp")])
    }

    fn with(user: pg_sys::Oid, flags: u32, settings: &[(&CStr, &CStr)]) -> Rights {
        let (mut user_before, mut context_before) = (pg_sys::InvalidOid, 0);
        // SAFETY: the first fills in both. SECURITY_LOCAL_USERID_CHANGE prevents the
        // code from changing its role, as in any function that does not run as its
        // caller; other restrictions in force stay.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut user_before, &mut context_before);
            pg_sys::SetUserIdAndSecContext(user, context_before | flags as c_int);
        }
        let _settings = Changed::begin(settings);
        Rights { user_before, context_before, _settings }
    }
}

/// Whether the owner of an app's function is a superuser or the owner of the extension:
/// somebody who may do everything with it anyway.
pub fn is_trusted(owner: pg_sys::Oid) -> Result<bool> {
    // SAFETY: a look-up by oid.
    Ok(unsafe { pg_sys::superuser_arg(owner) } || owner == member::owner()?)
}

impl Drop for Rights {
    fn drop(&mut self) {
        // While an error unwinds, the abort of the (sub)transaction restores both.
        if !std::thread::panicking() {
            // SAFETY: restores the previous values.
            unsafe { pg_sys::SetUserIdAndSecContext(self.user_before, self.context_before) };
        }
    }
}

impl Table {
    /// Runs a statement on the table as its owner; returns the number of rows changed
    /// or found.
    pub fn execute(&self, sql: &str, arguments: &[DatumWithOid<'_>]) -> Result<usize> {
        let _rights = Rights::of_owner(self);
        Spi::connect_mut(|spi| spi.update(sql, None, arguments).map(|rows| rows.len()))
            .map_err(SyncError::sql)
    }
}
