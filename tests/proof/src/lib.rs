//! Long, seeded runs that try to break sync_ext's promises: in short form they
//! are tests (`make test`), in long form a program (`make proof`).
//!
//! * [`simulation`]: seeded histories of devices and faults against a model
//! * [`access`]: users with changing roles, and what each of them is told
//! * [`crash`]: backends and postmasters killed under load
//! * [`hostile`]: batches and arguments made to be misread
//! * [`long_life`]: sessions that make many calls, logs that see many changes
//! * [`backend`], [`log_file`]: what a backend takes of memory, what the server
//!   logs
//! * [`shorten`]: the shortest part of a history that still fails
//! * [`tally`]: what a run did, counted
//! * [`tamper`]: bugs put into a running server

pub mod access;
pub mod backend;
pub mod crash;
pub mod hostile;
pub mod log_file;
pub mod long_life;
pub mod shorten;
pub mod simulation;
pub mod tally;
pub mod tamper;
