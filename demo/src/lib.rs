//! The demo's op log, for the demo and for the benchmark.

pub mod oplog;
