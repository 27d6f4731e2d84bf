//! A push never waits for a row while it holds a workspace.
//!
//! SQL holds rows and wants the workspace when it commits; a push holds the workspace and
//! wants rows. If both waited, one would have to fail, and that must not be a commit. So
//! the push gives the workspace back, waits holding nothing, and tries again.

use std::time::{Duration, Instant};

use super::Result;
use crate::guc;
use crate::store::attempt::attempt;
use crate::store::counters::{self, Counter};
use crate::store::server;
use sync_ext_core::error::SyncError;

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// While a push that holds the workspace waits for a row, all that queue for the workspace
/// may seem to be in a deadlock. One that is found more often is another one.
const DEADLOCKS: u32 = 3;

/// Runs `push` until no other transaction holds a row that it needs, or until
/// `sync_ext.apply_wait` has passed.
pub fn until_rows_are_free<T>(mut push: impl FnMut() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let (mut pause, mut deadlocks) = (FIRST_PAUSE, 0);
    loop {
        match attempt(&mut push) {
            Ok(Err(SyncError::RowsHeld)) => {}
            Ok(done) => return done,
            Err(failure) if failure.sqlstate == "40P01" && deadlocks < DEADLOCKS => deadlocks += 1,
            Err(failure) => failure.raise(),
        }
        counters::count(Counter::PushesYielded, 1);
        if begun.elapsed() + pause > guc::apply_wait() {
            return Err(SyncError::RowsHeld);
        }
        server::pause(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
