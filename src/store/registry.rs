//! `sync_ext.synced_table`: the tables that may be pushed.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use pgrx::{Spi, pg_sys};

use super::Result;
use super::attached::{AttachedTable, WorkspaceOf};
use super::mvcc::MvccSnapshot;
use super::record;
use super::relation::{Access, Index, Table};
use super::rights::Rights;
use super::row::Row;
use super::scan::{By, Key, Scan};
use super::shape::{ColumnType, IndexShape, Shape};
use super::validation::Validation;
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::admission::SyncedTable;
use sync_ext_core::rules::attach_error::AttachError;
use sync_ext_core::wire::fields::text_members;

pub(super) static TABLE: Shape = Shape {
    name: c"synced_table",
    columns: &[
        ("table_name", ColumnType::Text),
        ("pk_field", ColumnType::Text),
        ("registered_at", ColumnType::Time),
        ("owner_field", ColumnType::Text),
        ("patches", ColumnType::Bool),
        ("validation", ColumnType::Text),
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
        ("scope_field", ColumnType::Text),
    ],
    first: 18,
};
static BY_NAME: IndexShape =
    IndexShape { name: c"synced_table_pkey", keys: &[0], is_unique: true, not_null: None };

mod column {
    pub const TABLE_NAME: usize = 1;
    pub const PK_FIELD: usize = 2;
    pub const OWNER_FIELD: usize = 4;
    pub const PATCHES: usize = 5;
    pub const RELATION: usize = 7;
    pub const WORKSPACE_COLUMN: usize = 8;
    pub const WORKSPACE_ID: usize = 9;
    pub const DELETED_COLUMN: usize = 10;
    pub const FIELDS: usize = 11;
    pub const DIRECTION: usize = 13;
    pub const APPLY_AS: usize = 14;
    pub const NUMBERS: usize = 15;
    pub const APPLY_SEARCH_PATH: usize = 16;
    pub const VALIDATION: usize = 6;
    pub const SCOPE_FIELD: usize = 19;
}

/// A table as it was registered.
pub struct Registered {
    pub fields: SyncedTable,
    pub validation: Option<Rc<Validation>>,
}

/// Looks up registered tables, each once.
pub struct Registry {
    table: Table,
    by_name: Index,
    known: BTreeMap<String, Option<Registered>>,
}

impl Registry {
    pub fn open() -> Result<Registry> {
        let table = Table::open(&TABLE, Access::Read)?;
        let by_name = table.index(&BY_NAME)?;
        Ok(Registry { table, by_name, known: BTreeMap::new() })
    }

    /// `None` if the table is not registered.
    pub fn find(&mut self, table: &str, snapshot: &MvccSnapshot) -> Result<Option<&Registered>> {
        if !self.known.contains_key(table) {
            let mut scan = Scan::new(&self.table, &self.by_name, snapshot, &[By::Text]);
            let found = scan.find(&[Key::Text(table)]);
            self.known.insert(table.to_owned(), found.map(|row| read(&row)).transpose()?);
        }
        Ok(self.known.get(table).and_then(Option::as_ref))
    }

    /// The same by what is committed now, as attached tables are known: what a push makes of the
    /// record and what it writes to the row must not go by different registrations.
    pub fn find_latest(&mut self, table: &str) -> Result<Option<&Registered>> {
        if !self.known.contains_key(table) {
            self.find(table, &MvccSnapshot::latest())?;
        }
        Ok(self.known.get(table).and_then(Option::as_ref))
    }
}

fn read(row: &Row<'_>) -> Result<Registered> {
    let fields = SyncedTable {
        pk_field: row.text(column::PK_FIELD)?.to_owned(),
        owner_field: row.text_or_null(column::OWNER_FIELD).map(str::to_owned),
        scope_field: row.text_or_null(column::SCOPE_FIELD).map(Into::into),
        patches: row.bool(column::PATCHES)?,
    };
    let validation = row.text_or_null(column::VALIDATION);
    Ok(Registered { fields, validation: validation.map(|name| Rc::new(Validation::named(name))) })
}

/// The tables that are attached to a relation.
pub fn attached(snapshot: &MvccSnapshot) -> Result<Vec<Rc<AttachedTable>>> {
    let table = Table::open(&TABLE, Access::Read)?;
    let index = table.index(&BY_NAME)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[]);
    scan.seek(&[]);
    let mut attached = Vec::new();
    while let Some(row) = scan.next() {
        if let Some(relation) = row.oid_or_null(column::RELATION) {
            attached.push(Rc::new(read_attached(&row, relation)?));
        }
    }
    Ok(attached)
}

