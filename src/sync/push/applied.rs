//! A batch that writes attached tables: decided, applied to the typed rows, and decided
//! again without the ops that a row refused, until all is settled.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::known::{Logged, find_by_op_id};
use super::patched::Source;
use super::{Care, LARGE, Outcome, Push, Result, Target, TouchedRecord};
use crate::apply::{self, Edit, RowChange, Tables};
use crate::capture;
use crate::store::counters::{self, Counter};
use crate::store::log::Versions;
use crate::store::mvcc::MvccSnapshot;
use crate::store::subtransaction::Subtransaction;
use crate::store::{Duplicates, memory, server};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::capture::CaptureError;
use sync_ext_core::rules::refusal::Refusal;
use sync_ext_core::rules::scope::ScopeField;
use sync_ext_core::wire::image::difference;
use sync_ext_core::wire::push_request::{WORKSPACE_FIELD, memory_for, scope_said};
use sync_ext_core::wire::value::Digests;

/// The rows that are kept because they are not what was pushed: a short op may stand for a
/// large row.
const MAX_IMAGES: usize = 64 * 1024 * 1024;

/// What was looked up about an op that was decided.
fn looked_up(outcome: &Outcome, care: Care) -> Logged {
    match outcome {
        Outcome::Undecided(logged) => *logged,
        Outcome::Replay { version, overwrote } => {
            Logged::Same { version: *version, overwrote: *overwrote }
        }
        Outcome::Refused(Refusal::ConflictWithLog) => Logged::Other,
        Outcome::New { .. } | Outcome::Refused(_) => match care {
            Care::LookUp => Logged::No,
            Care::Presume => Logged::Unasked,
        },
    }
}

/// A record whose row was written as the op at this place says.
type Applied = BTreeMap<usize, usize>;

impl<'p> Push<'p> {
    pub fn store_applied(&mut self, tables: &Tables) -> Result<()> {
        if self.ops.len() >= LARGE && !self.read_retry()? && Subtransaction::is_cheap() {
            let subtransaction = Subtransaction::begin();
            if self.try_to_apply(tables, Care::Presume)? {
                subtransaction.commit();
                return Ok(());
            }
            // The typed rows too are as before.
            subtransaction.roll_back();
            self.refused.clear();
            self.images.clear();
            self.forget();
        }
        match self.try_to_apply(tables, Care::LookUp)? {
            true => Ok(()),
            false => Err(SyncError::Damaged { what: "The log contradicts itself.".to_owned() }),
        }
    }

    /// False if a presumption is wrong.
    fn try_to_apply(&mut self, tables: &Tables, care: Care) -> Result<bool> {
        let mut applied = Applied::new();
        loop {
            if !self.decide(care)? {
                return Ok(false);
            }
            let refused = self.apply_some(tables, &mut applied)?;
            if refused.is_empty() {
                break;
            }
            if care == Care::Presume && !self.are_new(&refused)? {
                return Ok(false);
            }
            self.undo(|outcome| looked_up(outcome, care));
        }
        self.read_images(tables, &applied)?;
        self.write(match care {
            Care::Presume => Duplicates::Report,
            Care::LookUp => Duplicates::Raise,
        })
    }

