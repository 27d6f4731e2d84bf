//! `sync_gc`: purge what no active device needs.

use super::Result;
use super::caller::Caller;
use super::workspaces::erase_all_dropped;
use crate::error::SyncError;
use crate::guc;
use crate::rules::access::Action;
use crate::rules::history::Progress;
use crate::rules::op::{Timestamp, Version};
use crate::rules::retention::{self, Clock, Heartbeat, PurgedKind, purge};
use crate::store::counters::{Counter, count};
use crate::store::log::Log;
use crate::store::record::Records;
use crate::store::snapshot::Snapshot;
use crate::store::workspace::{self, LockedWorkspace, Workspace};
use crate::store::{Access, Locked, Wait, device, memory, server};
use crate::wire::ids::WorkspaceId;
use crate::wire::pages::{GcTally, gc_reply};
use crate::wire::reply::Reply;

/// An SQL interval: months, days, microseconds.
pub type Interval = (i32, i32, i64);

pub fn gc(
    workspace_id: Option<&str>,
    retention: Option<Interval>,
    batch_size: Option<i32>,
) -> Result<Reply> {
    server::require_writable(c"sync_gc()");
    let caller = Caller::identify()?;
    let workspace_id = workspace_id.map(|id| WorkspaceId::new(Some(id))).transpose()?;
    match workspace_id {
        Some(id) => caller.require_now(Action::Govern, id.as_str())?,
        None if caller.user().is_some() => return Err(SyncError::TrustedOnly),
        None => {}
    }
    let budget = super::batch_size(batch_size)?;
    let clock = Clock {
        now: server::now(),
        retention: retention_micros(retention)?,
        device_ttl: guc::device_ttl_micros(),
    };
    let mut run = Run { clock, budget, tally: GcTally::default() };
    match workspace_id {
        Some(id) => run.visit(id.as_str(), Wait::Block, &caller)?,
        None => {
            let has_more_to_erase = run.go_on_erasing()?;
            for id in due(&clock)? {
                run.visit(&id, Wait::Skip, &caller)?;
                // The budget is spent, and there is more: lock no further.
                if run.tally.has_more {
                    break;
                }
            }
            run.tally.has_more |= has_more_to_erase;
        }
    }
    count(Counter::GcRuns, 1);
    count(Counter::GcEntriesDeleted, run.tally.changes_deleted + run.tally.tombstones_deleted);
    Ok(gc_reply(&run.tally))
}

/// `sync_ext.is_active`: does a device hold GC back? Nothing that is NULL does.
pub fn is_active(at: Option<Timestamp>, cursor: Option<i64>, horizon: Option<i64>) -> bool {
    let clock = Clock {
        now: server::now(),
        retention: guc::retention_micros(),
        device_ttl: guc::device_ttl_micros(),
    };
    let (Some(at), Some(cursor), Some(horizon)) = (at, cursor, horizon) else { return false };
    clock.is_active(Heartbeat { at, cursor: Version::stored(cursor) }, Version::stored(horizon))
}

/// `sync_ext.due_at`: when an entry is old enough to be purged.
pub fn due_at(created_at: Timestamp) -> Timestamp {
    created_at.saturating_add(guc::retention_micros())
}

/// A month counts 30 days and a day 24 hours, as where Postgres compares
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

/// The workspaces in which there is something to do, without locking any.
/// Whoever locks one looks again.
fn due(clock: &Clock) -> Result<Vec<String>> {
    let snapshot = Snapshot::fresh();
    let mut due = Vec::new();
    workspace::for_each(&snapshot, |id, workspace| {
        if has_work(workspace, clock, &snapshot)? {
            memory::push(&mut due, id.to_owned())?;
        }
        Ok(())
    })?;
    Ok(due)
}

fn has_work(workspace: Workspace, clock: &Clock, snapshot: &Snapshot) -> Result<bool> {
    let devices = device::heartbeats(workspace.key, snapshot)?;
    if devices.iter().any(|device| clock.is_forgotten(device.at)) {
        return Ok(true);
    }
    let Progress { gc_through, .. } = workspace.progress;
    if retention::ceiling(workspace.progress, clock, devices) <= gc_through {
        return Ok(false);
    }
    let log = Log::open(workspace.key, Access::Read)?;
    let first = log.after(gc_through, snapshot).next().map(|entry| entry.created_at());
    Ok(!first.transpose()?.is_some_and(|created_at| clock.is_young(created_at)))
}

struct Run {
    clock: Clock,
    /// Entries that this call may still read.
    budget: usize,
    tally: GcTally,
}

impl Run {
    /// Goes on with what sync_drop_workspace left, with half of the budget: neither
    /// that nor the living have to wait for the other. Rows count as read. Gives
    /// whether some are left.
    fn go_on_erasing(&mut self) -> Result<bool> {
        let erased = erase_all_dropped(self.budget.div_ceil(2))?;
        self.budget -= erased.rows().min(self.budget);
        self.tally.scanned += erased.rows();
        self.tally.changes_deleted += erased.entries;
        self.tally.devices_deleted += erased.devices;
        Ok(erased.has_more)
    }

    fn visit(&mut self, workspace_id: &str, wait: Wait, caller: &Caller) -> Result<()> {
        let Locked::Row(locked) = workspace::lock(workspace_id, wait)? else {
            return caller.require_still_now(Action::Govern, workspace_id);
        };
        caller.require_still(Action::Govern, workspace_id, &locked.snapshot)?;
        self.tally.workspaces += 1;
        let key = locked.workspace.key;
        let clock = self.clock;
        // Acknowledging does not take the workspace's lock, so it is not
        // serialized with us: above READ COMMITTED the transaction's snapshot
        // would hide a device that has registered or come back since.
        let latest = Snapshot::latest();
        let devices = device::heartbeats(key, &latest)?;
        self.tally.devices_deleted +=
            device::forget(key, &latest, |heartbeat| clock.is_forgotten(heartbeat))?;
        drop(latest);
        let ceiling = retention::ceiling(locked.workspace.progress, &clock, devices);
        let progress = self.collect(&locked, ceiling)?;
        if progress != locked.workspace.progress {
            locked.save(progress)?;
        }
        drop(locked);
        server::end_command();
        Ok(())
    }

    /// Reads the entries up to `ceiling` that nobody has read yet, and purges.
    fn collect(&mut self, locked: &LockedWorkspace, ceiling: Version) -> Result<Progress> {
        let Workspace { key, mut progress } = locked.workspace;
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
            if self.clock.is_young(entry.created_at()?) {
                return Ok(progress);
            }
            if self.budget == 0 {
                self.tally.has_more = true;
                return Ok(progress);
            }
            self.budget -= 1;
            self.tally.scanned += 1;

            let read = retention::Entry {
                operation: entry.operation()?,
                applied: entry.applied()?,
                supersedes: entry.supersedes(),
            };
            let winner = if read.may_be_tombstone() {
                let record = names.find(entry.table()?, entry.pk()?);
                record.map(|record| record.version()).transpose()?
            } else {
                None
            };
            let purge = purge(&read, winner == Some(version));
            if let Some(superseded) = purge.superseded
                && log.delete(superseded, &mut versions, snapshot)?
            {
                self.tally.changes_deleted += 1;
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
