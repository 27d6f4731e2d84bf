//! Hints off the path of commits.
//!
//! A NOTIFY takes a lock of the whole server that is held until its commit is on disk. So
//! where the library is preloaded, a commit leaves its workspaces and heads on the board in
//! shared memory instead, and a worker for each database tells them, many at once, in
//! transactions that wait for no disk.
//!
//! A hint can only be lost with the board: when the server restarts after a crash. A
//! worker's first hint is therefore that everything may have changed, as it is when the
//! board is full, or when a worker took hints and failed to tell them.
//!
//! Before it commits, a transaction decides whether a worker sends its hint. So a worker
//! that leaves sends what is on the board first, and what is posted after it has left is
//! sent by the next process for that database, even if the database no longer wants a worker.
//!
//! The launcher starts the workers: it asks each database from time to time, and at once
//! where a commit found no worker. A database is asked by a worker that connects to it,
//! because only there its settings are known.

mod aside;
mod board;
mod launcher;
mod worker;

use super::server;

pub use board::{is_served, post, want};

/// While the server starts.
pub fn init() {
    if server::is_preloading() {
        board::init();
        // pg_upgrade drops databases, and copies files that nothing else may write.
        if !server::is_upgrading() {
            launcher::register();
        }
        aside::init();
    }
}
