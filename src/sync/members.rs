//! `sync_set_member`, `sync_remove_member`, `sync_list_members`, `sync_get_role`.
//!
//! The first two hold the workspace's lock: if two owners remove each other at the same
//! time, one of them fails, and a push that waited is refused if its user was removed.
//! Both also write the workspace's row, unchanged: above READ COMMITTED a session that
//! waited would not see the current members, and gets 40001.

use super::Result;
use super::caller::{Caller, Permit, members_are_elsewhere, role_of};
use crate::store::mvcc::MvccSnapshot;
use crate::store::workspace::{self, LockedWorkspace};
use crate::store::{Locked, Wait, device, member, server};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::access::{Action, Role};
use sync_ext_core::wire::ids::{UserId, WorkspaceId};
use sync_ext_core::wire::reply::Reply;
use sync_ext_core::wire::small_replies::{ListReply, ListedMember};

pub fn set_member(
    workspace_id: Option<&str>,
    user_id: Option<&str>,
    role: Option<&str>,
) -> Result<()> {
    server::require_writable(c"sync_set_member()");
    let permit = Permit::now(Action::Govern, workspace_id)?;
    let user_id = UserId::new(user_id)?.as_str();
    let role = role.and_then(Role::parse).ok_or(SyncError::Role)?;
    if members_are_elsewhere() {
        return Err(SyncError::MembersElsewhere);
    }
    let locked = lock(&permit)?.ok_or(SyncError::UnknownWorkspace)?;
    if role != Role::Owner {
        keep_an_owner(&locked, user_id)?;
    }
    member::set(permit.workspace_id, user_id, role)?;
    touch(locked)
}

/// Does nothing for a user who is not a member, and for an unknown workspace.
pub fn remove_member(workspace_id: Option<&str>, user_id: Option<&str>) -> Result<()> {
    server::require_writable(c"sync_remove_member()");
    let permit = Permit::now(Action::Govern, workspace_id)?;
    let user_id = UserId::new(user_id)?.as_str();
    let Some(locked) = lock(&permit)? else { return Ok(()) };
    if !members_are_elsewhere() {
        keep_an_owner(&locked, user_id)?;
    }
    member::remove(permit.workspace_id, user_id)?;
    // Acknowledgements do not take the workspace's lock, but pin the member when they
    // register a device: devices registered before are committed by now.
    let latest = MvccSnapshot::latest();
    device::remove_user(locked.workspace.key, user_id, &latest)?;
    drop(latest);
    touch(locked)
}

/// The members of a workspace, for its owners; an unknown workspace has none.
pub fn list_members(workspace_id: Option<&str>) -> Result<Reply> {
    let snapshot = MvccSnapshot::of_statement();
    let permit = Permit::seen_by(&snapshot, Action::Govern, workspace_id)?;
    if members_are_elsewhere() {
        return Err(SyncError::MembersElsewhere);
    }
    workspace::find(permit.workspace_id, &snapshot)?;
    let mut reply = ListReply::begin("members");
    member::for_each_in(permit.workspace_id, &snapshot, |user_id, role| {
        reply.add(user_id, &ListedMember { user_id, role: role.as_str() })
    })?;
    Ok(reply.finish())
}

/// A user's role, from the membership function if there is one; `None` for a user who
/// is not a member. Everybody may ask for their own role, which is the meaning of NULL;
/// a trusted caller has none.
pub fn get_role(workspace_id: Option<&str>, user_id: Option<&str>) -> Result<Option<String>> {
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    let snapshot = MvccSnapshot::of_statement();
    let user_id = match user_id.or(caller.user()) {
        Some(user) => user,
        None => return Ok(None),
    };
    if caller.user().is_some_and(|user| user != user_id) {
        caller.require(Action::Govern, workspace_id, &snapshot)?;
    }
    let user_id = UserId::new(Some(user_id))?.as_str();
    workspace::find(workspace_id, &snapshot)?;
    let role = role_of(user_id, workspace_id, &snapshot)?;
    Ok(role.map(|role| role.as_str().to_owned()))
}

/// Locks the workspace and checks the permission again; `None` if there is none.
fn lock(permit: &Permit<'_>) -> Result<Option<LockedWorkspace>> {
    let Locked::Row(locked) = workspace::lock(permit.workspace_id, Wait::Block)? else {
        return permit.renew(&MvccSnapshot::fresh()).map(|()| None);
    };
    permit.renew(&locked.snapshot)?;
    Ok(Some(locked))
}

/// Stores the workspace's row unchanged.
fn touch(locked: LockedWorkspace) -> Result<()> {
    let progress = locked.workspace.progress;
    locked.save(progress)?;
    server::end_command();
    Ok(())
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
