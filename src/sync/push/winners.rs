//! The replies to stored ops, with the winners that they lost to.

use super::known::missing;
use super::patched::RecordJson;
use super::{Detail, Outcome, Push, Result, Target};
use crate::guc;
use crate::store::log::Versions;
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::merge::{Decision, RecordState, holds};
use sync_ext_core::rules::refusal::Refusal;
use sync_ext_core::wire::push_reply::{PushReply, Stored, Winner};

/// Winners at the end of the call. The payload of each is sent once, with the first op
/// that lost to it, and all of them together stay below a page. A device receives the
/// others with its next pull.
pub struct Winners<'p> {
    push: &'p Push<'p>,
    versions: Versions<'p>,
    /// By record: its winner's payload was sent, or is too large to be sent.
    is_done: Vec<bool>,
    /// The bytes left for payloads.
    bytes: usize,
}

impl<'p> Winners<'p> {
    pub fn of(push: &'p Push<'p>) -> Winners<'p> {
        let Target { locked, log, .. } = push.target;
        let versions = log.versions(&locked.snapshot);
        let is_done = vec![false; push.touched.len()];
        Winners { push, versions, is_done, bytes: guc::max_page_bytes() }
    }

    pub fn reply(
        &mut self,
        reply: &mut PushReply,
        op_id: Option<&str>,
        place: usize,
    ) -> Result<()> {
        let pushed = &self.push.ops[place];
        let state = self.push.touched[pushed.record].state.as_ref();
        let names =
            || pushed.op.patch.iter().flat_map(|patch| &patch.fields).map(|(name, _)| &**name);
        let mut lost: Vec<&str> = Vec::new();
        let stored = match &pushed.outcome {
            Outcome::Refused(
                refusal @ (Refusal::RecordConflict
                | Refusal::FieldConflict
                | Refusal::Rejected { .. }
                | Refusal::Row(_)),
            ) => {
                // It may have been refused before anyone asked whose the record is.
                let caller = self.push.target.caller;
                let seen =
                    state.filter(|state| caller.sees(state.owner.as_deref().unwrap_or_default()));
                return match seen {
                    None => reply.refused(op_id, refusal, None),
                    Some(state) => self.with_winner(pushed.record, state, |current| {
                        reply.refused(op_id, refusal, Some(current))
                    }),
                };
            }
            Outcome::Refused(refusal) => return reply.refused(op_id, refusal, None),
            Outcome::New { decision, detail } => {
                let Decision { version, applied, created, overwrote, .. } = *decision;
                if let Some(Detail::Won(won)) = detail.as_deref() {
                    lost.extend(names().zip(won).filter(|(_, won)| !**won).map(|(name, _)| name));
                }
                Stored {
                    version,
                    applied,
                    replayed: false,
                    created,
                    overwrote,
                    lost: &lost,
                    payload: None,
                }
            }
            Outcome::Replay { version, overwrote } => {
                let (version, overwrote) = (*version, *overwrote);
                let state = state.ok_or_else(|| damaged("A logged op has no record."))?;
                lost.extend(names().filter(|name| !holds(pushed.op, name, state)));
                let applied = match &pushed.op.patch {
                    None => state.register == pushed.op.revision,
                    Some(patch) => lost.len() < patch.fields.len(),
                };
                if !applied {
                    lost.clear();
                }
                Stored {
                    version,
                    applied,
                    replayed: true,
                    created: false,
                    overwrote,
                    lost: &lost,
                    payload: None,
                }
            }
            Outcome::Undecided(_) => return Err(damaged("An op was not decided on.")),
        };
        if stored.applied {
            let payload = self.push.image(place).filter(|image| image.len() < self.bytes);
            self.bytes -= payload.map_or(0, str::len);
            return reply.stored(op_id, Stored { payload, ..stored }, None);
        }
        let Some(state) = state else {
            return Err(damaged("A logged op has no record."));
        };
        self.with_winner(pushed.record, state, |winner| reply.stored(op_id, stored, Some(winner)))
    }

    fn with_winner(
        &mut self,
        record: usize,
        state: &RecordState<'_>,
        write: impl FnOnce(&Winner<'_>) -> Result<()>,
    ) -> Result<()> {
        let (version, revision) = (state.version, state.register.clone());
        let is_done = std::mem::replace(&mut self.is_done[record], true);
        let touched = &self.push.touched[record];
        if state.deleted {
            let deleted_at = match touched.newest_op {
                Some(_) => Some(self.push.at),
                None => self.versions.find(version).map(|entry| entry.created_at()).transpose()?,
            };
            return write(&Winner::Delete { version, revision, deleted_at });
        }
        let put = |payload: Option<&str>, fields: Option<&str>| {
            let payload = payload.unwrap_or("null");
            let bytes = payload.len() + fields.map_or(0, str::len);
            let fits = bytes < self.bytes && !is_done;
            self.bytes -= if fits { bytes } else { 0 };
            let (payload, fields) = if fits { (Some(payload), fields) } else { (None, None) };
            write(&Winner::Put { version, revision, payload, fields })
        };
        match touched.newest_op {
            _ if is_done => put(None, None),
            Some(place) if self.push.is_newest_patch(place) => {
                let RecordJson { payload, fields } =
                    self.push.record_json(touched, &mut self.versions)?;
                put(self.push.image(place).or(Some(&payload)), Some(&fields))
            }
            Some(place) => put(self.push.image(place).or(self.push.ops[place].payload()), None),
            None => match self.versions.find(version) {
                Some(entry) => put(entry.payload(), entry.fields()),
                None => Err(missing(version)),
            },
        }
    }
}

fn damaged(what: &str) -> SyncError {
    SyncError::Damaged { what: what.to_owned() }
}
