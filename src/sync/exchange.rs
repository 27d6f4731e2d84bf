//! `sync_exchange`: a device's whole round in one call.

use super::Result;
use super::caller::Caller;
use super::cursor::acknowledge;
use super::pull::{self, Pull};
use super::push::push_as;
use crate::rules::access::Action;
use crate::rules::op::Version;
use crate::store::server;
use crate::store::snapshot::Snapshot;
use crate::wire::ids::{DeviceId, WorkspaceId};
use crate::wire::reply::Reply;

/// Pushes, then pulls from the cursor what there is after it, the pushed ops
/// included, and acknowledges the cursor.
///
/// It is acknowledged only where the pull goes on from it: a device that must
/// start anew, or whose cursor a restored server has not come to, has nothing to
/// acknowledge, and its push counts nevertheless. Nor is 0, which would register
/// a device that has seen nothing.
pub fn exchange<'o>(
    device_id: Option<&str>,
    ops: impl FnOnce() -> Option<&'o str>,
    request: &pull::Request<'_>,
) -> Result<Reply> {
    server::require_writable(c"sync_exchange()");
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(request.workspace_id)?.as_str();
    caller.require_now(Action::Push, workspace_id)?;
    let pull = Pull::new(request)?;
    let device_id = DeviceId::new(device_id)?.as_str();

    let pushed = push_as(&caller, workspace_id, ops())?;
    // Not the statement's snapshot, in which nothing is pushed yet. Where nothing
    // was stored, nothing is locked either: the user may have been removed since.
    let snapshot = Snapshot::fresh();
    caller.require_still(Action::Pull, pull.workspace_id, &snapshot)?;
    let (pulled, goes_on) = pull::answer(&caller, &pull, &snapshot)?;
    drop(snapshot);
    if goes_on && pull.cursor > Version::ZERO {
        acknowledge(&caller, pull.workspace_id, device_id, pull.cursor, false)?;
    }
    let mut out = Reply::new();
    let parts = ["{\"push\":", &pushed, ",\"pull\":", &pulled, "}"];
    out.make_room(parts.iter().map(|part| part.len()).sum())?;
    for part in parts {
        out.push_str(part);
    }
    Ok(out)
}
