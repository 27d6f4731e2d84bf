//! `sync_create_workspace`, `sync_drop_workspace`, `sync_list_workspaces`.

use super::Result;
use super::caller::{Caller, members_are_elsewhere, role_of};
use crate::error::SyncError;
use crate::rules::access::{Action, Role};
use crate::rules::op::Version;
use crate::store::dropped::{self, Erased};
use crate::store::snapshot::Snapshot;
use crate::store::workspace::{self, Workspace};
use crate::store::{Locked, Wait, member, server};
use crate::wire::ids::{UserId, WorkspaceId};
use crate::wire::reply::Reply;
use crate::wire::workspaces::{ListReply, drop_reply};

pub fn create_workspace(workspace_id: Option<&str>, owner: Option<&str>) -> Result<()> {
    server::require_writable(c"sync_create_workspace()");
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    let owner = UserId::new(owner)?.as_str();
    if members_are_elsewhere() {
        return Err(SyncError::MembersElsewhere);
    }
    if caller.user().is_some_and(|user| user != owner) {
        return Err(SyncError::TrustedOnly);
    }
    if !workspace::create(workspace_id)? {
        // A name that is taken is told to those who may know.
        caller.require_now(Action::Pull, workspace_id)?;
        return Err(SyncError::WorkspaceExists);
    }
    member::set(workspace_id, owner, Role::Owner)
}

/// Makes the workspace unreachable at once, and erases as many of its rows as the
/// batch allows; sync_gc erases the rest.
pub fn drop_workspace(workspace_id: Option<&str>, batch_size: Option<i32>) -> Result<Reply> {
    server::require_writable(c"sync_drop_workspace()");
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    caller.require_now(Action::Govern, workspace_id)?;
    let budget = super::batch_size(batch_size)?;
    let Locked::Row(locked) = workspace::lock(workspace_id, Wait::Block)? else {
        caller.require_still_now(Action::Govern, workspace_id)?;
        return Ok(drop_reply(false, 0, false));
    };
    caller.require_still(Action::Govern, workspace_id, &locked.snapshot)?;
    dropped::detach(&locked)?;
    let key = locked.workspace.key;
    drop(locked);
    server::end_command();
    let erased = dropped::erase(key, budget)?;
    server::end_command();
    Ok(drop_reply(true, erased.rows(), erased.has_more))
}

/// Erases up to `budget` rows of dropped workspaces.
pub fn erase_all_dropped(budget: usize) -> Result<Erased> {
    let keys = {
        let latest = Snapshot::latest();
        dropped::keys(&latest)?
    };
    let mut total = Erased::default();
    for key in keys {
        let left = budget.saturating_sub(total.rows());
        if left == 0 {
            total.has_more = true;
            break;
        }
        let erased = dropped::erase(key, left)?;
        total.entries += erased.entries;
        total.records += erased.records;
        total.devices += erased.devices;
        total.has_more |= erased.has_more;
    }
    server::end_command();
    Ok(total)
}

/// The workspaces that the user may pull from; a trusted caller's are all.
pub fn list_workspaces() -> Result<Reply> {
    let caller = Caller::identify()?;
    let snapshot = Snapshot::of_statement();
    let mut reply = ListReply::new();
    match caller.user() {
        Some(user) if !members_are_elsewhere() => {
            member::for_each_of(user, &snapshot, |id, role| {
                let found = workspace::find(id, &snapshot)?;
                let head = found.map_or(Version::ZERO, |found| found.progress.head);
                reply.add(id, Some(role), head)
            })?;
        }
        user => workspace::for_each(&snapshot, |id, Workspace { progress, .. }| match user {
            None => reply.add(id, None, progress.head),
            Some(user) => match role_of(user, id, &snapshot)? {
                Some(role) => reply.add(id, Some(role), progress.head),
                None => Ok(()),
            },
        })?,
    }
    Ok(reply.finish())
}
