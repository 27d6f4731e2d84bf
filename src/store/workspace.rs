//! `sync_ext.workspace`: workspaces, their counters, and the lock on them.

use std::cell::RefCell;
use std::ops::Range;

use super::attempt::attempt;
use super::mvcc::MvccSnapshot;
use super::relation::{Access, Table};
use super::row::Row;
use super::row::RowId;
use super::row_lock::{self, Locked, Wait};
use super::scan::{By, Key, Scan};
use super::shape::{ColumnType, IndexShape, Shape};
use super::values::Value;
use super::writer::{Duplicates, Writer};
use super::{Result, keys};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::history::Progress;
use sync_ext_core::rules::op::{Timestamp, Version};
use sync_ext_core::rules::watch::Watch;

pub static TABLE: Shape = Shape {
    name: c"workspace",
    columns: &[
        ("workspace_key", ColumnType::Int8),
        ("workspace_id", ColumnType::Text),
        ("head", ColumnType::Int8),
        ("horizon", ColumnType::Int8),
        ("gc_through", ColumnType::Int8),
        ("created_at", ColumnType::Time),
        ("scope_epoch", ColumnType::Int8),
        ("unread_since", ColumnType::Time),
        ("pinned_since", ColumnType::Time),
        ("devices_since", ColumnType::Time),
    ],
    first: 6,
};
static BY_ID: IndexShape =
    IndexShape { name: c"workspace_workspace_id_key", keys: &[1], is_unique: true, not_null: None };
pub static BY_KEY: IndexShape =
    IndexShape { name: c"workspace_pkey", keys: &[0], is_unique: true, not_null: None };

/// Where its marks are in the shape, from 0.
pub const MARKS: Range<usize> = 7..10;

mod column {
    pub const WORKSPACE_KEY: usize = 1;
    pub const WORKSPACE_ID: usize = 2;
    pub const HEAD: usize = 3;
    pub const HORIZON: usize = 4;
    pub const GC_THROUGH: usize = 5;
    pub const CREATED_AT: usize = 6;
    pub const SCOPE_EPOCH: usize = 7;
    pub const UNREAD_SINCE: usize = 8;
    pub const PINNED_SINCE: usize = 9;
    pub const DEVICES_SINCE: usize = 10;
}

/// A workspace as read: its key in the other tables, and its counters.
#[derive(Clone, Copy, Debug)]
pub struct Workspace {
    pub key: i64,
    pub progress: Progress,
    /// Changes with the scope field of a table.
    pub scope_epoch: i64,
    pub watch: Watch,
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
            scope_epoch: row.int8_or_null(column::SCOPE_EPOCH).unwrap_or(0),
            watch: Watch {
                unread_since: row.timestamp_or_null(column::UNREAD_SINCE),
                pinned_since: row.timestamp_or_null(column::PINNED_SINCE),
                devices_since: row.timestamp_or_null(column::DEVICES_SINCE),
            },
        })
    }
}

pub fn find(workspace_id: &str, snapshot: &MvccSnapshot) -> Result<Option<Workspace>> {
    let table = Table::open(&TABLE, Access::Read)?;
    let index = table.index(&BY_ID)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[By::Text]);
    scan.find(&[Key::Text(workspace_id)]).map(|row| Workspace::read(&row)).transpose()
}

/// Calls `visit` with the name of each workspace after a key, in the order of their keys, until it
/// says false.
pub fn for_each_after(
    key: i64,
    snapshot: &MvccSnapshot,
    visit: impl FnMut(&str, Workspace) -> Result<bool>,
) -> Result<()> {
    walk(&BY_KEY, By::Int8After, Key::Int8(key), snapshot, visit)
}

/// The same with those after a name, in byte order.
pub fn for_each_named_after(
    name: &str,
    snapshot: &MvccSnapshot,
    visit: impl FnMut(&str, Workspace) -> Result<bool>,
) -> Result<()> {
    walk(&BY_ID, By::TextAfter, Key::Text(name), snapshot, visit)
}

/// The same in the order of an index, of which the first column is compared with a key.
pub(super) fn walk(
    index: &'static IndexShape,
    by: By,
    key: Key<'_>,
    snapshot: &MvccSnapshot,
    mut visit: impl FnMut(&str, Workspace) -> Result<bool>,
) -> Result<()> {
    let table = Table::open(&TABLE, Access::Read)?;
    let index = table.index(index)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[by]);
    scan.seek(&[key]);
    while let Some(row) = scan.next() {
        if !visit(row.text(column::WORKSPACE_ID)?, Workspace::read(&row)?)? {
            break;
        }
    }
    Ok(())
}

