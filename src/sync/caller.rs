//! Who calls, and what they may do. Asked anew by every call: a session's user
//! may be another one in the next statement.

use super::Result;
use crate::error::SyncError;
use crate::guc;
use crate::rules::access::{Action, Role};
use crate::store::snapshot::Snapshot;
use crate::store::{caller, counters, member, memory};
use crate::wire::ids::{UserId, WorkspaceId};
use crate::wire::owner::subject;
use crate::wire::reply::Reply;
use crate::wire::workspaces::counters_reply;

/// The user that the caller speaks for; without one, the caller is trusted.
pub struct Caller {
    user: Option<String>,
}

impl Caller {
    pub fn identify() -> Result<Caller> {
        guc::require_accepted()?;
        let user = match guc::user_id()? {
            Some(user) => Some(user),
            None => claimed()?,
        };
        match &user {
            Some(user) => UserId::new(Some(user)).map(|_| ())?,
            None if guc::require_user() => {
                return Err(SyncError::UserRequired { why: "sync_ext.require_user is on." });
            }
            // Whose session it is says nothing about who wrote what runs in it.
            None if caller::is_restricted() => {
                return Err(SyncError::UserRequired {
                    why: "An index, a materialized view or ANALYZE evaluates the call.",
                });
            }
            None => {}
        }
        Ok(Caller { user })
    }

    /// The same, for what no user may do.
    pub fn require_trusted() -> Result<()> {
        match Caller::identify()?.user {
            None => Ok(()),
            Some(_) => Err(SyncError::TrustedOnly),
        }
    }

    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The user as devices are stored, empty for a trusted caller.
    pub fn device_user(&self) -> &str {
        self.user().unwrap_or("")
    }

    /// May the caller know of a record or entry with this owner, empty for
    /// everybody's?
    pub fn sees(&self, owner: &str) -> bool {
        self.user().is_none_or(|user| owner.is_empty() || owner == user)
    }

    /// An error unless the caller may do this, as `snapshot` shows the members. Gives
    /// their role, which a trusted caller has none.
    pub fn require(
        &self,
        action: Action,
        workspace_id: &str,
        snapshot: &Snapshot,
    ) -> Result<Option<Role>> {
        let Some(user) = self.user() else { return Ok(None) };
        let role = role_of(user, workspace_id, snapshot)?;
        match role {
            Some(role) if role.may(action) => Ok(Some(role)),
            _ => Err(SyncError::AccessDenied { role: role.map(|role| (role, action)) }),
        }
    }

    /// The same, as it is now.
    pub fn require_now(&self, action: Action, workspace_id: &str) -> Result<()> {
        if self.user.is_none() {
            return Ok(());
        }
        self.require(action, workspace_id, &Snapshot::fresh()).map(|_| ())
    }

    /// The same once more, when the workspace is locked and its members cannot
    /// change any more. A membership function is not asked twice.
    pub fn require_still(
        &self,
        action: Action,
        workspace_id: &str,
        snapshot: &Snapshot,
    ) -> Result<()> {
        if members_are_elsewhere() {
            return Ok(());
        }
        self.require(action, workspace_id, snapshot).map(|_| ())
    }

    /// The same where the workspace was dropped while the caller waited for it.
    pub fn require_still_now(&self, action: Action, workspace_id: &str) -> Result<()> {
        self.require_still(action, workspace_id, &Snapshot::fresh())
    }

    /// Keeps the user a member until the transaction ends; false if they are none.
    pub fn pin(&self, workspace_id: &str) -> Result<bool> {
        match self.user() {
            Some(user) if !members_are_elsewhere() => member::pin(workspace_id, user),
            _ => Ok(true),
        }
    }
}

/// The user of the JWT claims that PostgREST and its like set for a transaction.
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

/// A user's role, by the membership function if there is one.
pub fn role_of(user: &str, workspace_id: &str, snapshot: &Snapshot) -> Result<Option<Role>> {
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

/// `sync_ext.may_read` and `may_govern`, for the views: one workspace's row at a
/// time.
pub fn may(action: Action, workspace_id: Option<&str>) -> Result<bool> {
    let (caller, Some(workspace_id)) = (Caller::identify()?, workspace_id) else {
        return Ok(false);
    };
    let Some(user) = caller.user() else { return Ok(true) };
    let role = role_of(user, workspace_id, &Snapshot::of_statement())?;
    Ok(role.is_some_and(|role| role.may(action)))
}

/// `sync_ext.require_owner`, for the functions in SQL.
pub fn require_owner(workspace_id: Option<&str>) -> Result<()> {
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    caller.require(Action::Govern, workspace_id, &Snapshot::of_statement()).map(|_| ())
}

/// `sync_ext.counters`: of all users, so for trusted callers.
pub fn counters() -> Result<Option<Reply>> {
    if Caller::identify()?.user.is_some() {
        return Ok(None);
    }
    Ok(counters::all().map(counters_reply))
}
