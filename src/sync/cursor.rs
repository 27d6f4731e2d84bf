//! `sync_update_cursor`: acknowledge and heartbeat in one.

use super::Result;
use super::caller::Caller;
use crate::error::SyncError;
use crate::rules::access::Action;
use crate::rules::history::Progress;
use crate::rules::op::Version;
use crate::store;
use crate::store::counters::{Counter, count};
use crate::store::device::DeviceKey;
use crate::store::snapshot::Snapshot;
use crate::wire::ids::{DeviceId, WorkspaceId};
use crate::wire::pages::cursor_reply;
use crate::wire::reply::Reply;

pub fn update_cursor(
    workspace_id: Option<&str>,
    device_id: Option<&str>,
    version: Option<i64>,
) -> Result<Reply> {
    store::server::require_writable(c"sync_update_cursor()");
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    caller.require_now(Action::Pull, workspace_id)?;
    let device_id = DeviceId::new(device_id)?;
    let seen =
        version.and_then(Version::new).ok_or(SyncError::AcknowledgedVersion { given: version })?;

    let acknowledged = acknowledge(&caller, workspace_id, device_id.as_str(), seen, false)?;
    let Acknowledged { cursor, advanced, progress } = acknowledged;
    Ok(cursor_reply(device_id.as_str(), cursor, advanced, progress))
}

/// What an acknowledgement came to.
pub struct Acknowledged {
    cursor: Version,
    advanced: bool,
    progress: Progress,
}

/// Moves the device's cursor to `seen`. `checks` unless it is known that the
/// caller may.
pub fn acknowledge(
    caller: &Caller,
    workspace_id: &str,
    device_id: &str,
    seen: Version,
    mut checks: bool,
) -> Result<Acknowledged> {
    loop {
        // A fresh snapshot: the version may come from a push of this statement.
        let snapshot = Snapshot::fresh();
        if checks {
            caller.require(Action::Pull, workspace_id, &snapshot)?;
        }
        let workspace = store::workspace::find(workspace_id, &snapshot)?;
        drop(snapshot);
        let progress = workspace.map_or_else(Progress::default, |workspace| workspace.progress);
        if seen > progress.head {
            return Err(SyncError::AcknowledgedAboveHead {
                given: seen.get(),
                head: progress.head.get(),
            });
        }
        // Nothing is stored for a workspace that does not exist.
        let Some(workspace) = workspace else {
            return Ok(Acknowledged { cursor: Version::ZERO, advanced: false, progress });
        };
        let user_id = caller.device_user();
        let device = DeviceKey { workspace_key: workspace.key, device_id, user_id };
        // In the order in which a drop takes them.
        let hold = || Ok(caller.pin(workspace_id)? && store::workspace::pin(workspace.key)?);
        if let Some((cursor, advanced)) =
            store::device::acknowledge(device, seen, store::server::now(), hold)?
        {
            store::server::end_command();
            count(Counter::Acknowledgements, 1);
            return Ok(Acknowledged { cursor, advanced, progress });
        }
        // The workspace was dropped, or the user removed, since we looked.
        checks = true;
    }
}
