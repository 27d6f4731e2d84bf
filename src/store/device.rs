//! `sync_ext.device_cursor`: how far each device has acknowledged.

use pgrx::Spi;

use super::Result;
use super::insert::Writer;
use super::relation::{Access, Table};
use super::row_lock::{self, Locked, RowId, Wait};
use super::scan::{By, Key, Row, Scan};
use super::snapshot::Snapshot;
use super::values::Value;
use crate::error::SyncError;
use crate::rules::op::{Timestamp, Version};
use crate::rules::retention::Heartbeat;

const NAME: &std::ffi::CStr = c"device_cursor";
const BY_DEVICE: &std::ffi::CStr = c"device_cursor_pkey";

mod column {
    pub const LAST_SEEN_VERSION: usize = 3;
    pub const UPDATED_AT: usize = 4;
}

fn heartbeat(row: &Row<'_>) -> Result<Heartbeat> {
    Ok(Heartbeat {
        cursor: Version::stored(row.int8(column::LAST_SEEN_VERSION)?),
        at: row.timestamp(column::UPDATED_AT)?,
    })
}

/// Moves a device's cursor forward to `seen` and records its heartbeat; a
/// device that is not known is registered there. Gives the cursor as it is
/// afterwards and whether this call moved it.
///
/// Locks only the device's row: an acknowledgement neither waits for pushes
/// nor holds them up. GC, which reads cursors, never takes what a cursor that
/// moves forward still needs.
pub fn acknowledge(
    workspace_key: i64,
    device_id: &str,
    seen: Version,
    now: Timestamp,
) -> Result<(Version, bool)> {
    let table = Table::open(NAME, Access::Write)?;
    let index = table.index(BY_DEVICE)?;
    loop {
        let snapshot = Snapshot::fresh();
        let found = {
            let mut scan = Scan::new(&table, &index, &snapshot, &[By::Int8, By::Text]);
            scan.find(&[Key::Int8(workspace_key), Key::Text(device_id)]).map(|row| row.id())
        };
        let Some(row) = found else {
            drop(snapshot);
            if register(workspace_key, device_id, seen, now)? {
                return Ok((seen, true));
            }
            // Another transaction registered it, and has committed by now.
            continue;
        };
        let locked = row_lock::lock(&table, row, &snapshot, Wait::Block, |row| {
            Ok((row.id(), heartbeat(&row)?))
        })?;
        let Locked::Row((row, before)) = locked else {
            // GC forgot the device in between.
            continue;
        };
        let cursor = before.cursor.max(seen);
        let mut writer = Writer::new(&table, &snapshot);
        writer.update(
            row,
            &[
                Value::Int8(workspace_key),
                Value::Text(device_id),
                Value::Int8(cursor.get()),
                Value::Time(now),
            ],
        );
        writer.finish();
        return Ok((cursor, cursor > before.cursor));
    }
}

/// False if the device is registered already. If another transaction is about
/// to, this waits for it to end; above READ COMMITTED that is 40001.
fn register(workspace_key: i64, device_id: &str, seen: Version, now: Timestamp) -> Result<bool> {
    let inserted = Spi::connect_mut(|spi| {
        spi.update(
            "insert into sync_ext.device_cursor values \
             ($1, $2, $3, timestamptz '2000-01-01 00:00:00+00' + $4 * interval '1 microsecond') \
             on conflict (workspace_key, device_id) do nothing",
            None,
            &[workspace_key.into(), device_id.into(), seen.get().into(), now.into()],
        )
        .map(|rows| rows.len())
    });
    inserted.map(|rows| rows == 1).map_err(SyncError::sql)
}

/// The devices of a workspace.
pub fn heartbeats(workspace_key: i64, snapshot: &Snapshot) -> Result<Vec<Heartbeat>> {
    let table = Table::open(NAME, Access::Read)?;
    let mut heartbeats = Vec::new();
    visit(&table, workspace_key, snapshot, |_, device| heartbeats.push(device))?;
    Ok(heartbeats)
}

/// Deletes the devices that `is_forgotten`, which their workspace's lock makes
/// ours to do. One that comes back at this very moment keeps its row: its
/// lock, or the newer version it left, is respected.
pub fn forget(
    workspace_key: i64,
    snapshot: &Snapshot,
    is_forgotten: impl Fn(Timestamp) -> bool,
) -> Result<usize> {
    let table = Table::open(NAME, Access::Write)?;
    let mut idle: Vec<RowId> = Vec::new();
    visit(&table, workspace_key, snapshot, |row, device| {
        if is_forgotten(device.at) {
            idle.push(row);
        }
    })?;
    let mut deleted = 0;
    for row in idle {
        let still_idle = row_lock::lock(&table, row, snapshot, Wait::Skip, |row| {
            Ok(is_forgotten(heartbeat(&row)?.at).then(|| row.id()))
        })?;
        if let Locked::Row(Some(row)) = still_idle {
            row_lock::delete(&table, row, snapshot);
            deleted += 1;
        }
    }
    Ok(deleted)
}

fn visit(
    table: &Table,
    workspace_key: i64,
    snapshot: &Snapshot,
    mut each: impl FnMut(RowId, Heartbeat),
) -> Result<()> {
    let index = table.index(BY_DEVICE)?;
    let mut scan = Scan::new(table, &index, snapshot, &[By::Int8]);
    scan.seek(&[Key::Int8(workspace_key)]);
    while let Some(row) = scan.next() {
        each(row.id(), heartbeat(&row)?);
    }
    Ok(())
}
