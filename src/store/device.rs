//! `sync_ext.device_cursor`: the acknowledged version of each device.

use super::mvcc::MvccSnapshot;
use super::relation::{Access, Table};
use super::row::Row;
use super::row_lock::{self, Locked, Wait};
use super::scan::{By, Key, Scan};
use super::shape::{ColumnType, IndexShape, Shape};
use super::subtransaction::Subtransaction;
use super::values::Value;
use super::writer::{Duplicates, Writer};
use super::{Result, memory, unpinned, workspace};
use sync_ext_core::rules::op::{Timestamp, Version};
use sync_ext_core::rules::retention::Heartbeat;

pub static TABLE: Shape = Shape {
    name: c"device_cursor",
    columns: &[
        ("workspace_key", ColumnType::Int8),
        ("device_id", ColumnType::Text),
        ("last_seen_version", ColumnType::Int8),
        ("updated_at", ColumnType::Time),
        ("user_id", ColumnType::Text),
    ],
    first: 5,
};
pub static BY_DEVICE: IndexShape =
    IndexShape { name: c"device_cursor_pkey", keys: &[0, 1, 4], is_unique: true, not_null: None };

mod column {
    pub const LAST_SEEN_VERSION: usize = 3;
    pub const UPDATED_AT: usize = 4;
    pub const USER_ID: usize = 5;
}

/// The key of a device; the user is empty for a trusted caller's device.
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

/// Moves a device's cursor forward to `seen` and records its heartbeat. An unknown
/// device is registered if `hold` agrees; `hold` pins the rows that must exist until
/// the transaction ends. Before a cursor moves, `leave` is called with where it was, under the
/// lock on the device's row. Returns the cursor afterwards and whether this call moved it; `None` if
/// `hold` did not agree.
///
/// Locks only the device's row: acknowledgements and pushes do not wait for each other.
/// GC reads cursors without that lock: a cursor only moves forward, so it still
/// protects enough.
pub fn acknowledge(
    device: DeviceKey<'_>,
    seen: Version,
    now: Timestamp,
    hold: impl Fn() -> Result<bool>,
    leave: impl Fn(Version) -> Result<()>,
) -> Result<Option<(Version, bool)>> {
    let DeviceKey { workspace_key, device_id, user_id } = device;
    let table = Table::open(&TABLE, Access::Write)?;
    let index = table.index(&BY_DEVICE)?;
    loop {
        let snapshot = MvccSnapshot::fresh();
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
            if register(&table, device, seen, now)? {
                return Ok(Some((seen, true)));
            }
            // Another transaction registered it, and has committed by now.
            continue;
        };
        let locked = row_lock::lock(&table, row, &snapshot, Wait::Block, |row| {
            Ok((row.id(), heartbeat(&row)?))
        })?;
        let Locked::Row((row, before)) = locked else {
            // It was deleted in between.
            continue;
        };
        let cursor = before.cursor.max(seen);
        if cursor > before.cursor {
            leave(before.cursor)?;
        }
        let mut writer = Writer::new(&table, &snapshot, Duplicates::Raise);
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
        let _ = writer.finish();
        return Ok(Some((cursor, cursor > before.cursor)));
    }
}

/// False if the device is registered already. If another transaction is registering it,
/// this waits for that transaction; above READ COMMITTED it raises 40001.
fn register(table: &Table, device: DeviceKey<'_>, seen: Version, now: Timestamp) -> Result<bool> {
    let sql = "insert into sync_ext.device_cursor values \
         ($1, $2, $3, timestamptz '2000-01-01 00:00:00+00' + $4 * interval '1 microsecond', $5) \
         on conflict (workspace_key, device_id, user_id) do nothing";
    let DeviceKey { workspace_key, device_id, user_id } = device;
    let values =
        [workspace_key.into(), device_id.into(), seen.get().into(), now.into(), user_id.into()];
    Ok(table.execute(sql, &values)? == 1)
}

