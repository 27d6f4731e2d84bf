//! The replies to stored ops, with the winners that they lost to.

use super::{Outcome, Push, Result, Target};
use crate::guc;
use crate::store::log::Versions;
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::merge::{Decision, Register};
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
        let register = self.push.touched[pushed.record].register.as_ref();
        let stored = match &pushed.outcome {
            Outcome::Refused(refusal) => return reply.refused(op_id, refusal),
            Outcome::New { decision, .. } => {
                let Decision { version, applied, created, overwrote, .. } = *decision;
                Stored { version, applied, replayed: false, created, overwrote }
            }
            Outcome::Replay { version, overwrote } => {
                let applied = register.is_some_and(|register| register.version == *version);
                let (version, overwrote) = (*version, *overwrote);
                Stored { version, applied, replayed: true, created: false, overwrote }
            }
            Outcome::Undecided => return Err(damaged("An op was not decided on.")),
        };
        if stored.applied {
            return reply.stored(op_id, stored, None);
        }
        let Some(register) = register else {
            return Err(damaged("A logged op has no record."));
        };
        self.with_winner(pushed.record, register, |winner| {
            reply.stored(op_id, stored, Some(winner))
        })
    }

    fn with_winner(
        &mut self,
        record: usize,
        register: &Register<'_>,
        write: impl FnOnce(&Winner<'_>) -> Result<()>,
    ) -> Result<()> {
        let (version, revision) = (register.version, register.revision.clone());
        let is_done = std::mem::replace(&mut self.is_done[record], true);
        if let Some(winner) = self.push.touched[record].winner {
            return match self.push.ops[winner].payload() {
                Some(payload) if !register.deleted => {
                    let payload = fitting(payload, &mut self.bytes, is_done);
                    write(&Winner::Put { version, revision, payload })
                }
                _ => write(&Winner::Delete { version, revision, deleted_at: Some(self.push.at) }),
            };
        }
        match self.versions.find(version) {
            None if !register.deleted => Err(SyncError::Damaged {
                what: format!("The log has no entry {}, of a live record.", version.get()),
            }),
            None => write(&Winner::Delete { version, revision, deleted_at: None }),
            Some(entry) if register.deleted => {
                let deleted_at = Some(entry.created_at()?);
                write(&Winner::Delete { version, revision, deleted_at })
            }
            Some(_) if is_done => write(&Winner::Put { version, revision, payload: None }),
            Some(entry) => {
                let payload = fitting(entry.payload().unwrap_or("null"), &mut self.bytes, false);
                write(&Winner::Put { version, revision, payload })
            }
        }
    }
}

/// The payload, unless it was already sent or does not fit.
fn fitting<'p>(payload: &'p str, bytes: &mut usize, is_done: bool) -> Option<&'p str> {
    if is_done || payload.len() >= *bytes {
        return None;
    }
    *bytes -= payload.len();
    Some(payload)
}

fn damaged(what: &str) -> SyncError {
    SyncError::Damaged { what: what.to_owned() }
}
