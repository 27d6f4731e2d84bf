//! What the tests and the benchmarks share: the gateway as a process, clients of
//! its calls and its streams, devices that sync through it.

#![allow(dead_code, reason = "each program uses some of it")]

pub mod connection;
pub mod crowd;
pub mod devices;
pub mod fleet;
pub mod gate;
pub mod groups;
pub mod issuer;
pub mod kills;
pub mod moving;
pub mod process;
pub mod simulation;
pub mod stand;
pub mod stream;
pub mod team;
