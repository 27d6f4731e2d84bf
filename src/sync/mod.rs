//! The algorithms, as steps: each asks the store for what the rules need, lets
//! the rules decide, and has the store write or the wire reply.

pub mod cursor;
pub mod gc;
pub mod pull;
pub mod push;
pub mod registry;
pub mod snapshot;

type Result<T> = std::result::Result<T, crate::error::SyncError>;
