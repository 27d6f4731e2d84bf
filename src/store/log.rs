//! `sync_ext.change_log`: ops by version.

use std::cell::OnceCell;

use super::Result;
use super::log_writer::LogWriter;
use super::memory;
use super::mvcc::MvccSnapshot;
use super::relation::{Access, Index, Table};
use super::row::Row;
use super::row_lock;
use super::scan::{By, Key, Scan};
use super::shape::{ColumnType, IndexShape, Shape};
use super::writer::{Duplicates, Writer};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::history::{Proof, ProofEntry};
use sync_ext_core::rules::merge::{Newest, Patched};
use sync_ext_core::rules::op::{Op, Operation, Patch, RecordKey, Revision, Timestamp, Version};
use sync_ext_core::wire::pages::Change;
use sync_ext_core::wire::revision::{read_fields, read_revision};
use uuid::Uuid;

pub static TABLE: Shape = Shape {
    name: c"change_log",
    columns: &[
        ("workspace_key", ColumnType::Int8),
        ("server_version", ColumnType::Int8),
        ("table_name", ColumnType::Text),
        ("pk", ColumnType::Text),
        ("operation", ColumnType::Text),
        ("payload", ColumnType::Json),
        ("clock", ColumnType::Int8),
        ("hlc", ColumnType::Text),
        ("device_id", ColumnType::Text),
        ("op_id", ColumnType::Uuid),
        ("applied", ColumnType::Bool),
        ("supersedes", ColumnType::Int8),
        ("created_at", ColumnType::Time),
        ("owner", ColumnType::Text),
        ("filled_field", ColumnType::Text),
        ("overwrote", ColumnType::Uuid),
        ("base", ColumnType::Json),
        ("patch", ColumnType::Json),
        ("fields", ColumnType::Json),
        ("pushed_digest", ColumnType::Uuid),
        ("scope", ColumnType::Text),
        ("left_scope", ColumnType::Text),
    ],
    first: 20,
};
pub static BY_VERSION: IndexShape =
    IndexShape { name: c"change_log_pkey", keys: &[0, 1], is_unique: true, not_null: None };
static BY_OP: IndexShape = IndexShape {
    name: c"change_log_workspace_key_op_id_key",
    keys: &[0, 9],
    is_unique: true,
    not_null: None,
};

mod column {
    pub const SERVER_VERSION: usize = 2;
    pub const TABLE_NAME: usize = 3;
    pub const PK: usize = 4;
    pub const OPERATION: usize = 5;
    pub const PAYLOAD: usize = 6;
    pub const CLOCK: usize = 7;
    pub const HLC: usize = 8;
    pub const DEVICE_ID: usize = 9;
    pub const OP_ID: usize = 10;
    pub const APPLIED: usize = 11;
    pub const SUPERSEDES: usize = 12;
    pub const CREATED_AT: usize = 13;
    pub const OWNER: usize = 14;
    pub const FILLED_FIELD: usize = 15;
    pub const OVERWROTE: usize = 16;
    pub const BASE: usize = 17;
    pub const PATCH: usize = 18;
    pub const FIELDS: usize = 19;
    pub const PUSHED_DIGEST: usize = 20;
    pub const SCOPE: usize = 21;
    pub const LEFT_SCOPE: usize = 22;
}

/// The log of one workspace.
pub struct Log {
    workspace_key: i64,
    table: Table,
    by_version: Index,
    by_op: OnceCell<Index>,
}

impl Log {
    pub fn open(workspace_key: i64, access: Access) -> Result<Log> {
        let table = Table::open(&TABLE, access)?;
        let by_version = table.index(&BY_VERSION)?;
        let log = Log { workspace_key, table, by_version, by_op: OnceCell::new() };
        // That no op is stored twice depends on it.
        if access == Access::Write {
            log.by_op()?;
        }
        Ok(log)
    }

    fn by_op(&self) -> Result<&Index> {
        match self.by_op.get() {
            Some(index) => Ok(index),
            None => {
                let index = self.table.index(&BY_OP)?;
                Ok(self.by_op.get_or_init(|| index))
            }
        }
    }

    /// Looks up entries by version.
    pub fn versions<'s>(&'s self, snapshot: &'s MvccSnapshot) -> Versions<'s> {
        let by = [By::Int8, By::Int8];
        let scan = Scan::new(&self.table, &self.by_version, snapshot, &by);
        Versions { workspace_key: self.workspace_key, scan }
    }

    /// Looks up entries by opId.
    pub fn op_ids<'s>(&'s self, snapshot: &'s MvccSnapshot) -> Result<OpIds<'s>> {
        let by = [By::Int8, By::Uuid];
        Ok(OpIds { log: self, scan: Scan::new(&self.table, self.by_op()?, snapshot, &by) })
    }

