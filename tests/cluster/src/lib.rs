//! Testing sync_ext from outside: throw-away clusters and simulated devices.
//!
//! * [`batch`]: ops made up for tests
//! * [`cluster`]: a Postgres server of its own, gone when dropped
//! * [`device`]: a client that keeps the rules for clients
//! * [`state`]: a digest of a workspace's state, from server or device
//! * [`waiting`]: ordering the steps of several sessions

pub mod batch;
pub mod cluster;
pub mod device;
pub mod state;
pub mod waiting;
