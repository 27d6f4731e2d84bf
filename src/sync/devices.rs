//! `sync_forget_device`.

use super::Result;
use super::caller::Permit;
use crate::store::mvcc::MvccSnapshot;
use crate::store::{device, server, workspace};
use sync_ext_core::rules::access::Action;
use sync_ext_core::wire::ids::DeviceId;

/// Deletes a device, which then no longer holds GC back. A device that still exists
/// registers itself again with its next acknowledgement. False if there was none.
///
/// Trusted callers and owners delete every user's device of this name, other members
/// their own.
pub fn forget_device(workspace_id: Option<&str>, device_id: Option<&str>) -> Result<bool> {
    server::require_writable(c"sync_forget_device()");
    // Acknowledgements do not take the workspace's lock: read what is committed now.
    let latest = MvccSnapshot::latest();
    let permit = Permit::seen_by(&latest, Action::Pull, workspace_id)?;
    let device_id = DeviceId::new(device_id)?.as_str();
    let Some(workspace) = workspace::find(permit.workspace_id, &latest)? else {
        return Ok(false);
    };
    let of_all = permit.role.is_none_or(|role| role.may(Action::Govern));
    let user_id = (!of_all).then(|| permit.caller.device_user());
    let forgotten = device::remove(workspace.key, device_id, user_id, &latest)?;
    drop(latest);
    server::end_command();
    Ok(forgotten > 0)
}
