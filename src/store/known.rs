//! Relations of the schema that a backend has looked up and checked, so that its next call
//! need not do it again. Postgres tells of every change to them, as for cached plans, at the
//! latest when a call has locked the relation; then all is forgotten.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int};

use pgrx::{pg_guard, pg_sys};

use super::shape::Places;

/// A table or an index that is as it was installed.
#[derive(Clone)]
pub struct Known {
    pub oid: pg_sys::Oid,
    /// Where a table's columns are, if not at the positions of its shape.
    pub places: Option<Places>,
    /// Whether every session may write to a table.
    pub is_plain: bool,
}

thread_local! {
    /// By the addresses of their names, which are constants.
    static KNOWN: RefCell<Vec<(&'static CStr, Known)>> = const { RefCell::new(Vec::new()) };
    static IS_LISTENING: Cell<bool> = const { Cell::new(false) };
}

pub fn find(name: &'static CStr) -> Option<Known> {
    let is_it = |(known, _): &&(&CStr, Known)| std::ptr::eq(known.as_ptr(), name.as_ptr());
    KNOWN.with_borrow(|all| all.iter().find(is_it).map(|(_, known)| known.clone()))
}

/// Keeps what is so while this call has the relation locked, until something changes.
pub fn remember(name: &'static CStr, known: Known) {
    if !IS_LISTENING.replace(true) {
        // SAFETY: the callbacks have the required signatures and live as long as the
        // library, which is never unloaded.
        unsafe {
            let schemas = pg_sys::SysCacheIdentifier::NAMESPACEOID as c_int;
            let nothing = pg_sys::Datum::from(0);
            pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), nothing);
            pg_sys::CacheRegisterSyscacheCallback(schemas, Some(schema_changed), nothing);
        }
    }
    KNOWN.with_borrow_mut(|all| {
        all.retain(|(other, _)| !std::ptr::eq(other.as_ptr(), name.as_ptr()));
        all.push((name, known));
    });
}

/// # Safety
/// Called by Postgres.
#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    // Nothing calls Postgres while this is borrowed.
    KNOWN.with_borrow_mut(|all| {
        let is_all = relation == pg_sys::InvalidOid;
        if is_all || all.iter().any(|(_, known)| known.oid == relation) {
            all.clear();
        }
    });
}

/// # Safety
/// Called by Postgres.
#[pg_guard]
unsafe extern "C-unwind" fn schema_changed(_argument: pg_sys::Datum, _cache: c_int, _hash: u32) {
    KNOWN.with_borrow_mut(Vec::clear);
}
