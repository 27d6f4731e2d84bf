//! `sync_gc`: purges entries that no active device needs.

use std::time::Instant;

use super::Result;
use super::caller::{Caller, Permit};
use super::workspaces::erase_all_dropped;
use crate::guc;
use crate::store::counters::{Counter, count};
use crate::store::log::Log;
use crate::store::mvcc::MvccSnapshot;
use crate::store::record::Records;
use crate::store::workspace::{self, LockedWorkspace, Workspace};
use crate::store::{Access, Locked, Wait, device, memory, server};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::access::Action;
use sync_ext_core::rules::history::Progress;
use sync_ext_core::rules::op::{Timestamp, Version};
use sync_ext_core::rules::retention::{
    self, Deadlines, Heartbeat, PurgedKind, horizon_without, purge,
};
use sync_ext_core::wire::reply::Reply;
use sync_ext_core::wire::small_replies::GcReply;

/// An SQL interval: months, days, microseconds.
pub type Interval = (i32, i32, i64);

pub fn gc(
    workspace_id: Option<&str>,
    retention: Option<Interval>,
    batch_size: Option<i32>,
) -> Result<Reply> {
    server::require_writable(c"sync_gc()");
    let permit = match workspace_id {
        Some(_) => Some(Permit::now(Action::Govern, workspace_id)?),
        None => Caller::require_trusted().map(|()| None)?,
    };
    let budget = super::batch_size(batch_size)?;
    let deadlines = Deadlines {
        now: server::now(),
        retention: retention_micros(retention)?,
        device_ttl: guc::device_ttl_micros(),
    };
    let mut run = Run { deadlines, budget, locked_at: None, tally: GcReply::default() };
    match permit {
        Some(permit) => run.visit_for(&permit)?,
        None => {
            let has_more_to_erase = run.continue_erasing()?;
            for id in due(&deadlines)? {
                if run.must_let_go() {
                    run.tally.has_more = true;
                    break;
                }
                if let Locked::Row(locked) = workspace::lock(&id, Wait::Skip)? {
                    run.visit(locked)?;
                }
                // The budget or the time is used up, and there is more: lock no other
                // workspace.
                if run.tally.has_more {
                    break;
                }
            }
            run.tally.has_more |= has_more_to_erase;
        }
    }
    count(Counter::GcRuns, 1);
    count(Counter::GcEntriesDeleted, run.tally.changes_deleted + run.tally.tombstones_deleted);
    Ok(Reply::of(&run.tally))
}

/// `sync_ext.is_active`: whether a device holds GC back; false for NULL.
pub fn is_active(at: Option<Timestamp>, cursor: Option<i64>, horizon: Option<i64>) -> bool {
    let deadlines = Deadlines {
        now: server::now(),
        retention: guc::retention_micros(),
        device_ttl: guc::device_ttl_micros(),
    };
    let (Some(at), Some(cursor), Some(horizon)) = (at, cursor, horizon) else { return false };
    deadlines.is_active(Heartbeat { at, cursor: Version::stored(cursor) }, Version::stored(horizon))
}

/// `sync_ext.due_at`: when an entry is old enough to be purged.
pub fn due_at(created_at: Timestamp) -> Timestamp {
    created_at.saturating_add(guc::retention_micros())
}

/// A month counts as 30 days and a day as 24 hours, as when Postgres compares
/// intervals.
fn retention_micros(given: Option<Interval>) -> Result<i64> {
    const HOUR: i128 = 3_600_000_000;
    let Some((months, days, micros)) = given else {
        return Ok(guc::retention_micros());
    };
    let total = (i128::from(months) * 30 + i128::from(days)) * 24 * HOUR + i128::from(micros);
    if total < i128::from(guc::MIN_RETENTION_SECONDS) * 1_000_000 {
        return Err(SyncError::Retention);
    }
    Ok(i64::try_from(total).unwrap_or(i64::MAX))
}

/// The workspaces that need GC, without locking any. Check again after locking.
fn due(deadlines: &Deadlines) -> Result<Vec<String>> {
    let snapshot = MvccSnapshot::fresh();
    let mut due = Vec::new();
    workspace::for_each(&snapshot, |id, workspace| {
        if workspace.away.is_none() && has_work(workspace, deadlines, &snapshot)? {
            memory::push(&mut due, id.to_owned())?;
        }
        Ok(())
    })?;
    Ok(due)
}

fn has_work(workspace: Workspace, deadlines: &Deadlines, snapshot: &MvccSnapshot) -> Result<bool> {
    let devices = device::heartbeats(workspace.key, snapshot)?;
    if devices.iter().any(|device| deadlines.is_forgotten(device.at)) {
        return Ok(true);
    }
    let Progress { gc_through, .. } = workspace.progress;
    if retention::ceiling(workspace.progress, deadlines, devices) <= gc_through {
        return Ok(false);
    }
    let log = Log::open(workspace.key, Access::Read)?;
    let first = log.after(gc_through, snapshot).next().map(|entry| entry.created_at());
    Ok(!first.transpose()?.is_some_and(|created_at| deadlines.is_young(created_at)))
}

