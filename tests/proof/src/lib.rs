//! Long, seeded runs that try to break sync_ext's promises: in short form they
//! are tests (`make test`), in long form a program (`make proof`).
//!
//! * [`backend`]: what a backend takes of memory
//! * [`hostile`]: batches and arguments made to be misread
//! * [`log_file`]: what the server logs while a run goes on
//! * [`long_life`]: sessions that make many calls, logs that see many changes
//! * [`tally`]: what a run did, counted

pub mod backend;
pub mod hostile;
pub mod log_file;
pub mod long_life;
pub mod tally;
