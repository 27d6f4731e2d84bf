//! Records that patches change.
//!
//! A patched record may be large, and a batch may patch very many. So of payloads a batch
//! keeps only what changes, and the JSON of the merged records while there is room. Beyond
//! that, a record is read from the log again when it is written.

use super::decide::Allowed;
use super::known::{missing, read_newest};
use super::{Detail, Outcome, Push, Result, TouchedRecord};
use crate::store::log::Versions;
use crate::store::memory;
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::admission::admit_merged;
use sync_ext_core::rules::merge::{Decision, Fields, Newest, RecordState, Turn, apply, turn};
use sync_ext_core::rules::op::{Op, Version};
use sync_ext_core::rules::refusal::Refusal;
use sync_ext_core::rules::scope::scope_after;
use sync_ext_core::wire::fields::names;
use sync_ext_core::wire::push_request::memory_for;
use sync_ext_core::wire::revision::{fields_size, write_fields};
use sync_ext_core::wire::splice::{Changes, Splice};

/// How many bytes of JSON are kept.
const ROOM: usize = 4 * 1024 * 1024;

/// What the patches of a batch change in a record.
pub struct Merge<'p> {
    pub source: Source,
    pub changes: Changes<'p>,
    /// The result of the batch's last op for the record, if there is room.
    json: Option<RecordJson>,
}

/// The payload that the patches of a batch change.
#[derive(Clone, Copy)]
pub enum Source {
    /// The payload of the entry that was the newest before the batch.
    Entry(Version),
    /// The payload of an op in the batch.
    Op(usize),
}

/// A record as JSON: its payload, and which revision holds which field.
#[derive(Clone)]
pub struct RecordJson {
    pub payload: String,
    pub fields: String,
}

/// The decision on an op, and what few ops have besides.
pub type Taken = std::result::Result<(Decision, Option<Detail>), Refusal>;

impl<'p> Push<'p> {
    /// Reads what the newest entry of a live record says, if that is not known.
    pub fn read_newest(&mut self, record: usize, versions: &mut Versions<'_>) -> Result<()> {
        match &mut self.touched[record].state {
            Some(state) => read_newest(state, versions),
            None => Ok(()),
        }
    }

