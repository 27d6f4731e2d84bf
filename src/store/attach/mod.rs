//! Tables of the app, as they are attached and detached.
//!
//! The table is locked first, so that no writer is in the middle of a transaction: rows
//! are written before the trigger exists, or with it. Then the catalogues are read
//! ([`facts`]), the row of `sync_ext.synced_table` is written ([`attachment`]), and the
//! triggers are made or dropped ([`triggers`]), all in the caller's transaction.

pub mod attachment;
pub mod facts;
mod triggers;

use std::ffi::CStr;

use pgrx::pg_sys::elog::PgLogLevel;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, pg_sys};

use super::Result;
use super::caller;
use sync_ext_core::rules::attach_error::AttachError;
use sync_ext_core::rules::attach_notice::Notice;

/// The purpose of a lock on a table of the app.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Attach,
    Detach,
    /// Only its rows are read.
    Repair,
}

impl Purpose {
    /// The lock of CREATE TRIGGER, which waits for writers and not for readers, and that
    /// of DROP TRIGGER.
    fn lock(self) -> pg_sys::LOCKMODE {
        match self {
            Purpose::Attach => pg_sys::ShareRowExclusiveLock as pg_sys::LOCKMODE,
            Purpose::Detach => pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE,
            Purpose::Repair => pg_sys::AccessShareLock as pg_sys::LOCKMODE,
        }
    }
}

/// A table of the app that is locked until the transaction ends, and that the caller
/// owns.
pub struct OwnTable {
    oid: pg_sys::Oid,
    owner: pg_sys::Oid,
}

impl OwnTable {
    /// Waits for the lock; an error unless the current user has the rights of the table's
    /// owner, as for ALTER TABLE.
    pub fn lock(oid: pg_sys::Oid, purpose: Purpose) -> Result<OwnTable> {
        // Checked before locking, so that others cannot block the table's users.
        require_owner(oid)?;
        // SAFETY: any oid can be locked. The lock belongs to the transaction.
        unsafe { pg_sys::LockRelationOid(oid, purpose.lock()) };
        // It may have got another owner meanwhile, or be gone.
        Ok(OwnTable { oid, owner: require_owner(oid)? })
    }

    pub fn oid(&self) -> pg_sys::Oid {
        self.oid
    }
}

/// Whether a relation of this oid exists now.
pub fn exists(oid: pg_sys::Oid) -> bool {
    owner_of(oid).is_some()
}

fn require_owner(oid: pg_sys::Oid) -> Result<pg_sys::Oid> {
    let owner = owner_of(oid).ok_or(AttachError::NoTable)?;
    // SAFETY: look-ups by the oids of roles. A superuser has the rights of every role.
    let is_owner = unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner) };
    if is_owner { Ok(owner) } else { Err(AttachError::NotOwner.into()) }
}

/// `None` if there is no such relation.
fn owner_of(oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a look-up by oid. The tuple is one of pg_class, and released after its
    // owner is copied.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, oid.into());
        if tuple.is_null() {
            return None;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}

/// The search_path of the session.
pub fn search_path() -> String {
    caller::setting(c"search_path", |path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Raises Postgres' own error unless a function could have this search_path.
pub fn check_search_path(path: &CStr) {
    // SAFETY: both are NUL-terminated. The value is only checked, not set; level 0 makes
    // an invalid one an error.
    unsafe {
        pg_sys::set_config_option(
            c"search_path".as_ptr(),
            path.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            false,
            0,
            false,
        );
    }
}

pub fn report(notice: &Notice) {
    let code = PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION;
    ErrorReport::new(code, notice.message, "sync_attach_table")
        .set_detail(notice.detail.as_str())
        .set_hint(notice.hint)
        .report(PgLogLevel::NOTICE);
}
