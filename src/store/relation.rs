//! Open tables and indexes.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::Result;
use crate::error::SyncError;

/// What an open relation is for, and so the lock it holds until the
/// transaction ends, as a SELECT's or an INSERT's would.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

impl Access {
    fn lock(self) -> pg_sys::LOCKMODE {
        match self {
            Access::Read => pg_sys::AccessShareLock as pg_sys::LOCKMODE,
            Access::Write => pg_sys::RowExclusiveLock as pg_sys::LOCKMODE,
        }
    }
}

/// An open table of the schema sync_ext.
pub struct Table {
    relation: pg_sys::Relation,
    access: Access,
}

impl Table {
    /// Looks the name up anew: nothing about relations outlives a call.
    pub fn open(name: &CStr, access: Access) -> Result<Table> {
        let oid = lookup(name)?;
        // SAFETY: the oid is a relation's; should it be dropped in between,
        // table_open raises an error.
        let relation = unsafe { pg_sys::table_open(oid, access.lock()) };
        Ok(Table { relation, access })
    }

    /// Opens one of the table's own indexes.
    pub fn index(&self, name: &CStr) -> Result<Index> {
        let oid = lookup(name)?;
        // SAFETY: as in `open`; index_open raises an error for what is no index.
        let index = Index(unsafe { pg_sys::index_open(oid, self.access.lock()) });
        // SAFETY: both relations are open; an index has rd_index.
        if unsafe { (*(*index.0).rd_index).indrelid != (*self.relation).rd_id } {
            return Err(damaged(name));
        }
        Ok(index)
    }

    pub fn as_ptr(&self) -> pg_sys::Relation {
        self.relation
    }

    pub fn columns(&self) -> usize {
        // SAFETY: an open relation has a descriptor.
        unsafe { (*(*self.relation).rd_att).natts as usize }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // While an error unwinds, the resource owner closes what is open.
        if !std::thread::panicking() {
            // SAFETY: opened by `open`, closed once. NoLock keeps the lock.
            unsafe { pg_sys::table_close(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE) };
        }
    }
}

/// An open index.
pub struct Index(pg_sys::Relation);

impl Index {
    pub fn as_ptr(&self) -> pg_sys::Relation {
        self.0
    }

    /// Does it find a duplicate at once? Ours do, unless somebody made them anew.
    pub fn finds_duplicates(&self) -> bool {
        // SAFETY: an open index has its row of pg_index.
        let index = unsafe { &*(*self.0).rd_index };
        index.indisunique && index.indimmediate && index.indisvalid
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: as in Table's Drop.
            unsafe { pg_sys::index_close(self.0, pg_sys::NoLock as pg_sys::LOCKMODE) };
        }
    }
}

fn lookup(name: &CStr) -> Result<pg_sys::Oid> {
    // SAFETY: catalog look-ups by NUL-terminated names; with missing_ok the
    // first gives InvalidOid, and so does the second.
    let oid = unsafe {
        let schema = pg_sys::get_namespace_oid(c"sync_ext".as_ptr(), true);
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    };
    if oid == pg_sys::InvalidOid { Err(damaged(name)) } else { Ok(oid) }
}

fn damaged(name: &CStr) -> SyncError {
    SyncError::Damaged { what: format!("sync_ext.{} is missing.", name.to_string_lossy()) }
}
