//! Open tables and indexes.

use std::cell::Cell;
use std::ffi::CStr;

use pgrx::pg_sys;

use super::Result;
use super::known::{self, Known};
use super::shape::{self, IndexShape, Places, Shape};

/// The purpose of an open relation, and so the lock that is held until the transaction
/// ends, like that of a SELECT or an INSERT.
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

/// An open table of schema sync_ext, with the shape in which it was installed.
pub struct Table {
    relation: pg_sys::Relation,
    shape: &'static Shape,
    places: Option<Places>,
    access: Access,
    update_checked: Cell<bool>,
    delete_checked: Cell<bool>,
}

impl Table {
    /// Locks it before it is used as [`known`], because the lock brings what was altered before;
    /// what is not known, or was altered, is looked up and checked under the lock.
    pub fn open(shape: &'static Shape, access: Access) -> Result<Table> {
        let since = known::changes();
        let is_enough = |known: &Known| access == Access::Read || known.is_writable;
        if let Some(known) = known::find(shape.name).filter(is_enough) {
            let mut table = Table::lock(known.oid, shape, access);
            if known::changes() == since {
                table.places = known.places;
                return Ok(table);
            }
        }
        loop {
            let since = known::changes();
            let oid = lookup(shape.name)?;
            let mut table = Table::lock(oid, shape, access);
            // While this waited for the lock another table may have got the name.
            if known::changes() != since && lookup(shape.name)? != oid {
                continue;
            }
            let mut is_writable = false;
            // SAFETY: it is open.
            unsafe {
                table.places = shape.check_for_reading(table.relation)?;
                if access == Access::Write {
                    is_writable = shape.check_for_writing(table.relation, table.places())?;
                }
            }
            let places = table.places.clone();
            known::remember(shape.name, Known { oid, places, is_writable }, since);
            return Ok(table);
        }
    }

    fn lock(oid: pg_sys::Oid, shape: &'static Shape, access: Access) -> Table {
        // SAFETY: the oid is a relation's; if it is dropped in between, table_open
        // raises an error.
        let relation = unsafe { pg_sys::table_open(oid, access.lock()) };
        let (update_checked, delete_checked) = (Cell::new(false), Cell::new(false));
        Table { relation, shape, places: None, access, update_checked, delete_checked }
    }

    /// Opens one of the table's own indexes, in the same way.
    pub fn index(&self, shape: &'static IndexShape) -> Result<Index> {
        let since = known::changes();
        if let Some(known) = known::find(shape.name) {
            let index = self.lock_index(known.oid, shape);
            if known::changes() == since {
                return Ok(index);
            }
        }
        let mut may_be_stale = true;
        loop {
            let since = known::changes();
            let oid = lookup(shape.name)?;
            let index = self.lock_index(oid, shape);
            // A concurrent rebuild gives the index's name to another one. After the
            // lock, a second look-up shows whether that has happened.
            let named_now = lookup(shape.name)?;
            if named_now == oid {
                // SAFETY: both are open.
                match unsafe {
                    shape.check(index.relation, self.relation, self.shape, self.places())
                } {
                    Ok(()) => {
                        let known = Known { oid, places: None, is_writable: false };
                        known::remember(shape.name, known, since);
                        return Ok(index);
                    }
                    Err(error) if !may_be_stale => return Err(error),
                    // This backend's cache may be stale.
                    Err(_) => {
                        may_be_stale = false;
                        known::catch_up();
                    }
                }
            }
        }
    }

    fn lock_index(&self, oid: pg_sys::Oid, shape: &'static IndexShape) -> Index {
        // SAFETY: as in `lock`; index_open raises an error for what is no index.
        Index { relation: unsafe { pg_sys::index_open(oid, self.access.lock()) }, shape }
    }

    /// Raises an error, as UPDATE would, if the table is published and subscribers
    /// could not identify the updated row.
    pub fn require_updatable(&self) {
        self.check_identity(pg_sys::CmdType::CMD_UPDATE, &self.update_checked);
    }

    /// The same for DELETE.
    pub fn require_deletable(&self) {
        self.check_identity(pg_sys::CmdType::CMD_DELETE, &self.delete_checked);
    }

    fn check_identity(&self, command: pg_sys::CmdType::Type, is_checked: &Cell<bool>) {
        if !is_checked.get() {
            // SAFETY: the table is open.
            unsafe { pg_sys::CheckCmdReplicaIdentity(self.relation, command) };
            is_checked.set(true);
        }
    }

    pub fn as_ptr(&self) -> pg_sys::Relation {
        self.relation
    }

    pub fn owner(&self) -> pg_sys::Oid {
        // SAFETY: an open relation has its row of pg_class.
        unsafe { (*(*self.relation).rd_rel).relowner }
    }

    /// Where its columns are, if not at the positions of the shape.
    pub fn places(&self) -> Option<&[Option<usize>]> {
        self.places.as_deref()
    }

    /// Whether it has this column of the shape, from 0: an update of the extension adds it.
    pub fn has(&self, column: usize) -> bool {
        self.places().is_none_or(|places| places[column].is_some())
    }

    pub fn columns(&self) -> usize {
        // SAFETY: an open relation has a descriptor.
        unsafe { (*(*self.relation).rd_att).natts as usize }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // While an error unwinds, the resource owner closes the relation.
        if !std::thread::panicking() {
            // SAFETY: opened by `open`, closed once. NoLock keeps the lock.
            unsafe { pg_sys::table_close(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE) };
        }
    }
}

/// An open index.
pub struct Index {
    relation: pg_sys::Relation,
    shape: &'static IndexShape,
}

impl Index {
    pub fn as_ptr(&self) -> pg_sys::Relation {
        self.relation
    }

    /// The table's columns by which it is ordered, by their numbers, from 1.
    pub fn columns(&self) -> impl Iterator<Item = usize> {
        self.shape.keys.iter().map(|position| position + 1)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: as in Table's Drop.
            unsafe { pg_sys::index_close(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE) };
        }
    }
}

/// The relation of this name in the schema sync_ext.
pub fn lookup(name: &CStr) -> Result<pg_sys::Oid> {
    // SAFETY: catalog look-ups by NUL-terminated names; with missing_ok the first
    // returns InvalidOid, and then so does the second.
    let oid = unsafe {
        let schema = pg_sys::get_namespace_oid(c"sync_ext".as_ptr(), true);
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    };
    if oid == pg_sys::InvalidOid { shape::missing(name) } else { Ok(oid) }
}
