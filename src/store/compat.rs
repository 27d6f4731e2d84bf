//! Calls whose C signatures differ between Postgres 15 and 18, and calls of the table
//! access method that Postgres offers only as inline functions.

use pgrx::pg_catalog::pg_proc::PgProc;
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

/// The index of a table's primary key, which is not deferrable.
///
/// # Safety
/// The relation is open.
pub unsafe fn primary_key_index(table: pg_sys::Relation) -> pg_sys::Oid {
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::RelationGetPrimaryKeyIndex(
            table,
            #[cfg(feature = "pg18")]
            false,
        )
    }
}

/// Whether the current user owns the database, or is a superuser.
pub fn owns_database(database: pg_sys::Oid) -> bool {
    // SAFETY: look-ups by oid.
    unsafe {
        let user = pg_sys::GetUserId();
        #[cfg(feature = "pg15")]
        return pg_sys::pg_database_ownercheck(database, user);
        #[cfg(not(feature = "pg15"))]
        pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, user)
    }
}

/// Which indexes need an entry for the new version of an updated row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum IndexesToUpdate {
    None,
    /// Only summarizing ones (BRIN): apart from them the update was HOT.
    #[cfg(not(feature = "pg15"))]
    Summarizing,
    All,
}

/// Replaces the row at `tid`, waiting for a concurrent change, which is then reported.
///
/// # Safety
/// `table` is open for writing, `tid` is a row of it, and `slot` holds the new row in
/// `table`'s shape.
pub unsafe fn table_tuple_update(
    table: pg_sys::Relation,
    tid: &mut pg_sys::ItemPointerData,
    slot: *mut pg_sys::TupleTableSlot,
    snapshot: pg_sys::Snapshot,
) -> Result<IndexesToUpdate, pg_sys::TM_Result::Type> {
    let mut failure = pg_sys::TM_FailureData::default();
    let mut lock = pg_sys::LockTupleMode::LockTupleExclusive;
    #[cfg(feature = "pg15")]
    let mut which = false;
    #[cfg(not(feature = "pg15"))]
    let mut which = pg_sys::TU_UpdateIndexes::TU_None;
    // SAFETY: the caller's promise, and as in table_multi_insert.
    let result = unsafe {
        let Some(update) = (*(*table).rd_tableam).tuple_update else {
            return Err(pg_sys::TM_Result::TM_Invisible);
        };
        let command = pg_sys::GetCurrentCommandId(true);
        let no_crosscheck = std::ptr::null_mut();
        pg_guard_ffi_boundary(|| {
            update(
                table,
                tid,
                slot,
                command,
                snapshot,
                no_crosscheck,
                true,
                &mut failure,
                &mut lock,
                &mut which,
            )
        })
    };
    if result != pg_sys::TM_Result::TM_Ok {
        return Err(result);
    }
    #[cfg(feature = "pg15")]
    return Ok(if which { IndexesToUpdate::All } else { IndexesToUpdate::None });
    #[cfg(not(feature = "pg15"))]
    Ok(match which {
        pg_sys::TU_UpdateIndexes::TU_None => IndexesToUpdate::None,
        pg_sys::TU_UpdateIndexes::TU_Summarizing => IndexesToUpdate::Summarizing,
        _ => IndexesToUpdate::All,
    })
}

/// Deletes the row in the same way.
///
/// # Safety
/// `table` is open for writing, and `tid` is a row of it.
pub unsafe fn table_tuple_delete(
    table: pg_sys::Relation,
    tid: &mut pg_sys::ItemPointerData,
    snapshot: pg_sys::Snapshot,
) -> pg_sys::TM_Result::Type {
    let mut failure = pg_sys::TM_FailureData::default();
    // SAFETY: as in table_tuple_update.
    unsafe {
        let Some(delete) = (*(*table).rd_tableam).tuple_delete else {
            return pg_sys::TM_Result::TM_Invisible;
        };
        let command = pg_sys::GetCurrentCommandId(true);
        let no_crosscheck = std::ptr::null_mut();
        pg_guard_ffi_boundary(|| {
            delete(table, tid, command, snapshot, no_crosscheck, true, &mut failure, false)
        })
    }
}

/// A column's row of pg_attribute, by its position from 0.
///
/// # Safety
/// `descriptor` is valid and has more columns than `place`.
pub unsafe fn attribute(
    descriptor: pg_sys::TupleDesc,
    place: usize,
) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: the caller's promise. In 18 the rows follow an array of as many compact
    // ones.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return (*descriptor).attrs.as_ptr().add(place);
        #[cfg(feature = "pg18")]
        (*descriptor)
            .compact_attrs
            .as_ptr()
            .add((*descriptor).natts as usize)
            .cast::<pg_sys::FormData_pg_attribute>()
            .add(place)
    }
}

