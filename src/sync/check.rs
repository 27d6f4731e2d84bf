//! `sync_check_table`: compares an attached table with its records.

use pgrx::pg_sys;

use super::Result;
use super::caller::Caller;
use crate::capture::compare::Comparison;
use crate::store::mvcc::MvccSnapshot;
use crate::store::{attached, registry};
use sync_ext_core::rules::attach_error::AttachError;
use sync_ext_core::rules::repair::RepairError;
use sync_ext_core::wire::ids::WorkspaceId;
use sync_ext_core::wire::repair::{CheckReply, Checked};
use sync_ext_core::wire::reply::Reply;

pub fn check(
    table: Option<pg_sys::Oid>,
    workspace_id: Option<&str>,
    max_differences: Option<i32>,
) -> Result<Reply> {
    Caller::require_trusted()?;
    let relation = table.ok_or(AttachError::NullTable)?;
    let workspace_id = workspace_id.map(|id| WorkspaceId::new(Some(id))).transpose()?;
    let max = max_differences.and_then(|max| usize::try_from(max).ok());
    let max = max.ok_or(RepairError::MaxDifferences)?;
    let table = attached::lock(relation)?.ok_or(AttachError::NotAttached)?;
    let (trigger, columns_changed) = registry::state_of(relation)?;

    let snapshot = MvccSnapshot::of_statement();
    let workspace_id = workspace_id.map(WorkspaceId::as_str);
    let comparison = Comparison::begin(&table, workspace_id, &snapshot)?;
    let mut reply = CheckReply::begin(max);
    let mut list = |found: &crate::capture::compare::Difference<'_>| {
        reply.add(found.workspace_id, found.pk, found.kind, || found.fields())
    };
    let rows = comparison.rows(None, usize::MAX, &mut list)?.compared;
    let records = comparison.records((i64::MIN, ""), usize::MAX, &mut list)?.compared;
    let table = &table.name;
    reply.finish(&Checked { table, rows, records, trigger: &trigger, columns_changed })
}
