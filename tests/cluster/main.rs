//! What sync_ext does in real servers, with several clients.
//!
//! * `backup`: dumps, files put back, standbys, subscribers
//! * `clients`: drivers of other languages, and notifications
//! * `concurrency`: several sessions on one workspace
//! * `documents`: what the documents say, and what psql prints
//! * `security`: attempts of callers who are not trusted
//! * `storage`: changes to our tables by people and tools; access paths, limits, a model
//!
//! `patching` makes ops that patch.

mod backup;
mod clients;
mod concurrency;
mod documents;
mod patching;
mod security;
mod storage;
