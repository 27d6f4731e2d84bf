//! What the contract decides, as plain Rust: no Postgres, no JSON, no I/O.
//!
//! * [`op`]: the words (op, revision, version) as types
//! * [`refusal`]: why a single op can be refused
//! * [`batch`]: ops of one batch that carry the same opId
//! * [`admission`]: what today's settings and tables allow
//! * [`access`]: who may do what; [`ownership`]: whose a record is
//! * [`merge`]: versions and LWW for the ops of one batch, in order
//! * [`history`]: proofs, and when a device must start from a snapshot
//! * [`retention`]: how far GC may read and what it purges

pub mod access;
pub mod admission;
pub mod batch;
pub mod history;
pub mod merge;
pub mod op;
pub mod ownership;
pub mod refusal;
pub mod retention;

#[cfg(test)]
pub mod model;
#[cfg(test)]
mod small_world;
