//! The launcher: it sees to it that each database that wants a worker has one.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, SignalWakeFlags};
use pgrx::{IntoDatum, pg_guard, pg_sys};

use super::board::{self, State};

/// After this a database is asked again whether it wants a worker.
const PERIOD: Duration = Duration::from_secs(60);
/// The same if commits found no worker: they may have settings of their own.
const PERIOD_IF_WANTED: Duration = Duration::from_secs(5);
/// A worker that ended is replaced, but not more often than this.
const RETRY: Duration = Duration::from_secs(1);

/// While the server starts. On a standby it begins with the promotion.
pub fn register() {
    BackgroundWorkerBuilder::new("sync_ext launcher")
        .set_library("sync_ext")
        .set_function("sync_ext_launcher")
        .enable_spi_access()
        .set_restart_time(Some(RETRY))
        .load();
}

/// Postgres calls it in a process of its own.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sync_ext_launcher(_argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    // To no database: one that is connected to cannot be dropped.
    BackgroundWorker::connect_worker_to_spi_by_oid(None, None);
    let mut launcher = Launcher::default();
    while BackgroundWorker::wait_latch(Some(launcher.launch())) {}
    // With 0 it would not be started again.
    // SAFETY: ends this process.
    unsafe { pg_sys::proc_exit(1) };
}

#[derive(Default)]
struct Launcher {
    /// When each database was asked last.
    asked: HashMap<u32, Instant>,
    wanted: HashSet<u32>,
    has_warned: bool,
}

impl Launcher {
    /// Starts what is due; returns when something will be.
    fn launch(&mut self) -> Duration {
        self.wanted.extend(board::launch());
        let databases = databases();
        board::keep(&databases);
        self.asked.retain(|database, _| databases.contains(database));
        let mut next = PERIOD;
        for database in databases {
            let after = match board::state(database) {
                State::Served => continue,
                State::Ended | State::Aside => RETRY,
                State::Unknown if self.wanted.contains(&database) => PERIOD_IF_WANTED,
                State::Unknown => PERIOD,
            };
            let waited = self.asked.get(&database).map(Instant::elapsed);
            match waited.filter(|waited| *waited < after) {
                Some(waited) => next = next.min(after - waited),
                None if board::state(database) == State::Aside => next = next.min(RETRY),
                None => {
                    self.asked.insert(database, Instant::now());
                    self.wanted.remove(&database);
                    self.ask(database);
                    // What woke this process meanwhile is not known.
                    next = Duration::ZERO;
                }
            }
        }
        next
    }

    /// Starts a worker, and waits until it serves its database, or has ended because that
    /// wants none.
    fn ask(&mut self, database: u32) {
        // SAFETY: a variable of this process.
        let me = unsafe { pg_sys::MyProcPid };
        let worker = BackgroundWorkerBuilder::new("sync_ext notifier")
            .set_library("sync_ext")
            .set_function("sync_ext_notifier")
            .set_argument(pg_sys::Oid::from(database).into_datum())
            .enable_spi_access()
            .set_notify_pid(me)
            .load_dynamic();
        let Ok(worker) = worker else {
            if !std::mem::replace(&mut self.has_warned, true) {
                pgrx::warning!(
                    "sync_ext: no background worker is free: raise max_worker_processes"
                );
            }
            return;
        };
        use pgrx::bgworkers::BackgroundWorkerStatus::{NotYetStarted, PostmasterDied, Stopped};
        loop {
            match worker.pid() {
                Err(Stopped | PostmasterDied) => return,
                Ok(_) if board::state(database) == State::Served => return,
                Ok(_) | Err(NotYetStarted | _) => {}
            }
            // Both ways wake this process.
            if !BackgroundWorker::wait_latch(Some(RETRY)) {
                // SAFETY: ends this process.
                unsafe { pg_sys::proc_exit(1) };
            }
        }
    }
}

/// The databases that can be connected to, but for templates.
fn databases() -> Vec<u32> {
    let mut found = Vec::new();
    // SAFETY: as the autovacuum launcher does it: the catalogue of databases can be read
    // without one. A row is valid until the next.
    unsafe {
        pg_sys::StartTransactionCommand();
        let _ = pg_sys::GetTransactionSnapshot();
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let row = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if row.is_null() {
                break;
            }
            let database = &*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_database>();
            // -2: its DROP did not end.
            if database.datallowconn && !database.datistemplate && database.datconnlimit != -2 {
                found.push(u32::from(database.oid));
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(relation, lock);
        pg_sys::CommitTransactionCommand();
    }
    found
}