/// Whether rows have marks: an update of the extension adds them.
pub fn has_marks(table: &Table) -> bool {
    table.has(MARKS.end - 1)
}

/// A workspace by its key, with its name.
pub fn find_by_key(key: i64, snapshot: &MvccSnapshot) -> Result<Option<(String, Workspace)>> {
    let table = Table::open(&TABLE, Access::Read)?;
    let index = table.index(&BY_KEY)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[By::Int8]);
    let row = scan.find(&[Key::Int8(key)]);
    row.map(|row| Ok((row.text(column::WORKSPACE_ID)?.to_owned(), Workspace::read(&row)?)))
        .transpose()
}

/// A workspace whose row this transaction has locked: until it ends, no other session
/// changes the workspace's log, records or counters. Holds the snapshot that was taken
/// after the lock.
pub struct LockedWorkspace {
    pub workspace: Workspace,
    pub snapshot: MvccSnapshot,
    /// Other sessions do not see yet what the row says: this transaction has written it.
    pub is_unseen: bool,
    table: Table,
    row: RowId,
    workspace_id: String,
    created_at: Timestamp,
}

/// Locks a workspace; waits for its holder, or skips.
pub fn lock(workspace_id: &str, wait: Wait) -> Result<Locked<LockedWorkspace>> {
    if is_closed(workspace_id) {
        return match wait {
            Wait::Block => Err(SyncError::WorkspaceClosed),
            Wait::Skip => Ok(Locked::Busy),
        };
    }
    // At READ COMMITTED the calling statement's snapshot may be older than the
    // workspace; this one sees everything committed before now.
    lock_seen_by(MvccSnapshot::fresh, workspace_id, wait)
}

/// Waits until all that have written to workspaces are committed, those too that have created
/// one that nobody sees yet.
pub fn wait_for_writers() -> Result<()> {
    let table = Table::open(&TABLE, Access::Write)?;
    table.execute("lock table sync_ext.workspace in share mode", &[]).map(|_| ())
}

/// Locks a workspace with what is committed now at every isolation level; `None` if it is
/// unknown, or was replaced while it was looked for. For what a transaction does to rows
/// that nobody else can change meanwhile: its own snapshot would only make it fail.
pub fn lock_latest(workspace_id: &str) -> Result<Option<LockedWorkspace>> {
    for deadlocks in 0.. {
        match lock_seen_by(MvccSnapshot::latest_of_lock, workspace_id, Wait::Skip)? {
            Locked::Row(locked) => return Ok(Some(locked)),
            Locked::Gone => return Ok(None),
            Locked::Busy => {}
        }
        // What a savepoint locked stays locked when that is released.
        let waited = attempt(|| {
            lock_seen_by(MvccSnapshot::latest_of_lock, workspace_id, Wait::Block).map(|_| ())
        });
        match waited {
            Ok(waited) => waited?,
            Err(failure) if failure.sqlstate == "40P01" && deadlocks < DEADLOCKS => {}
            Err(failure) => failure.raise(),
        }
    }
    Ok(None)
}

/// A push that holds the workspace waits for a row of this transaction, but only for a
/// moment. A deadlock that is found this often is another one.
const DEADLOCKS: usize = 10;

fn lock_seen_by(
    snapshot: fn() -> MvccSnapshot,
    workspace_id: &str,
    wait: Wait,
) -> Result<Locked<LockedWorkspace>> {
    let table = Table::open(&TABLE, Access::Write)?;
    let before = snapshot();
    let index = table.index(&BY_ID)?;
    let row = {
        let mut scan = Scan::new(&table, &index, &before, &[By::Text]);
        match scan.find(&[Key::Text(workspace_id)]) {
            Some(row) => row.id(),
            None => return Ok(Locked::Gone),
        }
    };
    let locked = row_lock::lock(&table, row, &before, wait, |row| {
        // Check again, as UPDATE does: it may have been renamed in the meantime.
        if row.text(column::WORKSPACE_ID)? != workspace_id {
            return Ok(None);
        }
        let created_at = row.timestamp(column::CREATED_AT)?;
        Ok(Some((Workspace::read(&row)?, row.id(), created_at, row.is_of_this_transaction())))
    })?;
    let (workspace, row, created_at, is_unseen) = match locked {
        Locked::Row(Some(row)) => row,
        Locked::Row(None) | Locked::Gone => return Ok(Locked::Gone),
        Locked::Busy => return Ok(Locked::Busy),
    };
    // The commit of the last holder became visible while this session waited.
    drop(before);
    let snapshot = snapshot();
    let workspace_id = workspace_id.to_owned();
    Ok(Locked::Row(LockedWorkspace {
        workspace,
        snapshot,
        is_unseen,
        table,
        row,
        workspace_id,
        created_at,
    }))
}

