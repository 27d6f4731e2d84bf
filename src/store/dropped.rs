//! `sync_ext.dropped_workspace`: unreachable workspaces that are not erased yet.

use super::Result;
use super::mvcc::MvccSnapshot;
use super::relation::{Access, Table};
use super::row_lock::{self, Locked, Wait};
use super::scan::{By, Key, Scan};
use super::shape::{ColumnType, IndexShape, Shape};
use super::workspace::LockedWorkspace;
use super::{device, log, member, memory, record};

pub static TABLE: Shape = Shape {
    name: c"dropped_workspace",
    columns: &[("workspace_key", ColumnType::Int8), ("dropped_at", ColumnType::Time)],
    first: 2,
};
pub static BY_KEY: IndexShape =
    IndexShape { name: c"dropped_workspace_pkey", keys: &[0], is_unique: true, not_null: None };
const WORKSPACE_KEY: usize = 1;

/// Makes a workspace and its members unreachable; [`erase`] deletes its rows later.
pub fn detach(locked: LockedWorkspace) -> Result<()> {
    member::remove_all(locked.id(), &locked.snapshot)?;
    let table = Table::open(&TABLE, Access::Write)?;
    let sql = "insert into sync_ext.dropped_workspace (workspace_key) values ($1)";
    table.execute(sql, &[locked.workspace.key.into()])?;
    locked.remove()
}

/// The dropped workspaces that are not erased yet.
pub fn keys(snapshot: &MvccSnapshot) -> Result<Vec<i64>> {
    let table = Table::open(&TABLE, Access::Read)?;
    let index = table.index(&BY_KEY)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[]);
    scan.seek(&[]);
    let mut keys = Vec::new();
    while let Some(row) = scan.next() {
        memory::push(&mut keys, row.int8(WORKSPACE_KEY)?)?;
    }
    Ok(keys)
}

/// The result of [`erase`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Erased {
    pub entries: usize,
    pub records: usize,
    pub devices: usize,
    /// Rows remain, because the budget is used up or another session holds them.
    pub has_more: bool,
}

impl Erased {
    pub fn rows(&self) -> usize {
        self.entries + self.records + self.devices
    }
}

/// Deletes up to `budget` rows of a dropped workspace, not counting devices, while `goes_on`,
/// and finally its row here. No session writes its rows any more, and only acknowledgements
/// in progress can hold some. The lock on its row here lets one call at a time erase a
/// workspace; other calls skip it. Rows are read with a snapshot taken after the lock,
/// so that rows deleted by its last holder are not seen.
pub fn erase(workspace_key: i64, budget: usize, goes_on: impl Fn() -> bool) -> Result<Erased> {
    let mut erased = Erased::default();
    let table = Table::open(&TABLE, Access::Write)?;
    let index = table.index(&BY_KEY)?;
    let before = MvccSnapshot::latest();
    let row = {
        let mut scan = Scan::new(&table, &index, &before, &[By::Int8]);
        scan.find(&[Key::Int8(workspace_key)]).map(|row| row.id())
    };
    let Some(row) = row else { return Ok(erased) };
    let locked = row_lock::lock(&table, row, &before, Wait::Skip, |row| Ok(row.id()))?;
    let Locked::Row(row) = locked else { return Ok(erased) };
    drop(before);
    let snapshot = &MvccSnapshot::latest();

    let delete =
        |table, index, budget| delete_rows(table, index, workspace_key, budget, &goes_on, snapshot);
    erased.entries = delete(&log::TABLE, &log::BY_VERSION, budget)?;
    erased.records = delete(&record::TABLE, &record::BY_NAME, budget - erased.entries)?;
    if erased.entries + erased.records == budget || !goes_on() {
        erased.has_more = true;
        return Ok(erased);
    }
    let devices = device::heartbeats(workspace_key, snapshot)?.len();
    erased.devices = device::forget(workspace_key, snapshot, |_| true)?;
    erased.has_more = erased.devices < devices;
    if !erased.has_more {
        row_lock::delete(&table, row, snapshot)?;
    }
    Ok(erased)
}

fn delete_rows(
    table: &'static Shape,
    index: &'static IndexShape,
    workspace_key: i64,
    budget: usize,
    goes_on: &dyn Fn() -> bool,
    snapshot: &MvccSnapshot,
) -> Result<usize> {
    let table = Table::open(table, Access::Write)?;
    let index = table.index(index)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[By::Int8]);
    scan.seek(&[Key::Int8(workspace_key)]);
    let mut deleted = 0;
    while deleted < budget
        && goes_on()
        && let Some(row) = scan.next().map(|row| row.id())
    {
        row_lock::delete(&table, row, snapshot)?;
        deleted += 1;
    }
    Ok(deleted)
}
