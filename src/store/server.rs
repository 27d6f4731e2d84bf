//! The server and the transaction that a call runs in.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::time::Duration;

use pgrx::pg_sys;
use uuid::Uuid;

use super::Result;
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::op::Timestamp;
use sync_ext_core::rules::server_op::{HlcStyle, ServerClock};
use sync_ext_core::wire::push_reply::epoch_millis;

/// Raises Postgres' own error if writing is not possible: 25006 on a standby or in a
/// read-only transaction, 25000 in a parallel worker.
pub fn require_writable(function: &CStr) {
    // SAFETY: both take a NUL-terminated name for their message.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(function.as_ptr());
        pg_sys::PreventCommandIfParallelMode(function.as_ptr());
    }
}

/// Ends the call on an interrupt such as a timeout. For loops that a caller can make
/// long; scans check by themselves.
pub fn check_interrupts() {
    pg_sys::check_for_interrupts!();
}

/// Waits. An interrupt such as a timeout ends the call.
pub fn pause(time: Duration) {
    let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the latch is this process' own.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, millis, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    check_interrupts();
}

/// Whether another session waits for something that this transaction has locked.
pub fn is_waited_for() -> bool {
    // SAFETY: the lock of its own that a transaction with an xid has; whoever waits for a
    // row of it waits for this lock.
    unsafe {
        let xid = pg_sys::GetCurrentTransactionIdIfAny();
        if xid == pg_sys::InvalidTransactionId {
            return false;
        }
        let tag = pg_sys::LOCKTAG {
            locktag_field1: xid.into_inner(),
            locktag_field2: 0,
            locktag_field3: 0,
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_TRANSACTION as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        pg_sys::LockHasWaiters(&tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, false)
    }
}

/// An error in a session that replays changes of another server.
pub fn require_origin() -> Result<()> {
    // SESSION_REPLICATION_ROLE_REPLICA in commands/trigger.h.
    const REPLICA: i32 = 1;
    // SAFETY: a variable of this process.
    match unsafe { pg_sys::SessionReplicationRole } {
        REPLICA => Err(SyncError::ReplicaSession),
        _ => Ok(()),
    }
}

/// While the server starts, and loads the libraries of shared_preload_libraries.
pub fn is_preloading() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Whether pg_upgrade has started this server.
pub fn is_upgrading() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::IsBinaryUpgrade }
}

/// Makes a misspelt setting an error instead of ignoring it.
pub fn reserve_settings(prefix: &'static CStr) {
    // SAFETY: keeps a copy of a NUL-terminated name.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) };
}

/// The wall clock, not the start of the transaction.
pub fn now() -> Timestamp {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// Also true for the rest of a transaction in which the standby was promoted: its
/// snapshot is still that of the standby.
pub fn is_standby() -> bool {
    // SAFETY: the first reads shared state that only changes from true to false, the
    // second this transaction's own.
    unsafe { pg_sys::RecoveryInProgress() || pg_sys::TransactionStartedDuringRecovery() }
}

/// The next hlc of an op that the server makes, above all that this backend made before.
pub fn next_hlc(style: HlcStyle) -> String {
    thread_local! {
        static CLOCK: Cell<ServerClock> = const { Cell::new(ServerClock::new()) };
    }
    let mut clock = CLOCK.get();
    let hlc = clock.next(style, epoch_millis(now()));
    CLOCK.set(clock);
    hlc
}

/// A version 4 UUID.
pub fn random_uuid() -> Uuid {
    uuid::Builder::from_random_bytes(random()).into_uuid()
}

/// The opId of an op that the server makes, a version 7 UUID: those of a time are
/// neighbours in the index.
pub fn new_op_id() -> Uuid {
    let millis = u64::try_from(epoch_millis(now())).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random()).into_uuid()
}

/// Bytes from Postgres' random source, which is asked for many at a time.
fn random<const COUNT: usize>() -> [u8; COUNT] {
    const MANY: usize = 1024;
    thread_local! {
        static DRAWN: RefCell<([u8; MANY], usize)> = const { RefCell::new(([0; MANY], MANY)) };
    }
    DRAWN.with_borrow_mut(|(bytes, used)| {
        if *used + COUNT > MANY {
            // SAFETY: fills the bytes. It fails only without an entropy source, and
            // Postgres does not start without one.
            unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), MANY) };
            *used = 0;
        }
        let mut some = [0; COUNT];
        some.copy_from_slice(&bytes[*used..*used + COUNT]);
        *used += COUNT;
        some
    })
}

/// Makes the writes of this call visible to later commands of the transaction,
/// including other calls in the same statement.
pub fn end_command() {
    // SAFETY: writers run neither in parallel mode nor inside an open scan.
    unsafe { pg_sys::CommandCounterIncrement() };
}
