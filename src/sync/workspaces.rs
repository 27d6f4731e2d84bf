//! `sync_create_workspace`, `sync_drop_workspace`, `sync_list_workspaces`.

use std::time::Instant;

use super::Result;
use super::caller::{Caller, Permit, members_are_elsewhere, role_of};
use crate::guc;
use crate::store::dropped::{self, Erased};
use crate::store::mvcc::MvccSnapshot;
use crate::store::workspace::{self, Away, Workspace};
use crate::store::{Locked, Wait, member, server};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::access::{Action, Role};
use sync_ext_core::rules::op::Version;
use sync_ext_core::wire::ids::{UserId, WorkspaceId};
use sync_ext_core::wire::reply::Reply;
use sync_ext_core::wire::small_replies::{DropReply, ListReply, ListedWorkspace};

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
        workspace::require_not_elsewhere(workspace_id, &MvccSnapshot::fresh())?;
        // Only members of the workspace learn that its name is taken.
        caller.require(Action::Pull, workspace_id, &MvccSnapshot::fresh())?;
        return Err(SyncError::WorkspaceExists);
    }
    member::set(workspace_id, owner, Role::Owner)
}

/// Makes the workspace unreachable at once, and erases as many of its rows as the batch
/// allows; sync_gc erases the rest.
pub fn drop_workspace(workspace_id: Option<&str>, batch_size: Option<i32>) -> Result<Reply> {
    server::require_writable(c"sync_drop_workspace()");
    let permit = Permit::now(Action::Govern, workspace_id)?;
    let budget = super::batch_size(batch_size)?;
    let Locked::Row(locked) = workspace::lock(permit.workspace_id, Wait::Block)? else {
        permit.renew(&MvccSnapshot::fresh())?;
        return Ok(Reply::of(&DropReply { dropped: false, rows_erased: 0, has_more: false }));
    };
    // Who waits for the workspace waits until all this is committed.
    let (locked_at, limit) = (Instant::now(), guc::gc_lock_time());
    permit.renew(&locked.snapshot)?;
    let key = locked.workspace.key;
    dropped::detach(locked)?;
    server::end_command();
    let erased = dropped::erase(key, budget, || limit.is_zero() || locked_at.elapsed() < limit)?;
    server::end_command();
    let (rows_erased, has_more) = (erased.rows(), erased.has_more);
    Ok(Reply::of(&DropReply { dropped: true, rows_erased, has_more }))
}

/// Erases up to `budget` rows of dropped workspaces.
pub fn erase_all_dropped(budget: usize) -> Result<Erased> {
    let keys = {
        let latest = MvccSnapshot::latest();
        dropped::keys(&latest)?
    };
    let mut total = Erased::default();
    for key in keys {
        let left = budget.saturating_sub(total.rows());
        if left == 0 {
            total.has_more = true;
            break;
        }
        let erased = dropped::erase(key, left, || true)?;
        total.entries += erased.entries;
        total.records += erased.records;
        total.devices += erased.devices;
        total.has_more |= erased.has_more;
    }
    server::end_command();
    Ok(total)
}

/// The workspaces that the user may pull from; for a trusted caller all. A page is in byte
/// order, and its token is the name of its last workspace.
pub fn list_workspaces(page_token: Option<&str>, page_limit: Option<i32>) -> Result<Reply> {
    let caller = Caller::identify()?;
    let snapshot = MvccSnapshot::of_statement();
    let mut page = Page::begin(page_limit.map(|limit| guc::page_limit(Some(limit), limit)));
    match caller.user() {
        Some(user) if !members_are_elsewhere() => {
            member::for_each_of(user, page_token.unwrap_or(""), &snapshot, |id, role| {
                let found = workspace::find_anywhere(id, &snapshot)?;
                let head = found.map_or(Version::ZERO, |found| found.progress.head);
                page.add(id, Some(role), head)
            })?;
        }
        // One that has departed is listed until it is forgotten: it may not have arrived.
        user => {
            let add = |id: &str, Workspace { progress, away, .. }: Workspace| {
                let role = match user {
                    _ if away == Some(Away::Arriving) => return Ok(true),
                    None => None,
                    Some(user) => match role_of(user, id, &snapshot)? {
                        None => return Ok(true),
                        role => role,
                    },
                };
                page.add(id, role, progress.head)
            };
            match (page_token, page_limit) {
                (None, None) => workspace::for_each_after(i64::MIN, &snapshot, add)?,
                (token, _) => {
                    workspace::for_each_named_after(token.unwrap_or(""), &snapshot, add)?;
                }
            }
        }
    }
    page.finish()
}

/// A list of workspaces that is being built.
struct Page {
    reply: ListReply,
    /// `None` for all.
    limit: Option<usize>,
    count: usize,
    last: String,
    has_more: bool,
}

impl Page {
    fn begin(limit: Option<usize>) -> Page {
        let reply = ListReply::begin("workspaces");
        Page { reply, limit, count: 0, last: String::new(), has_more: false }
    }

    /// False if there is no room for it.
    fn add(&mut self, workspace_id: &str, role: Option<Role>, head: Version) -> Result<bool> {
        if self.limit == Some(self.count) {
            self.has_more = true;
            return Ok(false);
        }
        self.count += 1;
        if self.limit == Some(self.count) {
            self.last = workspace_id.to_owned();
        }
        let (role, server_version) = (role.map(Role::as_str), head.get());
        let listed = ListedWorkspace { workspace_id, role, server_version };
        self.reply.add(workspace_id, &listed).map(|()| true)
    }

    fn finish(self) -> Result<Reply> {
        match self.limit {
            None => Ok(self.reply.finish()),
            Some(_) => self.reply.finish_page(self.has_more.then_some(&self.last)),
        }
    }
}
