//! The lock on the workspace that a call writes to.

use super::Result;
use crate::apply::Tables;
use crate::capture;
use crate::store::workspace::{self, LockedWorkspace};
use crate::store::{Locked, Wait, record, server};
use sync_ext_core::rules::op::Version;

/// A workspace that this transaction has locked.
pub struct Held {
    pub locked: LockedWorkspace,
    /// The head before this call.
    before: Version,
    /// This call created it.
    is_new: bool,
}

impl Held {
    /// Locks a workspace. Creates an unknown one, unless `refuse` says why nothing can be
    /// stored in it.
    pub fn lock<R>(
        workspace_id: &str,
        refuse: impl Fn() -> Result<Option<R>>,
    ) -> Result<std::result::Result<Held, R>> {
        let mut is_new = false;
        record::lock_for_writing()?;
        loop {
            if let Locked::Row(locked) = workspace::lock(workspace_id, Wait::Block)? {
                locked.require_not_held()?;
                let before = locked.workspace.progress.head;
                return Ok(Ok(Held { locked, before, is_new }));
            }
            if let Some(refused) = refuse()? {
                return Ok(Err(refused));
            }
            // Now it exists, whoever created it, and can be locked.
            is_new = workspace::create(workspace_id)?;
        }
    }

    /// What this transaction changed in attached tables becomes ops, if the push concerns
    /// such tables.
    pub fn capture(&mut self, tables: Option<&Tables>) -> Result<()> {
        if tables.is_some() { capture::flush_pending(&mut self.locked) } else { Ok(()) }
    }

    /// Saves the head, and makes the call's writes visible. The lock stays. Returns the
    /// head, which is higher than the push left it if rows changed with its own.
    pub fn finish(mut self, head: Version, tables: Option<&Tables>) -> Result<Version> {
        self.locked.workspace.progress.head = head;
        self.capture(tables)?;
        let progress = self.locked.workspace.progress;
        if progress.head > self.before {
            self.locked.save(progress)?;
        } else if self.is_new {
            // It was created for an op that was refused under the lock: it was rejected, or
            // its table was unregistered while this session waited.
            self.locked.remove()?;
        } else {
            drop(self.locked);
        }
        server::end_command();
        Ok(progress.head)
    }
}
