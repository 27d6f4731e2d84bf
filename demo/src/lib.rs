//! The demo's op log, for the demo and for the benchmark, and a variant with patches; and
//! the demo's app with tables of its own.

pub mod oplog;
pub mod own_tables;
pub mod variant;
