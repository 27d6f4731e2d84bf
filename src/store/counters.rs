//! Counters since the server started, by database, in shared memory. Their cost is not
//! measurable, also for reads and on a standby. They exist only if the library is in
//! shared_preload_libraries, because shared memory must be requested at start. Calls in
//! transactions that are rolled back are counted too.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgAtomic, pg_shmem_init};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    Pushes,
    OpsApplied,
    OpsLost,
    OpsReplayed,
    OpsRefusedValidation,
    OpsRefusedOversized,
    OpsRefusedConflict,
    OpsRefusedUnauthorized,
    OpsRefusedBaseMissing,
    OpsRefusedRecordConflict,
    OpsRefusedFieldConflict,
    OpsRefusedConstraint,
    OpsRefusedRejected,
    OpsRefusedReadOnly,
    OpsCaptured,
    OpsNormalized,
    PushesYielded,
    Pulls,
    SnapshotPages,
    SnapshotsRequired,
    Acknowledgements,
    GcRuns,
    GcEntriesDeleted,
}

use Counter::*;

const NAMES: [(Counter, &str); 23] = [
    (Pushes, "pushes"),
    (OpsApplied, "ops_applied"),
    (OpsLost, "ops_lost"),
    (OpsReplayed, "ops_replayed"),
    (OpsRefusedValidation, "ops_refused_validation"),
    (OpsRefusedOversized, "ops_refused_oversized"),
    (OpsRefusedConflict, "ops_refused_conflict"),
    (OpsRefusedUnauthorized, "ops_refused_unauthorized"),
    (OpsRefusedBaseMissing, "ops_refused_base_missing"),
    (OpsRefusedRecordConflict, "ops_refused_record_conflict"),
    (OpsRefusedFieldConflict, "ops_refused_field_conflict"),
    (OpsRefusedConstraint, "ops_refused_constraint"),
    (OpsRefusedRejected, "ops_refused_rejected"),
    (OpsRefusedReadOnly, "ops_refused_read_only"),
    (OpsCaptured, "ops_captured"),
    (OpsNormalized, "ops_normalized"),
    (PushesYielded, "pushes_yielded"),
    (Pulls, "pulls"),
    (SnapshotPages, "snapshot_pages"),
    (SnapshotsRequired, "snapshots_required"),
    (Acknowledgements, "acknowledgements"),
    (GcRuns, "gc_runs"),
    (GcEntriesDeleted, "gc_entries_deleted"),
];

/// The number of databases that are counted.
const DATABASES: usize = 64;

#[derive(Default)]
struct OfDatabase {
    /// The database's oid, 0 while the place is free.
    database: AtomicU32,
    values: [AtomicU64; NAMES.len()],
}

struct Shared([OfDatabase; DATABASES]);

// SAFETY: only atomics, without a pointer.
unsafe impl PGRXSharedMemory for Shared {}

// SAFETY: no other memory has this name.
static SHARED: PgAtomic<Shared> = unsafe { PgAtomic::new(c"sync_ext counters") };

/// Whether there is shared memory. Set in the postmaster and inherited by its children.
static IS_SHARED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The place of this backend's database.
    static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Requests the memory while the server starts.
#[expect(unexpected_cfgs, reason = "the macro asks for majors that we do not offer")]
pub fn init() {
    if super::server::is_preloading() {
        pg_shmem_init!(SHARED = Shared(std::array::from_fn(|_| OfDatabase::default())));
        IS_SHARED.store(true, Ordering::Relaxed);
    }
}

pub fn count(counter: Counter, by: usize) {
    if by > 0
        && let Some(values) = values()
    {
        values[counter as usize].fetch_add(by as u64, Ordering::Relaxed);
    }
}

/// All counters with their names; `None` if nothing is counted.
pub fn all() -> Option<impl Iterator<Item = (&'static str, u64)>> {
    let values = values()?;
    let value = |counter: Counter| values[counter as usize].load(Ordering::Relaxed);
    Some(NAMES.iter().map(move |(counter, name)| (*name, value(*counter))))
}

fn values() -> Option<&'static [AtomicU64; NAMES.len()]> {
    if !IS_SHARED.load(Ordering::Relaxed) {
        return None;
    }
    let places = &SHARED.get().0;
    let place = PLACE.get().or_else(|| {
        // SAFETY: a variable of this process, constant in a backend.
        let database = u32::from(unsafe { pg_sys::MyDatabaseId });
        let place = places.iter().position(|place| take(place, database));
        PLACE.set(place);
        place
    });
    place.map(|place| &places[place].values)
}

/// Whether the place is the database's, or was free and now is.
fn take(place: &OfDatabase, database: u32) -> bool {
    match place.database.compare_exchange(0, database, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => true,
        Err(taken_by) => taken_by == database,
    }
}
