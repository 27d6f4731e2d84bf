//! Long, seeded runs that try to break sync_ext's promises: in short form they
//! are tests (`make test`), in long form a program (`make proof`).
//!
//! * [`tally`]: what a run did, counted

pub mod tally;
