//! The caller and what it may do. Determined anew by every call: a session's user may
//! change between statements.

use super::Result;
use crate::guc;
use crate::store::mvcc::MvccSnapshot;
use crate::store::{caller, counters, member, memory, workspace};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::access::{Action, Role};
use sync_ext_core::wire::claims::subject;
use sync_ext_core::wire::ids::{UserId, WorkspaceId};
use sync_ext_core::wire::reply::Reply;
use sync_ext_core::wire::small_replies::Numbers;

/// The user that the caller acts for; without one, the caller is trusted.
pub struct Caller {
    user: Option<String>,
}

impl Caller {
    pub fn identify() -> Result<Caller> {
        guc::require_accepted()?;
        let user = match user_set()? {
            Some(user) => Some(user),
            None => claimed()?,
        };
        match &user {
            Some(user) => UserId::new(Some(user)).map(|_| ())?,
            None if guc::require_user() => {
                return Err(SyncError::UserRequired { why: "sync_ext.require_user is on." });
            }
            // The session does not show who wrote the code that runs in it.
            None if caller::is_restricted() => {
                return Err(SyncError::UserRequired {
                    why: "An index, a materialized view or ANALYZE evaluates the call.",
                });
            }
            None => {}
        }
        Ok(Caller { user })
    }

    /// For functions that no user may call.
    pub fn require_trusted() -> Result<()> {
        match Caller::identify()?.user {
            None => Ok(()),
            Some(_) => Err(SyncError::TrustedOnly),
        }
    }

    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The user as stored with devices, empty for a trusted caller.
    pub fn device_user(&self) -> &str {
        self.user().unwrap_or("")
    }

    /// Whether the caller may see a record or entry with this owner, empty if it is
    /// shared.
    pub fn sees(&self, owner: &str) -> bool {
        self.user().is_none_or(|user| owner.is_empty() || owner == user)
    }

    /// An error unless the caller may do this, given the members in `snapshot`. Returns
    /// the user's role; a trusted caller has none.
    pub fn require(
        &self,
        action: Action,
        workspace_id: &str,
        snapshot: &MvccSnapshot,
    ) -> Result<Option<Role>> {
        let Some(user) = self.user() else { return Ok(None) };
        let role = role_of(user, workspace_id, snapshot)?;
        match role {
            Some(role) if role.may(action) => Ok(Some(role)),
            Some(role) => {
                workspace::find(workspace_id, snapshot)?;
                Err(SyncError::AccessDenied { role: Some((role, action)) })
            }
            None => {
                workspace::require_not_elsewhere(workspace_id, snapshot)?;
                Err(SyncError::AccessDenied { role: None })
            }
        }
    }
}

/// A checked permission: a caller may perform an action in a workspace.
pub struct Permit<'w> {
    pub caller: Caller,
    pub workspace_id: &'w str,
    action: Action,
    /// The user's role; a trusted caller has none.
    pub role: Option<Role>,
}

impl<'w> Permit<'w> {
    /// An error unless the caller may do this now.
    pub fn now(action: Action, workspace_id: Option<&'w str>) -> Result<Permit<'w>> {
        let caller = Caller::identify()?;
        let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
        let role = match caller.user() {
            Some(_) => caller.require(action, workspace_id, &MvccSnapshot::fresh())?,
            None => None,
        };
        Ok(Permit { caller, workspace_id, action, role })
    }

    /// The same with the members in `snapshot`.
    pub fn seen_by(
        snapshot: &MvccSnapshot,
        action: Action,
        workspace_id: Option<&'w str>,
    ) -> Result<Permit<'w>> {
        let caller = Caller::identify()?;
        let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
        let role = caller.require(action, workspace_id, snapshot)?;
        Ok(Permit { caller, workspace_id, action, role })
    }

    /// Checks again: after the workspace is locked, so that its members cannot change,
    /// or for a newer snapshot. A membership function is not called twice.
    pub fn renew(&self, snapshot: &MvccSnapshot) -> Result<()> {
        if members_are_elsewhere() {
            return Ok(());
        }
        self.caller.require(self.action, self.workspace_id, snapshot).map(|_| ())
    }

    /// Keeps the user a member until the transaction ends; false if the user is not a
    /// member.
    pub fn pin(&self) -> Result<bool> {
        match self.caller.user() {
            Some(user) if !members_are_elsewhere() => member::pin(self.workspace_id, user),
            _ => Ok(true),
        }
    }
}

/// The user in the setting; `None` if it is empty.
fn user_set() -> Result<Option<String>> {
    let user = caller::setting(c"sync_ext.user_id", |user| {
        if user.is_empty() {
            return Ok(None);
        }
        // It may have any size and encoding.
        let user = user.to_str().ok();
        UserId::new(user).map(|user| Some(user.as_str().to_owned()))
    });
    user.unwrap_or(Ok(None))
}

/// The user of the JWT claims that PostgREST and similar servers set for a transaction.
fn claimed() -> Result<Option<String>> {
    let claimed = caller::setting(c"request.jwt.claims", |claims| {
        if claims.is_empty() {
            return Ok(None);
        }
        memory::require(claims.count_bytes())?;
        subject(claims.to_str().map_err(|_| SyncError::Claims)?)
    });
    claimed.unwrap_or(Ok(None))
}

pub fn members_are_elsewhere() -> bool {
    guc::membership_function().is_some()
}

/// A user's role, from the membership function if there is one.
pub fn role_of(user: &str, workspace_id: &str, snapshot: &MvccSnapshot) -> Result<Option<Role>> {
    let Some(function) = guc::membership_function() else {
        return member::find(workspace_id, user, snapshot);
    };
    caller::membership(&function, user, workspace_id)?
        .map(|word| Role::parse(&word).ok_or(SyncError::NoRole))
        .transpose()
}

/// `sync_ext.calling_user`, for the views.
pub fn calling_user() -> Result<Option<String>> {
    Ok(Caller::identify()?.user)
}

/// `sync_ext.may_read` and `may_govern`, for the views: called for each workspace.
pub fn may(action: Action, workspace_id: Option<&str>) -> Result<bool> {
    let (caller, Some(workspace_id)) = (Caller::identify()?, workspace_id) else {
        return Ok(false);
    };
    let Some(user) = caller.user() else { return Ok(true) };
    let role = role_of(user, workspace_id, &MvccSnapshot::of_statement())?;
    Ok(role.is_some_and(|role| role.may(action)))
}

/// `sync_ext.require_owner`, for the functions in SQL.
pub fn require_owner(workspace_id: Option<&str>) -> Result<()> {
    let snapshot = MvccSnapshot::of_statement();
    let permit = Permit::seen_by(&snapshot, Action::Govern, workspace_id)?;
    workspace::find(permit.workspace_id, &snapshot).map(|_| ())
}

/// `sync_ext.counters`: they include all users, so only for trusted callers.
pub fn counters() -> Result<Option<Reply>> {
    if Caller::identify()?.user.is_some() {
        return Ok(None);
    }
    Ok(counters::all().map(|counters| Reply::of(&Numbers(counters.collect()))))
}
