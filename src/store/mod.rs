//! Everything that touches tables: the only place for SQL text and `unsafe`.
//!
//! # Access paths
//!
//! Work per op or per row accesses a table through one of its indexes directly, as
//! Postgres does with its own catalogs: [`scan`] reads through a named index,
//! [`writer`] writes tuples and their index entries, as COPY does. There is no plan, so
//! statistics, planner settings and cached plans cannot turn a look-up into a scan of
//! the table. Plain SQL is used only for an INSERT, DELETE or lock of a single row that
//! no plan can make slow: a workspace's and a device's first row, members, the
//! registry.
//!
//! Direct access bypasses the executor. `wire` and `rules` validate instead of constraints,
//! and each table and index is checked ([`shape`]) when a backend first opens it and when it
//! was altered since ([`known`]); a table with triggers, rules or additional columns at every
//! write: the call fails if a trigger, a rule, a column or a changed
//! index would make a direct write or read wrong. Additional indexes are maintained; additional
//! columns at the end are NULL in new rows and keep their values. Updates and deletes check
//! the replica identity, as the executor does.
//!
//! # Locks and snapshots
//!
//! Every writer of a workspace's log, records or counters first locks the workspace's
//! row ([`workspace_lock`]) until its transaction ends, then takes a new snapshot. So
//! it sees everything that the previous writer committed, and versions are assigned in
//! commit order. Acknowledging a cursor locks only the device's row, so GC reads
//! devices with the latest snapshot, not with that of its transaction. Readers lock
//! nothing and read one snapshot.
//!
//! Changing members and dropping a workspace hold its lock too. A device's first
//! acknowledgement does not, but pins the workspace and the member as a foreign key
//! would, so that no row remains when they are removed. Locks are taken in this order:
//! workspace or member, then device. A member is pinned before the workspace, because a
//! drop deletes the workspace last.
//!
//! What is registered is changed without the lock of any workspace, so a push reads it with the
//! latest snapshot. Whoever gives a table without records a scope field, or takes it, locks
//! `record` against writers to see that there are none; pushes and captures open that table for
//! writing before they lock a workspace, so they never wait there with a workspace locked.
//!
//! Whoever changes which workspaces this server owns locks the table of workspaces against
//! writers, and so waits for those who create one; a creator looks at what is owned, with the
//! latest snapshot, once it has opened that table for writing. A step of a move locks the
//! workspace's row, then the row of the move; one that needs the table's lock takes that first.
//! Two steps of one workspace at a time may deadlock, and can be repeated, as every step.
//!
//! Under the lock of a workspace no other session can store a row that a look-up did not find, so a
//! look-up and a unique index give the same result. A large push uses this: it stores
//! rows that it presumes to be new without a look-up, in a [`subtransaction`] that it
//! rolls back if an index objects ([`Duplicates::Report`]). It does not delete them
//! instead: logical decoding must not see a row twice.
//!
//! # Layout
//!
//! * [`entry`]: entry points and errors; [`memory`]: checks for enough memory
//! * [`compat`]: differences between Postgres versions
//! * [`arena`], [`shape`], [`relation`], [`known`], [`mvcc`], [`scan`], [`values`], [`writer`],
//!   [`row_lock`], [`subtransaction`]: tables, indexes, rows as safe types
//! * [`workspace`], [`log`], [`record`], [`device`], [`registry`], [`member`],
//!   [`dropped`], [`elsewhere`]: the tables; [`keys`]: new keys of workspaces; [`rights`]: the role
//!   for SQL statements and functions of the app; [`validation`], [`functions`]: those
//!   that may reject ops
//! * [`attach`]: attaching tables of the app; [`attached`]: how they are attached;
//!   [`trigger`]: their row trigger; [`typed`]: their rows, read as [`image`]s, found and
//!   walked through the index of the primary key ([`typed_pk`], [`typed_walk`]), and
//!   written by statements ([`typed_write`], [`typed_query`], [`deferrable`])
//! * [`server`]: the clock, the role of this server; [`settings`]: the origin of their
//!   values; [`caller`]: the session's user and rights; [`notify`]: NOTIFY at commit;
//!   [`notifier`]: hints off the path of commits; [`counters`]: counts since the server
//!   started

mod arena;
pub mod attach;
pub mod attached;
pub mod attempt;
pub mod caller;
pub mod commit;
mod compat;
pub mod counters;
mod deferrable;
pub mod device;
pub mod dropped;
pub mod elsewhere;
pub mod entry;
mod functions;
mod image;
mod keys;
pub mod known;
pub mod log;
pub mod log_writer;
pub mod marks;
pub mod member;
pub mod memory;
pub mod mvcc;
pub mod notifier;
pub mod notify;
pub mod record;
pub mod registry;
mod relation;
mod rights;
mod row;
mod row_lock;
mod scan;
pub mod server;
pub mod settings;
mod shape;
pub mod subtransaction;
pub mod trigger;
pub mod typed;
mod typed_pk;
pub mod typed_query;
pub mod typed_walk;
pub mod typed_write;
pub mod unpinned;
pub mod validation;
mod values;
pub mod workspace;
mod workspace_lock;
mod writer;

use sync_ext_core::error::SyncError;

pub type Result<T> = std::result::Result<T, SyncError>;

/// The number of an object of the database, such as a function.
pub use pgrx::pg_sys::Oid;
pub use relation::Access;
pub use row::RowId;
pub use row_lock::{Locked, Wait};
pub use writer::Duplicates;
