//! What sync_ext does in real servers, with several clients.
//!
//! * `attached`: tables of the app
//! * `backup`: dumps, files put back, standbys, subscribers
//! * `clients`: drivers of other languages, and notifications
//! * `concurrency`: several sessions on one workspace
//! * `documents`: what the documents say, and what psql prints
//! * `many`: several servers behind a router
//! * `moves`: several servers, and workspaces that go from one to another
//! * `own_tables`: pushes to typed rows, and what SQL changes in them
//! * `scopes`: devices that follow a part of a workspace
//! * `security`: attempts of callers who are not trusted
//! * `storage`: changes to our tables by people and tools; access paths, limits, a model
//! * `wire`: devices of earlier versions
//!
//! `patching` makes ops that patch.

mod attached;
mod backup;
mod clients;
mod concurrency;
mod documents;
mod many;
mod moves;
mod own_tables;
mod patching;
mod scopes;
mod security;
mod storage;
mod wire;