struct Run {
    deadlines: Deadlines,
    /// The entries that this call may still read.
    budget: usize,
    /// When it locked its first workspace. All stay locked until the transaction ends.
    locked_at: Option<Instant>,
    tally: GcReply,
}

/// So many entries are read in any case: GC must keep up with pushes that always wait.
const UNDISTURBED: usize = 100;

impl Run {
    /// Erases rows of dropped workspaces, with half of the budget, so that neither they
    /// nor existing workspaces wait for the other. Rows count as read. Returns whether
    /// some remain.
    fn continue_erasing(&mut self) -> Result<bool> {
        let erased = erase_all_dropped(self.budget.div_ceil(2))?;
        self.budget -= erased.rows().min(self.budget);
        self.tally.scanned += erased.rows();
        self.tally.changes_deleted += erased.entries;
        self.tally.devices_deleted += erased.devices;
        Ok(erased.has_more)
    }

    fn visit_for(&mut self, permit: &Permit<'_>) -> Result<()> {
        let Locked::Row(locked) = workspace::lock(permit.workspace_id, Wait::Block)? else {
            return permit.renew(&MvccSnapshot::fresh());
        };
        permit.renew(&locked.snapshot)?;
        self.visit(locked)
    }

    /// Whether others have waited for long enough, or may be waiting. A call makes some
    /// progress whatever the time is.
    fn must_let_go(&self) -> bool {
        let (limit, scanned) = (guc::gc_lock_time(), self.tally.scanned);
        let has_done_some = scanned + self.tally.devices_deleted > 0;
        let Some(locked_at) = self.locked_at.filter(|_| !limit.is_zero() && has_done_some) else {
            return false;
        };
        locked_at.elapsed() >= limit || scanned % UNDISTURBED == 0 && server::is_waited_for()
    }

    fn visit(&mut self, locked: LockedWorkspace) -> Result<()> {
        self.locked_at.get_or_insert_with(Instant::now);
        if locked.is_departing()? {
            return Ok(());
        }
        self.tally.workspaces += 1;
        let key = locked.workspace.key;
        let deadlines = self.deadlines;
        // Acknowledgements do not take the workspace's lock, so they are not serialized
        // with GC: above READ COMMITTED the transaction's snapshot could miss a device
        // that has registered or returned since.
        let latest = MvccSnapshot::latest();
        let devices = device::heartbeats(key, &latest)?;
        self.tally.devices_deleted +=
            device::forget(key, &latest, |heartbeat| deadlines.is_forgotten(heartbeat))?;
        drop(latest);
        let ceiling = retention::ceiling(locked.workspace.progress, &deadlines, devices);
        let progress = self.collect(&locked, ceiling)?;
        if progress == locked.workspace.progress {
            drop(locked);
        } else {
            locked.save(progress)?;
        }
        server::end_command();
        Ok(())
    }

    /// Reads the unread entries up to `ceiling`, and purges.
    fn collect(&mut self, locked: &LockedWorkspace, ceiling: Version) -> Result<Progress> {
        let Workspace { key, mut progress, .. } = locked.workspace;
        if ceiling <= progress.gc_through {
            return Ok(progress);
        }
        let snapshot = &locked.snapshot;
        let log = Log::open(key, Access::Write)?;
        let records = Records::open(key, Access::Read)?;
        let mut names = records.names(snapshot);
        let mut versions = log.versions(snapshot);
        let mut entries = log.after(progress.gc_through, snapshot);
        while let Some(entry) = entries.next() {
            let version = entry.version()?;
            if version > ceiling {
                break;
            }
            if self.deadlines.is_young(entry.created_at()?) {
                return Ok(progress);
            }
            if self.budget == 0 || self.must_let_go() {
                self.tally.has_more = true;
                return Ok(progress);
            }
            self.budget -= 1;
            self.tally.scanned += 1;

            let candidate = retention::Candidate {
                operation: entry.operation()?,
                applied: entry.applied()?,
                supersedes: entry.supersedes(),
            };
            let winner = if candidate.may_be_tombstone() {
                let record = names.find(entry.table()?, entry.pk()?);
                record.map(|record| record.version()).transpose()?
            } else {
                None
            };
            let purge = purge(&candidate, winner == Some(version));
            if let Some(superseded) = purge.superseded
                && let Some(deleted) = log.delete(superseded, &mut versions, snapshot)?
            {
                self.tally.changes_deleted += 1;
                progress.horizon = horizon_without(progress.horizon, superseded, deleted.left);
            }
            match purge.itself {
                None => {}
                Some(PurgedKind::Loser) => {
                    log.delete(version, &mut versions, snapshot)?;
                    self.tally.changes_deleted += 1;
                }
                Some(PurgedKind::Tombstone) => {
                    log.delete(version, &mut versions, snapshot)?;
                    self.tally.tombstones_deleted += 1;
                    progress.horizon = version;
                }
            }
            progress.gc_through = version;
        }
        progress.gc_through = ceiling;
        Ok(progress)
    }
}