impl LockedWorkspace {
    pub fn has_marks(&self) -> bool {
        has_marks(&self.table)
    }

    /// Stores the counters in `progress`. Afterwards the row that was locked is an old
    /// version.
    pub fn save(self, progress: Progress) -> Result<()> {
        let watch = self.workspace.watch.after_push(progress);
        self.save_watched(progress, watch)
    }

    /// The same, where GC has looked.
    pub fn save_watched(self, progress: Progress, watch: Watch) -> Result<()> {
        let time = |mark: Option<Timestamp>| mark.map_or(Value::Null, Value::Time);
        let mut writer = Writer::new(&self.table, &self.snapshot, Duplicates::Raise);
        writer.update(
            self.row,
            &[
                Value::Int8(self.workspace.key),
                Value::Text(&self.workspace_id),
                Value::Int8(progress.head.get()),
                Value::Int8(progress.horizon.get()),
                Value::Int8(progress.gc_through.get()),
                Value::Time(self.created_at),
                Value::Int8(self.workspace.scope_epoch),
                time(watch.unread_since),
                time(watch.pinned_since),
                time(watch.devices_since),
            ],
        )?;
        let _ = writer.finish();
        Ok(())
    }

    /// Runs code of the app, which may call functions of this extension. They must not
    /// change the workspace under this call, and the lock, which is the transaction's, does
    /// not keep them from it.
    pub fn closed<T>(&self, run: impl FnOnce() -> T) -> T {
        CLOSED.with_borrow_mut(|closed| closed.push(self.workspace_id.clone()));
        let _open_again = OpenAgain;
        run()
    }

    pub fn id(&self) -> &str {
        &self.workspace_id
    }

    /// Removes the workspace's row; the caller removes the rest.
    pub fn remove(self) -> Result<()> {
        row_lock::delete(&self.table, self.row, &self.snapshot)
    }
}

thread_local! {
    /// The workspaces in which this backend is running code of the app, the innermost last.
    static CLOSED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn is_closed(workspace_id: &str) -> bool {
    CLOSED.with_borrow(|closed| closed.iter().any(|closed| closed == workspace_id))
}

/// Also when an error unwinds.
struct OpenAgain;

impl Drop for OpenAgain {
    fn drop(&mut self) {
        CLOSED.with_borrow_mut(|closed| closed.pop());
    }
}

/// Ensures that the workspace exists; true if this call created it. If another
/// transaction is creating it, this waits for that transaction.
pub fn create(workspace_id: &str) -> Result<bool> {
    let table = Table::open(&TABLE, Access::Write)?;
    keys::bring_sequence_forward(&table)?;
    let sql = insertion(&table) + " on conflict (workspace_id) do nothing";
    Ok(table.execute(&sql, &[workspace_id.into()])? == 1)
}

/// Of a workspace without entries and devices. What comes will be younger, so the marks begin
/// now.
fn insertion(table: &Table) -> String {
    let (columns, values) = match has_marks(table) {
        true => (", unread_since, devices_since", ", clock_timestamp(), clock_timestamp()"),
        false => ("", ""),
    };
    format!(
        "insert into sync_ext.workspace (workspace_id, head, horizon, gc_through{columns}) \
         values ($1, 0, 0, 0{values})"
    )
}

/// The same, also if the snapshot of the transaction does not show the workspace that
/// another one has created: ON CONFLICT would raise 40001.
pub fn create_latest(workspace_id: &str) -> Result<bool> {
    let created = attempt(|| {
        let table = Table::open(&TABLE, Access::Write)?;
        keys::bring_sequence_forward(&table)?;
        table.execute(&insertion(&table), &[workspace_id.into()])
    });
    match created {
        Ok(created) => created.map(|rows| rows == 1),
        Err(failure) if failure.sqlstate == "23505" => Ok(false),
        Err(failure) => failure.raise(),
    }
}

/// Keeps a workspace from being dropped until this transaction ends, as a foreign key
/// would; pushes do not wait. False if it is gone.
pub fn pin(workspace_key: i64) -> Result<bool> {
    let table = Table::open(&TABLE, Access::Read)?;
    let sql = "select from sync_ext.workspace where workspace_key = $1 for key share";
    Ok(table.execute(sql, &[workspace_key.into()])? == 1)
}