/// The devices of a workspace.
pub fn heartbeats(workspace_key: i64, snapshot: &MvccSnapshot) -> Result<Vec<Heartbeat>> {
    let table = Table::open(&TABLE, Access::Read)?;
    let mut heartbeats = Vec::new();
    visit(&table, &[Key::Int8(workspace_key)], snapshot, |row| {
        memory::push(&mut heartbeats, heartbeat(&row)?)
    })?;
    Ok(heartbeats)
}

/// Deletes the devices for which `is_forgotten` is true; their workspace is locked. A
/// device that returns at the same time keeps its row, because its lock or its newer
/// version is respected.
pub fn forget(
    workspace_key: i64,
    snapshot: &MvccSnapshot,
    is_forgotten: impl Fn(Timestamp) -> bool,
) -> Result<usize> {
    let table = Table::open(&TABLE, Access::Write)?;
    let is_idle = |row: &Row<'_>| Ok(is_forgotten(heartbeat(row)?.at));
    delete_where(&table, &[Key::Int8(workspace_key)], snapshot, Wait::Skip, is_idle)
}

/// The heartbeat of a device for which `pins` is true and that nobody is acknowledging for at
/// this moment, if there is one.
pub fn find_free(
    workspace_key: i64,
    pins: impl Fn(&Heartbeat) -> bool,
) -> Result<Option<Timestamp>> {
    if !Subtransaction::is_cheap() {
        return Ok(None);
    }
    // Rolled back, so that no acknowledgement waits for this transaction.
    let tried = Subtransaction::begin();
    let found = find_free_and_lock(workspace_key, pins);
    tried.roll_back();
    found
}

fn find_free_and_lock(
    workspace_key: i64,
    pins: impl Fn(&Heartbeat) -> bool,
) -> Result<Option<Timestamp>> {
    let latest = MvccSnapshot::latest();
    let table = Table::open(&TABLE, Access::Write)?;
    let mut free = None;
    visit(&table, &[Key::Int8(workspace_key)], &latest, |row| {
        if free.is_none() && pins(&heartbeat(&row)?) {
            let locked = row_lock::lock(&table, row.id(), &latest, Wait::Skip, |row| {
                heartbeat(&row).map(|device| pins(&device).then_some(device.at))
            })?;
            if let Locked::Row(at) = locked {
                free = at;
            }
        }
        Ok(())
    })?;
    Ok(free)
}

/// Deletes all devices of a user; waits for acknowledgements in progress.
pub fn remove_user(workspace_key: i64, user_id: &str, snapshot: &MvccSnapshot) -> Result<usize> {
    let table = Table::open(&TABLE, Access::Write)?;
    let is_theirs = |row: &Row<'_>| Ok(row.text(column::USER_ID)? == user_id);
    let keys = [Key::Int8(workspace_key)];
    let deleted = delete_where(&table, &keys, snapshot, Wait::Block, is_theirs)?;
    unpin(workspace_key, deleted)
}

/// Deletes the devices of this name, of one user or of all; waits for acknowledgements
/// in progress. Returns their number.
pub fn remove(
    workspace_key: i64,
    device_id: &str,
    user_id: Option<&str>,
    snapshot: &MvccSnapshot,
) -> Result<usize> {
    let table = Table::open(&TABLE, Access::Write)?;
    let keys = [Key::Int8(workspace_key), Key::Text(device_id)];
    let deleted = delete_where(&table, &keys, snapshot, Wait::Block, |row| {
        let of = row.text(column::USER_ID)?;
        Ok(user_id.is_none_or(|user_id| user_id == of))
    })?;
    unpin(workspace_key, deleted)
}

/// Has GC look at a workspace, if devices of it were deleted; returns their number.
fn unpin(workspace_key: i64, deleted: usize) -> Result<usize> {
    if deleted > 0 {
        let latest = MvccSnapshot::latest();
        let now = workspace::find_by_key(workspace_key, &latest)?;
        drop(latest);
        unpinned::add(now.map(|(_, workspace)| workspace))?;
    }
    Ok(deleted)
}

/// Deletes the rows with these keys that are chosen, and are still chosen after they
/// are locked.
fn delete_where(
    table: &Table,
    keys: &[Key<'_>],
    snapshot: &MvccSnapshot,
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
    snapshot: &MvccSnapshot,
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
