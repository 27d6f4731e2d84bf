//! Long life: one session that makes very many calls, and a day of changes to
//! the same records with GC every minute.
//!
//! * [`session`]: memory stays as it is after the first calls
//! * [`churn`]: the log stays as small as its live entries
//! * [`log_file`]: the server had nothing to say but what was asked for

pub mod churn;
mod log_file;
pub mod session;
