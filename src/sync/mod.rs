//! The algorithms as steps: each reads what the rules need from the store, lets the
//! rules decide, lets the store write, and builds the reply with `wire`.

pub mod attach;
pub mod caller;
pub mod check;
pub mod cursor;
pub mod devices;
pub mod exchange;
pub mod gc;
pub mod members;
pub mod pull;
pub mod push;
pub mod registry;
pub mod repair;
mod repair_rows;
pub mod scopes;
pub mod servers;
pub mod snapshot;
pub mod workspaces;

type Result<T> = std::result::Result<T, sync_ext_core::error::SyncError>;

/// The maximum of rows that a call may delete.
fn batch_size(given: Option<i32>) -> Result<usize> {
    given
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| *size > 0)
        .ok_or(sync_ext_core::error::SyncError::BatchSize)
}
