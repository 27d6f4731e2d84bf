//! What a push tells about stored ops.

use super::{Fate, Result};
use crate::error::SyncError;
use crate::rules::history::Progress;
use crate::rules::merge::{Merge, Register, Turn};
use crate::rules::op::Timestamp;
use crate::store::log::Versions;
use crate::wire::push_reply::{PushReply, Winner};

/// What is told about stored ops: winners as they are at the end of the call.
pub struct Told<'t, 'b, 'a> {
    pub before: Progress,
    pub turns: &'t [Turn<'b, 'a>],
    pub merged: &'t Merge<'a>,
    pub versions: Versions<'t>,
    pub now: Timestamp,
}

impl Told<'_, '_, '_> {
    pub fn tell(&mut self, reply: &mut PushReply, op_id: Option<&str>, fate: &Fate) -> Result<()> {
        let (version, record, applied, replayed) = match *fate {
            Fate::Refused(_) => return Ok(()),
            Fate::New(turn) => {
                let decision = &self.merged.decisions[turn];
                (decision.version, self.turns[turn].record, decision.applied, false)
            }
            Fate::Replay { version, record } => {
                let register = self.merged.registers[record].as_ref();
                let wins = register.is_some_and(|register| register.version == version);
                (version, record, wins, true)
            }
        };
        if applied {
            reply.stored(op_id, version, applied, replayed, None);
            return Ok(());
        }
        let Some(register) = &self.merged.registers[record] else {
            return Err(SyncError::Damaged { what: "A logged op has no record.".to_owned() });
        };
        self.with_winner(register, |winner| {
            reply.stored(op_id, version, applied, replayed, Some(winner));
        })
    }

    fn with_winner(
        &mut self,
        register: &Register<'_>,
        tell: impl FnOnce(&Winner<'_>),
    ) -> Result<()> {
        let (version, revision) = (register.version, register.revision.clone());
        if version > self.before.head {
            let turn = (version.get() - self.before.head.get() - 1) as usize;
            tell(&match self.turns[turn].payload() {
                Some(payload) if !register.deleted => Winner::Put { version, revision, payload },
                _ => Winner::Delete { version, revision, deleted_at: Some(self.now) },
            });
            return Ok(());
        }
        let entry = self.versions.find(version);
        tell(&match entry {
            None if !register.deleted => {
                return Err(SyncError::Damaged {
                    what: format!("The log has no entry {}, of a live record.", version.get()),
                });
            }
            None => Winner::Delete { version, revision, deleted_at: None },
            Some(entry) if register.deleted => {
                Winner::Delete { version, revision, deleted_at: Some(entry.created_at()?) }
            }
            Some(entry) => {
                Winner::Put { version, revision, payload: entry.payload().unwrap_or("null") }
            }
        });
        Ok(())
    }
}
