//! Bringing typed rows to their records, as a push would write them.

use std::rc::Rc;

use super::Result;
use crate::apply::{self, Edit, RowChange, Tables, until_rows_are_free};
use crate::store::attached::AttachedTable;
use crate::store::log::Log;
use crate::store::record::Records;
use crate::store::workspace::{self, LockedWorkspace};
use crate::store::{Access, Locked, Wait, server};
use sync_ext_core::wire::image::completed;

/// Returns the number of rows that were written; a constraint may refuse others. In a
/// workspace that does not exist no row has a record, and none is touched.
pub fn write_rows(table: &Rc<AttachedTable>, workspace_id: &str, pks: &[String]) -> Result<usize> {
    server::require_origin()?;
    let tables = Tables::of_table(table)?;
    until_rows_are_free(|| {
        let Locked::Row(locked) = workspace::lock(workspace_id, Wait::Block)? else { return Ok(0) };
        let changes = changes(&locked, table, &tables, pks)?;
        let refused =
            locked.closed(|| apply::apply(&tables, &changes, changes.len(), workspace_id))?;
        Ok(refused.iter().filter(|refusal| refusal.is_none()).count())
    })
}

/// Reads the records again, under the lock.
fn changes<'p>(
    locked: &LockedWorkspace,
    table: &AttachedTable,
    tables: &Tables,
    pks: &'p [String],
) -> Result<Vec<RowChange<'p>>> {
    let key = locked.workspace.key;
    let (records, log) = (Records::open(key, Access::Read)?, Log::open(key, Access::Read)?);
    let mut names = records.names(&locked.snapshot);
    let mut versions = log.versions(&locked.snapshot);
    let mut changes = Vec::with_capacity(pks.len());
    for pk in pks {
        server::check_interrupts();
        // A record of the JSON table that it was before may have a name that no row has.
        if !tables.typed(0).is_canonical(pk)? {
            continue;
        }
        let state = names.find(&table.name, pk).map(|record| record.state()).transpose()?;
        let live = state.as_ref().filter(|state| !state.deleted);
        let entry = live.and_then(|live| versions.find(live.version));
        let edit = match entry.as_ref().and_then(|entry| entry.payload()) {
            Some(payload) => {
                let fields = table.fields.iter().map(|(field, _)| &**field);
                Edit::Put(completed(payload, fields).into())
            }
            None => Edit::Delete,
        };
        let owner = state.and_then(|state| state.owner);
        changes.push(RowChange { table: 0, pk, owner, edit });
    }
    Ok(changes)
}
