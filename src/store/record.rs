//! `sync_ext.record`: the register of every record, and where its newest entry is.

use super::Result;
use super::mvcc::MvccSnapshot;
use super::relation::{Access, Index, Table};
use super::row::{Row, RowId};
use super::scan::{By, Key, Scan};
use super::shape::{ColumnType, IndexShape, Shape};
use super::values::Value;
use super::workspace;
use super::writer::{Duplicates, Writer};
use sync_ext_core::rules::merge::{Newest, RecordState};
use sync_ext_core::rules::op::{RecordKey, Revision, Version};
use sync_ext_core::rules::ownership::Owner;

pub static TABLE: Shape = Shape {
    name: c"record",
    columns: &[
        ("workspace_key", ColumnType::Int8),
        ("table_name", ColumnType::Text),
        ("pk", ColumnType::Text),
        ("server_version", ColumnType::Int8),
        ("clock", ColumnType::Int8),
        ("hlc", ColumnType::Text),
        ("op_id", ColumnType::Uuid),
        ("deleted", ColumnType::Bool),
        ("owner", ColumnType::Text),
        ("scope", ColumnType::Text),
    ],
    first: 9,
};
pub static BY_NAME: IndexShape =
    IndexShape { name: c"record_pkey", keys: &[0, 1, 2], is_unique: true, not_null: None };

static BY_SCOPE: IndexShape = IndexShape {
    name: c"record_scope_idx",
    keys: &[0, 9, 1, 2],
    is_unique: false,
    not_null: Some(9),
};

mod column {
    pub const TABLE_NAME: usize = 2;
    pub const PK: usize = 3;
    pub const SERVER_VERSION: usize = 4;
    pub const CLOCK: usize = 5;
    pub const HLC: usize = 6;
    pub const OP_ID: usize = 7;
    pub const DELETED: usize = 8;
    pub const OWNER: usize = 9;
    pub const SCOPE: usize = 10;
}

/// The records of one workspace.
pub struct Records {
    workspace_key: i64,
    table: Table,
    by_name: Index,
}

impl Records {
    pub fn open(workspace_key: i64, access: Access) -> Result<Records> {
        let table = Table::open(&TABLE, access)?;
        let by_name = table.index(&BY_NAME)?;
        Ok(Records { workspace_key, table, by_name })
    }

    /// Looks up records by name.
    pub fn names<'s>(&'s self, snapshot: &'s MvccSnapshot) -> Names<'s> {
        let by = [By::Int8, By::Text, By::Text];
        let scan = Scan::new(&self.table, &self.by_name, snapshot, &by);
        Names { workspace_key: self.workspace_key, scan }
    }

    /// The records of one table after `pk`, in byte order of their pk.
    pub fn of_table<'s>(
        &'s self,
        table: &str,
        pk: &str,
        snapshot: &'s MvccSnapshot,
    ) -> InOrder<'s> {
        let by = [By::Int8, By::Text, By::TextAfter];
        let mut scan = Scan::new(&self.table, &self.by_name, snapshot, &by);
        scan.seek(&[Key::Int8(self.workspace_key), Key::Text(table), Key::Text(pk)]);
        InOrder { scan }
    }

    /// The records of all tables after `table`, in byte order.
    pub fn of_tables_after<'s>(&'s self, table: &str, snapshot: &'s MvccSnapshot) -> InOrder<'s> {
        let by = [By::Int8, By::TextAfter];
        let mut scan = Scan::new(&self.table, &self.by_name, snapshot, &by);
        scan.seek(&[Key::Int8(self.workspace_key), Key::Text(table)]);
        InOrder { scan }
    }

    /// The index of the records that have a scope.
    pub fn scopes(&self) -> Result<Scoped<'_>> {
        Ok(Scoped { records: self, by_scope: self.table.index(&BY_SCOPE)? })
    }

    pub fn writer<'s>(
        &'s self,
        snapshot: &'s MvccSnapshot,
        duplicates: Duplicates,
    ) -> RecordWriter<'s> {
        RecordWriter { records: self, writer: Writer::new(&self.table, snapshot, duplicates) }
    }
}

/// Waits for a transaction that has found no records of a table, and because of that changes
/// what its records are; until this transaction ends no other does so. To be called before a
/// workspace is locked, and before what is registered is read.
pub fn lock_for_writing() -> Result<()> {
    Table::open(&TABLE, Access::Write).map(drop)
}

/// Whether a workspace has records of this table, live or deleted, by what is committed now.
/// Those of a dropped one do not count.
pub fn any_of(table_name: &str) -> Result<bool> {
    let table = Table::open(&TABLE, Access::Read)?;
    let index = table.index(&BY_NAME)?;
    let snapshot = MvccSnapshot::latest();
    let mut records = Scan::new(&table, &index, &snapshot, &[By::Int8, By::Text]);
    let mut has_any = false;
    workspace::for_each_after(i64::MIN, &snapshot, |_, workspace| {
        records.seek(&[Key::Int8(workspace.key), Key::Text(table_name)]);
        has_any = records.next().is_some();
        Ok(!has_any)
    })?;
    Ok(has_any)
}

/// Records in the order of their scopes.
pub struct Scoped<'s> {
    records: &'s Records,
    by_scope: Index,
}

