//! Long, seeded runs that try to break sync_ext's promises: in short form they
//! are tests (`make test`), in long form a program (`make proof`).
//!
//! * [`simulation`]: seeded histories of devices and faults against a model
//! * [`tally`]: what a run did, counted

pub mod simulation;
pub mod tally;
