//! The benchmark: sync_ext beside what Postgres itself needs (the floor) and
//! what one would use instead (the peers), in one run, alternating.
//!
//! * [`report`]: rows of the result, targets, table and JSON
//! * [`rounds`]: alternating measurement, medians, ratios
//! * [`stage`]: the ops, laid out before the clock runs
//! * [`sides`]: who takes part
//! * [`pushes`], [`pulls`], [`clients`]: the workloads

pub mod clients;
pub mod pulls;
pub mod pushes;
pub mod report;
pub mod rounds;
pub mod sides;
pub mod stage;
pub mod stand;
