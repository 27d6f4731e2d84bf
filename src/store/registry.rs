//! `sync_ext.synced_table`: the tables that may be pushed.

use std::collections::BTreeMap;

use pgrx::Spi;

use super::Result;
use super::relation::{Access, Index, Table};
use super::scan::{By, Key, Scan};
use super::snapshot::Snapshot;
use crate::error::SyncError;

mod column {
    pub const PK_FIELD: usize = 2;
}

/// Looks up registered tables, each once.
pub struct Registry {
    table: Table,
    by_name: Index,
    known: BTreeMap<String, Option<String>>,
}

impl Registry {
    pub fn open() -> Result<Registry> {
        let table = Table::open(c"synced_table", Access::Read)?;
        let by_name = table.index(c"synced_table_pkey")?;
        Ok(Registry { table, by_name, known: BTreeMap::new() })
    }

    /// The pk field of a table; `None` if it is not registered.
    pub fn pk_field(&mut self, table: &str, snapshot: &Snapshot) -> Result<Option<&str>> {
        if !self.known.contains_key(table) {
            let mut scan = Scan::new(&self.table, &self.by_name, snapshot, &[By::Text]);
            let pk_field = scan
                .find(&[Key::Text(table)])
                .map(|row| row.text(column::PK_FIELD).map(str::to_owned))
                .transpose()?;
            self.known.insert(table.to_owned(), pk_field);
        }
        Ok(self.known.get(table).and_then(|field| field.as_deref()))
    }
}

pub fn register(table_name: &str, pk_field: &str) -> Result<()> {
    Spi::run_with_args(
        "insert into sync_ext.synced_table (table_name, pk_field) values ($1, $2) \
         on conflict (table_name) do update set pk_field = excluded.pk_field",
        &[table_name.into(), pk_field.into()],
    )
    .map_err(SyncError::sql)
}

pub fn unregister(table_name: &str) -> Result<()> {
    Spi::run_with_args(
        "delete from sync_ext.synced_table where table_name = $1",
        &[table_name.into()],
    )
    .map_err(SyncError::sql)
}
