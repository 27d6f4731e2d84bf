//! The rows of `sync_ext.synced_table` that are attachments.

use pgrx::{Spi, pg_sys};

use super::OwnTable;
use crate::store::Result;
use crate::store::mvcc::MvccSnapshot;
use crate::store::registry::{TABLE, announce, check_scope_field, choose_scope_field};
use crate::store::relation::{Access, Table};
use crate::store::rights::Rights;
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::attach_error::AttachError;
use sync_ext_core::rules::attached::Attachment;

/// The name that a table is attached under.
pub fn name_of(relation: pg_sys::Oid) -> Result<Option<String>> {
    let sql = "select table_name from sync_ext.synced_table where relation = $1";
    look_up(sql, relation.into())
}

/// The table that is attached under a name, which may have been dropped since.
pub fn relation_of(table_name: &str) -> Result<Option<pg_sys::Oid>> {
    let sql = "select relation::pg_catalog.oid from sync_ext.synced_table where table_name = $1";
    look_up(sql, table_name.into())
}

/// That table's name in SQL.
pub fn relation_name_of(table_name: &str) -> Result<Option<String>> {
    let sql = "select relation::pg_catalog.text from sync_ext.synced_table where table_name = $1";
    look_up(sql, table_name.into())
}

/// The value that the statement finds for its argument; `None` also if it is NULL.
fn look_up<T: pgrx::FromDatum + pgrx::IntoDatum>(
    sql: &str,
    argument: pgrx::datum::DatumWithOid<'_>,
) -> Result<Option<T>> {
    let table = Table::open(&TABLE, Access::Read)?;
    let _rights = Rights::of_owner(&table);
    // What others committed while this call waited for the table counts.
    let _snapshot = MvccSnapshot::latest();
    Spi::connect(|spi| match spi.select(sql, None, &[argument])?.next() {
        Some(row) => row.get::<T>(1),
        None => Ok(None),
    })
    .map_err(SyncError::sql)
}

/// Stores how the table is attached. A JSON table of its name becomes the attached one.
pub fn store(
    own: &OwnTable,
    attachment: &Attachment,
    fields: &str,
    apply_search_path: &str,
) -> Result<()> {
    if let Some(table_name) = name_of(own.oid)? {
        return Err(AttachError::AlreadyAttached { table_name }.into());
    }
    let table = Table::open(&TABLE, Access::Write)?;
    let sql = "insert into sync_ext.synced_table as t \
                 (table_name, pk_field, owner_field, patches, relation, workspace_column, \
                  workspace_id, deleted_column, fields, column_types, direction, apply_as, \
                  numbers, apply_search_path, backfilled) \
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9::pg_catalog.json, \
                  sync_ext.column_types($5), $10, $11, $12, $13, false) \
               on conflict (table_name) do update \
               set pk_field = excluded.pk_field, owner_field = excluded.owner_field, \
                   patches = excluded.patches, relation = excluded.relation, \
                   workspace_column = excluded.workspace_column, \
                   workspace_id = excluded.workspace_id, \
                   deleted_column = excluded.deleted_column, fields = excluded.fields, \
                   column_types = excluded.column_types, direction = excluded.direction, \
                   apply_as = excluded.apply_as, numbers = excluded.numbers, \
                   apply_search_path = excluded.apply_search_path, backfilled = false, \
                   backfilled_through = null \
               where t.relation is null \
                 and (excluded.owner_field is not null or t.owner_field is null)";
    let arguments = [
        attachment.table_name.as_str().into(),
        attachment.pk_field.as_str().into(),
        attachment.owner_field.as_deref().into(),
        attachment.patches.into(),
        own.oid.into(),
        attachment.workspace_column.as_deref().into(),
        attachment.workspace_id.as_deref().into(),
        attachment.deleted_column.as_deref().into(),
        fields.into(),
        attachment.direction.as_str().into(),
        attachment.apply_as.as_str().into(),
        attachment.numbers.as_str().into(),
        apply_search_path.into(),
    ];
    if table.execute(sql, &arguments)? == 1 {
        announce(&table);
        return match &attachment.scope_field {
            Some(field) => choose_scope_field(&attachment.table_name, Some(field)),
            None => check_scope_field(&attachment.table_name),
        };
    }
    Err(match relation_name_of(&attachment.table_name)? {
        Some(by) => AttachError::NameTaken { by }.into(),
        None => SyncError::OwnerFieldKept,
    })
}

/// Makes the attached table a JSON table; false if it is not attached.
pub fn clear(relation: pg_sys::Oid) -> Result<bool> {
    let table = Table::open(&TABLE, Access::Write)?;
    let sql = "update sync_ext.synced_table \
               set relation = null, workspace_column = null, workspace_id = null, \
                   deleted_column = null, fields = null, column_types = null, \
                   direction = null, apply_as = null, numbers = null, \
                   apply_search_path = null, backfilled = null, backfilled_through = null \
               where relation = $1";
    let is_cleared = table.execute(sql, &[relation.into()])? == 1;
    if is_cleared {
        announce(&table);
    }
    Ok(is_cleared)
}
