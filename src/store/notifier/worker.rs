//! The worker of one database: it tells what is on the board.

use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorker, SignalWakeFlags};
use pgrx::{FromDatum, Spi, pg_guard, pg_sys};

use super::board;
use crate::guc::{self, Notify};
use crate::store::notify::send;
use sync_ext_core::rules::hints::Taken;
use sync_ext_core::rules::op::Version;
use sync_ext_core::wire::notice::{self, Changes};

/// After this a worker looks whether its database still wants it, as it is set now: the
/// settings of a database are read when a process connects.
const PERIOD: Duration = Duration::from_secs(10);

/// Of this database, for all roles.
const SETTINGS: &str = "select setconfig::pg_catalog.text from pg_catalog.pg_db_role_setting
  where setrole operator(pg_catalog.=) 0 and setdatabase operator(pg_catalog.=)
    (select oid from pg_catalog.pg_database
      where datname operator(pg_catalog.=) pg_catalog.current_database())";

/// Postgres calls it in a process of its own. The argument is the database's oid.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sync_ext_notifier(database: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    // SAFETY: what the launcher passes.
    let database = unsafe { pg_sys::Oid::from_datum(database, false) };
    BackgroundWorker::connect_worker_to_spi_by_oid(database, None);
    let settings = settings();
    // SAFETY: the names end with NUL, and the callback lives as long as the library.
    unsafe {
        // A hint that a crash takes with it is told again by the first one.
        pg_sys::SetConfigOption(
            c"synchronous_commit".as_ptr(),
            c"off".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
        );
        pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(0));
    }
    let mut is_wanted = settings.is_some() && guc::notify() == Notify::Hint;
    if is_wanted {
        let channel = guc::notify_channel();
        if !board::begin(&channel) {
            return;
        }
        is_wanted = serve(&channel, settings);
    }
    // Those who posted have notified nobody themselves.
    let mut taken = Taken::default();
    while let Some(channel) = board::leave(is_wanted, &mut taken) {
        tell(&channel, &taken);
    }
}

/// # Safety
/// Called by Postgres.
#[pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: i32, _argument: pg_sys::Datum) {
    board::end();
}

/// Tells what is posted until this process must leave; false if the database no longer
/// wants a worker.
fn serve(channel: &str, settings: Option<String>) -> bool {
    let mut taken = Taken::default();
    let mut looked = Instant::now();
    loop {
        board::take(&mut taken);
        let goes_on = if taken.is_empty() {
            BackgroundWorker::wait_latch(Some(PERIOD.saturating_sub(looked.elapsed())))
        } else {
            tell(channel, &taken);
            wait_out(guc::notify_interval())
        };
        if !goes_on {
            return true;
        }
        if BackgroundWorker::sighup_received() {
            // SAFETY: outside of a transaction, as it must be.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
        if guc::notify() != Notify::Hint {
            return false;
        }
        if board::must_step_aside() || guc::notify_channel() != channel {
            return true;
        }
        if looked.elapsed() >= PERIOD {
            looked = Instant::now();
            match self::settings() {
                None => return false,
                // Another worker begins with them.
                now if now != settings => return true,
                _ => {}
            }
        }
    }
}

/// Waits for an interval, whatever else wakes this process; false if it must end.
fn wait_out(interval: Duration) -> bool {
    let begun = Instant::now();
    while let Some(left) = interval.checked_sub(begun.elapsed()).filter(|left| !left.is_zero())
        && !board::must_step_aside()
    {
        // Less than a millisecond would be none.
        let left = left.max(Duration::from_millis(1));
        if !BackgroundWorker::wait_latch(Some(left)) {
            return false;
        }
    }
    true
}

fn tell(channel: &str, taken: &Taken) {
    BackgroundWorker::transaction(|| {
        if taken.is_all {
            send(channel, notice::EVERYTHING);
        }
        for (workspace_id, head) in taken.each() {
            let head = Version::stored(head);
            send(channel, &notice::payload(workspace_id, head, &Changes::Unasked));
        }
    });
}

/// The settings of this database; `None` if it has not the extension.
fn settings() -> Option<String> {
    BackgroundWorker::transaction(|| {
        // SAFETY: a look-up by name, in a transaction.
        let extension = unsafe { pg_sys::get_extension_oid(c"sync_ext".as_ptr(), true) };
        if extension == pg_sys::InvalidOid {
            return None;
        }
        Some(Spi::get_one::<String>(SETTINGS).ok().flatten().unwrap_or_default())
    })
}
