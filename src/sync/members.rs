//! `sync_set_member`, `sync_remove_member`, `sync_list_members`, `sync_get_role`.
//!
//! The first two hold the workspace's lock: of two owners who remove each other at the
//! same moment one finds the other gone, and a push that waited is refused when
//! its user was removed meanwhile. And both write its row, unchanged: above READ
//! COMMITTED, who waited would not see the members as they are now, and gets
//! 40001.

use super::Result;
use super::caller::{Caller, members_are_elsewhere, role_of};
use crate::error::SyncError;
use crate::rules::access::{Action, Role};
use crate::store::snapshot::Snapshot;
use crate::store::workspace::{self, LockedWorkspace};
use crate::store::{Locked, Wait, device, member, server};
use crate::wire::ids::{UserId, WorkspaceId};
use crate::wire::reply::Reply;
use crate::wire::workspaces::MembersReply;

pub fn set_member(
    workspace_id: Option<&str>,
    user_id: Option<&str>,
    role: Option<&str>,
) -> Result<()> {
    server::require_writable(c"sync_set_member()");
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    caller.require_now(Action::Govern, workspace_id)?;
    let user_id = UserId::new(user_id)?.as_str();
    let role = role.and_then(Role::parse).ok_or(SyncError::Role)?;
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
    caller.require_now(Action::Govern, workspace_id)?;
    let user_id = UserId::new(user_id)?.as_str();
    let Some(locked) = lock_and_touch(&caller, workspace_id)? else { return Ok(()) };
    if !members_are_elsewhere() {
        keep_an_owner(&locked, user_id)?;
    }
    member::remove(workspace_id, user_id)?;
    // Acknowledging does not take the workspace's lock, but pins the member where
    // it registers a device: what it registered before is committed by now.
    let latest = Snapshot::latest();
    device::remove_user(locked.workspace.key, user_id, &latest)?;
    drop((latest, locked));
    server::end_command();
    Ok(())
}

/// The members of a workspace, for its owners; of an unknown one there are none.
pub fn list_members(workspace_id: Option<&str>) -> Result<Reply> {
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    let snapshot = Snapshot::of_statement();
    caller.require(Action::Govern, workspace_id, &snapshot)?;
    if members_are_elsewhere() {
        return Err(SyncError::MembersElsewhere);
    }
    let mut reply = MembersReply::new();
    member::for_each_in(workspace_id, &snapshot, |user, role| reply.add(user, role))?;
    Ok(reply.finish())
}

/// A user's role, by the membership function if there is one; `None` for who is no
/// member. Everybody may ask for their own, which is what NULL stands for; a trusted
/// caller has none.
pub fn get_role(workspace_id: Option<&str>, user_id: Option<&str>) -> Result<Option<String>> {
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    let snapshot = Snapshot::of_statement();
    let user_id = match user_id.or(caller.user()) {
        Some(user) => user,
        None => return Ok(None),
    };
    if caller.user().is_some_and(|user| user != user_id) {
        caller.require(Action::Govern, workspace_id, &snapshot)?;
    }
    let user_id = UserId::new(Some(user_id))?.as_str();
    let role = role_of(user_id, workspace_id, &snapshot)?;
    Ok(role.map(|role| role.as_str().to_owned()))
}

/// The workspace, locked, with the caller still allowed; `None` if there is none.
fn lock_and_touch(caller: &Caller, workspace_id: &str) -> Result<Option<LockedWorkspace>> {
    let Locked::Row(locked) = workspace::lock(workspace_id, Wait::Block)? else {
        return caller.require_still_now(Action::Govern, workspace_id).map(|()| None);
    };
    caller.require_still(Action::Govern, workspace_id, &locked.snapshot)?;
    locked.save(locked.workspace.progress)?;
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
