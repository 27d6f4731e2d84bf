//! A database that somebody wants for themselves: to be dropped, renamed, moved or copied,
//! which Postgres refuses while anybody is connected. Its worker leaves it for a while;
//! Postgres waits up to five seconds for those who leave.

use std::ffi::{CStr, c_char};
use std::time::Duration;

use pgrx::pg_sys;

use super::board;
use crate::store::{compat, entry};

const LONG: Duration = Duration::from_secs(10);

static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

/// While the server starts.
pub fn init() {
    // SAFETY: nobody else uses them now.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(before_utility);
    }
}

unsafe extern "C-unwind" {
    // Not pgrx' wrapper, which would catch each error of each statement.
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        query: *const c_char,
        is_read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// # Safety
/// Called by Postgres. Nothing is left to drop when the statement raises an error.
unsafe extern "C-unwind" fn before_utility(
    statement: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    is_read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the arguments are passed on as they are; a node has a tag.
    unsafe {
        use pg_sys::NodeTag::*;
        let node = (*statement).utilityStmt;
        if matches!(
            (*node).type_,
            T_DropdbStmt | T_RenameStmt | T_AlterDatabaseStmt | T_CreatedbStmt
        ) {
            entry::call_back(|| {
                send_away(wanted(node));
                Ok(())
            });
        }
        let next = PREVIOUS.unwrap_or(standard_ProcessUtility);
        next(
            statement,
            query,
            is_read_only,
            context,
            parameters,
            environment,
            destination,
            completion,
        );
    }
}

/// # Safety
/// A name that ends with NUL, or NULL; in a transaction.
unsafe fn send_away(name: *const c_char) {
    if name.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    let database = unsafe { pg_sys::get_database_oid(name, true) };
    // Others are refused anyway.
    if database != pg_sys::InvalidOid && compat::owns_database(database) {
        board::step_aside(database, LONG);
    }
}

/// The name of the database that a statement wants for itself, or NULL.
///
/// # Safety
/// The node is valid.
unsafe fn wanted(statement: *mut pg_sys::Node) -> *const c_char {
    use pg_sys::NodeTag::*;
    // SAFETY: a node is what its tag says; names are NUL-terminated.
    unsafe {
        match (*statement).type_ {
            T_DropdbStmt => (*statement.cast::<pg_sys::DropdbStmt>()).dbname,
            T_RenameStmt => {
                let rename = &*statement.cast::<pg_sys::RenameStmt>();
                let is_database = rename.renameType == pg_sys::ObjectType::OBJECT_DATABASE;
                if is_database { rename.subname } else { std::ptr::null() }
            }
            T_AlterDatabaseStmt => {
                let alter = &*statement.cast::<pg_sys::AlterDatabaseStmt>();
                let moves = !option(alter.options, c"tablespace").is_null();
                if moves { alter.dbname } else { std::ptr::null() }
            }
            T_CreatedbStmt => {
                option((*statement.cast::<pg_sys::CreatedbStmt>()).options, c"template")
            }
            _ => std::ptr::null(),
        }
    }
}

/// # Safety
/// A list of DefElem, or NULL.
unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> *const c_char {
    // SAFETY: the caller's promise; a list has as many elements as it says.
    unsafe {
        let count = options.as_ref().map_or(0, |list| list.length);
        for at in 0..usize::try_from(count).unwrap_or(0) {
            let option = (*(*options).elements.add(at)).ptr_value.cast::<pg_sys::DefElem>();
            if CStr::from_ptr((*option).defname) == name && !(*option).arg.is_null() {
                return pg_sys::defGetString(option);
            }
        }
    }
    std::ptr::null()
}