    /// Are these ops, and the records presumed to be unknown, not stored? No unique index
    /// would object to what is refused.
    fn are_new(&self, refused: &[usize]) -> Result<bool> {
        let Target { locked, records, .. } = self.target;
        let mut names = records.names(&locked.snapshot);
        for place in refused {
            let pushed = &self.ops[*place];
            let TouchedRecord { key, row, .. } = &self.touched[pushed.record];
            let is_known = row.is_none() && names.find(&key.table, &key.pk).is_some();
            if is_known || find_by_op_id(&self.target, pushed.op)? != Logged::No {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes the rows of records that are decided and not written. Returns the places of
    /// ops that were refused.
    fn apply_some(&mut self, tables: &Tables, applied: &mut Applied) -> Result<Vec<usize>> {
        let locked = self.target.locked;
        let (records, verdicts) = {
            let mut versions = self.target.log.versions(&locked.snapshot);
            let (mut records, mut changes) = (Vec::new(), Vec::new());
            for (record, touched) in self.touched.iter().enumerate() {
                let (Some(place), Some(table)) =
                    (touched.newest_op, tables.find(&touched.key.table))
                else {
                    continue;
                };
                if applied.get(&record) != Some(&place) {
                    let edit = self.edit(record, place, &mut versions)?;
                    let owner = touched.state.as_ref().and_then(|state| state.owner.clone());
                    memory::push(&mut records, (record, place))?;
                    changes.push(RowChange { table, pk: &touched.key.pk, owner, edit });
                }
            }
            if changes.is_empty() {
                return Ok(Vec::new());
            }
            drop(versions);
            let ops = self.ops.len();
            (records, locked.closed(|| apply::apply(tables, &changes, ops, locked.id()))?)
        };
        let mut refused = Vec::new();
        for ((record, place), verdict) in records.into_iter().zip(verdicts) {
            match verdict {
                None => drop(applied.insert(record, place)),
                Some(refusal) => {
                    self.refused.insert(place, refusal);
                    memory::push(&mut refused, place)?;
                }
            }
        }
        Ok(refused)
    }

    /// What becomes of a record's row: a put of this batch writes the whole record,
    /// patches alone what they change.
    fn edit(&self, record: usize, place: usize, versions: &mut Versions<'_>) -> Result<Edit<'_>> {
        let touched = &self.touched[record];
        if touched.state.as_ref().is_some_and(|state| state.deleted) {
            return Ok(Edit::Delete);
        }
        match (&touched.merge, self.is_newest_patch(place)) {
            (Some(merge), true) if matches!(merge.source, Source::Entry(_)) => {
                Ok(Edit::Patch(merge.changes.to_json()))
            }
            (_, true) => Ok(Edit::Put(self.record_json(touched, versions)?.payload.into())),
            (_, false) => {
                Ok(Edit::Put(self.ops[place].payload().map_or(Cow::Borrowed("{}"), Cow::Borrowed)))
            }
        }
    }

    /// Reads back what was written. A row that is not what its op says, because a type or
    /// a trigger made it so, is what is stored. What became of other rows is left to
    /// capture.
    fn read_images(&mut self, tables: &Tables, applied: &Applied) -> Result<()> {
        let locked = self.target.locked;
        let digests = Digests::new(server::check_interrupts);
        let (mut images, mut bytes) = (BTreeMap::new(), 0);
        let mut stored = self.target.log.versions(&locked.snapshot);
        let after = MvccSnapshot::latest();
        for at in 0..tables.len() {
            let mut rows = tables.typed(at).rows(&after)?;
            for (record, place) in applied {
                let touched = &self.touched[*record];
                if tables.find(&touched.key.table) != Some(at) {
                    continue;
                }
                server::check_interrupts();
                let pk = &*touched.key.pk;
                let row = rows.find(pk, locked.id());
                let is_deleted = touched.state.as_ref().is_some_and(|state| state.deleted);
                match row {
                    Some(row) if !is_deleted => {
                        let payload = if self.is_newest_patch(*place) {
                            Cow::Owned(self.record_json(touched, &mut stored)?.payload)
                        } else {
                            Cow::Borrowed(self.ops[*place].payload().unwrap_or("{}"))
                        };
                        memory::require(memory_for(&payload))?;
                        let found = difference(&payload, &row.image, WORKSPACE_FIELD, &digests);
                        if found.has_more || !found.fields.is_empty() {
                            bytes += row.image.len();
                            // Of one op there is always room.
                            if bytes > MAX_IMAGES && !images.is_empty() {
                                return Err(SyncError::TooMuchTogether {
                                    why: "Rows that became other than pushed have more than 64 MB.",
                                });
                            }
                            images.insert(*record, row.image);
                        }
                        capture::is_settled(locked.id(), tables.attached(at), pk);
                    }
                    None if is_deleted => capture::is_settled(locked.id(), tables.attached(at), pk),
                    // Triggers went on: capture sees what became of it.
                    _ => capture::is_open(locked.id(), tables.attached(at), pk)?,
                }
            }
        }
        drop(stored);
        drop(after);
        counters::count(Counter::OpsNormalized, images.len());
        for (record, image) in &images {
            self.move_with(*record, image, tables)?;
        }
        self.images = images;
        Ok(())
    }

    /// The scope too is that of the row.
    fn move_with(&mut self, record: usize, image: &str, tables: &Tables) -> Result<()> {
        let touched = &mut self.touched[record];
        let at = tables.find(&touched.key.table);
        let field = at.and_then(|at| tables.attached(at).scope_field.as_deref());
        let (Some(field), Some(state), Some(newest)) =
            (field, &mut touched.state, touched.newest_op)
        else {
            return Ok(());
        };
        let said = scope_said(Some(image), Some(field));
        if said == ScopeField::Invalid {
            let (table, pk) = (touched.key.table.to_string(), touched.key.pk.to_string());
            return Err(CaptureError::Scope { table, pk }.into());
        }
        state.scope = said.of_record();
        if let Outcome::New { decision, .. } = &mut self.ops[newest].outcome {
            decision.scope.clone_from(&state.scope);
        }
        Ok(())
    }

    /// The record as its row has it, if the op at `place` is its newest entry and says
    /// otherwise.
    pub fn image(&self, place: usize) -> Option<&str> {
        let pushed = &self.ops[place];
        let is_newest = self.touched[pushed.record].newest_op == Some(place);
        let is_new = matches!(pushed.outcome, Outcome::New { .. });
        self.images.get(&pushed.record).filter(|_| is_newest && is_new).map(String::as_str)
    }
}