    /// Decides a patch at its turn, and takes the next version unless it is refused.
    pub fn take_patch(
        &mut self,
        place: usize,
        op: &'p Op<'p>,
        allowed: &Allowed<'_>,
        versions: &mut Versions<'_>,
    ) -> Result<Taken> {
        let next = self.next_version();
        let touched = &mut self.touched[self.ops[place].record];
        let source = touched.source();
        let entry = match source {
            Some(Source::Entry(version)) => {
                Some(versions.find(version).ok_or_else(|| missing(version))?)
            }
            _ => None,
        };
        if let (Some(state), Some(entry)) = (&mut touched.state, &entry)
            && state.newest == Newest::Unread
        {
            // No op of the batch was applied to the record, so this entry is the newest.
            state.newest = entry.newest()?;
        }
        let turn = match turn(op, touched.state.as_ref()) {
            Ok(turn) => turn,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut after = touched.state.clone();
        let owner = after.as_ref().and_then(|state| state.owner.clone());
        let field = allowed.scope_field.as_deref();
        let scope = scope_after(after.as_ref(), op, &turn, field, &allowed.said.scope);
        let decision = apply(&mut after, op, &turn, owner, scope, next?);
        let (Turn::Merges { won }, Some(patch), Some(source)) = (turn, &op.patch, source) else {
            return Ok(Ok((decision, None)));
        };

        let merge = touched.merge.as_ref();
        let mut changes = merge.map(|merge| merge.changes.clone()).unwrap_or_default();
        for ((name, value), _) in patch.fields.iter().zip(&won).filter(|(_, won)| **won) {
            changes.set(name.clone(), value);
        }
        let payload = match (entry, source) {
            (Some(entry), _) => entry.payload(),
            (None, Source::Op(newest)) => self.ops[newest].payload(),
            (None, Source::Entry(_)) => None,
        };
        let splice = splice(payload, &changes)?;
        let Some(fields) = after.as_ref().and_then(RecordState::fields) else {
            return Err(no_object());
        };
        let (of_payload, of_fields) = (splice.size(), fields_size(fields));
        if let Err(refusal) = admit_merged(of_payload, of_fields, self.target.limits) {
            return Ok(Err(refusal));
        }
        if let Some(validation) = allowed.validation.as_deref() {
            let unchanged = Changes::default();
            let before = self::splice(payload, merge.map_or(&unchanged, |merge| &merge.changes))?;
            let rejection = self.target.patch_rejection(validation, op, &before, &splice)?;
            if let Some(refusal) = rejection {
                return Ok(Err(refusal));
            }
        }
        let bytes = self.kept_bytes + of_payload + of_fields;
        let is_kept = place == touched.last_op && bytes <= ROOM;
        let json = is_kept.then(|| result(&splice, fields)).transpose()?;
        if is_kept {
            self.kept_bytes = bytes;
        }
        touched.merge = Some(Box::new(Merge { source, changes, json }));
        touched.state = after;
        Ok(Ok((decision, Some(Detail::Won(won)))))
    }

    /// The record as the patches of this batch left it.
    pub fn record_json(
        &self,
        record: &TouchedRecord<'p>,
        versions: &mut Versions<'_>,
    ) -> Result<RecordJson> {
        let Some(merge) = &record.merge else { return Err(no_object()) };
        let Merge { source, changes, json } = &**merge;
        if let Some(json) = json {
            return Ok(json.clone());
        }
        let payload = match *source {
            Source::Entry(version) => {
                versions.find(version).ok_or_else(|| missing(version))?.payload()
            }
            Source::Op(place) => self.ops[place].payload(),
        };
        let splice = splice(payload, changes)?;
        let fields = record.state.as_ref().and_then(RecordState::fields);
        result(&splice, fields.ok_or_else(no_object)?)
    }

    /// Is the newest entry of its record this op's, which is a patch?
    pub fn is_newest_patch(&self, place: usize) -> bool {
        let pushed = &self.ops[place];
        let is_new = matches!(pushed.outcome, Outcome::New { .. });
        is_new && pushed.op.patch.is_some() && self.touched[pushed.record].newest_op == Some(place)
    }
}

impl TouchedRecord<'_> {
    /// What a patch would change at this turn.
    fn source(&self) -> Option<Source> {
        match (&self.merge, self.newest_op, &self.state) {
            (Some(merge), ..) => Some(merge.source),
            (None, Some(newest), _) => Some(Source::Op(newest)),
            (None, None, Some(state)) if !state.deleted => Some(Source::Entry(state.version)),
            (None, None, _) => None,
        }
    }
}

/// `sync_ext.patched_names`: what a patch in the log writes.
pub fn patched_names(patch: Option<&str>) -> Result<Option<String>> {
    let Some(patch) = patch else { return Ok(None) };
    memory::require(memory_for(patch))?;
    Ok(names(patch))
}

fn splice<'s>(payload: Option<&'s str>, changes: &'s Changes<'_>) -> Result<Splice<'s>> {
    let payload = payload.ok_or_else(no_object)?;
    // A name with an escape is decoded, twice in part, and may be the whole text.
    memory::require(2 * payload.len())?;
    Splice::of(payload, changes).ok_or_else(no_object)
}

fn result(splice: &Splice<'_>, fields: &Fields<'_>) -> Result<RecordJson> {
    // A string that grows is copied.
    memory::require(splice.size() + 3 * fields_size(fields))?;
    Ok(RecordJson { payload: splice.to_json(), fields: write_fields(fields) })
}

fn no_object() -> SyncError {
    SyncError::Damaged { what: "A live record is not an object.".to_owned() }
}