impl Scoped<'_> {
    /// The records of a scope in one table after `pk`, in byte order of their pk.
    pub fn of_table<'s>(
        &'s self,
        scope: &str,
        table: &str,
        pk: &str,
        snapshot: &'s MvccSnapshot,
    ) -> InOrder<'s> {
        let by = [By::Int8, By::Text, By::Text, By::TextAfter];
        let mut scan = Scan::new(&self.records.table, &self.by_scope, snapshot, &by);
        let key = Key::Int8(self.records.workspace_key);
        scan.seek(&[key, Key::Text(scope), Key::Text(table), Key::Text(pk)]);
        InOrder { scan }
    }

    /// The records of a scope in all tables after `table`, in byte order.
    pub fn of_tables_after<'s>(
        &'s self,
        scope: &str,
        table: &str,
        snapshot: &'s MvccSnapshot,
    ) -> InOrder<'s> {
        let by = [By::Int8, By::Text, By::TextAfter];
        let mut scan = Scan::new(&self.records.table, &self.by_scope, snapshot, &by);
        let key = Key::Int8(self.records.workspace_key);
        scan.seek(&[key, Key::Text(scope), Key::Text(table)]);
        InOrder { scan }
    }
}

/// The owner in a row.
pub fn owner_of(stored: &str) -> Owner {
    (!stored.is_empty()).then(|| stored.into())
}

pub struct Names<'s> {
    workspace_key: i64,
    scan: Scan<'s>,
}

impl Names<'_> {
    /// Makes the next look-ups those of another workspace.
    pub fn turn_to(&mut self, workspace_key: i64) {
        self.workspace_key = workspace_key;
    }

    pub fn find(&mut self, table: &str, pk: &str) -> Option<Record<'_>> {
        let keys = [Key::Int8(self.workspace_key), Key::Text(table), Key::Text(pk)];
        self.scan.find(&keys).map(|row| Record { row })
    }
}

pub struct InOrder<'s> {
    scan: Scan<'s>,
}

impl InOrder<'_> {
    pub fn next(&mut self) -> Option<Record<'_>> {
        self.scan.next().map(|row| Record { row })
    }
}

/// A record in its slot.
pub struct Record<'r> {
    row: Row<'r>,
}

impl<'r> Record<'r> {
    pub fn id(&self) -> RowId {
        self.row.id()
    }

    pub fn table(&self) -> Result<&'r str> {
        self.row.text(column::TABLE_NAME)
    }

    pub fn pk(&self) -> Result<&'r str> {
        self.row.text(column::PK)
    }

    /// The version of the newest entry.
    pub fn version(&self) -> Result<Version> {
        self.row.int8(column::SERVER_VERSION).map(Version::stored)
    }

    /// The owner, empty if the record is shared.
    pub fn owner(&self) -> Result<&'r str> {
        self.row.text(column::OWNER)
    }

    pub fn scope(&self) -> Option<&'r str> {
        self.row.text_or_null(column::SCOPE)
    }

    /// The revision of the register.
    pub fn register(&self) -> Result<Revision<'r>> {
        Ok(Revision {
            clock: self.row.int8(column::CLOCK)?,
            hlc: self.row.text(column::HLC)?.into(),
            op_id: self.row.uuid(column::OP_ID)?,
        })
    }

    pub fn deleted(&self) -> Result<bool> {
        self.row.bool(column::DELETED)
    }

    /// Independent of the scan. Nothing patches a delete, so it is its own newest entry.
    pub fn state(&self) -> Result<RecordState<'static>> {
        let (register, deleted) = (self.register()?.into_owned(), self.deleted()?);
        let newest = if deleted { Newest::Register } else { Newest::Unread };
        let (version, owner) = (self.version()?, owner_of(self.owner()?));
        let scope = self.scope().map(Into::into);
        Ok(RecordState { register, deleted, version, newest, owner, scope })
    }
}

pub struct RecordWriter<'s> {
    records: &'s Records,
    writer: Writer<'s>,
}

impl RecordWriter<'_> {
    pub fn insert(&mut self, key: &RecordKey<'_>, state: &RecordState<'_>) {
        self.writer.insert(&values(self.records.workspace_key, key, state));
    }

    /// Stores a new version of the record at `row`.
    pub fn update(
        &mut self,
        row: RowId,
        key: &RecordKey<'_>,
        state: &RecordState<'_>,
    ) -> Result<()> {
        self.writer.update(row, &values(self.records.workspace_key, key, state))
    }

    /// False if a new record was already stored, see [`Duplicates::Report`].
    #[must_use]
    pub fn finish(self) -> bool {
        self.writer.finish()
    }
}

fn values<'v>(
    workspace_key: i64,
    key: &'v RecordKey<'_>,
    state: &'v RecordState<'_>,
) -> [Value<'v>; 10] {
    [
        Value::Int8(workspace_key),
        Value::Text(&key.table),
        Value::Text(&key.pk),
        Value::Int8(state.version.get()),
        Value::Int8(state.register.clock),
        Value::Text(&state.register.hlc),
        Value::Uuid(state.register.op_id),
        Value::Bool(state.deleted),
        Value::Text(state.owner.as_deref().unwrap_or("")),
        state.scope.as_deref().map_or(Value::Null, Value::Text),
    ]
}