fn read_attached(row: &Row<'_>, relation: pg_sys::Oid) -> Result<AttachedTable> {
    let text = |column| row.text_or_null(column).map(str::to_owned);
    let fields = row.text_or_null(column::FIELDS).and_then(text_members).unwrap_or_default();
    let owner = text(column::OWNER_FIELD)
        .and_then(|owner| fields.iter().find(|(field, _)| *field == owner).cloned());
    Ok(AttachedTable {
        relation,
        name: row.text(column::TABLE_NAME)?.to_owned(),
        workspace: match text(column::WORKSPACE_COLUMN) {
            Some(column) => WorkspaceOf::Column(column),
            None => WorkspaceOf::All(row.text(column::WORKSPACE_ID)?.to_owned()),
        },
        owner,
        deleted_column: text(column::DELETED_COLUMN),
        scope_field: text(column::SCOPE_FIELD),
        fields,
        patches: row.bool(column::PATCHES)?,
        is_read_only: row.text(column::DIRECTION)? == "down",
        applies_as_owner: row.text(column::APPLY_AS)? == "owner",
        has_safe_numbers: row.text(column::NUMBERS)? == "safe",
        search_path: row.text(column::APPLY_SEARCH_PATH)?.to_owned(),
        key_columns: OnceCell::new(),
    })
}

/// How far the backfill of an attached table is.
pub struct Backfill {
    pub is_done: bool,
    /// The primary key of the last row that it has read.
    pub through: Option<String>,
}

/// Locks it until the transaction ends, so that of several sessions each takes other
/// rows. `None` if the table is not attached any more.
pub fn lock_backfill(relation: pg_sys::Oid) -> Result<Option<Backfill>> {
    let table = Table::open(&TABLE, Access::Write)?;
    let _rights = Rights::of_owner(&table);
    let sql = "select backfilled, backfilled_through from sync_ext.synced_table \
               where relation = $1 for update";
    Spi::connect_mut(|spi| match spi.update(sql, None, &[relation.into()])?.next() {
        Some(row) => {
            Ok(Some(Backfill { is_done: row.get(1)?.unwrap_or(false), through: row.get(2)? }))
        }
        None => Ok(None),
    })
    .map_err(|error: pgrx::spi::Error| SyncError::sql(error))
}

pub fn save_backfill(relation: pg_sys::Oid, backfill: &Backfill) -> Result<()> {
    let table = Table::open(&TABLE, Access::Write)?;
    let sql = "update sync_ext.synced_table set backfilled = $2, backfilled_through = $3 \
               where relation = $1";
    let through = backfill.through.as_deref();
    table.execute(sql, &[relation.into(), backfill.is_done.into(), through.into()]).map(|_| ())
}

/// Whether the table is as it was attached: the state of its row trigger, and whether its
/// columns changed.
pub fn state_of(relation: pg_sys::Oid) -> Result<(String, bool)> {
    let table = Table::open(&TABLE, Access::Read)?;
    let _rights = Rights::of_owner(&table);
    let sql = "select sync_ext.trigger_state(relation), \
                 sync_ext.column_types(relation) is distinct from column_types \
               from sync_ext.synced_table where relation = $1";
    let state = Spi::connect(|spi| match spi.select(sql, None, &[relation.into()])?.next() {
        Some(row) => Ok((row.get(1)?, row.get(2)?)),
        None => Ok((None, None)),
    });
    let (trigger, changed) = state.map_err(|error: pgrx::spi::Error| SyncError::sql(error))?;
    Ok((trigger.unwrap_or_default(), changed.unwrap_or(false)))
}

/// False, without a change, if the table is attached, or this would remove an owner
/// field.
pub fn register(table_name: &str, fields: &SyncedTable, validation: Option<&str>) -> Result<bool> {
    let SyncedTable { pk_field, owner_field, patches, .. } = fields;
    let table = Table::open(&TABLE, Access::Write)?;
    let sql = "insert into sync_ext.synced_table as t \
                 (table_name, pk_field, owner_field, patches, validation) \
               values ($1, $2, $3, $4, $5) on conflict (table_name) do update \
               set pk_field = excluded.pk_field, owner_field = excluded.owner_field, \
                   patches = excluded.patches, validation = excluded.validation \
               where t.relation is null \
                 and (excluded.owner_field is not null or t.owner_field is null)";
    let arguments = [
        table_name.into(),
        pk_field.as_str().into(),
        owner_field.as_deref().into(),
        (*patches).into(),
        validation.into(),
    ];
    Ok(table.execute(sql, &arguments)? == 1)
}

/// Gives a table of which there are no records this scope field, or leaves it as it is.
pub fn choose_scope_field(table_name: &str, field: Option<&str>) -> Result<()> {
    let table = Table::open(&TABLE, Access::Write)?;
    if !table.has(column::SCOPE_FIELD - 1) {
        return if field.is_none() { Ok(()) } else { Err(without_scopes()) };
    }
    let sql = "select from sync_ext.synced_table \
               where table_name = $1 and scope_field is distinct from $2";
    let arguments = [table_name.into(), field.into()];
    if table.execute(sql, &arguments)? == 0 {
        return Ok(());
    }
    if has_records(&table, table_name)? {
        return Err(SyncError::ScopeFieldKept);
    }
    set_scope_field(table_name, field)
}

