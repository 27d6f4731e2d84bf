//! Long life: one session that makes very many calls, and a day of changes to
//! the same records with GC every minute.
//!
//! * [`session`]: memory stays as it is after the first calls
//! * [`errors`]: also when Postgres raises errors in the midst of them
//! * [`churn`]: the log stays as small as its live entries

pub mod churn;
pub mod errors;
pub mod session;
