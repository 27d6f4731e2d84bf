//! `sync_ext.dropped_workspace`: what nobody can reach any more, until it is
//! erased.

use std::ffi::CStr;

use pgrx::Spi;

use super::Result;
use super::relation::{Access, Table};
use super::row_lock::{self, Locked, Wait};
use super::scan::{By, Key, Scan};
use super::snapshot::Snapshot;
use super::workspace::LockedWorkspace;
use super::{device, member};
use crate::error::SyncError;

const NAME: &CStr = c"dropped_workspace";
const BY_KEY: &CStr = c"dropped_workspace_pkey";
const WORKSPACE_KEY: usize = 1;

/// Makes a workspace and its members unreachable; its rows are left to [`erase`].
pub fn detach(locked: &LockedWorkspace) -> Result<()> {
    // Members whom an older snapshot of the transaction does not show, too: they
    // would be members of a workspace that takes the name.
    member::remove_all(locked.id(), &Snapshot::latest())?;
    Spi::run_with_args(
        "insert into sync_ext.dropped_workspace (workspace_key) values ($1)",
        &[locked.workspace.key.into()],
    )
    .map_err(SyncError::sql)?;
    locked.remove();
    Ok(())
}

/// The dropped workspaces that are not erased yet.
pub fn keys(snapshot: &Snapshot) -> Result<Vec<i64>> {
    let table = Table::open(NAME, Access::Read)?;
    let index = table.index(BY_KEY)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[]);
    scan.seek(&[]);
    let mut keys = Vec::new();
    while let Some(row) = scan.next() {
        keys.push(row.int8(WORKSPACE_KEY)?);
    }
    Ok(keys)
}

/// What an [`erase`] did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Erased {
    pub entries: usize,
    pub records: usize,
    pub devices: usize,
    /// Rows are left, for the budget or because somebody holds them.
    pub has_more: bool,
}

impl Erased {
    pub fn rows(&self) -> usize {
        self.entries + self.records + self.devices
    }
}

/// Deletes up to `budget` rows of a dropped workspace, and at the end what
/// remembers it. Nobody writes them any more, and only devices that are being
/// acknowledged at this moment are held by anybody; one call at a time erases
/// a workspace, another leaves it to that one.
pub fn erase(workspace_key: i64, budget: usize, snapshot: &Snapshot) -> Result<Erased> {
    let mut erased = Erased::default();
    let table = Table::open(NAME, Access::Write)?;
    let index = table.index(BY_KEY)?;
    let row = {
        let mut scan = Scan::new(&table, &index, snapshot, &[By::Int8]);
        scan.find(&[Key::Int8(workspace_key)]).map(|row| row.id())
    };
    let Some(row) = row else { return Ok(erased) };
    let locked = row_lock::lock(&table, row, snapshot, Wait::Skip, |row| Ok(row.id()))?;
    let Locked::Row(row) = locked else { return Ok(erased) };

    let delete = |table, index, budget| delete_rows(table, index, workspace_key, budget, snapshot);
    erased.entries = delete(c"change_log", c"change_log_pkey", budget)?;
    erased.records = delete(c"record", c"record_pkey", budget - erased.entries)?;
    if erased.entries + erased.records == budget {
        erased.has_more = true;
        return Ok(erased);
    }
    let devices = device::heartbeats(workspace_key, snapshot)?.len();
    erased.devices = device::forget(workspace_key, snapshot, |_| true)?;
    erased.has_more = erased.devices < devices;
    if !erased.has_more {
        row_lock::delete(&table, row, snapshot);
    }
    Ok(erased)
}

fn delete_rows(
    table: &CStr,
    index: &CStr,
    workspace_key: i64,
    budget: usize,
    snapshot: &Snapshot,
) -> Result<usize> {
    let table = Table::open(table, Access::Write)?;
    let index = table.index(index)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[By::Int8]);
    scan.seek(&[Key::Int8(workspace_key)]);
    let mut deleted = 0;
    while deleted < budget
        && let Some(row) = scan.next().map(|row| row.id())
    {
        row_lock::delete(&table, row, snapshot);
        deleted += 1;
    }
    Ok(deleted)
}