/// Adds the index entries of the row in `slot`: a new row or, with `update`, a new
/// version. A duplicate raises 23505, or, if lenient, its entry is added and the result
/// is true, as for ON CONFLICT. An entry of a transaction that has not committed yet
/// counts too.
///
/// # Safety
/// `target` has its indexes open, and `slot` holds a row of it that was just stored.
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
        let Some(multi_insert) = (*(*table).rd_tableam).multi_insert else {
            panic!("the table access method cannot insert");
        };
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

/// Reads the row at `tid` into `slot` and its values, whatever its visibility. False
/// if there is none.
///
/// # Safety
/// `table` is open, `slot` one of its slots.
pub unsafe fn fetch_row(
    table: pg_sys::Relation,
    tid: &mut pg_sys::ItemPointerData,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: the caller's promise; SnapshotAny is a constant that Postgres happens to
    // declare as a variable.
    unsafe { fetch_visible_row(table, tid, &raw mut pg_sys::SnapshotAnyData, slot) }
}

/// The same if the snapshot sees the row.
///
/// # Safety
/// As for `fetch_row`; the snapshot is valid.
pub unsafe fn fetch_visible_row(
    table: pg_sys::Relation,
    tid: &mut pg_sys::ItemPointerData,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: as in table_multi_insert.
    unsafe {
        let Some(fetch) = (*(*table).rd_tableam).tuple_fetch_row_version else { return false };
        let is_there = pg_guard_ffi_boundary(|| fetch(table, tid, snapshot, slot));
        if is_there {
            pg_sys::slot_getsomeattrs_int(slot, (*(*slot).tts_tupleDescriptor).natts);
        }
        is_there
    }
}

/// Reads into `slot` the row to which an entry of an index points, as its scan would: the
/// version of it that the snapshot of the scan sees. False if there is none, or if no entry can
/// point there.
///
/// # Safety
/// The scan is of an index of a heap, and `slot` is of its table. The snapshot of the scan is one
/// of MVCC, or sees no more than one version of each row, because others are locked out. A row that
/// it sees is on the page of `tid`.
pub unsafe fn fetch_indexed_row(
    scan: pg_sys::IndexScanDesc,
    mut tid: pg_sys::ItemPointerData,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: the caller's promise, and as in table_multi_insert. The method asks to be called
    // again only for other snapshots.
    unsafe {
        let (table, snapshot) = ((*scan).heapRelation, (*scan).xs_snapshot);
        let Some(fetch) = (*(*table).rd_tableam).index_fetch_tuple else { return false };
        let (fetcher, mut again) = ((*scan).xs_heapfetch, false);
        let nothing = std::ptr::null_mut();
        pg_guard_ffi_boundary(|| fetch(fetcher, &mut tid, snapshot, slot, &mut again, nothing))
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

/// Finds a trigger function by its name with schema. 42883 if there is no such function.
pub fn trigger_function(name: &std::ffi::CStr) -> pg_sys::Oid {
    // SAFETY: the name is NUL-terminated; without arguments none are read.
    unsafe { pg_sys::LookupFuncName(qualified_name(name), 0, std::ptr::null(), false) }
}

/// A function of two texts.
pub struct FunctionOfTexts {
    /// As written in a statement.
    pub name: String,
    pub owner: pg_sys::Oid,
}

/// Finds a function by its name, with or without a schema. 42602 for an invalid name,
/// 42883 if there is no such function.
pub fn function_of_texts(name: &std::ffi::CStr) -> FunctionOfTexts {
    let texts = [pg_sys::TEXTOID, pg_sys::TEXTOID];
    // SAFETY: the name is NUL-terminated; the results are new allocations, except the
    // owner's oid, which is copied.
    unsafe {
        let names = qualified_name(name);
        let oid = pg_sys::LookupFuncName(names, 2, texts.as_ptr(), false);
        let quoted = std::ffi::CStr::from_ptr(pg_sys::NameListToQuotedString(names));
        FunctionOfTexts {
            name: quoted.to_string_lossy().into_owned(),
            owner: PgProc::new(oid).map_or(pg_sys::InvalidOid, |function| function.proowner()),
        }
    }
}

/// The parts of a name, with or without a schema. 42602 for an invalid name.
pub fn qualified_name(name: &std::ffi::CStr) -> *mut pg_sys::List {
    // SAFETY: the name is NUL-terminated; the result is a new allocation.
    unsafe {
        pg_sys::stringToQualifiedNameList(
            name.as_ptr(),
            #[cfg(not(feature = "pg15"))]
            std::ptr::null_mut(),
        )
    }
}
