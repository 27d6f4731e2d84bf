//! `sync_forget_device`.

use super::Result;
use super::caller::Caller;
use crate::rules::access::Action;
use crate::store::snapshot::Snapshot;
use crate::store::{device, server, workspace};
use crate::wire::ids::{DeviceId, WorkspaceId};

/// Deletes a device, which from then on holds nothing back; one that is not lost
/// registers itself again by its next acknowledgement. False if there was none.
///
/// Trusted callers and owners forget every user's device of this name, other members
/// their own.
pub fn forget_device(workspace_id: Option<&str>, device_id: Option<&str>) -> Result<bool> {
    server::require_writable(c"sync_forget_device()");
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    // Others acknowledge without the workspace's lock: what is committed now.
    let latest = Snapshot::latest();
    let role = caller.require(Action::Pull, workspace_id, &latest)?;
    let device_id = DeviceId::new(device_id)?.as_str();
    let of_all = role.is_none_or(|role| role.may(Action::Govern));
    let Some(workspace) = workspace::find(workspace_id, &latest)? else { return Ok(false) };
    let user_id = (!of_all).then(|| caller.device_user());
    let forgotten = device::remove(workspace.key, device_id, user_id, &latest)?;
    drop(latest);
    server::end_command();
    Ok(forgotten > 0)
}
