//! Several servers: what `sql/moves.sql` needs from the library.

use super::Result;
use super::caller::Caller;
use crate::guc::{self, Notify};
use crate::store::{notify, server, workspace};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::op::Version;
use sync_ext_core::wire::notice::Changes;

/// `sync_ext.hint`: nothing new is in the workspace's log, but listeners should ask.
pub fn hint(workspace_id: Option<&str>, head: Option<i64>) -> Result<()> {
    Caller::require_trusted()?;
    let changes = match guc::notify() {
        Notify::Off => return Ok(()),
        Notify::Hint => Changes::Unasked,
        Notify::Changes => Changes::TooMany,
    };
    if let (Some(workspace_id), Some(head)) = (workspace_id, head) {
        notify::at_commit(guc::notify_channel(), workspace_id, Version::stored(head), changes);
    }
    Ok(())
}

/// Each of several servers has a number of its own.
pub fn set_key_range(server: Option<i32>) -> Result<()> {
    server::require_writable(c"sync_set_key_range()");
    Caller::require_trusted()?;
    let range =
        server.map(i64::from).filter(|range| (0..=workspace::MAX_KEY_RANGE).contains(range));
    workspace::set_key_range(range.ok_or(SyncError::KeyRange { max: workspace::MAX_KEY_RANGE })?)
}
