//! Relations of the schema that a backend has looked up and checked, so that its next call
//! need not do it again.
//!
//! Postgres says when relations or schemas are altered, as it does for cached plans: when a
//! transaction begins, and when a lock is taken, which an ALTER of a table's columns, triggers
//! or rules makes wait. What was looked up before that may be untrue.

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
    /// Direct writes to a table have the effect of statements in every session. False if that
    /// depends on the session, or was not checked.
    pub is_writable: bool,
}

thread_local! {
    /// By the addresses of their names, which are constants.
    static KNOWN: RefCell<Vec<(&'static CStr, Known)>> = const { RefCell::new(Vec::new()) };
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

/// Has Postgres say when something is altered. Once per process, or in the postmaster.
pub fn init() {
    // SAFETY: the callbacks have the required signatures and live as long as the library,
    // which is never unloaded.
    unsafe {
        let schemas = pg_sys::SysCacheIdentifier::NAMESPACEOID as c_int;
        let nothing = pg_sys::Datum::from(0);
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), nothing);
        pg_sys::CacheRegisterSyscacheCallback(schemas, Some(schema_changed), nothing);
    }
}

/// How often this backend was told that something was altered.
pub fn changes() -> u64 {
    CHANGES.get()
}

/// Has Postgres say what others have altered until now, as it does when a lock is taken.
pub fn catch_up() {
    // SAFETY: a transaction is in progress; open relations stay open.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

pub fn find(name: &'static CStr) -> Option<Known> {
    let is_it = |(other, _): &&(&CStr, Known)| std::ptr::eq(other.as_ptr(), name.as_ptr());
    KNOWN.with_borrow(|all| all.iter().find(is_it).map(|(_, known)| known.clone()))
}

/// Keeps what this call has found out, unless something was altered since it began to.
pub fn remember(name: &'static CStr, known: Known, since: u64) {
    if changes() != since {
        return;
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
    CHANGES.set(changes() + 1);
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
    CHANGES.set(changes() + 1);
    KNOWN.with_borrow_mut(Vec::clear);
}
