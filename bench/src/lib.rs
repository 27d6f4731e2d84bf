//! The benchmark: sync_ext beside what Postgres itself needs (the floor) and
//! what one would use instead (the peers), in one run, alternating.
//!
//! * [`report`]: rows of the result, targets, table and JSON
//! * [`rounds`]: alternating measurement, medians, ratios
//! * [`stand`], [`stage`]: the cluster, and the ops, laid out before the clock runs
//! * [`sides`]: who takes part
//! * [`bench`]: what the workloads share; [`pushes`], [`patches`], [`pulls`],
//!   [`access`], [`own_tables`], [`many`], `router`, `decoding`, [`clients`], [`notify`], [`gc`], [`memory`]: the workloads

pub mod access;
pub mod bench;
pub mod clients;
mod decoding;
pub mod gc;
pub mod many;
pub mod memory;
pub mod notify;
pub mod own_tables;
pub mod patches;
pub mod pulls;
pub mod pushes;
pub mod report;
pub mod rounds;
mod router;
mod scopes;
pub mod sides;
pub mod stage;
pub mod stand;
