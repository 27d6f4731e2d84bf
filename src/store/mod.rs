//! Everything that touches tables: the only place for SQL text and `unsafe`.
//!
//! # Access paths
//!
//! Whatever runs per op or per row goes straight to a table and one of its
//! indexes, the way Postgres treats its own catalogs: [`scan`] reads through a
//! named index, [`insert`] writes tuples and their index entries, as COPY does.
//! No plan is involved, so no statistics, no planner setting and no cached plan
//! can turn a look-up into a scan of the table. Plain SQL is left where it is
//! an INSERT, DELETE or lock of a single row that no plan can spoil: a
//! workspace's and a device's first row, members, the registry.
//!
//! Direct access bypasses what the executor adds. `wire` and `rules` validate
//! instead of constraints, and each table and index is checked when it is opened
//! ([`shape`]): where a trigger, a rule, a column or a changed index would make a
//! direct write or read wrong, the call fails. Indexes that somebody adds are
//! maintained; columns that somebody adds after ours are NULL in new rows and keep
//! their values. Updates and deletes ask for the replica identity, as the executor
//! does.
//!
//! # Locks and snapshots
//!
//! Every writer of a workspace's log, records or counters first locks the
//! workspace's row ([`workspace::lock`]) until its transaction ends, then takes
//! a new snapshot. So it sees all that the writer before it committed, and
//! versions come into being in commit order. Acknowledging a cursor locks the
//! device's row alone, so GC reads devices by the latest snapshot, not by its
//! transaction's. Readers lock nothing and read one snapshot.
//!
//! Who changes members or drops a workspace holds its lock too. A device's first
//! acknowledgement, which takes no such lock, pins the workspace and the member
//! as a foreign key would: no row is left behind when they go. Locks are taken in
//! this order: workspace or member, then device. A member goes before the pin of
//! the workspace, which a drop deletes last.
//!
//! Under that lock nobody else can store what a look-up did not find, so a look-up
//! and a unique index tell the same. A large push uses that: it stores what it
//! presumes to be new without looking it up, in a [`subtransaction`] that it rolls
//! back if an index objects (a lenient [`insert::Writer`]). Rolled back, not
//! deleted: logical decoding must not see a row twice.
//!
//! # Layout
//!
//! * [`entry`]: how Postgres calls us and how errors leave; [`memory`]: is there
//!   enough of it?
//! * [`compat`]: what differs between Postgres versions
//! * [`arena`], [`shape`], [`relation`], [`snapshot`], [`scan`], [`values`], [`insert`],
//!   [`row_lock`], [`subtransaction`]: tables, indexes, rows as safe types
//! * [`workspace`], [`log`], [`record`], [`device`], [`registry`], [`member`],
//!   [`dropped`]: our tables; [`keys`]: new keys of workspaces
//! * [`server`]: the clock, the role of this server; [`settings`]: where their
//!   values come from; [`caller`]: the session's user and rights; [`notify`]: NOTIFY
//!   at commit; [`counters`]: what was done so far

mod arena;
pub mod caller;
mod compat;
pub mod counters;
pub mod device;
pub mod dropped;
pub mod entry;
mod insert;
mod keys;
pub mod log;
pub mod member;
pub mod memory;
pub mod notify;
pub mod record;
pub mod registry;
mod relation;
mod row_lock;
mod scan;
pub mod server;
pub mod settings;
mod shape;
pub mod snapshot;
pub mod subtransaction;
mod values;
pub mod workspace;

use crate::error::SyncError;

pub type Result<T> = std::result::Result<T, SyncError>;

pub use relation::Access;
pub use row_lock::{Locked, RowId, Wait};
