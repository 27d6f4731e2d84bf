//! Testing sync_ext from outside: throw-away clusters and simulated devices.
//!
//! * [`batch`]: ops made up for tests
//! * [`cluster`]: a Postgres server of its own, gone when dropped
//! * [`device`]: a client that keeps the rules for clients
//! * [`replies`]: what the functions reply, as far as a device reads it
//! * [`state`]: a digest of a workspace's state, from server or device

pub mod batch;
pub mod cluster;
pub mod device;
pub mod replies;
pub mod state;
