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
        return Err(SyncError::AccessDenied { role: None });
    }
    if !workspace::create(workspace_id)? {
        // A name that is taken is told to those who may know.
        caller.require_now(Action::Pull, workspace_id)?;
        return Err(SyncError::WorkspaceExists);
    }
    member::set(workspace_id, owner, Role::Owner)
}

/// Makes the workspace unreachable at once, and erases as many of its rows, and
/// of workspaces dropped before, as the batch allows; sync_gc erases the rest.
pub fn drop_workspace(workspace_id: Option<&str>, batch_size: Option<i32>) -> Result<Reply> {
    server::require_writable(c"sync_drop_workspace()");
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    let budget = super::batch_size(batch_size)?;
    caller.require_now(Action::Govern, workspace_id)?;
    let locked = workspace::lock(workspace_id, Wait::Block)?;
    caller.require_still(Action::Govern, workspace_id)?;
    let existed = match &locked {
        Locked::Row(locked) => dropped::detach(locked).map(|()| true)?,
        _ => false,
    };
    drop(locked);
    server::end_command();
    let erased = erase_dropped(budget)?;
    Ok(drop_reply(existed, erased.rows(), erased.has_more))
}

/// Erases up to `budget` rows of dropped workspaces.
pub fn erase_dropped(budget: usize) -> Result<Erased> {
    let latest = Snapshot::latest();
    let mut total = Erased::default();
    for key in dropped::keys(&latest)? {
        let left = budget.saturating_sub(total.rows());
        if left == 0 {
            total.has_more = true;
            break;
        }
        let erased = dropped::erase(key, left, &latest)?;
        total.entries += erased.entries;
        total.records += erased.records;
        total.devices += erased.devices;
        total.has_more |= erased.has_more;
    }
    drop(latest);
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
                reply.add(id, Some(role), head);
                Ok(())
            })?;
        }
        user => workspace::for_each(&snapshot, |id, Workspace { progress, .. }| {
            match user {
                None => reply.add(id, None, progress.head),
                Some(user) => {
                    if let Some(role) = role_of(user, id, &snapshot)? {
                        reply.add(id, Some(role), progress.head);
                    }
                }
            }
            Ok(())
        })?,
    }
    Ok(reply.finish())
}
