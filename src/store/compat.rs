//! Calls whose C signatures differ between Postgres 15 and 18, and the table
//! access method's calls that Postgres offers only as inline functions.

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

/// # Safety
/// Both relations are open, `index` is an index of `table`, and the snapshot
/// outlives the scan.
pub unsafe fn index_beginscan(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    keys: i32,
) -> pg_sys::IndexScanDesc {
    // SAFETY: the caller's promise; no ORDER BY operators, no instrumentation.
    unsafe {
        pg_sys::index_beginscan(
            table,
            index,
            snapshot,
            #[cfg(feature = "pg18")]
            std::ptr::null_mut(),
            keys,
            0,
        )
    }
}

/// Which indexes want an entry for the new version of an updated row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum IndexesToUpdate {
    None,
    /// Only summarizing ones (BRIN): the update was HOT but for them.
    #[cfg(not(feature = "pg15"))]
    Summarizing,
    All,
}

/// # Safety
/// `table` is open for writing, `tid` is a live row of it that nobody else can
/// be updating, and `slot` holds the new row in `table`'s shape.
pub unsafe fn simple_table_tuple_update(
    table: pg_sys::Relation,
    tid: &mut pg_sys::ItemPointerData,
    slot: *mut pg_sys::TupleTableSlot,
    snapshot: pg_sys::Snapshot,
) -> IndexesToUpdate {
    #[cfg(feature = "pg15")]
    {
        let mut all = false;
        // SAFETY: the caller's promise.
        unsafe { pg_sys::simple_table_tuple_update(table, tid, slot, snapshot, &mut all) };
        if all { IndexesToUpdate::All } else { IndexesToUpdate::None }
    }
    #[cfg(not(feature = "pg15"))]
    {
        let mut which = pg_sys::TU_UpdateIndexes::TU_None;
        // SAFETY: the caller's promise.
        unsafe { pg_sys::simple_table_tuple_update(table, tid, slot, snapshot, &mut which) };
        match which {
            pg_sys::TU_UpdateIndexes::TU_None => IndexesToUpdate::None,
            pg_sys::TU_UpdateIndexes::TU_Summarizing => IndexesToUpdate::Summarizing,
            _ => IndexesToUpdate::All,
        }
    }
}

/// Adds the index entries of the row in `slot`, a new row's or, with `update`,
/// a new version's. A duplicate raises 23505; or, if lenient, its entry is added
/// and the answer is true, as for ON CONFLICT. An entry of a transaction that has
/// not committed yet counts too.
///
/// # Safety
/// `target` has its indexes open, and `slot` holds a row of it that was just
/// stored.
pub unsafe fn insert_index_tuples(
    target: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
    update: Option<IndexesToUpdate>,
    is_lenient: bool,
) -> bool {
    let mut is_duplicate = false;
    // SAFETY: the caller's promise. The empty list of arbiters means all
    // unique indexes.
    unsafe {
        pg_sys::ExecInsertIndexTuples(
            target,
            slot,
            estate,
            update.is_some(),
            is_lenient,
            &mut is_duplicate,
            std::ptr::null_mut(),
            #[cfg(not(feature = "pg15"))]
            {
                update == Some(IndexesToUpdate::Summarizing)
            },
        );
    }
    is_duplicate
}

/// # Safety
/// `table` is open for writing and each slot holds a row in its shape.
pub unsafe fn table_multi_insert(
    table: pg_sys::Relation,
    slots: &mut [*mut pg_sys::TupleTableSlot],
    command: pg_sys::CommandId,
) {
    // SAFETY: an open relation with storage has a table access method, which
    // has this callback; the guard turns its errors into unwinding.
    unsafe {
        let Some(multi_insert) = (*(*table).rd_tableam).multi_insert else { return };
        let (slots, count) = (slots.as_mut_ptr(), slots.len() as i32);
        pg_guard_ffi_boundary(|| {
            multi_insert(table, slots, count, command, 0, std::ptr::null_mut());
        });
    }
}

