//! Attached tables, as they are registered.
//!
//! A backend keeps them: a row trigger asks for each row. Postgres tells when a
//! relation changes, and with it the registry, which attaching and detaching touch; then
//! they are read again.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use pgrx::{pg_guard, pg_sys};

use super::Result;
use super::mvcc::MvccSnapshot;
use super::registry;
use super::typed::KeyColumns;

/// A table whose records are typed rows.
pub struct AttachedTable {
    pub relation: pg_sys::Oid,
    /// The name under which devices know it.
    pub name: String,
    pub workspace: WorkspaceOf,
    /// The payload's field with the owner, and its column.
    pub owner: Option<(String, String)>,
    pub deleted_column: Option<String>,
    /// The payload's field with the scope.
    pub scope_field: Option<String>,
    /// Each field of the payload with its column.
    pub fields: Vec<(String, String)>,
    pub patches: bool,
    pub is_read_only: bool,
    pub applies_as_owner: bool,
    /// Numbers of more than 53 bits are strings in payloads.
    pub has_safe_numbers: bool,
    pub search_path: String,
    pub(super) key_columns: OnceCell<KeyColumns>,
}

impl AttachedTable {
    /// Where the table has what names a row.
    ///
    /// # Safety
    /// The attached relation, open.
    pub unsafe fn columns(&self, relation: pg_sys::Relation) -> Result<&KeyColumns> {
        if let Some(columns) = self.key_columns.get() {
            return Ok(columns);
        }
        // SAFETY: the caller's promise.
        let columns = unsafe { KeyColumns::of(self, relation)? };
        Ok(self.key_columns.get_or_init(|| columns))
    }
}

/// The workspace of a row.
#[derive(Clone, Debug)]
pub enum WorkspaceOf {
    Column(String),
    /// The same for all rows.
    All(String),
}

type Tables = Rc<Vec<Rc<AttachedTable>>>;

struct Known {
    generation: u64,
    tables: Tables,
}

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
    /// Counts the changes of which Postgres told.
    static GENERATION: Cell<u64> = const { Cell::new(0) };
}

/// Once per backend.
pub fn init() {
    // SAFETY: the callback has the required signature and lives as long as the library.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(changed), pg_sys::Datum::from(0)) };
}

/// # Safety
/// Called by Postgres, at any moment at which it takes locks: it must not do anything.
#[pg_guard]
unsafe extern "C-unwind" fn changed(_arg: pg_sys::Datum, _relation: pg_sys::Oid) {
    GENERATION.set(GENERATION.get() + 1);
}

/// Another number after a relation has changed.
pub fn generation() -> u64 {
    GENERATION.get()
}

/// All attached tables.
pub fn all() -> Result<Tables> {
    let generation = GENERATION.get();
    let known = KNOWN.with_borrow(|known| {
        let known = known.as_ref().filter(|known| known.generation == generation);
        known.map(|known| Rc::clone(&known.tables))
    });
    if let Some(tables) = known {
        return Ok(tables);
    }
    let tables = Rc::new(registry::attached(&MvccSnapshot::latest())?);
    KNOWN.set(Some(Known { generation, tables: Rc::clone(&tables) }));
    Ok(tables)
}

/// The table that is attached to this relation.
pub fn find(relation: pg_sys::Oid) -> Result<Option<Rc<AttachedTable>>> {
    let tables = all()?;
    Ok(tables.iter().find(|table| table.relation == relation).map(Rc::clone))
}

/// The same, with its columns as they stay until the transaction ends.
pub fn lock(relation: pg_sys::Oid) -> Result<Option<Rc<AttachedTable>>> {
    if find(relation)?.is_none() {
        return Ok(None);
    }
    // SAFETY: any oid can be locked. Whoever waited learns what has changed.
    unsafe { pg_sys::LockRelationOid(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE) };
    find(relation)
}
