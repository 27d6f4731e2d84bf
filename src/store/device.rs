//! `sync_ext.device_cursor`: how far each device has acknowledged.

use pgrx::Spi;

use super::insert::Writer;
use super::relation::{Access, Table};
use super::row_lock::{self, Locked, Wait};
use super::scan::{By, Key, Row, Scan};
use super::shape::{ColumnType, IndexShape, Shape};
use super::snapshot::Snapshot;
use super::values::Value;
use super::{Result, memory};
use crate::error::SyncError;
use crate::rules::op::{Timestamp, Version};
use crate::rules::retention::Heartbeat;

pub static TABLE: Shape = Shape {
    name: c"device_cursor",
    columns: &[
        ("workspace_key", ColumnType::Int8),
        ("device_id", ColumnType::Text),
        ("last_seen_version", ColumnType::Int8),
        ("updated_at", ColumnType::Time),
        ("user_id", ColumnType::Text),
    ],
};
pub static BY_DEVICE: IndexShape =
    IndexShape { name: c"device_cursor_pkey", keys: &[0, 1, 4], is_unique: true };

mod column {
    pub const LAST_SEEN_VERSION: usize = 3;
    pub const UPDATED_AT: usize = 4;
    pub const USER_ID: usize = 5;
}

/// Whose device it is; the user is empty for a trusted caller's.
#[derive(Clone, Copy)]
pub struct DeviceKey<'a> {
    pub workspace_key: i64,
    pub device_id: &'a str,
    pub user_id: &'a str,
}

fn heartbeat(row: &Row<'_>) -> Result<Heartbeat> {
    Ok(Heartbeat {
        cursor: Version::stored(row.int8(column::LAST_SEEN_VERSION)?),
        at: row.timestamp(column::UPDATED_AT)?,
    })
}

/// Moves a device's cursor forward to `seen` and records its heartbeat; a
/// device that is not known is registered there, if `hold` agrees, which keeps
/// whatever must not go before the transaction ends. Gives the cursor as it is
/// afterwards and whether this call moved it; `None` if `hold` did not agree.
///
/// Locks only the device's row: an acknowledgement neither waits for pushes
/// nor holds them up. GC, which reads cursors, never takes what a cursor that
/// moves forward still needs.
pub fn acknowledge(
    device: DeviceKey<'_>,
    seen: Version,
    now: Timestamp,
    hold: impl Fn() -> Result<bool>,
) -> Result<Option<(Version, bool)>> {
    let DeviceKey { workspace_key, device_id, user_id } = device;
    let table = Table::open(&TABLE, Access::Write)?;
    let index = table.index(&BY_DEVICE)?;
    loop {
        let snapshot = Snapshot::fresh();
        let found = {
            let mut scan = Scan::new(&table, &index, &snapshot, &[By::Int8, By::Text, By::Text]);
            let keys = [Key::Int8(workspace_key), Key::Text(device_id), Key::Text(user_id)];
            scan.find(&keys).map(|row| row.id())
        };
        let Some(row) = found else {
            drop(snapshot);
            if !hold()? {
                return Ok(None);
            }
            if register(device, seen, now)? {
                return Ok(Some((seen, true)));
            }
            // Another transaction registered it, and has committed by now.
            continue;
        };
        let locked = row_lock::lock(&table, row, &snapshot, Wait::Block, |row| {
            Ok((row.id(), heartbeat(&row)?))
        })?;
        let Locked::Row((row, before)) = locked else {
            // It was forgotten in between.
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
                Value::Text(user_id),
            ],
        )?;
        writer.finish();
        return Ok(Some((cursor, cursor > before.cursor)));
    }
}

/// False if the device is registered already. If another transaction is about
/// to, this waits for it to end; above READ COMMITTED that is 40001.
fn register(device: DeviceKey<'_>, seen: Version, now: Timestamp) -> Result<bool> {
    let inserted = Spi::connect_mut(|spi| {
        spi.update(
            "insert into sync_ext.device_cursor values \
             ($1, $2, $3, timestamptz '2000-01-01 00:00:00+00' + $4 * interval '1 microsecond', $5) \
             on conflict (workspace_key, device_id, user_id) do nothing",
            None,
            &[
                device.workspace_key.into(),
                device.device_id.into(),
                seen.get().into(),
                now.into(),
                device.user_id.into(),
            ],
        )
        .map(|rows| rows.len())
    });
    inserted.map(|rows| rows == 1).map_err(SyncError::sql)
}

/// The devices of a workspace.
pub fn heartbeats(workspace_key: i64, snapshot: &Snapshot) -> Result<Vec<Heartbeat>> {
    let table = Table::open(&TABLE, Access::Read)?;
    let mut heartbeats = Vec::new();
    visit(&table, &[Key::Int8(workspace_key)], snapshot, |row| {
        memory::push(&mut heartbeats, heartbeat(&row)?)
    })?;
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
    let table = Table::open(&TABLE, Access::Write)?;
    let is_idle = |row: &Row<'_>| Ok(is_forgotten(heartbeat(row)?.at));
    delete_where(&table, &[Key::Int8(workspace_key)], snapshot, Wait::Skip, is_idle)
}

/// Deletes all devices of a user; waits for those that are being acknowledged.
pub fn remove_user(workspace_key: i64, user_id: &str, snapshot: &Snapshot) -> Result<usize> {
    let table = Table::open(&TABLE, Access::Write)?;
    let is_theirs = |row: &Row<'_>| Ok(row.text(column::USER_ID)? == user_id);
    delete_where(&table, &[Key::Int8(workspace_key)], snapshot, Wait::Block, is_theirs)
}

/// Deletes the devices of this name, of one user or of all; waits for those that are
/// being acknowledged. Gives how many there were.
pub fn remove(
    workspace_key: i64,
    device_id: &str,
    user_id: Option<&str>,
    snapshot: &Snapshot,
) -> Result<usize> {
    let table = Table::open(&TABLE, Access::Write)?;
    let keys = [Key::Int8(workspace_key), Key::Text(device_id)];
    delete_where(&table, &keys, snapshot, Wait::Block, |row| {
        let of = row.text(column::USER_ID)?;
        Ok(user_id.is_none_or(|user_id| user_id == of))
    })
}

/// Deletes the rows with these keys that are chosen, and still are when they are
/// locked.
fn delete_where(
    table: &Table,
    keys: &[Key<'_>],
    snapshot: &Snapshot,
    wait: Wait,
    is_chosen: impl Fn(&Row<'_>) -> Result<bool>,
) -> Result<usize> {
    let mut deleted = 0;
    visit(table, keys, snapshot, |row| {
        if !is_chosen(&row)? {
            return Ok(());
        }
        let locked = row_lock::lock(table, row.id(), snapshot, wait, |row| {
            Ok(is_chosen(&row)?.then(|| row.id()))
        })?;
        if let Locked::Row(Some(row)) = locked {
            row_lock::delete(table, row, snapshot)?;
            deleted += 1;
        }
        Ok(())
    })?;
    Ok(deleted)
}

fn visit(
    table: &Table,
    keys: &[Key<'_>],
    snapshot: &Snapshot,
    mut each: impl FnMut(Row<'_>) -> Result<()>,
) -> Result<()> {
    let index = table.index(&BY_DEVICE)?;
    let by = &[By::Int8, By::Text][..keys.len()];
    let mut scan = Scan::new(table, &index, snapshot, by);
    scan.seek(keys);
    while let Some(row) = scan.next() {
        each(row)?;
    }
    Ok(())
}
