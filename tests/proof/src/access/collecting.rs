//! What the contract says of GC.

use super::model::{Refusal, Server, Workspace, trusted_only};
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

impl Server {
    /// Entries of the step `through` and before are old. What GC does about
    /// workspaces that were dropped is not told here.
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
                let mut due: Vec<&mut Workspace> =
                    self.workspaces.values_mut().filter(|it| it.has_work(through)).collect();
                due.sort_by_key(|state| state.number);
                for state in due {
                    state.collect(through, batch, &mut told);
                    if told.has_more {
                        break;
                    }
                }
            }
        }
        Ok(told)
    }
}

impl Workspace {
    /// The last version that the head and active devices let GC read.
    fn ceiling(&self) -> i64 {
        let active = |device: &&super::model::Device| {
            device.silent_days < DEVICE_TTL && device.cursor >= self.horizon
        };
        let cursors = self.devices.values().filter(active).map(|device| device.cursor);
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
            if told.scanned == batch {
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
