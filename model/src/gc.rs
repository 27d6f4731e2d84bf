//! Garbage collection, and the rows of dropped workspaces.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::members::Role;
use crate::refusal::{Refusal, invalid, trusted_only};
use crate::server::{Device, Server, Workspace};

/// What counts as old: times up to and including these.
#[derive(Clone, Copy, Debug)]
pub struct Cutoffs {
    /// Entries.
    pub entries: i64,
    /// Heartbeats of devices that are no longer active.
    pub heartbeats: i64,
    /// Heartbeats of devices that are deleted.
    pub forgotten: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub workspaces: i64,
    pub scanned: i64,
    pub changes: i64,
    pub tombstones: i64,
    pub devices: i64,
    pub has_more: bool,
}

impl Collected {
    pub fn reply(&self) -> Value {
        json!({"workspaces": self.workspaces, "scanned": self.scanned,
            "changesDeleted": self.changes, "tombstonesDeleted": self.tombstones,
            "devicesDeleted": self.devices, "hasMore": self.has_more})
    }
}

/// Rows of a dropped workspace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leftover {
    entries: i64,
    records: i64,
    devices: i64,
}

impl Leftover {
    pub(crate) fn of(workspace: &Workspace) -> Leftover {
        Leftover {
            entries: workspace.log.len() as i64,
            records: workspace.records.len() as i64,
            devices: workspace.devices.len() as i64,
        }
    }

    pub fn rows(&self) -> i64 {
        self.entries + self.records + self.devices
    }
}

impl Server {
    /// Erases up to so many entries and records of a dropped workspace, and when
    /// there are fewer its devices too; gives what, and whether some is left.
    pub(crate) fn erase(&mut self, number: u64, budget: i64) -> (Leftover, bool) {
        let Some(left) = self.dropped.get_mut(&number) else { return Default::default() };
        let entries = left.entries.min(budget);
        let records = left.records.min(budget - entries);
        left.entries -= entries;
        left.records -= records;
        if entries + records == budget {
            return (Leftover { entries, records, devices: 0 }, true);
        }
        let devices = left.devices;
        self.dropped.remove(&number);
        (Leftover { entries, records, devices }, false)
    }

    /// Half of a batch is for what is left of dropped workspaces.
    fn erase_dropped(&mut self, batch: i64, collected: &mut Collected) -> bool {
        let (mut budget, mut has_more) = ((batch + 1) / 2, false);
        for number in self.dropped.keys().copied().collect::<Vec<_>>() {
            if budget <= 0 {
                return true;
            }
            let (erased, is_left) = self.erase(number, budget);
            collected.scanned += erased.rows();
            collected.changes += erased.entries;
            collected.devices += erased.devices;
            budget -= erased.rows();
            has_more |= is_left;
        }
        has_more
    }

    /// The workspaces that a call looks at, in its order.
    pub fn due(
        &self,
        workspace: Option<&str>,
        cutoffs: Cutoffs,
        locked: &BTreeSet<String>,
    ) -> Vec<String> {
        let is_due = |name: &str, state: &Workspace| match workspace {
            Some(asked) => asked == name,
            None => !locked.contains(name) && state.has_work(cutoffs),
        };
        let due = self.workspaces.iter().filter(|(name, state)| is_due(name, state));
        let mut due: Vec<(u64, String)> =
            due.map(|(name, state)| (state.number, name.clone())).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, name)| name).collect()
    }

    /// `workspace` is `None` for all that nobody has locked.
    pub fn collect(
        &mut self,
        user: Option<&str>,
        workspace: Option<&str>,
        cutoffs: Cutoffs,
        batch: i64,
        locked: &BTreeSet<String>,
    ) -> Result<Collected, Refusal> {
        let mut collected = Collected::default();
        match workspace {
            Some(name) => self.allow(user, name, Role::Owner)?,
            None => trusted_only(user)?,
        }
        if batch < 1 {
            return Err(invalid("invalid batch_size"));
        }
        let more_to_erase = workspace.is_none() && self.erase_dropped(batch, &mut collected);
        for name in self.due(workspace, cutoffs, locked) {
            if let Some(state) = self.workspaces.get_mut(&name) {
                state.collect(cutoffs, batch, &mut collected);
            }
            if collected.has_more {
                break;
            }
        }
        collected.has_more |= more_to_erase;
        Ok(collected)
    }
}

impl Workspace {
    pub fn is_active(&self, device: &Device, cutoffs: Cutoffs) -> bool {
        device.heard_at > cutoffs.heartbeats && device.cursor >= self.horizon
    }

    /// The last version that the head and active devices let GC read.
    fn ceiling(&self, cutoffs: Cutoffs) -> i64 {
        let active = self.devices.values().filter(|device| self.is_active(device, cutoffs));
        active.map(|device| device.cursor).fold(self.head, i64::min) - 1
    }

    /// Would a call for all workspaces lock this one?
    fn has_work(&self, cutoffs: Cutoffs) -> bool {
        let first = self.log.range(self.gc_through + 1..).next();
        self.devices.values().any(|device| device.heard_at <= cutoffs.forgotten)
            || self.ceiling(cutoffs) > self.gc_through
                && first.is_none_or(|(_, entry)| entry.at <= cutoffs.entries)
    }

    fn collect(&mut self, cutoffs: Cutoffs, batch: i64, collected: &mut Collected) {
        collected.workspaces += 1;
        let before = (self.gc_through, self.horizon);
        let ceiling = self.ceiling(cutoffs);
        let registered = self.devices.len();
        self.devices.retain(|_, device| device.heard_at > cutoffs.forgotten);
        collected.devices += (registered - self.devices.len()) as i64;
        self.read_to(ceiling, cutoffs, batch, collected);
        self.changes += u64::from(before != (self.gc_through, self.horizon));
    }

    fn read_to(&mut self, ceiling: i64, cutoffs: Cutoffs, batch: i64, collected: &mut Collected) {
        let unread: Vec<i64> =
            self.log.range(self.gc_through + 1..).map(|(version, _)| *version).collect();
        for version in unread.into_iter().take_while(|version| *version <= ceiling) {
            let Some(entry) = self.log.get(&version).cloned() else { continue };
            if entry.at > cutoffs.entries {
                return;
            }
            if collected.scanned >= batch {
                collected.has_more = true;
                return;
            }
            collected.scanned += 1;
            if let Some(superseded) = entry.supersedes {
                let left = self.log.get(&superseded).is_some_and(|it| it.left_scope.is_some());
                collected.changes += i64::from(self.forget(superseded));
                self.horizon = if left { self.horizon.max(superseded) } else { self.horizon };
            }
            if !entry.applied {
                collected.changes += i64::from(self.forget(version));
            } else if entry.op.is_delete && self.records[&entry.op.key()].version == version {
                self.forget(version);
                collected.tombstones += 1;
                self.horizon = version;
            }
            self.gc_through = version;
        }
        self.gc_through = self.gc_through.max(ceiling);
    }
}
