//! `sync_exchange`: push, acknowledge and pull in one call.

use super::Result;
use super::caller::Permit;
use super::cursor::acknowledge;
use super::pull::{self, Pull};
use super::push::{self, Stored};
use crate::store::mvcc::MvccSnapshot;
use crate::store::server;
use sync_ext_core::rules::access::Action;
use sync_ext_core::rules::op::Version;
use sync_ext_core::wire::ids::DeviceId;
use sync_ext_core::wire::reply::Reply;

/// Pushes, then pulls the entries after the cursor, including the pushed ops, and
/// acknowledges the cursor.
///
/// It is acknowledged only if the pull continues from it: a device that needs a
/// snapshot, or whose cursor is above the head of a restored server, has nothing to
/// acknowledge; its push is stored all the same. Nor is 0 acknowledged, which would
/// register a device that has seen nothing.
pub fn exchange<'o>(
    device_id: Option<&str>,
    ops: impl FnOnce() -> Option<&'o str>,
    request: &pull::Request<'_>,
) -> Result<Reply> {
    server::require_writable(c"sync_exchange()");
    let permit = Permit::now(Action::Push, request.workspace_id)?;
    let pull = Pull::new(request)?;
    let device_id = DeviceId::new(device_id)?.as_str();
    let batch = push::read(ops())?;

    let stored = push::store(&permit, &batch)?;
    // Not the statement's snapshot, which does not contain the push.
    let snapshot = MvccSnapshot::fresh();
    if let Stored::Nothing(_) = stored {
        // Nothing is locked: the user may have been removed since.
        permit.renew(&snapshot)?;
    }
    let pulled = pull::answer(&permit.caller, &pull, &snapshot)?;
    drop(snapshot);
    let pushed = match stored {
        Stored::Reply(reply) => reply,
        Stored::Nothing(refusals) => push::refuse(&batch, &refusals, pulled.head)?,
    };
    if pulled.continues && pull.cursor > Version::ZERO {
        acknowledge(&permit, device_id, pull.cursor)?;
    }
    let mut out = Reply::empty();
    let parts = ["{\"push\":", &pushed, ",\"pull\":", &pulled.reply, "}"];
    out.make_room(parts.iter().map(|part| part.len()).sum())?;
    for part in parts {
        out.push_str(part);
    }
    Ok(out)
}
