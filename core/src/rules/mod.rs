//! What the contract decides, in plain Rust: no Postgres, no JSON, no I/O.
//!
//! * [`op`]: op, revision, version and other words of the contract as types
//! * [`refusal`]: why a single op can be refused
//! * [`batch`]: ops of one batch with the same opId
//! * [`admission`]: checks against current settings and tables
//! * [`access`]: roles and actions; [`ownership`]: the owner of a record
//! * [`merge`]: LWW for one op at its turn, by record and by field
//! * [`server_op`]: the stamps of ops that the server makes
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
pub mod server_op;

#[cfg(test)]
pub mod model;
#[cfg(test)]
mod small_world;
#[cfg(test)]
mod small_world_of_patches;
