//! Long, seeded runs that try to break sync_ext's promises: in short form they
//! are tests (`make test`), in long form a program (`make proof`).
//!
//! * [`simulation`]: seeded histories of devices and faults against the model
//! * [`access`]: users with changing roles, and what each of them may see
//! * [`crash`]: backends and postmasters killed under load
//! * [`hostile`]: batches and arguments made to be misread
//! * [`long_life`]: sessions that make many calls, logs that see many changes
//! * [`moves`]: workspaces that move between servers
//! * [`own_tables`]: plain SQL beside pushes on attached tables
//! * [`typed`]: an app with typed tables against a model that knows both sides
//! * [`common`]: what these share

pub mod access;
pub mod common;
pub mod crash;
pub mod hostile;
pub mod long_life;
pub mod moves;
pub mod own_tables;
pub mod simulation;
pub mod typed;
