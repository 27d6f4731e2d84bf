//! `sync_ext.workspace`: workspaces and their counters.

use std::ops::Range;

use super::attempt::attempt;
use super::elsewhere::{self, Move};
use super::mvcc::MvccSnapshot;
use super::relation::{Access, Table};
use super::row::Row;
use super::row::RowId;
use super::scan::{By, Key, Scan};
use super::shape::{ColumnType, IndexShape, Shape};
pub use super::workspace_lock::{LockedWorkspace, lock, lock_latest, wait_for_writers};
use super::{Result, keys};
use sync_ext_core::error::{Elsewhere, SyncError};
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
        ("away", ColumnType::Text),
        ("held_until", ColumnType::Time),
        ("unread_since", ColumnType::Time),
        ("pinned_since", ColumnType::Time),
        ("devices_since", ColumnType::Time),
    ],
    first: 6,
};
pub(super) static BY_ID: IndexShape =
    IndexShape { name: c"workspace_workspace_id_key", keys: &[1], is_unique: true, not_null: None };
pub static BY_KEY: IndexShape =
    IndexShape { name: c"workspace_pkey", keys: &[0], is_unique: true, not_null: None };

/// Where its marks are in the shape, from 0.
pub const MARKS: Range<usize> = 9..12;

pub(super) mod column {
    pub const WORKSPACE_KEY: usize = 1;
    pub const WORKSPACE_ID: usize = 2;
    pub const HEAD: usize = 3;
    pub const HORIZON: usize = 4;
    pub const GC_THROUGH: usize = 5;
    pub const CREATED_AT: usize = 6;
    pub const SCOPE_EPOCH: usize = 7;
    pub const AWAY: usize = 8;
    pub const HELD_UNTIL: usize = 9;
    pub const UNREAD_SINCE: usize = 10;
    pub const PINNED_SINCE: usize = 11;
    pub const DEVICES_SINCE: usize = 12;
}

/// A workspace as read: its key in the other tables, and its counters.
#[derive(Clone, Copy, Debug)]
pub struct Workspace {
    pub key: i64,
    pub progress: Progress,
    /// Changes with the scope field of a table.
    pub scope_epoch: i64,
    /// It is not served here: it has not arrived, or has departed.
    pub away: Option<Away>,
    /// It is about to be moved, and refuses pushes until then.
    pub held_until: Option<Timestamp>,
    pub watch: Watch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    Arriving,
    Departed,
}

impl Workspace {
    pub(super) fn read(row: &Row<'_>) -> Result<Workspace> {
        Ok(Workspace {
            key: row.int8(column::WORKSPACE_KEY)?,
            progress: Progress {
                head: Version::stored(row.int8(column::HEAD)?),
                horizon: Version::stored(row.int8(column::HORIZON)?),
                gc_through: Version::stored(row.int8(column::GC_THROUGH)?),
            },
            scope_epoch: row.int8_or_null(column::SCOPE_EPOCH).unwrap_or(0),
            away: row.text_or_null(column::AWAY).map(Away::parse).transpose()?,
            held_until: row.timestamp_or_null(column::HELD_UNTIL),
            watch: Watch {
                unread_since: row.timestamp_or_null(column::UNREAD_SINCE),
                pinned_since: row.timestamp_or_null(column::PINNED_SINCE),
                devices_since: row.timestamp_or_null(column::DEVICES_SINCE),
            },
        })
    }
}

impl Away {
    fn parse(away: &str) -> Result<Away> {
        match away {
            "arriving" => Ok(Away::Arriving),
            "departed" => Ok(Away::Departed),
            _ => Err(SyncError::Damaged { what: format!("A workspace is away as \"{away}\".") }),
        }
    }
}

/// An error if the workspace is elsewhere.
pub fn find(workspace_id: &str, snapshot: &MvccSnapshot) -> Result<Option<Workspace>> {
    Ok(find_to_read_again(workspace_id, snapshot)?.map(|found| found.workspace))
}

/// A workspace as read, to be read again. Its table stays open.
pub struct Found<'w> {
    pub workspace: Workspace,
    workspace_id: &'w str,
    table: Table,
    row: RowId,
}

/// The same as [`find`].
pub fn find_to_read_again<'w>(
    workspace_id: &'w str,
    snapshot: &MvccSnapshot,
) -> Result<Option<Found<'w>>> {
    let table = Table::open(&TABLE, Access::Read)?;
    match read(&table, workspace_id, snapshot)? {
        Some((workspace, row)) => {
            require_here(workspace_id, workspace, snapshot)?;
            Ok(Some(Found { workspace, workspace_id, table, row }))
        }
        None => require_own(&table, workspace_id, snapshot).map(|()| None),
    }
}

