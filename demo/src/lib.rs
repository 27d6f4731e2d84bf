//! The demo's op log, for the demo and for the benchmark, and a variant with patches.

pub mod oplog;
pub mod variant;