/// # Safety
/// `table` is open for writing, `tid` was read from it with `snapshot`, and
/// `slot` is one of its slots.
pub unsafe fn table_tuple_lock(
    table: pg_sys::Relation,
    tid: *mut pg_sys::ItemPointerData,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
    command: pg_sys::CommandId,
    wait_policy: pg_sys::LockWaitPolicy::Type,
    flags: u8,
) -> pg_sys::TM_Result::Type {
    let mut failure = pg_sys::TM_FailureData::default();
    // SAFETY: as in table_multi_insert.
    unsafe {
        let Some(tuple_lock) = (*(*table).rd_tableam).tuple_lock else {
            return pg_sys::TM_Result::TM_Invisible;
        };
        let mode = pg_sys::LockTupleMode::LockTupleNoKeyExclusive;
        pg_guard_ffi_boundary(|| {
            tuple_lock(table, tid, snapshot, slot, command, mode, wait_policy, flags, &mut failure)
        })
    }
}

/// Reads the row at `tid` into `slot` and its values, whatever its visibility.
///
/// # Safety
/// `table` is open, `tid` is a row of it that cannot go, `slot` one of its slots.
pub unsafe fn fetch_row(
    table: pg_sys::Relation,
    tid: &mut pg_sys::ItemPointerData,
    slot: *mut pg_sys::TupleTableSlot,
) {
    // SAFETY: as in table_multi_insert; SnapshotAny is a constant that Postgres
    // happens to declare as a variable.
    unsafe {
        let Some(fetch) = (*(*table).rd_tableam).tuple_fetch_row_version else { return };
        let any = &raw mut pg_sys::SnapshotAnyData;
        pg_guard_ffi_boundary(|| fetch(table, tid, any, slot));
        pg_sys::slot_getsomeattrs_int(slot, (*(*slot).tts_tupleDescriptor).natts);
    }
}

/// # Safety
/// `slot` is valid.
pub unsafe fn clear_slot(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: every slot has its callbacks; the guard as above.
    unsafe {
        let Some(clear) = (*(*slot).tts_ops).clear else { return };
        pg_guard_ffi_boundary(|| clear(slot));
    }
}

/// An identifier with or without a schema, as it would be written in a
/// statement; what is none raises 42602.
pub fn quoted_name(name: &std::ffi::CStr) -> String {
    // SAFETY: the name is NUL-terminated; both results are fresh.
    unsafe {
        #[cfg(feature = "pg15")]
        let names = pg_sys::stringToQualifiedNameList(name.as_ptr());
        #[cfg(not(feature = "pg15"))]
        let names = pg_sys::stringToQualifiedNameList(name.as_ptr(), std::ptr::null_mut());
        let quoted = pg_sys::NameListToQuotedString(names);
        std::ffi::CStr::from_ptr(quoted).to_string_lossy().into_owned()
    }
}

/// A setting, or the placeholder of one that no library has defined yet; null
/// if there is neither.
pub fn find_setting(name: &std::ffi::CStr) -> *mut pg_sys::config_generic {
    #[cfg(feature = "pg15")]
    // SAFETY: the array has as many entries as is told, each of them valid and
    // with a name.
    unsafe {
        let count = usize::try_from(pg_sys::GetNumConfigOptions()).unwrap_or(0);
        let settings = std::slice::from_raw_parts(pg_sys::get_guc_variables(), count);
        let is_wanted = |setting: &&*mut pg_sys::config_generic| {
            let found = std::ffi::CStr::from_ptr((***setting).name);
            found.to_bytes().eq_ignore_ascii_case(name.to_bytes())
        };
        settings.iter().find(is_wanted).copied().unwrap_or(std::ptr::null_mut())
    }
    #[cfg(not(feature = "pg15"))]
    // SAFETY: the name is NUL-terminated; nothing is made and nothing raised.
    unsafe {
        pg_sys::find_option(name.as_ptr(), false, true, 0)
    }
}