    /// The entries after `version`, in order.
    pub fn after<'s>(&'s self, version: Version, snapshot: &'s MvccSnapshot) -> Entries<'s> {
        let by = [By::Int8, By::Int8After];
        let mut scan = Scan::new(&self.table, &self.by_version, snapshot, &by);
        scan.seek(&[Key::Int8(self.workspace_key), Key::Int8(version.get())]);
        Entries { scan }
    }

    /// The entries from `version` on, in order.
    pub fn from<'s>(&'s self, version: Version, snapshot: &'s MvccSnapshot) -> Entries<'s> {
        self.after(Version::stored(version.get() - 1), snapshot)
    }

    pub fn writer<'s>(
        &'s self,
        snapshot: &'s MvccSnapshot,
        created_at: Timestamp,
        duplicates: Duplicates,
    ) -> Result<LogWriter<'s>> {
        let writer = Writer::new(&self.table, snapshot, duplicates);
        let writer = writer.sorting(self.by_op()?, self.workspace_key, column::OP_ID - 1);
        Ok(LogWriter::new(self.workspace_key, writer, created_at))
    }

    /// Deletes the entry at `version`, if it is there.
    pub fn delete(
        &self,
        version: Version,
        versions: &mut Versions<'_>,
        snapshot: &MvccSnapshot,
    ) -> Result<Option<Deleted>> {
        let Some(entry) = versions.find(version) else { return Ok(None) };
        let (row, left) = (entry.row.id(), entry.left_scope().is_some());
        row_lock::delete(&self.table, row, snapshot).map(|()| Some(Deleted { left }))
    }
}

/// An entry that was deleted.
pub struct Deleted {
    /// With it the record had left a scope.
    pub left: bool,
}

pub struct Versions<'s> {
    workspace_key: i64,
    scan: Scan<'s>,
}

impl Versions<'_> {
    /// Makes the next look-ups those of another workspace.
    pub fn turn_to(&mut self, workspace_key: i64) {
        self.workspace_key = workspace_key;
    }

    pub fn find(&mut self, version: Version) -> Option<Entry<'_>> {
        let keys = [Key::Int8(self.workspace_key), Key::Int8(version.get())];
        self.scan.find(&keys).map(|row| Entry { row })
    }

    /// The proof of the history up to `head`, whose entry is never purged.
    pub fn proof(&mut self, workspace_id: &str, head: Version) -> Result<Option<Proof>> {
        if head == Version::ZERO {
            return Ok(None);
        }
        let Some(entry) = self.find(head) else {
            return Err(SyncError::Damaged {
                what: format!("The log has no entry at the head, {}.", head.get()),
            });
        };
        Ok(Some(Proof::of(workspace_id, head, entry.op_id()?, entry.created_at()?)))
    }

    /// What the log contains at the version of `proof`.
    pub fn check(&mut self, workspace_id: &str, proof: &Proof) -> Result<ProofEntry> {
        let Some(entry) = self.find(proof.head) else {
            return Ok(ProofEntry::Missing);
        };
        let now = Proof::of(workspace_id, proof.head, entry.op_id()?, entry.created_at()?);
        Ok(if now == *proof { ProofEntry::Same } else { ProofEntry::Other })
    }
}

pub struct OpIds<'s> {
    log: &'s Log,
    scan: Scan<'s>,
}

impl OpIds<'_> {
    pub fn find(&mut self, op_id: Uuid) -> Option<Entry<'_>> {
        let keys = [Key::Int8(self.log.workspace_key), Key::Uuid(op_id)];
        self.scan.find(&keys).map(|row| Entry { row })
    }
}

pub struct Entries<'s> {
    scan: Scan<'s>,
}

impl Entries<'_> {
    pub fn next(&mut self) -> Option<Entry<'_>> {
        self.scan.next().map(|row| Entry { row })
    }
}

/// A log entry in its slot; columns are decoded on demand.
pub struct Entry<'r> {
    row: Row<'r>,
}

impl<'r> Entry<'r> {
    pub fn version(&self) -> Result<Version> {
        self.row.int8(column::SERVER_VERSION).map(Version::stored)
    }

