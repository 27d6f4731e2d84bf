//! The gateway as its clients see it: over HTTP, as a process that can be killed,
//! beside a server that can be.

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod calls;
mod connections;
mod faults;
mod live;
mod meetings;
mod readme;
mod several;
