//! Testing sync_ext from outside: throw-away clusters and simulated devices.
//!
//! * [`batch`]: ops made up for tests
//! * [`cluster`]: a Postgres server of its own, gone when dropped
//! * [`device`]: a client that keeps the rules for clients
//! * [`document`]: documents whose examples are executed
//! * [`edit`]: a user's edits on a device
//! * [`files`]: backups of a server's files, and going back to one
//! * [`loss`]: what devices do when the server lost its last moments
//! * [`replies`]: what the functions reply, as far as a device reads it
//! * [`replica`]: what happens to a streaming standby
//! * [`soundness`]: tables and indexes, by amcheck
//! * [`state`]: a digest of a workspace's state, from server or device
//! * [`steps`]: several sessions, step by step

pub mod batch;
pub mod cluster;
pub mod device;
pub mod document;
pub mod edit;
pub mod files;
pub mod loss;
pub mod replica;
pub mod replies;
pub mod soundness;
pub mod state;
pub mod steps;