/// Whether there are records of the table. If not, nobody pushes any until this transaction
/// ends: see [`record::lock_for_writing`].
fn has_records(table: &Table, table_name: &str) -> Result<bool> {
    if record::any_of(table_name)? {
        return Ok(true);
    }
    // A push that is under way may be the first one.
    table.execute("lock table sync_ext.record in share mode", &[])?;
    record::any_of(table_name)
}

/// An error if the table has records with scopes: without its scope field all of them would be
/// inside every list, and nobody would be told.
pub fn require_no_scopes(table_name: &str) -> Result<()> {
    let table = Table::open(&TABLE, Access::Write)?;
    if !table.has(column::SCOPE_FIELD - 1) {
        return Ok(());
    }
    let sql = "select from sync_ext.synced_table where table_name = $1 and scope_field is not null";
    if table.execute(sql, &[table_name.into()])? == 0 {
        return Ok(());
    }
    match has_records(&table, table_name)? {
        true => Err(SyncError::ScopesLeft),
        false => Ok(()),
    }
}

/// An error if the scope field of the table has become its pk field.
pub fn check_scope_field(table_name: &str) -> Result<()> {
    let table = Table::open(&TABLE, Access::Write)?;
    let sql = "select from sync_ext.synced_table where table_name = $1 and scope_field = pk_field";
    let has_field = table.has(column::SCOPE_FIELD - 1);
    match has_field && table.execute(sql, &[table_name.into()])? > 0 {
        true => Err(SyncError::ScopeFieldTaken),
        false => Ok(()),
    }
}

/// Changes the scope field; the records have still the scopes of the other one.
pub fn set_scope_field(table_name: &str, field: Option<&str>) -> Result<()> {
    let table = Table::open(&TABLE, Access::Write)?;
    if !table.has(column::SCOPE_FIELD - 1) {
        return Err(without_scopes());
    }
    let sql = "select from sync_ext.synced_table as s \
               where s.table_name = $1 and s.relation is not null and $2 is not null \
                 and not exists (select from pg_catalog.json_each_text(s.fields) as f \
                   join pg_catalog.pg_attribute as a \
                     on a.attrelid = s.relation and a.attname = f.value \
                   join pg_catalog.pg_type as t on t.oid = a.atttypid \
                   where f.key = $2 \
                     and (t.typcategory = 'E' or t.typname in ('text', 'varchar', 'uuid')))";
    if let (Some(name), true) = (field, table.execute(sql, &[table_name.into(), field.into()])? > 0)
    {
        return Err(AttachError::ScopeType { column: format!("It is the field \"{name}\"") }.into());
    }
    let sql = "update sync_ext.synced_table set scope_field = $2 where table_name = $1";
    if table.execute(sql, &[table_name.into(), field.into()])? == 0 {
        return Err(SyncError::UnregisteredTable { table: table_name.to_owned() });
    }
    announce(&table);
    check_scope_field(table_name)
}

/// Gives the records of a workspace the scopes that they have by this field. False if it has
/// none of the table.
///
/// Only the newest entries of live records get one. Whoever reads the log from its beginning
/// is told of these alone, and every other reader begins anew.
pub fn bring_to_scopes(workspace_key: i64, table_name: &str, field: Option<&str>) -> Result<bool> {
    let table = Table::open(&TABLE, Access::Write)?;
    let sql = "update sync_ext.record as r \
               set scope = case when r.deleted then null \
                   else (select sync_ext.scope_of(l.payload, $3) from sync_ext.change_log as l \
                     where l.workspace_key = r.workspace_key \
                       and l.server_version = r.server_version) end \
               where r.workspace_key = $1 and r.table_name = $2";
    let arguments = [workspace_key.into(), table_name.into(), field.into()];
    if table.execute(sql, &arguments)? == 0 {
        return Ok(false);
    }
    let sql = "update sync_ext.change_log as l \
               set left_scope = null, scope = (select r.scope from sync_ext.record as r \
                     where r.workspace_key = l.workspace_key and r.table_name = l.table_name \
                       and r.pk = l.pk and r.server_version = l.server_version) \
               where l.workspace_key = $1 and l.table_name = $2";
    table.execute(sql, &[workspace_key.into(), table_name.into()])?;
    Ok(true)
}

fn without_scopes() -> SyncError {
    SyncError::NotAsInstalled {
        found: "The schema is that of a version before scopes.".to_owned(),
        mend: "ALTER EXTENSION sync_ext UPDATE.",
    }
}

/// Makes every session, at its next command and this one's others, read anew which
/// tables are attached, when the transaction commits.
pub(in crate::store) fn announce(table: &Table) {
    // SAFETY: the table is open.
    unsafe { pg_sys::CacheInvalidateRelcache(table.as_ptr()) };
}

pub fn unregister(table_name: &str) -> Result<()> {
    let table = Table::open(&TABLE, Access::Write)?;
    // It may have been attached meanwhile: then its triggers must not stay.
    let sql = "delete from sync_ext.synced_table where table_name = $1 and relation is null";
    table.execute(sql, &[table_name.into()]).map(|_| ())
}
