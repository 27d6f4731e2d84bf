//! Storing what was decided, and notifying of it.

use std::borrow::Cow;

use super::patched::RecordJson;
use super::{Detail, Outcome, Push, Result, Target, TouchedRecord};
use crate::guc::{self, Notify};
use crate::store::log::Versions;
use crate::store::log_writer::NewEntry;
use crate::store::subtransaction::Subtransaction;
use crate::store::{Duplicates, notify};
use sync_ext_core::rules::merge::RecordState;
use sync_ext_core::wire::notice::Changes;

impl<'p> Push<'p> {
    /// False, with nothing stored, if a presumption is wrong.
    pub fn try_to_write(&self) -> Result<bool> {
        if self.head == self.target.locked.workspace.progress.head {
            return Ok(true);
        }
        let subtransaction = Subtransaction::begin();
        let is_written = self.write(Duplicates::Report)?;
        match is_written {
            true => subtransaction.commit(),
            false => subtransaction.roll_back(),
        }
        Ok(is_written)
    }

    /// Writes rows that may be duplicates first, so that existing rows are not touched
    /// before all new ones are stored; among those new records first, because two
    /// devices creating the same record is the most common case.
    pub fn write(&self, duplicates: Duplicates) -> Result<bool> {
        let Target { locked, log, records, .. } = self.target;
        let mut writer = records.writer(&locked.snapshot, duplicates);
        for (record, state) in self.changed() {
            if record.row.is_none() {
                writer.insert(record.key, state);
            }
        }
        if !writer.finish() {
            return Ok(false);
        }
        let mut writer = log.writer(&locked.snapshot, self.at, duplicates)?;
        // The pages that it pins belong to the subtransaction, if there is one.
        let mut versions = log.versions(&locked.snapshot);
        for place in 0..self.ops.len() {
            if let Some(entry) = self.entry(place, &mut versions)? {
                writer.append(&entry);
            }
        }
        drop(versions);
        if !writer.finish() {
            return Ok(false);
        }
        let mut writer = records.writer(&locked.snapshot, Duplicates::Raise);
        for (record, state) in self.changed() {
            if let Some(row) = record.row {
                writer.update(row, record.key, state)?;
            }
        }
        Ok(writer.finish())
    }

    /// The records that the batch changes.
    fn changed(&self) -> impl Iterator<Item = (&TouchedRecord<'p>, &RecordState<'p>)> {
        let changed = self.touched.iter().filter(|record| record.newest_op.is_some());
        changed.filter_map(|record| record.state.as_ref().map(|state| (record, state)))
    }

    /// The new entry of the log for an op, if it takes a version. A patch that is not
    /// the newest entry is stored without the record: many small patches of a large one
    /// must not log it many times.
    fn entry(&self, place: usize, versions: &mut Versions<'_>) -> Result<Option<NewEntry<'_>>> {
        let pushed = &self.ops[place];
        let Outcome::New { decision, detail } = &pushed.outcome else { return Ok(None) };
        let record = &self.touched[pushed.record];
        let image = self.image(place);
        let (payload, fields) = if self.is_newest_patch(place) {
            let RecordJson { payload, fields } = self.record_json(record, versions)?;
            (Some(image.map_or(Cow::Owned(payload), Cow::Borrowed)), Some(fields))
        } else if pushed.op.patch.is_some() {
            (None, None)
        } else {
            (image.or(pushed.payload()).map(Cow::Borrowed), None)
        };
        Ok(Some(NewEntry {
            op: pushed.op,
            decision,
            owner: record.state.as_ref().and_then(|state| state.owner.as_deref()),
            payload,
            pushed: image.and(pushed.op.payload).filter(|_| pushed.op.patch.is_none()),
            filled_field: match detail.as_deref() {
                Some(Detail::Filled { field, .. }) => Some(field),
                _ => None,
            },
            fields,
        }))
    }

    /// Notifies at commit. Every role may listen, so private records are omitted.
    pub fn announce(&self) -> Result<()> {
        if self.head == self.target.locked.workspace.progress.head {
            return Ok(());
        }
        let changes = match guc::notify() {
            Notify::Off => return Ok(()),
            Notify::Hint => Changes::Unasked,
            Notify::Changes => self.few_changes()?,
        };
        notify::at_commit(guc::notify_channel(), self.target.locked.id(), self.head, changes);
        Ok(())
    }

    fn few_changes(&self) -> Result<Changes> {
        let mut changes = Changes::Few(String::new());
        let mut versions = self.target.log.versions(&self.target.locked.snapshot);
        for place in 0..self.ops.len() {
            if changes == Changes::TooMany {
                break;
            }
            match self.entry(place, &mut versions)? {
                Some(entry) if entry.owner.is_none() => {
                    entry.change(|change, telling| changes.add(change, telling))
                }
                _ => {}
            }
        }
        Ok(changes)
    }
}
