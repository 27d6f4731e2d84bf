//! What the contract says of GC.

use super::model::{Device, Refusal, Server, Workspace, trusted_only};
use super::step::{Name, Role};

/// The days after which a device is inactive, and forgotten.
const DEVICE_TTL: i64 = 90;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub workspaces: i64,
    pub scanned: i64,
    pub changes: i64,
    pub tombstones: i64,
    pub devices: i64,
    pub has_more: bool,
}

/// Rows of a dropped workspace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leftover {
    entries: i64,
    records: i64,
    devices: i64,
}

impl Leftover {
    pub fn of(workspace: &Workspace) -> Leftover {
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
    pub fn erase(&mut self, number: u64, budget: i64) -> (Leftover, bool) {
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
    fn erase_dropped(&mut self, batch: i64, told: &mut Collected) -> bool {
        let (mut budget, mut has_more) = ((batch + 1) / 2, false);
        for number in self.dropped.keys().copied().collect::<Vec<_>>() {
            if budget <= 0 {
                return true;
            }
            let (erased, is_left) = self.erase(number, budget);
            told.scanned += erased.rows();
            told.changes += erased.entries;
            told.devices += erased.devices;
            budget -= erased.rows();
            has_more |= is_left;
        }
        has_more
    }

    /// Entries of the step `through` and before are old.
    pub fn collect(
        &mut self,
        user: Option<Name>,
        workspace: Option<Name>,
        through: i64,
        batch: i64,
    ) -> Result<Collected, Refusal> {
        let mut told = Collected::default();
        match workspace {
            Some(name) => {
                self.allow(user, name, Role::Owner)?;
                if let Some(state) = self.workspaces.get_mut(name) {
                    state.collect(through, batch, &mut told);
                }
            }
            None if user.is_some() => return Err(trusted_only()),
            None => {
                let more_to_erase = self.erase_dropped(batch, &mut told);
                let mut due: Vec<&mut Workspace> =
                    self.workspaces.values_mut().filter(|it| it.has_work(through)).collect();
                due.sort_by_key(|state| state.number);
                for state in due {
                    state.collect(through, batch, &mut told);
                    if told.has_more {
                        break;
                    }
                }
                told.has_more |= more_to_erase;
            }
        }
        Ok(told)
    }
}

impl Workspace {
    pub fn is_active(&self, device: &Device) -> bool {
        device.silent_days < DEVICE_TTL && device.cursor >= self.horizon
    }

    /// The last version that the head and active devices let GC read.
    fn ceiling(&self) -> i64 {
        let active = self.devices.values().filter(|device| self.is_active(device));
        let cursors = active.map(|device| device.cursor);
        cursors.fold(self.head, i64::min) - 1
    }

    fn has_work(&self, through: i64) -> bool {
        let first = self.log.range(self.gc_through + 1..).next();
        self.devices.values().any(|device| device.silent_days >= 2 * DEVICE_TTL)
            || self.ceiling() > self.gc_through
                && first.is_none_or(|(_, entry)| entry.at <= through)
    }

    fn collect(&mut self, through: i64, batch: i64, told: &mut Collected) {
        told.workspaces += 1;
        let ceiling = self.ceiling();
        let registered = self.devices.len();
        self.devices.retain(|_, device| device.silent_days < 2 * DEVICE_TTL);
        told.devices += (registered - self.devices.len()) as i64;
        let unread: Vec<i64> =
            self.log.range(self.gc_through + 1..).map(|(version, _)| *version).collect();
        for version in unread.into_iter().take_while(|version| *version <= ceiling) {
            let Some(entry) = self.log.get(&version).cloned() else { continue };
            if entry.at > through {
                return;
            }
            if told.scanned >= batch {
                told.has_more = true;
                return;
            }
            told.scanned += 1;
            if let Some(superseded) = entry.supersedes {
                told.changes += i64::from(self.forget(superseded));
            }
            if !entry.applied {
                told.changes += i64::from(self.forget(version));
            } else if entry.op.delete && self.records[&entry.op.key()].version == version {
                self.forget(version);
                told.tombstones += 1;
                self.horizon = version;
            }
            self.gc_through = version;
        }
        self.gc_through = self.gc_through.max(ceiling);
    }

    fn forget(&mut self, version: i64) -> bool {
        let Some(entry) = self.log.remove(&version) else { return false };
        self.by_id.remove(&entry.op.op_id);
        true
    }
}
