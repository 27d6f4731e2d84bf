//! The differences between the rows of an attached table and its live records.
//!
//! Both are read with one snapshot and without a lock. A transaction that changes a row
//! changes its record, so beside writers there is no difference that capture did not
//! leave.

use std::collections::HashMap;
use std::rc::Rc;

use super::Result;
use crate::store::attached::AttachedTable;
use crate::store::log::{Log, Versions};
use crate::store::mvcc::MvccSnapshot;
use crate::store::record::{Names, Records};
use crate::store::typed::TypedTable;
use crate::store::typed_walk::WalkedRow;
use crate::store::{Access, memory, server, workspace};
use sync_ext_core::rules::attach_error::AttachError;
use sync_ext_core::rules::repair::Kind;
use sync_ext_core::wire::image::{difference, differing_names};
use sync_ext_core::wire::push_request::{WORKSPACE_FIELD, memory_for};
use sync_ext_core::wire::repair::Position;
use sync_ext_core::wire::value::Digests;

/// The workspaces whose keys are remembered.
const MAX_KNOWN: usize = 10_000;

pub struct Comparison<'c> {
    table: &'c Rc<AttachedTable>,
    typed: TypedTable,
    /// In this workspace alone.
    workspace_id: Option<&'c str>,
    snapshot: &'c MvccSnapshot,
    digests: Digests,
}

pub struct Difference<'d> {
    pub workspace_id: &'d str,
    pub pk: &'d str,
    pub kind: Kind,
    /// What a record and its row say; of other kinds, nothing.
    said: Option<(&'d str, &'d str, &'d Digests)>,
}

impl Difference<'_> {
    pub fn fields(&self) -> Vec<String> {
        let names =
            |(payload, image, digests)| differing_names(payload, image, WORKSPACE_FIELD, digests);
        self.said.map(names).unwrap_or_default()
    }
}

/// How far a comparison came.
#[derive(Default)]
pub struct Progress {
    pub read: usize,
    /// Those of what was read that must have their like on the other side.
    pub compared: usize,
    /// `None` at the end.
    pub position: Option<Position>,
}

