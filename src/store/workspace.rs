//! `sync_ext.workspace`: tenants, their counters, and the lock on them.

use pgrx::Spi;

use super::insert::Writer;
use super::relation::{Access, Table};
use super::row_lock::{self, Locked, RowId, Wait};
use super::scan::{By, Key, Row, Scan};
use super::shape::{ColumnType, IndexShape, Shape};
use super::snapshot::Snapshot;
use super::values::Value;
use super::{Result, keys};
use crate::error::SyncError;
use crate::rules::history::Progress;
use crate::rules::op::{Timestamp, Version};

pub static TABLE: Shape = Shape {
    name: c"workspace",
    columns: &[
        ("workspace_key", ColumnType::Int8),
        ("workspace_id", ColumnType::Text),
        ("head", ColumnType::Int8),
        ("horizon", ColumnType::Int8),
        ("gc_through", ColumnType::Int8),
        ("created_at", ColumnType::Time),
    ],
};
static BY_ID: IndexShape =
    IndexShape { name: c"workspace_workspace_id_key", keys: &[1], is_unique: true };
pub static BY_KEY: IndexShape = IndexShape { name: c"workspace_pkey", keys: &[0], is_unique: true };

mod column {
    pub const WORKSPACE_KEY: usize = 1;
    pub const WORKSPACE_ID: usize = 2;
    pub const HEAD: usize = 3;
    pub const HORIZON: usize = 4;
    pub const GC_THROUGH: usize = 5;
    pub const CREATED_AT: usize = 6;
}

/// A workspace as read: its key in the other tables, and how far it has come.
#[derive(Clone, Copy, Debug)]
pub struct Workspace {
    pub key: i64,
    pub progress: Progress,
}

impl Workspace {
    fn read(row: &Row<'_>) -> Result<Workspace> {
        Ok(Workspace {
            key: row.int8(column::WORKSPACE_KEY)?,
            progress: Progress {
                head: Version::stored(row.int8(column::HEAD)?),
                horizon: Version::stored(row.int8(column::HORIZON)?),
                gc_through: Version::stored(row.int8(column::GC_THROUGH)?),
            },
        })
    }
}

pub fn find(workspace_id: &str, snapshot: &Snapshot) -> Result<Option<Workspace>> {
    let table = Table::open(&TABLE, Access::Read)?;
    let index = table.index(&BY_ID)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[By::Text]);
    scan.find(&[Key::Text(workspace_id)]).map(|row| Workspace::read(&row)).transpose()
}

/// Calls `visit` with the name of every workspace, in the order of their keys.
pub fn for_each(
    snapshot: &Snapshot,
    mut visit: impl FnMut(&str, Workspace) -> Result<()>,
) -> Result<()> {
    let table = Table::open(&TABLE, Access::Read)?;
    let index = table.index(&BY_KEY)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[]);
    scan.seek(&[]);
    while let Some(row) = scan.next() {
        visit(row.text(column::WORKSPACE_ID)?, Workspace::read(&row)?)?;
    }
    Ok(())
}

/// A workspace whose row this transaction has locked: until it ends, nobody
/// else changes the workspace's log, records or counters. Holds the snapshot
/// that was taken after the lock.
pub struct LockedWorkspace {
    pub workspace: Workspace,
    pub snapshot: Snapshot,
    table: Table,
    row: RowId,
    workspace_id: String,
    created_at: Timestamp,
}

/// Locks a workspace; waits for whoever holds it, or skips.
pub fn lock(workspace_id: &str, wait: Wait) -> Result<Locked<LockedWorkspace>> {
    let table = Table::open(&TABLE, Access::Write)?;
    // At READ COMMITTED the calling statement's snapshot may be older than
    // the workspace; this one sees what was committed before now.
    let before = Snapshot::fresh();
    let index = table.index(&BY_ID)?;
    let row = {
        let mut scan = Scan::new(&table, &index, &before, &[By::Text]);
        match scan.find(&[Key::Text(workspace_id)]) {
            Some(row) => row.id(),
            None => return Ok(Locked::Gone),
        }
    };
    let locked = row_lock::lock(&table, row, &before, wait, |row| {
        // As UPDATE would, look again: somebody may have renamed it meanwhile.
        if row.text(column::WORKSPACE_ID)? != workspace_id {
            return Ok(None);
        }
        Ok(Some((Workspace::read(&row)?, row.id(), row.timestamp(column::CREATED_AT)?)))
    })?;
    let (workspace, row, created_at) = match locked {
        Locked::Row(Some(row)) => row,
        Locked::Row(None) | Locked::Gone => return Ok(Locked::Gone),
        Locked::Busy => return Ok(Locked::Busy),
    };
    // What the last holder committed became visible while we waited.
    drop(before);
    let snapshot = Snapshot::fresh();
    let workspace_id = workspace_id.to_owned();
    Ok(Locked::Row(LockedWorkspace { workspace, snapshot, table, row, workspace_id, created_at }))
}

impl LockedWorkspace {
    /// Stores the counters as they are in `progress`; once, as the row is another
    /// version of itself then.
    pub fn save(&self, progress: Progress) -> Result<()> {
        let mut writer = Writer::new(&self.table, &self.snapshot);
        writer.update(
            self.row,
            &[
                Value::Int8(self.workspace.key),
                Value::Text(&self.workspace_id),
                Value::Int8(progress.head.get()),
                Value::Int8(progress.horizon.get()),
                Value::Int8(progress.gc_through.get()),
                Value::Time(self.created_at),
            ],
        )?;
        writer.finish();
        Ok(())
    }

    pub fn id(&self) -> &str {
        &self.workspace_id
    }

    /// Makes the workspace unknown; what belongs to it is the caller's to remove.
    pub fn remove(&self) -> Result<()> {
        row_lock::delete(&self.table, self.row, &self.snapshot)
    }
}

/// Makes sure that the workspace exists; true if it did not. If another
/// transaction is creating it, this waits for that one to end.
pub fn create(workspace_id: &str) -> Result<bool> {
    let _open = Table::open(&TABLE, Access::Write)?;
    keys::bring_sequence_forward()?;
    Spi::connect_mut(|spi| {
        spi.update(
            "insert into sync_ext.workspace (workspace_id, head, horizon, gc_through) \
             values ($1, 0, 0, 0) on conflict (workspace_id) do nothing",
            None,
            &[workspace_id.into()],
        )
        .map(|rows| rows.len() == 1)
    })
    .map_err(SyncError::sql)
}

/// Keeps a workspace from being dropped until this transaction ends, as a
/// foreign key would; pushes are not held up. False if it is gone.
pub fn pin(workspace_key: i64) -> Result<bool> {
    Spi::connect_mut(|spi| {
        spi.update(
            "select from sync_ext.workspace where workspace_key = $1 for key share",
            None,
            &[workspace_key.into()],
        )
        .map(|rows| !rows.is_empty())
    })
    .map_err(SyncError::sql)
}
