//! What the contract decides, in plain Rust: no Postgres, no JSON, no I/O.
//!
//! * [`op`]: op, revision, version and other words of the contract as types
//! * [`refusal`]: why a single op can be refused
//! * [`batch`]: ops of one batch with the same opId
//! * [`admission`]: checks against current settings and tables
//! * [`attached`]: which tables of the app can be attached, and how; [`attach_facts`]: what
//!   is known of them; [`attach_error`]: why not; [`attach_notice`]: what may surprise
//! * [`access`]: roles and actions; [`ownership`]: the owner of a record
//! * [`merge`]: LWW for one op at its turn, by record and by field
//! * [`capture`]: changes of typed rows; [`apply`]: pushes to them
//! * [`repair`]: rows compared with records
//! * [`server_op`]: the stamps of ops that the server makes
//! * [`hints`]: which workspaces have changed, until somebody tells
//! * [`history`]: proofs, and when a device must start from a snapshot
//! * [`retention`]: how far GC may read and what it purges; [`watch`]: when it has to look

pub mod access;
pub mod admission;
pub mod apply;
pub mod attach_error;
pub mod attach_facts;
pub mod attach_notice;
pub mod attached;
pub mod batch;
pub mod capture;
pub mod hints;
pub mod history;
pub mod merge;
pub mod op;
pub mod ownership;
pub mod refusal;
pub mod repair;
pub mod retention;
pub mod scope;
pub mod server_op;
pub mod watch;

#[cfg(test)]
pub mod model;
#[cfg(test)]
mod small_world;
#[cfg(test)]
mod small_world_of_patches;
#[cfg(test)]
mod small_world_of_scopes;