impl Found<'_> {
    /// What is committed now; `None` if it is gone, or was renamed by hand. By the same index as
    /// before: REINDEX locks all of them, in another order than the use of a second one would.
    pub fn now(&self) -> Result<Option<Workspace>> {
        let latest = MvccSnapshot::latest();
        let is_it = |workspace: &Workspace| workspace.key == self.workspace.key;
        // Most often no other session has changed it.
        let unchanged = self.table.visible(self.row, &latest, |row| Workspace::read(&row))?;
        if let Some(workspace) = unchanged.filter(is_it) {
            return Ok(Some(workspace));
        }
        let now = read(&self.table, self.workspace_id, &latest)?.map(|(workspace, _)| workspace);
        Ok(now.filter(is_it))
    }
}

/// The same as [`find`] if it is elsewhere.
pub fn find_anywhere(workspace_id: &str, snapshot: &MvccSnapshot) -> Result<Option<Workspace>> {
    let found = read(&Table::open(&TABLE, Access::Read)?, workspace_id, snapshot)?;
    Ok(found.map(|(workspace, _)| workspace))
}

fn read(
    table: &Table,
    workspace_id: &str,
    snapshot: &MvccSnapshot,
) -> Result<Option<(Workspace, RowId)>> {
    let index = table.index(&BY_ID)?;
    let mut scan = Scan::new(table, &index, snapshot, &[By::Text]);
    let row = scan.find(&[Key::Text(workspace_id)]);
    row.map(|row| Workspace::read(&row).map(|workspace| (workspace, row.id()))).transpose()
}

/// An error if a workspace that is stored here is elsewhere.
pub(super) fn require_here(
    workspace_id: &str,
    found: Workspace,
    snapshot: &MvccSnapshot,
) -> Result<()> {
    let why = match found.away {
        None => return Ok(()),
        Some(Away::Arriving) => Elsewhere::Arriving,
        Some(Away::Departed) => match elsewhere::last_move(workspace_id, snapshot)? {
            Some(Move::Departed { to }) => Elsewhere::Departed { to },
            _ => Elsewhere::Departed { to: None },
        },
    };
    Err(SyncError::Elsewhere(why))
}

/// An error if a workspace that is not stored here is elsewhere.
pub(super) fn require_own(
    table: &Table,
    workspace_id: &str,
    snapshot: &MvccSnapshot,
) -> Result<()> {
    // A database of 0.1.0 has no such tables until it is updated.
    if !table.has(column::AWAY - 1) {
        return Ok(());
    }
    match elsewhere::of_absent(workspace_id, snapshot)? {
        Some(why) => Err(SyncError::Elsewhere(why)),
        None => Ok(()),
    }
}

/// An error if a workspace in which the caller has no role is elsewhere, with its members. It is
/// not looked for here, so that the work does not tell whether it exists.
pub fn require_not_elsewhere(workspace_id: &str, snapshot: &MvccSnapshot) -> Result<()> {
    require_own(&Table::open(&TABLE, Access::Read)?, workspace_id, snapshot)
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

/// Ensures that the workspace exists; true if this call created it. If another
/// transaction is creating it, this waits for that transaction.
pub fn create(workspace_id: &str) -> Result<bool> {
    let table = Table::open(&TABLE, Access::Write)?;
    prepare_creation(&table, workspace_id)?;
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

/// An error if this server does not own the workspace. Who changes that waits for those who
/// have opened the table for writing, so what is committed now is true until this transaction
/// ends.
fn prepare_creation(table: &Table, workspace_id: &str) -> Result<()> {
    require_own(table, workspace_id, &MvccSnapshot::latest())?;
    keys::bring_sequence_forward(table)
}

pub use keys::MAX_RANGE as MAX_KEY_RANGE;

/// Takes the keys of new workspaces from this range.
pub fn set_key_range(range: i64) -> Result<()> {
    keys::set_range(&Table::open(&TABLE, Access::Write)?, range)
}

/// The same, also if the snapshot of the transaction does not show the workspace that
/// another one has created: ON CONFLICT would raise 40001.
pub fn create_latest(workspace_id: &str) -> Result<bool> {
    let created = attempt(|| {
        let table = Table::open(&TABLE, Access::Write)?;
        prepare_creation(&table, workspace_id)?;
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
