//! Long, seeded runs that try to break sync_ext's promises: in short form they
//! are tests (`make test`), in long form a program (`make proof`).
//!
//! * [`crash`]: backends and postmasters killed under load
//! * [`simulation`]: seeded histories of devices and faults against a model
//! * [`soundness`]: tables and indexes, by amcheck
//! * [`tally`]: what a run did, counted
//! * [`tamper`]: bugs put into a running server

pub mod crash;
pub mod simulation;
pub mod soundness;
pub mod tally;
pub mod tamper;
