//! The rules of `sync_ext` and its JSON, in plain Rust that does not depend on
//! Postgres.
//!
//! # Layout
//!
//! * [`rules`]: what the contract decides: order, merge, admission, retention
//! * [`wire`]: JSON in, JSON out
//! * [`error`]: the errors that end a call, with their SQLSTATE
//!
//! `rules` does not depend on `wire`; callers pass in the facts that it needs about a
//! payload.

pub mod error;
pub mod rules;
pub mod wire;
