//! What the runs share.
//!
//! * [`rows`], [`tokens`], [`measures`]: what a server stores and replies, against
//!   the model
//! * [`shorten`]: a history, and the shortest part of it that still fails
//! * [`tally`]: what a run did, counted
//! * [`tamper`]: bugs put into a running server
//! * [`backend`], [`log_file`]: the memory of a backend, the server's log

pub mod backend;
pub mod log_file;
pub mod measures;
pub mod rows;
pub mod shorten;
pub mod tally;
pub mod tamper;
pub mod tokens;
