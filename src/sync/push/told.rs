//! What a push tells about stored ops.

use super::{Fate, Result};
use crate::error::SyncError;
use crate::guc;
use crate::rules::history::Progress;
use crate::rules::merge::{Decision, Merge, Register, Turn};
use crate::rules::op::Timestamp;
use crate::store::log::Versions;
use crate::wire::push_reply::{PushReply, Stored, Winner};

/// What is told about stored ops: winners as they are at the end of the call, the
/// payload of each once, with the first op that lost to it, and all of them together
/// in less than a page. A device gets the others by its next pull, as it would have
/// got these.
pub struct Told<'t, 'b, 'a> {
    before: Progress,
    turns: &'t [Turn<'b, 'a>],
    merged: &'t Merge<'a>,
    versions: Versions<'t>,
    now: Timestamp,
    /// The records whose winner's payload was told, or is too large to be told.
    is_told: Vec<bool>,
    /// What payloads may still take.
    bytes: usize,
}

impl<'t, 'b, 'a> Told<'t, 'b, 'a> {
    pub fn new(
        before: Progress,
        turns: &'t [Turn<'b, 'a>],
        merged: &'t Merge<'a>,
        versions: Versions<'t>,
        now: Timestamp,
    ) -> Self {
        let is_told = vec![false; merged.registers.len()];
        Told { before, turns, merged, versions, now, is_told, bytes: guc::max_page_bytes() }
    }

    pub fn tell(&mut self, reply: &mut PushReply, op_id: Option<&str>, fate: &Fate) -> Result<()> {
        let (stored, record) = match *fate {
            Fate::Refused(_) => return Ok(()),
            Fate::New(turn) => {
                let Decision { version, applied, created, overwrote, .. } =
                    self.merged.decisions[turn];
                let stored = Stored { version, applied, replayed: false, created, overwrote };
                (stored, self.turns[turn].record)
            }
            Fate::Replay { version, record, overwrote } => {
                let register = self.merged.registers[record].as_ref();
                let applied = register.is_some_and(|register| register.version == version);
                (Stored { version, applied, replayed: true, created: false, overwrote }, record)
            }
        };
        if stored.applied {
            return reply.stored(op_id, stored, None);
        }
        let Some(register) = &self.merged.registers[record] else {
            return Err(SyncError::Damaged { what: "A logged op has no record.".to_owned() });
        };
        self.with_winner(record, register, |winner| reply.stored(op_id, stored, Some(winner)))
    }

    fn with_winner(
        &mut self,
        record: usize,
        register: &Register<'_>,
        tell: impl FnOnce(&Winner<'_>) -> Result<()>,
    ) -> Result<()> {
        let (version, revision) = (register.version, register.revision.clone());
        let is_told = std::mem::replace(&mut self.is_told[record], true);
        if self.merged.changed[record] {
            let turn = (version.get() - self.before.head.get() - 1) as usize;
            return match self.turns[turn].payload() {
                Some(payload) if !register.deleted => {
                    let payload = fitting(payload, &mut self.bytes, is_told);
                    tell(&Winner::Put { version, revision, payload })
                }
                _ => tell(&Winner::Delete { version, revision, deleted_at: Some(self.now) }),
            };
        }
        match self.versions.find(version) {
            None if !register.deleted => Err(SyncError::Damaged {
                what: format!("The log has no entry {}, of a live record.", version.get()),
            }),
            None => tell(&Winner::Delete { version, revision, deleted_at: None }),
            Some(entry) if register.deleted => {
                let deleted_at = Some(entry.created_at()?);
                tell(&Winner::Delete { version, revision, deleted_at })
            }
            Some(_) if is_told => tell(&Winner::Put { version, revision, payload: None }),
            Some(entry) => {
                let payload = fitting(entry.payload().unwrap_or("null"), &mut self.bytes, false);
                tell(&Winner::Put { version, revision, payload })
            }
        }
    }
}

/// The payload, unless it was told or would not fit.
fn fitting<'p>(payload: &'p str, bytes: &mut usize, is_told: bool) -> Option<&'p str> {
    if is_told || payload.len() >= *bytes {
        return None;
    }
    *bytes -= payload.len();
    Some(payload)
}
