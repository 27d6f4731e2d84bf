//! `sync_ext.unpinned_workspace`: workspaces in which a device that held GC back has moved on,
//! or is gone. Acknowledgements do not take a workspace's lock, so they add rows here instead
//! of changing its row.

use super::Result;
use super::mvcc::MvccSnapshot;
use super::relation::{Access, Table};
use super::row_lock::{self, Locked, Wait};
use super::scan::{By, Key, Scan};
use super::shape::{ColumnType, IndexShape, Shape};
use super::workspace::Workspace;

static TABLE: Shape = Shape {
    name: c"unpinned_workspace",
    columns: &[("workspace_key", ColumnType::Int8), ("unpinned_id", ColumnType::Uuid)],
    first: 2,
};
static BY_KEY: IndexShape =
    IndexShape { name: c"unpinned_workspace_pkey", keys: &[0, 1], is_unique: true, not_null: None };
const WORKSPACE_KEY: usize = 1;

/// Has GC look at a workspace that it takes for pinned. `now` is the workspace as it was read
/// after the row of such a device was locked: GC relies on a device only if nobody has it
/// locked, and has committed before that the workspace is pinned. So `now` says it.
pub fn add(now: Option<Workspace>) -> Result<()> {
    if let Some(workspace) = now.filter(|now| now.watch.pinned_since.is_some()) {
        let table = Table::open(&TABLE, Access::Write)?;
        let sql = "insert into sync_ext.unpinned_workspace (workspace_key) values ($1)";
        table.execute(sql, &[workspace.key.into()])?;
    }
    Ok(())
}

/// Calls `visit` with their keys, in order, until it says false.
pub fn for_each(snapshot: &MvccSnapshot, mut visit: impl FnMut(i64) -> Result<bool>) -> Result<()> {
    let table = Table::open(&TABLE, Access::Read)?;
    let index = table.index(&BY_KEY)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[]);
    scan.seek(&[]);
    let mut visited = None;
    while let Some(key) = scan.next().map(|row| row.int8(WORKSPACE_KEY)).transpose()? {
        if visited.replace(key) != Some(key) && !visit(key)? {
            break;
        }
    }
    Ok(())
}

/// Removes the rows of a workspace that is locked, or gone.
pub fn remove(workspace_key: i64, snapshot: &MvccSnapshot) -> Result<()> {
    let table = Table::open(&TABLE, Access::Write)?;
    let index = table.index(&BY_KEY)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[By::Int8]);
    scan.seek(&[Key::Int8(workspace_key)]);
    while let Some(row) = scan.next().map(|row| row.id()) {
        let locked = row_lock::lock(&table, row, snapshot, Wait::Skip, |row| Ok(row.id()))?;
        if let Locked::Row(row) = locked {
            row_lock::delete(&table, row, snapshot)?;
        }
    }
    Ok(())
}
