//! `sync_gc`: purges entries that no active device needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Result;
use super::caller::{Caller, Permit};
use super::workspaces::erase_all_dropped;
use crate::guc;
use crate::store::counters::{Counter, count};
use crate::store::log::Log;
use crate::store::marks::{self, Mark};
use crate::store::mvcc::MvccSnapshot;
use crate::store::record::Records;
use crate::store::workspace::{self, LockedWorkspace, Workspace};
use crate::store::{Access, Locked, Wait, device, server, unpinned};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::access::Action;
use sync_ext_core::rules::history::Progress;
use sync_ext_core::rules::op::{Timestamp, Version};
use sync_ext_core::rules::retention::{
    self, Deadlines, Heartbeat, PurgedKind, horizon_without, purge,
};
use sync_ext_core::rules::watch::{LOOK, Pin, Unread};
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
    let mut run = Run { deadlines, budget, locked_at: None, raised: 0, tally: GcReply::default() };
    match permit {
        Some(permit) => run.visit_for(&permit)?,
        None => {
            let has_more_to_erase = run.continue_erasing()?;
            run.visit_due()?;
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

struct Run {
    deadlines: Deadlines,
    /// The entries that this call may still read.
    budget: usize,
    /// When it locked its first workspace. All stay locked until the transaction ends.
    locked_at: Option<Instant>,
    /// How many workspaces had nothing due: only their marks were raised.
    raised: usize,
    tally: GcReply,
}

/// So many entries are read in any case: GC must keep up with pushes that always wait.
const UNDISTURBED: usize = 100;

/// So many marks are raised by one call.
const MAX_RAISED: usize = 1000;

/// So many workspaces are looked up at once.
const MANY: usize = 64;

/// A workspace in which something may be due.
struct Due {
    workspace_id: String,
    /// Because a device does not hold GC back any longer.
    is_unpinned: bool,
}

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

    /// Visits the workspaces in which something may be due.
    fn visit_due(&mut self) -> Result<()> {
        if !marks::exist()? {
            return self.visit_all();
        }
        let mut passed = BTreeSet::new();
        loop {
            let due = self.due(&passed)?;
            if due.is_empty() {
                return Ok(());
            }
            for (key, Due { workspace_id, is_unpinned }) in due {
                passed.insert(key);
                if let Some(locked) = self.lock_if_free(&workspace_id)? {
                    self.visit(locked, is_unpinned)?;
                }
                // The budget or the time is used up, and there is more: lock no other
                // workspace.
                if self.tally.has_more {
                    return Ok(());
                }
            }
        }
    }

    /// Some of those in which something may be due, by their keys; none that was passed before,
    /// because another session has it, or because what is due there has to wait.
    fn due(&self, passed: &BTreeSet<i64>) -> Result<BTreeMap<i64, Due>> {
        let mut due = BTreeMap::new();
        let deadlines = self.deadlines;
        let snapshot = MvccSnapshot::fresh();
        for (mark, until) in [
            (Mark::Unread, deadlines.old()),
            (Mark::Pinned, deadlines.silent()),
            (Mark::Devices, deadlines.forgotten()),
        ] {
            marks::for_each_until(mark, until, &snapshot, |id, key| {
                if !passed.contains(&key) {
                    due.insert(key, Due { workspace_id: id.to_owned(), is_unpinned: false });
                }
                due.len() < MANY
            })?;
        }
        let latest = MvccSnapshot::latest();
        unpinned::for_each(&latest, |key| {
            if !passed.contains(&key) {
                match workspace::find_by_key(key, &latest)? {
                    Some((workspace_id, _)) => {
                        due.insert(key, Due { workspace_id, is_unpinned: true });
                    }
                    None => unpinned::remove(key, &latest)?,
                }
            }
            Ok(due.len() < MANY)
        })?;
        Ok(due)
    }

    /// The same before an update of the extension has added the marks.
    fn visit_all(&mut self) -> Result<()> {
        let (snapshot, deadlines) = (MvccSnapshot::fresh(), self.deadlines);
        workspace::for_each_after(i64::MIN, &snapshot, |id, workspace| {
            if has_work(workspace, &deadlines, &snapshot)?
                && let Some(locked) = self.lock_if_free(id)?
            {
                self.visit(locked, false)?;
            }
            Ok(!self.tally.has_more)
        })
    }

    /// `None` if another session has locked it, or if this call must end before.
    fn lock_if_free(&mut self, workspace_id: &str) -> Result<Option<LockedWorkspace>> {
        if self.must_let_go() || self.raised == MAX_RAISED {
            self.tally.has_more = true;
            return Ok(None);
        }
        match workspace::lock(workspace_id, Wait::Skip)? {
            Locked::Row(locked) => Ok(Some(locked)),
            Locked::Gone | Locked::Busy => Ok(None),
        }
    }

    fn visit_for(&mut self, permit: &Permit<'_>) -> Result<()> {
        let Locked::Row(locked) = workspace::lock(permit.workspace_id, Wait::Block)? else {
            return permit.renew(&MvccSnapshot::fresh());
        };
        permit.renew(&locked.snapshot)?;
        self.visit(locked, false)?;
        self.tally.workspaces = 1;
        Ok(())
    }

    /// Whether others have waited for long enough, or may be waiting. A call makes some
    /// progress whatever the time is.
    fn must_let_go(&self) -> bool {
        let (limit, scanned) = (guc::gc_lock_time(), self.tally.scanned);
        let has_done_some = scanned + self.tally.devices_deleted + self.raised > 0;
        let Some(locked_at) = self.locked_at.filter(|_| !limit.is_zero() && has_done_some) else {
            return false;
        };
        locked_at.elapsed() >= limit || scanned % UNDISTURBED == 0 && server::is_waited_for()
    }

    fn visit(&mut self, locked: LockedWorkspace, is_unpinned: bool) -> Result<()> {
        self.locked_at.get_or_insert_with(Instant::now);
        if locked.is_departing()? {
            return Ok(());
        }
        let Workspace { key, progress: before, watch, .. } = locked.workspace;
        let deadlines = self.deadlines;
        // Acknowledgements do not take the workspace's lock, so they are not serialized
        // with GC: above READ COMMITTED the transaction's snapshot could miss a device
        // that has registered or returned since.
        let latest = MvccSnapshot::latest();
        if is_unpinned {
            // With the same snapshot as the devices that they are about.
            unpinned::remove(key, &latest)?;
        }
        let devices = device::heartbeats(key, &latest)?;
        let deleted = device::forget(key, &latest, |heartbeat| deadlines.is_forgotten(heartbeat))?;
        drop(latest);
        self.tally.devices_deleted += deleted;
        let ceiling = retention::ceiling(before, &deadlines, devices.iter().copied());
        let (progress, unread) = self.collect(&locked, ceiling, &devices)?;

        let to_forget = devices.iter().filter(|device| deadlines.is_forgotten(device.at)).count();
        let is_idle = progress == before && matches!(unread, Unread::Young(_));
        let had_work = to_forget > 0 || ceiling > before.gc_through && !is_idle;
        self.tally.workspaces += usize::from(had_work);
        let mut raised = watch;
        if locked.has_marks() {
            // One that is coming back at the moment is not deleted.
            let stays = |at: &Timestamp| deleted < to_forget || !deadlines.is_forgotten(*at);
            let oldest = devices.iter().map(|device| device.at).filter(stays).min();
            raised = watch.after_look(unread, oldest.unwrap_or(deadlines.now), &deadlines);
        }
        self.raised += usize::from(raised != watch && !had_work);
        if progress == before && raised == watch {
            drop(locked);
        } else {
            locked.save_watched(progress, raised)?;
        }
        server::end_command();
        Ok(())
    }

    /// Reads the unread entries up to `ceiling`, and purges. Returns how far it came, and what
    /// is left.
    fn collect(
        &mut self,
        locked: &LockedWorkspace,
        ceiling: Version,
        devices: &[Heartbeat],
    ) -> Result<(Progress, Unread)> {
        let Workspace { key, mut progress, .. } = locked.workspace;
        if !progress.has_unread() {
            return Ok((progress, Unread::Nothing));
        }
        let snapshot = &locked.snapshot;
        let log = Log::open(key, Access::Write)?;
        let records = Records::open(key, Access::Read)?;
        let mut names = records.names(snapshot);
        let mut versions = log.versions(snapshot);
        let mut entries = log.after(progress.gc_through, snapshot);
        let mut next = None;
        while let Some(entry) = entries.next() {
            let (version, created_at) = (entry.version()?, entry.created_at()?);
            if version > ceiling {
                next = Some(created_at);
                break;
            }
            if self.deadlines.is_young(created_at) {
                return Ok((progress, Unread::Young(created_at)));
            }
            if self.budget == 0 || self.must_let_go() {
                self.tally.has_more = true;
                return Ok((progress, Unread::Due));
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
        progress.gc_through = progress.gc_through.max(ceiling);
        let unread = match next.filter(|_| progress.has_unread()) {
            None => Unread::Nothing,
            Some(since) if self.deadlines.is_young(since) => Unread::Young(since),
            Some(_) => Unread::Pinned(self.pin(locked, progress, devices)?),
        };
        Ok((progress, unread))
    }

    /// By whom a workspace is pinned.
    fn pin(
        &self,
        locked: &LockedWorkspace,
        progress: Progress,
        devices: &[Heartbeat],
    ) -> Result<Pin> {
        let Workspace { key, progress: before, watch, .. } = locked.workspace;
        let pins = |device: &Heartbeat| self.deadlines.pins(*device, progress);
        // Whoever acknowledges from now on sees that it is pinned, and where. Who has begun
        // before may not, but still has the device locked.
        let is_seen = watch.pinned_since.is_some() && !locked.is_unseen && progress == before;
        if is_seen && let Some(heartbeat) = device::find_free(key, pins)? {
            return Ok(Pin { heartbeat, is_certain: true });
        }
        let heartbeat = devices.iter().filter(|device| pins(device)).map(|device| device.at).max();
        Ok(Pin { heartbeat: heartbeat.unwrap_or(LOOK), is_certain: false })
    }
}

/// Whether a workspace needs GC. It is not locked: check again after locking it.
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
