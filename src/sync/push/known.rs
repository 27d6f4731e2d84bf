//! Reads what the tables contain about a batch before it is stored.

use uuid::Uuid;

use super::{Care, Outcome, Push, PushedOp, Result, Target};
use crate::store::log::{Entry, Versions};
use crate::store::record::Names;
use crate::store::{RowId, memory, server};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::merge::{Newest, RecordState};
use sync_ext_core::rules::op::{Op, RecordKey, Version};
use sync_ext_core::wire::owner::same_filled;
use sync_ext_core::wire::push_request::memory_for;
use sync_ext_core::wire::value::{Digests, stable_digest};

/// What the log contains for an opId.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Logged {
    /// Not looked up.
    Unasked,
    No,
    /// The same op, at this version, with what it overwrote.
    Same {
        version: Version,
        overwrote: Option<Uuid>,
    },
    /// Another op with this opId.
    Other,
}

impl Push<'_> {
    /// Reads the records whose registers are not known yet.
    pub fn find_records(&mut self, care: Care) -> Result<()> {
        let mut is_new = vec![false; self.touched.len()];
        if care == Care::Presume {
            for PushedOp { op, record, .. } in &self.ops {
                is_new[*record] |= op.patch.is_none() && op.revision.clock == 1;
            }
        }
        let mut names = self.target.records.names(&self.target.locked.snapshot);
        for (record, is_new) in self.touched.iter_mut().zip(is_new) {
            if is_new || record.state.is_some() {
                continue;
            }
            if let Some(found) = names.find(&record.key.table, &record.key.pk) {
                record.row = Some(found.id());
                record.state = Some(found.state()?);
            }
        }
        Ok(())
    }

    /// Looks up ops in the log that were not looked up yet, in the order of the index
    /// used, so that neighbouring entries are found on the same pages.
    pub fn find_logged(&mut self, care: Care, versions: &mut Versions<'_>) -> Result<()> {
        let mut registers = Vec::new();
        let mut by_op_id = Vec::new();
        for (place, pushed) in self.ops.iter().enumerate() {
            if pushed.logged() != Logged::Unasked {
                continue;
            }
            match &self.touched[pushed.record].state {
                Some(state) if state.register.op_id == pushed.op.op_id() => {
                    registers.push((state.version, place));
                }
                _ if care == Care::Presume => {}
                _ => by_op_id.push(place),
            }
        }
        let target = self.target;
        // Ops that were pushed together have neighbouring versions.
        registers.sort_unstable();
        for (version, place) in registers {
            let pushed = &mut self.ops[place];
            match versions.find(version) {
                Some(entry) if entry.op_id()? == pushed.op.op_id() => {
                    pushed.outcome = Outcome::Undecided(compare(pushed.op, &entry, &target)?);
                }
                // The record was patched, or the entry of a grave was purged and the op
                // may have been sent again since.
                _ => by_op_id.push(place),
            }
        }
        by_op_id.sort_unstable_by_key(|place| self.ops[*place].op.op_id());
        let mut op_ids = target.log.op_ids(&target.locked.snapshot)?;
        for place in by_op_id {
            let pushed = &mut self.ops[place];
            let logged = match op_ids.find(pushed.op.op_id()) {
                Some(entry) => compare(pushed.op, &entry, &target)?,
                None => Logged::No,
            };
            pushed.outcome = Outcome::Undecided(logged);
        }
        Ok(())
    }
}

/// Looks up one op.
pub fn find_by_op_id(target: &Target<'_>, op: &Op<'_>) -> Result<Logged> {
    let mut op_ids = target.log.op_ids(&target.locked.snapshot)?;
    op_ids.find(op.op_id()).map_or(Ok(Logged::No), |entry| compare(op, &entry, target))
}

/// An entry that the caller may not see is never the same op, so that its existence and
/// version stay hidden.
pub fn compare(op: &Op<'_>, entry: &Entry<'_>, target: &Target<'_>) -> Result<Logged> {
    let (owner, filled_field, stored) = (entry.owner()?, entry.filled_field()?, entry.op()?);
    if op.payload != stored.payload {
        memory::require(stored.payload.map_or(0, memory_for))?;
    }
    let digest = entry.pushed_digest();
    let is_same = target.caller.sees(owner)
        && op.same_content(&stored, |pushed, stored| {
            if digest.is_some() {
                return stable_digest(pushed, server::check_interrupts) == digest;
            }
            let digests = Digests::new(server::check_interrupts);
            digests.same(pushed, stored)
                || (!filled_field.is_empty()
                    && same_filled(pushed, filled_field, owner, stored, &digests))
        });
    Ok(match is_same {
        true => Logged::Same { version: entry.version()?, overwrote: entry.overwrote() },
        false => Logged::Other,
    })
}

/// A record as it is under the lock of its workspace, its newest entry included.
pub struct Known {
    pub row: Option<RowId>,
    /// `None` if it is unknown.
    pub state: Option<RecordState<'static>>,
}

/// Reads records for server ops.
pub struct KnownRecords<'p> {
    names: Names<'p>,
    versions: Versions<'p>,
}

impl<'p> Target<'p> {
    pub fn known(&self) -> KnownRecords<'p> {
        let snapshot = &self.locked.snapshot;
        KnownRecords { names: self.records.names(snapshot), versions: self.log.versions(snapshot) }
    }
}

impl KnownRecords<'_> {
    pub fn read(&mut self, key: &RecordKey<'_>) -> Result<Known> {
        let Some(found) = self.names.find(&key.table, &key.pk) else {
            return Ok(Known { row: None, state: None });
        };
        let (row, mut state) = (found.id(), found.state()?);
        read_newest(&mut state, &mut self.versions)?;
        Ok(Known { row: Some(row), state: Some(state) })
    }
}

/// Reads what the newest entry of a live record says, if that is not known.
pub fn read_newest(state: &mut RecordState<'_>, versions: &mut Versions<'_>) -> Result<()> {
    if state.newest == Newest::Unread {
        let entry = versions.find(state.version).ok_or_else(|| missing(state.version))?;
        state.newest = entry.newest()?;
    }
    Ok(())
}

pub fn missing(version: Version) -> SyncError {
    SyncError::Damaged {
        what: format!("The log has no entry {}, of a live record.", version.get()),
    }
}
