//! The lock on the row of a workspace, and what its holder does.

use std::cell::RefCell;

use super::attempt::attempt;
use super::elsewhere::{self, Move};
use super::mvcc::MvccSnapshot;
use super::relation::{Access, Table};
use super::row::RowId;
use super::row_lock::{self, Locked, Wait};
use super::scan::{By, Key, Scan};
use super::values::Value;
use super::workspace::{BY_ID, TABLE, Workspace, column, has_marks, require_here, require_own};
use super::writer::{Duplicates, Writer};
use super::{Result, server};
use sync_ext_core::error::{Elsewhere, SyncError};
use sync_ext_core::rules::history::Progress;
use sync_ext_core::rules::op::Timestamp;
use sync_ext_core::rules::watch::Watch;

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

/// Locks a workspace; waits for its holder, or skips. It is an error if it is elsewhere, or
/// skipped.
pub fn lock(workspace_id: &str, wait: Wait) -> Result<Locked<LockedWorkspace>> {
    if is_closed(workspace_id) {
        return match wait {
            Wait::Block => Err(SyncError::WorkspaceClosed),
            Wait::Skip => Ok(Locked::Busy),
        };
    }
    // At READ COMMITTED the calling statement's snapshot may be older than the
    // workspace; this one sees everything committed before now.
    let locked = lock_seen_by(MvccSnapshot::fresh, workspace_id, wait)?;
    match (&locked, wait) {
        (Locked::Row(row), Wait::Skip) if row.workspace.away.is_some() => return Ok(Locked::Busy),
        (Locked::Row(row), _) => require_here(workspace_id, row.workspace, &row.snapshot)?,
        (Locked::Gone, Wait::Block) => {
            let table = Table::open(&TABLE, Access::Write)?;
            require_own(&table, workspace_id, &MvccSnapshot::fresh())?;
        }
        _ => {}
    }
    Ok(locked)
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
            Locked::Row(locked) => {
                require_here(workspace_id, locked.workspace, &locked.snapshot)?;
                return Ok(Some(locked));
            }
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
    /// An error while pushes are refused.
    pub fn require_not_held(&self) -> Result<()> {
        match self.workspace.held_until {
            Some(until) if until > server::now() => Err(SyncError::Elsewhere(Elsewhere::Held)),
            _ => Ok(()),
        }
    }

    /// Whether GC must leave it as it is: it is being copied to another server.
    pub fn is_departing(&self) -> Result<bool> {
        Ok(self.table.has(column::AWAY - 1)
            && matches!(
                elsewhere::last_move(&self.workspace_id, &self.snapshot)?,
                Some(Move::Departing)
            ))
    }

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
                Value::Null,
                self.workspace.held_until.map_or(Value::Null, Value::Time),
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
