//! `sync_update_cursor`: acknowledge and heartbeat in one.

use super::Result;
use crate::error::SyncError;
use crate::rules::history::Progress;
use crate::rules::op::Version;
use crate::store;
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
    let workspace_id = WorkspaceId::new(workspace_id)?;
    let device_id = DeviceId::new(device_id)?;
    let seen =
        version.and_then(Version::new).ok_or(SyncError::AcknowledgedVersion { given: version })?;

    // A fresh snapshot: the version may come from a push of this statement.
    let workspace = {
        let snapshot = Snapshot::fresh();
        store::workspace::find(workspace_id.as_str(), &snapshot)?
    };
    let progress = workspace.map_or_else(Progress::default, |workspace| workspace.progress);
    if seen > progress.head {
        return Err(SyncError::AcknowledgedAboveHead {
            given: seen.get(),
            head: progress.head.get(),
        });
    }
    // Nothing is stored for a workspace that does not exist.
    let (cursor, advanced) = match workspace {
        Some(workspace) => store::device::acknowledge(
            workspace.key,
            device_id.as_str(),
            seen,
            store::server::now(),
        )?,
        None => (Version::ZERO, false),
    };
    store::server::end_command();
    Ok(cursor_reply(device_id.as_str(), cursor, advanced, progress))
}
