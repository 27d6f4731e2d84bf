//! The batches of `sync_backfill_table` and `sync_repair_table`. The procedures commit
//! after each.
//!
//! A batch compares without locks, and marks what differs. Capture compares it once more
//! under the workspace's lock when the transaction commits, so that a change in between
//! counts.

use std::collections::BTreeMap;
use std::rc::Rc;

use pgrx::pg_sys;

use super::Result;
use super::caller::Caller;
use super::repair_rows::write_rows;
use crate::capture;
use crate::capture::compare::{Comparison, Difference, Progress};
use crate::store::attach::{OwnTable, Purpose};
use crate::store::attached::{self, AttachedTable};
use crate::store::mvcc::MvccSnapshot;
use crate::store::registry::{self, Backfill};
use crate::store::{memory, server};
use sync_ext_core::rules::attach_error::AttachError;
use sync_ext_core::rules::repair::{RepairError, Toward};
use sync_ext_core::wire::ids::WorkspaceId;
use sync_ext_core::wire::repair::{BatchReply, Position};
use sync_ext_core::wire::reply::Reply;

/// The arguments that both have.
pub struct Batch<'a> {
    pub table: Option<pg_sys::Oid>,
    pub workspace_id: Option<&'a str>,
    pub batch_size: Option<i32>,
    /// Of the batch before this one, as JSON.
    pub position: Option<&'a str>,
}

/// A batch that its caller may run.
struct Admitted<'a> {
    table: Rc<AttachedTable>,
    workspace_id: Option<&'a str>,
    limit: usize,
    position: Option<Position>,
}

impl<'a> Batch<'a> {
    fn admit(&self) -> Result<Admitted<'a>> {
        Caller::require_trusted()?;
        let own = OwnTable::lock(self.table.ok_or(AttachError::NullTable)?, Purpose::Repair)?;
        let table = attached::find(own.oid())?.ok_or(AttachError::NotAttached)?;
        let workspace_id = self.workspace_id.map(|id| WorkspaceId::new(Some(id))).transpose()?;
        let read = |json| Position::read(json).ok_or(RepairError::Position);
        Ok(Admitted {
            table,
            workspace_id: workspace_id.map(WorkspaceId::as_str),
            limit: super::batch_size(self.batch_size)?,
            position: self.position.map(read).transpose()?,
        })
    }
}

/// Reads some rows and captures those without a record, or with another one. The progress
/// of a backfill of all workspaces is stored with the batch: a batch that is rolled back
/// is repeated.
pub fn backfill(batch: &Batch<'_>) -> Result<Reply> {
    server::require_writable(c"sync_backfill_table()");
    let batch = batch.admit()?;
    let is_whole = batch.workspace_id.is_none();
    let after = match (is_whole, &batch.position) {
        (true, _) => {
            let stored = registry::lock_backfill(batch.table.relation)?;
            let Backfill { is_done, through } = stored.ok_or(AttachError::NotAttached)?;
            if is_done {
                return Ok(Reply::of(&BatchReply { read: 0, captured: 0, position: None }));
            }
            through
        }
        (false, Some(Position::Row { pk })) => Some(pk.clone()),
        (false, None) => None,
        (false, Some(Position::Record { .. })) => return Err(RepairError::Position.into()),
    };
    capture::begin_backfill();
    let (progress, captured) = batch
        .capture(|comparison, limit, visit| comparison.rows(after.as_deref(), limit, visit))?;
    if is_whole {
        let through = match &progress.position {
            Some(Position::Row { pk }) => Some(pk.clone()),
            _ => None,
        };
        let is_done = through.is_none();
        registry::save_backfill(batch.table.relation, &Backfill { is_done, through })?;
    }
    let Progress { read, position, .. } = progress;
    Ok(Reply::of(&BatchReply { read, captured, position }))
}

/// Reads some rows, or after the last row some records, and repairs what differs.
pub fn repair(batch: &Batch<'_>, toward: Option<&str>) -> Result<Reply> {
    server::require_writable(c"sync_repair_table()");
    let batch = batch.admit()?;
    match Toward::parse(toward)? {
        Toward::Log => batch.repair_log(),
        Toward::Table => batch.repair_table(),
    }
}

impl Admitted<'_> {
    fn repair_log(&self) -> Result<Reply> {
        let (progress, captured) =
            self.capture(|comparison, limit, visit| self.compare_some(comparison, limit, visit))?;
        Ok(self.reply(progress, captured))
    }

    /// Writes the rows that differ as their records are. Rows without a live record are
    /// deleted.
    fn repair_table(&self) -> Result<Reply> {
        let stored = registry::lock_backfill(self.table.relation)?;
        if !stored.ok_or(AttachError::NotAttached)?.is_done {
            return Err(RepairError::NotBackfilled.into());
        }
        let mut differing: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let progress = {
            let snapshot = MvccSnapshot::fresh();
            let comparison = Comparison::begin(&self.table, self.workspace_id, &snapshot)?;
            self.compare_some(&comparison, self.limit, &mut |found| {
                let pks = differing.entry(found.workspace_id.to_owned()).or_default();
                memory::push(pks, found.pk.to_owned())
            })?
        };
        let mut repaired = 0;
        for (workspace_id, pks) in &differing {
            repaired += write_rows(&self.table, workspace_id, pks)?;
        }
        Ok(self.reply(progress, repaired))
    }

    fn compare_some(
        &self,
        comparison: &Comparison<'_>,
        limit: usize,
        visit: &mut dyn FnMut(&Difference<'_>) -> Result<()>,
    ) -> Result<Progress> {
        match &self.position {
            Some(Position::Record { workspace_key, pk }) => {
                comparison.records((*workspace_key, pk), limit, visit)
            }
            Some(Position::Row { pk }) => comparison.rows(Some(pk), limit, visit),
            None => comparison.rows(None, limit, visit),
        }
    }

    /// After the last row come the records.
    fn reply(&self, mut progress: Progress, captured: usize) -> Reply {
        let was_at_rows = !matches!(self.position, Some(Position::Record { .. }));
        if progress.position.is_none() && was_at_rows {
            let (workspace_key, pk) = (i64::MIN, String::new());
            progress.position = Some(Position::Record { workspace_key, pk });
        }
        let Progress { read, position, .. } = progress;
        Reply::of(&BatchReply { read, captured, position })
    }

    /// Marks the differences that `compare` visits; returns their number.
    fn capture(
        &self,
        compare: impl FnOnce(
            &Comparison<'_>,
            usize,
            &mut dyn FnMut(&Difference<'_>) -> Result<()>,
        ) -> Result<Progress>,
    ) -> Result<(Progress, usize)> {
        // What was committed while this call waited for another backfill counts.
        let snapshot = MvccSnapshot::fresh();
        let comparison = Comparison::begin(&self.table, self.workspace_id, &snapshot)?;
        let mut captured = 0;
        let progress = compare(&comparison, self.limit, &mut |found| {
            captured += 1;
            capture::mark(&self.table, found.workspace_id, found.pk)
        })?;
        Ok((progress, captured))
    }
}
