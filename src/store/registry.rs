//! `sync_ext.synced_table`: the tables that may be pushed.

use std::collections::BTreeMap;

use pgrx::Spi;

use super::Result;
use super::relation::{Access, Index, Table};
use super::scan::{By, Key, Row, Scan};
use super::shape::{ColumnType, IndexShape, Shape};
use super::snapshot::Snapshot;
use crate::error::SyncError;
use crate::rules::admission as rules;

static TABLE: Shape = Shape {
    name: c"synced_table",
    columns: &[
        ("table_name", ColumnType::Text),
        ("pk_field", ColumnType::Text),
        ("registered_at", ColumnType::Time),
        ("owner_field", ColumnType::Text),
    ],
};
static BY_NAME: IndexShape = IndexShape { name: c"synced_table_pkey", keys: &[0], is_unique: true };

mod column {
    pub const PK_FIELD: usize = 2;
    pub const OWNER_FIELD: usize = 4;
}

/// Looks up registered tables, each once.
pub struct Registry {
    table: Table,
    by_name: Index,
    known: BTreeMap<String, Option<rules::Table>>,
}

impl Registry {
    pub fn open() -> Result<Registry> {
        let table = Table::open(&TABLE, Access::Read)?;
        let by_name = table.index(&BY_NAME)?;
        Ok(Registry { table, by_name, known: BTreeMap::new() })
    }

    /// A table's fields; `None` if it is not registered.
    pub fn find(&mut self, table: &str, snapshot: &Snapshot) -> Result<Option<&rules::Table>> {
        if !self.known.contains_key(table) {
            let mut scan = Scan::new(&self.table, &self.by_name, snapshot, &[By::Text]);
            let found = scan.find(&[Key::Text(table)]);
            self.known.insert(table.to_owned(), found.map(|row| read(&row)).transpose()?);
        }
        Ok(self.known.get(table).and_then(Option::as_ref))
    }
}

fn read(row: &Row<'_>) -> Result<rules::Table> {
    Ok(rules::Table {
        pk_field: row.text(column::PK_FIELD)?.to_owned(),
        owner_field: row.text_or_null(column::OWNER_FIELD).map(str::to_owned),
    })
}

/// False, and nothing is changed, if this would take an owner field away.
pub fn register(table_name: &str, pk_field: &str, owner_field: Option<&str>) -> Result<bool> {
    let _open = Table::open(&TABLE, Access::Write)?;
    Spi::connect_mut(|spi| {
        spi.update(
        "insert into sync_ext.synced_table as t (table_name, pk_field, owner_field) values ($1, $2, $3) \
         on conflict (table_name) do update \
         set pk_field = excluded.pk_field, owner_field = excluded.owner_field \
         where excluded.owner_field is not null or t.owner_field is null",
            None,
            &[table_name.into(), pk_field.into(), owner_field.into()],
        )
        .map(|rows| rows.len() == 1)
    })
    .map_err(SyncError::sql)
}

pub fn unregister(table_name: &str) -> Result<()> {
    let _open = Table::open(&TABLE, Access::Write)?;
    Spi::run_with_args(
        "delete from sync_ext.synced_table where table_name = $1",
        &[table_name.into()],
    )
    .map_err(SyncError::sql)
}
