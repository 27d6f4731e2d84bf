//! The rights for code that needs some: SQL statements through SPI, and functions that
//! apps supply. Direct access to tables needs none, so the functions of this extension
//! run as their caller.

use std::ffi::c_int;

use pgrx::datum::DatumWithOid;
use pgrx::{Spi, pg_sys};

use super::Result;
use super::relation::Table;
use sync_ext_core::error::SyncError;

/// While it exists, another role is the current user, and names without a schema are
/// found only in pg_catalog: as in a SECURITY DEFINER function of that role with SET
/// search_path.
pub struct Rights {
    user_before: pg_sys::Oid,
    context_before: c_int,
    settings: c_int,
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

    fn of(user: pg_sys::Oid) -> Rights {
        let (mut user_before, mut context_before) = (pg_sys::InvalidOid, 0);
        // SAFETY: the first fills in both. SECURITY_LOCAL_USERID_CHANGE prevents the
        // code from changing its role, as in any function that does not run as its
        // caller; other restrictions in force stay. SECURITY_NOFORCE_RLS prevents row
        // security that was forced on the tables from hiding rows of the owner's
        // statements; direct access ignores it too. The setting is saved, to be
        // restored with its level.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut user_before, &mut context_before);
            let flags = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_NOFORCE_RLS;
            pg_sys::SetUserIdAndSecContext(user, context_before | flags as c_int);
            let settings = pg_sys::NewGUCNestLevel();
            pg_sys::set_config_option(
                c"search_path".as_ptr(),
                c"pg_catalog, pg_temp".as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
            Rights { user_before, context_before, settings }
        }
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        // While an error unwinds, the abort of the (sub)transaction restores both.
        if !std::thread::panicking() {
            // SAFETY: restores the previous values.
            unsafe {
                pg_sys::AtEOXact_GUC(true, self.settings);
                pg_sys::SetUserIdAndSecContext(self.user_before, self.context_before);
            }
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
