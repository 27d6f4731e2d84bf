//! Capture: what SQL changes in attached tables becomes ops.
//!
//! A row trigger marks which records may have changed, nothing more. Before the
//! transaction commits, each marked row is read again under its workspace's lock and
//! compared with its record, and each difference becomes one op of the server. So what
//! counts is how the transaction left the row, however many statements, triggers and
//! cascades took part.

pub mod compare;
mod flush;
mod marks;

pub use flush::flush_pending;
use marks::Mark;

use crate::guc;
use crate::store::attached::{self, AttachedTable};
use crate::store::commit::{self, Hooks};
use crate::store::entry::Call;
use crate::store::trigger::RowKey;
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::capture::{CaptureError, admit_row};

type Result<T> = std::result::Result<T, SyncError>;

const NOT_ATTACHED: SyncError = SyncError::Capture(CaptureError::NotAttached);

/// Once per backend.
pub fn init() {
    static HOOKS: Hooks = Hooks {
        is_due: marks::close,
        before: flush::flush_all,
        after: marks::forget,
        rolled_back: marks::give_back,
    };
    attached::init();
    commit::register(&HOOKS);
}

/// The record is what its row is.
pub fn is_settled(workspace_id: &str, table: &AttachedTable, pk: &str) {
    marks::remove(workspace_id, table.relation, pk);
}

/// The record may not be what its row is.
pub fn is_open(workspace_id: &str, table: &AttachedTable, pk: &str) -> Result<()> {
    marks::add(workspace_id, table.relation, pk, Mark::default())
}

/// The row trigger of attached tables.
pub fn row_changed(call: &Call<'_>) -> Result<()> {
    if !guc::captures() {
        return Ok(());
    }
    let change = call.row_change().ok_or(NOT_ATTACHED)?;
    let table = attached::find(change.relation())?.ok_or(NOT_ATTACHED)?;
    let [before, after] = change.keys(&table)?;
    if let [Some(before), Some(after)] = [&before, &after]
        && before.pk == after.pk
        && before.place.owner.is_some()
        && before.place.owner != after.place.owner
    {
        let (table, pk) = (table.name.clone(), after.pk.clone().into_owned());
        return Err(CaptureError::OwnerChanged { table, pk }.into());
    }
    let is_new = before.is_none();
    let add = |RowKey { pk, place, .. }: &RowKey<'_>, mark| match &place.workspace {
        Some(workspace) => admit(&table, workspace, pk, mark),
        None => Ok(()),
    };
    if let Some(before) = &before
        && after
            .as_ref()
            .is_none_or(|after| (&before.pk, &before.place) != (&after.pk, &after.place))
    {
        match add(before, Mark::default()) {
            // What the row was need not be a record: it may be older than the attachment.
            Err(SyncError::Capture(CaptureError::WorkspaceId { .. } | CaptureError::Pk { .. })) => {
            }
            added => added?,
        }
    }
    match &after {
        Some(after) => add(after, Mark { at: Some(after.at), is_new }),
        None => Ok(()),
    }
}

fn admit(table: &AttachedTable, workspace_id: &str, pk: &str, mark: Mark) -> Result<()> {
    admit_row(&table.name, workspace_id, pk)?;
    marks::add(workspace_id, table.relation, pk, mark)
}

/// Makes the commit bring a record to its row.
pub fn mark(table: &AttachedTable, workspace_id: &str, pk: &str) -> Result<()> {
    admit(table, workspace_id, pk, Mark::default())
}

/// Makes the records that this transaction creates lose to every edit of a device.
pub fn begin_backfill() {
    marks::begin_backfill();
}
