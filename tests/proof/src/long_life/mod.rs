//! Long life: one session that makes very many calls, and a day of changes to
//! the same records with GC every minute.
//!
//! * [`session`]: memory stays as it is after the first calls
//! * [`churn`]: the log stays as small as its live entries

pub mod churn;
pub mod session;
