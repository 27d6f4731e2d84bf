//! A batch that is pushed again, because its reply was lost.
//!
//! The log contains it as it was pushed: in its order, with one version after the
//! other, except for ops that were refused, were replays already, or are purged.
//! Reading the log from its first op on finds the rest without a look-up each. Reading
//! on to the head, if that is near, also gives the records: the newest entry of a
//! record is its last applied one. (GC deletes a superseded entry before, or together
//! with, the entry that superseded it, so an applied entry in the log is never older
//! than a purged newest one.)

use super::known::{Logged, compare};
use super::{Outcome, Push, Result};
use crate::store::log::Entry;
use crate::store::record::owner_of;
use sync_ext_core::rules::merge::{Newest, RecordState};
use sync_ext_core::rules::op::Operation;

/// The maximal distance from the batch's end to the head, in sizes of the batch:
/// reading so many entries costs less than looking up every record.
const MAX_TAIL: i64 = 4;

impl Push<'_> {
    /// Reads what the log contains about the batch as a retry. False if the log does
    /// not have its first op: then it is not treated as one.
    pub fn read_retry(&mut self) -> Result<bool> {
        let target = self.target;
        let snapshot = &target.locked.snapshot;
        let Some(first) = self.ops.first().map(|pushed| pushed.op.op_id()) else {
            return Ok(false);
        };
        let first = target.log.op_ids(snapshot)?.find(first).map(|entry| entry.version());
        let Some(first) = first.transpose()? else { return Ok(false) };

        let mut entries = target.log.from(first, snapshot);
        let mut entry = entries.next();
        let mut last = first;
        for place in 0..self.ops.len() {
            let Some(found) = &entry else { break };
            // An op that was refused then has no version.
            let op = self.ops[place].op;
            if found.op_id()? != op.op_id() {
                continue;
            }
            let logged = compare(op, found, &target)?;
            let record = match logged {
                Logged::Same { .. } => Some(self.ops[place].record),
                // The same opId, but perhaps of another record.
                _ => self.place_of(found)?,
            };
            self.ops[place].outcome = Outcome::Undecided(logged);
            self.see(record, found)?;
            last = found.version()?;
            entry = entries.next();
        }
        if self.head.get() - last.get() > MAX_TAIL * self.ops.len() as i64 {
            for record in &mut self.touched {
                record.state = None;
            }
            return Ok(true);
        }
        while let Some(found) = entry {
            let record = self.place_of(&found)?;
            self.see(record, &found)?;
            entry = entries.next();
        }
        // The other ops may have to be written, so their records' rows are needed.
        for pushed in &self.ops {
            if pushed.logged() == Logged::Unasked {
                self.touched[pushed.record].state = None;
            }
        }
        Ok(true)
    }

    /// The index of an entry's record, if the batch touches it.
    fn place_of(&self, entry: &Entry<'_>) -> Result<Option<usize>> {
        let name = (entry.table()?, entry.pk()?);
        let key =
            |record: &super::TouchedRecord<'_>| (&*record.key.table, &*record.key.pk).cmp(&name);
        Ok(self.touched.binary_search_by(key).ok())
    }

    fn see(&mut self, record: Option<usize>, entry: &Entry<'_>) -> Result<()> {
        if let (Some(record), true) = (record, entry.applied()?) {
            let operation = entry.operation()?;
            let is_patch = operation == Operation::Patch;
            self.touched[record].state = Some(RecordState {
                register: entry.register()?.into_owned(),
                deleted: operation == Operation::Delete,
                version: entry.version()?,
                newest: if is_patch { Newest::Unread } else { Newest::Register },
                owner: owner_of(entry.owner()?),
                scope: entry.scope().map(Into::into),
            });
        }
        Ok(())
    }
}