impl<'c> Comparison<'c> {
    pub fn begin(
        table: &'c Rc<AttachedTable>,
        workspace_id: Option<&'c str>,
        snapshot: &'c MvccSnapshot,
    ) -> Result<Comparison<'c>> {
        let typed = TypedTable::open(table)?.ok_or(AttachError::NoTable)?;
        let digests = Digests::new(server::check_interrupts);
        Ok(Comparison { table, typed, workspace_id, snapshot, digests })
    }

    /// Visits the rows after a primary key whose record is missing or different; reads at
    /// most `limit`.
    pub fn rows(
        &self,
        after: Option<&str>,
        limit: usize,
        visit: &mut dyn FnMut(&Difference<'_>) -> Result<()>,
    ) -> Result<Progress> {
        let (records, log) = (Records::open(0, Access::Read)?, Log::open(0, Access::Read)?);
        let mut known = Known {
            workspaces: HashMap::new(),
            names: records.names(self.snapshot),
            versions: log.versions(self.snapshot),
        };
        let mut walk = self.typed.walk(after, self.snapshot)?;
        let mut progress = Progress::default();
        while let Some(row) = walk.next() {
            progress.read += 1;
            let is_asked = |id: &&str| self.workspace_id.is_none_or(|only| only == *id);
            if let Some(workspace_id) = row.workspace().filter(is_asked) {
                progress.compared += 1;
                self.compare(workspace_id, &row, &mut known, visit)?;
            }
            if progress.read == limit {
                progress.position = Some(Position::Row { pk: row.pk.into_owned() });
                break;
            }
        }
        Ok(progress)
    }

    fn compare(
        &self,
        workspace_id: &str,
        row: &WalkedRow<'_>,
        known: &mut Known<'_>,
        visit: &mut dyn FnMut(&Difference<'_>) -> Result<()>,
    ) -> Result<()> {
        let (pk, kind) = (&*row.pk, Kind::MissingRecord);
        let mut found = Difference { workspace_id, pk, kind, said: None };
        let Some(key) = known.workspace(workspace_id, self.snapshot)? else {
            return visit(&found);
        };
        known.names.turn_to(key);
        let version = match known.names.find(&self.table.name, pk) {
            Some(record) if !record.deleted()? => record.version()?,
            _ => return visit(&found),
        };
        known.versions.turn_to(key);
        let entry = known.versions.find(version);
        let payload = entry.and_then(|entry| entry.payload()).unwrap_or("");
        let image = row.image();
        if self.differ(payload, &image)? {
            found.kind = Kind::Different;
            found.said = Some((payload, &image, &self.digests));
            visit(&found)?;
        }
        Ok(())
    }

    fn differ(&self, payload: &str, image: &str) -> Result<bool> {
        if payload == image {
            return Ok(false);
        }
        memory::require(memory_for(payload))?;
        let found = difference(payload, image, WORKSPACE_FIELD, &self.digests);
        Ok(found.has_more || !found.fields.is_empty())
    }

    /// Visits the live records without a row, from a position on; reads at most `limit`.
    pub fn records(
        &self,
        from: (i64, &str),
        limit: usize,
        visit: &mut dyn FnMut(&Difference<'_>) -> Result<()>,
    ) -> Result<Progress> {
        let mut progress = Progress::default();
        let mut each = |id: &str, key: i64| {
            let after = if key == from.0 { from.1 } else { "" };
            self.records_of(id, key, after, limit, &mut progress, visit)
        };
        match self.workspace_id {
            Some(id) => {
                if let Some(workspace) = workspace::find(id, self.snapshot)? {
                    each(id, workspace.key)?;
                }
            }
            None => {
                let before = from.0.saturating_sub(1);
                workspace::for_each_after(before, self.snapshot, |id, workspace| {
                    if workspace.away.is_some() { Ok(true) } else { each(id, workspace.key) }
                })?;
            }
        }
        Ok(progress)
    }

    /// False if the limit is reached. A workspace without records counts too.
    fn records_of(
        &self,
        workspace_id: &str,
        key: i64,
        after: &str,
        limit: usize,
        progress: &mut Progress,
        visit: &mut dyn FnMut(&Difference<'_>) -> Result<()>,
    ) -> Result<bool> {
        let records = Records::open(key, Access::Read)?;
        let mut all = records.of_table(&self.table.name, after, self.snapshot);
        let mut rows = self.typed.rows(self.snapshot)?;
        let mut pk = after;
        loop {
            if progress.read == limit {
                let pk = pk.to_owned();
                progress.position = Some(Position::Record { workspace_key: key, pk });
                return Ok(false);
            }
            progress.read += 1;
            let Some(record) = all.next() else { return Ok(true) };
            pk = record.pk()?;
            if record.deleted()? {
                continue;
            }
            progress.compared += 1;
            if !rows.has(pk, workspace_id) {
                let kind = Kind::MissingRow;
                visit(&Difference { workspace_id, pk, kind, said: None })?;
            }
        }
    }
}

/// What the records of rows are found with.
struct Known<'s> {
    /// The keys of workspaces.
    workspaces: HashMap<String, Option<i64>>,
    names: Names<'s>,
    versions: Versions<'s>,
}

impl Known<'_> {
    fn workspace(&mut self, id: &str, snapshot: &MvccSnapshot) -> Result<Option<i64>> {
        if let Some(key) = self.workspaces.get(id) {
            return Ok(*key);
        }
        let found = workspace::find_anywhere(id, snapshot)?;
        let key = found.filter(|found| found.away.is_none()).map(|found| found.key);
        if self.workspaces.len() == MAX_KNOWN {
            self.workspaces.clear();
        }
        self.workspaces.insert(id.to_owned(), key);
        Ok(key)
    }
}
