//! The algorithms, as steps: each asks the store for what the rules need, lets
//! the rules decide, and has the store write or the wire reply.

pub mod caller;
pub mod cursor;
pub mod devices;
pub mod exchange;
pub mod gc;
pub mod members;
pub mod pull;
pub mod push;
pub mod registry;
pub mod snapshot;
pub mod workspaces;

type Result<T> = std::result::Result<T, crate::error::SyncError>;

/// How many rows a call may delete.
fn batch_size(given: Option<i32>) -> Result<usize> {
    given
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| *size > 0)
        .ok_or(crate::error::SyncError::BatchSize)
}
