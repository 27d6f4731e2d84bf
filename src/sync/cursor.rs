//! `sync_update_cursor`: acknowledgement and heartbeat.

use super::Result;
use super::caller::Permit;
use crate::store::counters::{Counter, count};
use crate::store::device::{self, DeviceKey};
use crate::store::mvcc::MvccSnapshot;
use crate::store::workspace::{self, Workspace};
use crate::store::{server, unpinned};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::access::Action;
use sync_ext_core::rules::op::Version;
use sync_ext_core::wire::ids::DeviceId;
use sync_ext_core::wire::reply::Reply;
use sync_ext_core::wire::small_replies::CursorReply;

pub fn update_cursor(
    workspace_id: Option<&str>,
    device_id: Option<&str>,
    version: Option<i64>,
) -> Result<Reply> {
    server::require_writable(c"sync_update_cursor()");
    let permit = Permit::now(Action::Pull, workspace_id)?;
    let device_id = DeviceId::new(device_id)?.as_str();
    let seen =
        version.and_then(Version::new).ok_or(SyncError::AcknowledgedVersion { given: version })?;
    Ok(Reply::of(&acknowledge(&permit, device_id, seen)?))
}

/// Moves the device's cursor to `seen`.
pub fn acknowledge<'d>(
    permit: &Permit<'_>,
    device_id: &'d str,
    seen: Version,
) -> Result<CursorReply<'d>> {
    let mut is_retry = false;
    loop {
        // A fresh snapshot: the version may come from a push of this statement.
        let snapshot = MvccSnapshot::fresh();
        if is_retry {
            permit.renew(&snapshot)?;
        }
        let found = workspace::find_to_read_again(permit.workspace_id, &snapshot)?;
        drop(snapshot);
        let progress = found.as_ref().map(|found| found.workspace.progress).unwrap_or_default();
        if seen > progress.head {
            return Err(SyncError::AcknowledgedAboveHead {
                given: seen.get(),
                head: progress.head.get(),
            });
        }
        let reply = |cursor: Version, advanced| CursorReply {
            device_id,
            last_seen_version: cursor.get(),
            advanced,
            server_version: progress.head.get(),
            oldest_retained_version: progress.oldest_retained(),
        };
        // Nothing is stored for a workspace that does not exist.
        let Some(found) = found else { return Ok(reply(Version::ZERO, false)) };
        let user_id = permit.caller.device_user();
        let workspace_key = found.workspace.key;
        let device = DeviceKey { workspace_key, device_id, user_id };
        // In the order in which a drop deletes them.
        let hold = || Ok(permit.pin()? && workspace::pin(workspace_key)?);
        let leave = |from: Version| {
            let pinned = |now: &Workspace| from.get() <= now.progress.next_unread();
            unpinned::add(found.now()?.filter(pinned))
        };
        let now = server::now();
        if let Some((cursor, advanced)) = device::acknowledge(device, seen, now, hold, leave)? {
            server::end_command();
            count(Counter::Acknowledgements, 1);
            return Ok(reply(cursor, advanced));
        }
        // The workspace was dropped, or the user removed, after it was read.
        is_retry = true;
    }
}