    pub fn table(&self) -> Result<&'r str> {
        self.row.text(column::TABLE_NAME)
    }

    pub fn pk(&self) -> Result<&'r str> {
        self.row.text(column::PK)
    }

    pub fn operation(&self) -> Result<Operation> {
        let word = self.row.text(column::OPERATION)?;
        Operation::parse(word).ok_or_else(|| SyncError::Damaged {
            what: "A log entry is neither put, delete nor patch.".to_owned(),
        })
    }

    /// As pushed, but for what was filled in; of an applied patch, the whole record.
    pub fn payload(&self) -> Option<&'r str> {
        self.row.text_or_null(column::PAYLOAD)
    }

    pub fn op_id(&self) -> Result<Uuid> {
        self.row.uuid(column::OP_ID)
    }

    pub fn applied(&self) -> Result<bool> {
        self.row.bool(column::APPLIED)
    }

    pub fn supersedes(&self) -> Option<Version> {
        self.row.int8_or_null(column::SUPERSEDES).map(Version::stored)
    }

    pub fn created_at(&self) -> Result<Timestamp> {
        self.row.timestamp(column::CREATED_AT)
    }

    /// The record's owner, empty if it is shared.
    pub fn owner(&self) -> Result<&'r str> {
        self.row.text(column::OWNER)
    }

    /// The record's scope after it.
    pub fn scope(&self) -> Option<&'r str> {
        self.row.text_or_null(column::SCOPE)
    }

    /// The scope that the record had before, if it was moved.
    pub fn left_scope(&self) -> Option<&'r str> {
        self.row.text_or_null(column::LEFT_SCOPE)
    }

    /// The field of the payload that the server added, empty if none.
    pub fn filled_field(&self) -> Result<&'r str> {
        self.row.text(column::FILLED_FIELD)
    }

    /// The opId of the edit that this one overwrote unseen.
    pub fn pushed_digest(&self) -> Option<Uuid> {
        self.row.uuid_or_null(column::PUSHED_DIGEST)
    }

    pub fn overwrote(&self) -> Option<Uuid> {
        self.row.uuid_or_null(column::OVERWROTE)
    }

    /// Who holds which field, as JSON; `None` if no patch holds any.
    pub fn fields(&self) -> Option<&'r str> {
        self.row.text_or_null(column::FIELDS)
    }

    /// What it says as the newest entry of its record.
    pub fn newest(&self) -> Result<Newest<'static>> {
        let Some(fields) = self.fields() else { return Ok(Newest::Register) };
        // A field as it is parsed takes more than as text, but not this much more.
        memory::require(4 * fields.len())?;
        let fields = read_fields(fields).ok_or_else(|| damaged("The fields of a log entry"))?;
        Ok(Newest::Patch(Box::new(Patched { op_id: self.op_id()?, fields })))
    }

    /// The revision of the put that a patch edits.
    fn base(&self) -> Result<Option<Revision<'r>>> {
        let Some(base) = self.row.text_or_null(column::BASE) else { return Ok(None) };
        read_revision(base).map(Some).ok_or_else(|| damaged("The base of a log entry"))
    }

    /// The register of its record, if it was applied and no other entry after it.
    pub fn register(&self) -> Result<Revision<'r>> {
        self.base()?.map_or_else(|| self.revision(), Ok)
    }

    /// The content of the op as it was pushed, except for the owner that was filled in.
    /// The fields of a patch are not read: its payload has them.
    pub fn op(&self) -> Result<Op<'r>> {
        let operation = self.operation()?;
        let is_patch = operation == Operation::Patch;
        let patch = self.base()?.map(|base| Box::new(Patch { base, fields: vec![] }));
        Ok(Op {
            key: RecordKey { table: self.table()?.into(), pk: self.pk()?.into() },
            operation,
            payload: match is_patch {
                true => self.row.text_or_null(column::PATCH),
                false => self.payload(),
            },
            revision: self.revision()?,
            device_id: self.row.text(column::DEVICE_ID)?.into(),
            patch,
            parent: None,
            expected: None,
        })
    }

    /// What a pull shows of it.
    pub fn change(&self) -> Result<Change<'r>> {
        Ok(Change {
            version: self.version()?,
            applied: self.applied()?,
            overwrote: self.row.uuid_or_null(column::OVERWROTE),
            table: self.table()?,
            pk: self.pk()?,
            operation: self.operation()?,
            revision: self.revision()?,
            device_id: self.row.text(column::DEVICE_ID)?,
            payload: self.payload(),
            patch: self.row.text_or_null(column::PATCH),
            base: self.row.text_or_null(column::BASE),
            fields: self.fields(),
        })
    }

    pub fn revision(&self) -> Result<Revision<'r>> {
        Ok(Revision {
            clock: self.row.int8(column::CLOCK)?,
            hlc: self.row.text(column::HLC)?.into(),
            op_id: self.op_id()?,
        })
    }
}

fn damaged(what: &str) -> SyncError {
    SyncError::Damaged { what: format!("{what} cannot be read.") }
}
