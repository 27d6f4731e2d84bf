//! `sync_set_member`, `sync_remove_member`.
//!
//! Both hold the workspace's lock: of two owners who remove each other at the
//! same moment one finds the other gone, and a push that waited is refused when
//! its user was removed meanwhile. And both write its row, unchanged: above READ
//! COMMITTED, who waited would not see the members as they are now, and gets
//! 40001.

use super::Result;
use super::caller::{Caller, members_are_elsewhere};
use crate::error::SyncError;
use crate::rules::access::{Action, Role};
use crate::store::snapshot::Snapshot;
use crate::store::workspace::{self, LockedWorkspace};
use crate::store::{Locked, Wait, device, member, server};
use crate::wire::ids::{UserId, WorkspaceId};

pub fn set_member(
    workspace_id: Option<&str>,
    user_id: Option<&str>,
    role: Option<&str>,
) -> Result<()> {
    server::require_writable(c"sync_set_member()");
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    let user_id = UserId::new(user_id)?.as_str();
    let role = role.and_then(Role::parse).ok_or(SyncError::Role)?;
    caller.require_now(Action::Govern, workspace_id)?;
    if members_are_elsewhere() {
        return Err(SyncError::MembersElsewhere);
    }
    let locked = lock_and_touch(&caller, workspace_id)?.ok_or(SyncError::UnknownWorkspace)?;
    if role != Role::Owner {
        keep_an_owner(&locked, user_id)?;
    }
    member::set(workspace_id, user_id, role)
}

/// A user who is no member, and an unknown workspace, are left as they are.
pub fn remove_member(workspace_id: Option<&str>, user_id: Option<&str>) -> Result<()> {
    server::require_writable(c"sync_remove_member()");
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    let user_id = UserId::new(user_id)?.as_str();
    caller.require_now(Action::Govern, workspace_id)?;
    let Some(locked) = lock_and_touch(&caller, workspace_id)? else { return Ok(()) };
    if !members_are_elsewhere() {
        keep_an_owner(&locked, user_id)?;
    }
    member::remove(workspace_id, user_id)?;
    // Acknowledging does not take the workspace's lock, but pins the member where
    // it registers a device: what it registered before is committed by now.
    let latest = Snapshot::latest();
    device::forget_user(locked.workspace.key, user_id, &latest)?;
    drop(latest);
    server::end_command();
    Ok(())
}

/// The workspace, locked, with the caller still allowed; `None` if there is none.
fn lock_and_touch(caller: &Caller, workspace_id: &str) -> Result<Option<LockedWorkspace>> {
    let Locked::Row(locked) = workspace::lock(workspace_id, Wait::Block)? else {
        return caller.require_still_now(Action::Govern, workspace_id).map(|()| None);
    };
    caller.require_still(Action::Govern, workspace_id, &locked.snapshot)?;
    locked.save(locked.workspace.progress);
    Ok(Some(locked))
}

/// An error if the user is the last owner.
fn keep_an_owner(locked: &LockedWorkspace, user_id: &str) -> Result<()> {
    let (id, snapshot) = (locked.id(), &locked.snapshot);
    let is_owner = member::find(id, user_id, snapshot)? == Some(Role::Owner);
    if is_owner && !member::has_other_owner(id, user_id, snapshot)? {
        return Err(SyncError::LastOwner);
    }
    Ok(())
}
