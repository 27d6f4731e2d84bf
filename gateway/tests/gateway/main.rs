//! The gateway as its clients see it: over HTTP, as a process that can be killed,
//! beside a server that can be.

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod bodies;
mod bouncer;
mod calls;
mod connections;
mod deploy;
mod faults;
mod figures;
mod flood;
mod groups;
mod live;
mod meetings;
mod memory;
mod moves;
mod origins;
mod readme;
mod servers;
mod several;
mod simulation;
mod standbys;
mod tls;
mod tokens;
mod wire;
