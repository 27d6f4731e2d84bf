//! `sync_ext.synced_table`: the tables that may be pushed.

use std::collections::BTreeMap;

use super::Result;
use super::mvcc::MvccSnapshot;
use super::relation::{Access, Index, Table};
use super::row::Row;
use super::scan::{By, Key, Scan};
use super::shape::{ColumnType, IndexShape, Shape};
use sync_ext_core::rules::admission::SyncedTable;

static TABLE: Shape = Shape {
    name: c"synced_table",
    columns: &[
        ("table_name", ColumnType::Text),
        ("pk_field", ColumnType::Text),
        ("registered_at", ColumnType::Time),
        ("owner_field", ColumnType::Text),
        ("patches", ColumnType::Bool),
        ("validation", ColumnType::RegProcedure),
        ("relation", ColumnType::RegClass),
        ("workspace_column", ColumnType::Text),
        ("workspace_id", ColumnType::Text),
        ("deleted_column", ColumnType::Text),
        ("fields", ColumnType::Json),
        ("column_types", ColumnType::Text),
        ("direction", ColumnType::Text),
        ("apply_as", ColumnType::Text),
        ("numbers", ColumnType::Text),
        ("apply_search_path", ColumnType::Text),
        ("backfilled", ColumnType::Bool),
        ("backfilled_through", ColumnType::Text),
    ],
};
static BY_NAME: IndexShape = IndexShape { name: c"synced_table_pkey", keys: &[0], is_unique: true };

mod column {
    pub const PK_FIELD: usize = 2;
    pub const OWNER_FIELD: usize = 4;
    pub const PATCHES: usize = 5;
}

/// Looks up registered tables, each once.
pub struct Registry {
    table: Table,
    by_name: Index,
    known: BTreeMap<String, Option<SyncedTable>>,
}

impl Registry {
    pub fn open() -> Result<Registry> {
        let table = Table::open(&TABLE, Access::Read)?;
        let by_name = table.index(&BY_NAME)?;
        Ok(Registry { table, by_name, known: BTreeMap::new() })
    }

    /// A table's fields; `None` if it is not registered.
    pub fn find(&mut self, table: &str, snapshot: &MvccSnapshot) -> Result<Option<&SyncedTable>> {
        if !self.known.contains_key(table) {
            let mut scan = Scan::new(&self.table, &self.by_name, snapshot, &[By::Text]);
            let found = scan.find(&[Key::Text(table)]);
            self.known.insert(table.to_owned(), found.map(|row| read(&row)).transpose()?);
        }
        Ok(self.known.get(table).and_then(Option::as_ref))
    }
}

fn read(row: &Row<'_>) -> Result<SyncedTable> {
    Ok(SyncedTable {
        pk_field: row.text(column::PK_FIELD)?.to_owned(),
        owner_field: row.text_or_null(column::OWNER_FIELD).map(str::to_owned),
        patches: row.bool(column::PATCHES)?,
    })
}

/// False, without a change, if this would remove an owner field.
pub fn register(table_name: &str, fields: &SyncedTable) -> Result<bool> {
    let SyncedTable { pk_field, owner_field, patches } = fields;
    let table = Table::open(&TABLE, Access::Write)?;
    let sql = "insert into sync_ext.synced_table as t (table_name, pk_field, owner_field, patches) \
               values ($1, $2, $3, $4) on conflict (table_name) do update \
               set pk_field = excluded.pk_field, owner_field = excluded.owner_field, \
                   patches = excluded.patches \
               where excluded.owner_field is not null or t.owner_field is null";
    let arguments = [
        table_name.into(),
        pk_field.as_str().into(),
        owner_field.as_deref().into(),
        (*patches).into(),
    ];
    Ok(table.execute(sql, &arguments)? == 1)
}

pub fn unregister(table_name: &str) -> Result<()> {
    let table = Table::open(&TABLE, Access::Write)?;
    let sql = "delete from sync_ext.synced_table where table_name = $1";
    table.execute(sql, &[table_name.into()]).map(|_| ())
}
