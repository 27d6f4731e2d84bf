//! Turns marks into ops: brings the records of a workspace to their rows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::Result;
use super::marks::{self, Mark, Marked};
use crate::guc::{self, Notify};
use crate::store::attached::{self, AttachedTable};
use crate::store::counters::{self, Counter};
use crate::store::log::{Log, Versions};
use crate::store::log_writer::NewEntry;
use crate::store::mvcc::MvccSnapshot;
use crate::store::record::{self, Records};
use crate::store::subtransaction::Subtransaction;
use crate::store::typed::{TypedRow, TypedTable};
use crate::store::workspace::{self, LockedWorkspace};
use crate::store::{Access, Duplicates, RowId, memory, notify, server};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::capture::{CaptureError, Edit, edit_to_no_row, edit_to_row};
use sync_ext_core::rules::merge::{Decision, RecordState, apply, turn};
use sync_ext_core::rules::op::{Op, Operation, Patch, RecordKey, Timestamp, Version};
use sync_ext_core::rules::scope::{ScopeField, scope_after};
use sync_ext_core::rules::server_op::{DEVICE, stamp, unstamped};
use sync_ext_core::wire::image::{Difference, difference, to_json};
use sync_ext_core::wire::notice::Changes;
use sync_ext_core::wire::push_request::{WORKSPACE_FIELD, memory_for, scope_said};
use sync_ext_core::wire::revision::write_fields;
use sync_ext_core::wire::value::Digests;

/// Rows that are in memory at once, and how large they are together, but for the last one.
const CHUNK: usize = 1000;
const CHUNK_BYTES: usize = 8 * 1024 * 1024;

/// So many new rows are worth a subtransaction to save the look-ups of their records.
const MANY: usize = 8;

/// Before the transaction commits.
pub fn flush_all() -> Result<()> {
    // In byte order, so that transactions which changed the same workspaces wait for each
    // other instead of deadlocking.
    while let Some((workspace_id, marked)) = marks::take_first() {
        flush(&workspace_id, marked)?;
    }
    Ok(())
}

/// Before and after a push decides: what this transaction changed in its workspace until
/// now.
pub fn flush_pending(locked: &mut LockedWorkspace) -> Result<()> {
    let Some(marked) = marks::take(locked.id()) else { return Ok(()) };
    server::end_command();
    locked.snapshot.renew();
    Flush::of(locked)?.write(marked)?;
    server::end_command();
    locked.snapshot.renew();
    Ok(())
}

fn flush(workspace_id: &str, marked: Marked) -> Result<()> {
    // What the transaction did last becomes visible.
    server::end_command();
    // No statement is being executed any more, whose snapshot SQL would need.
    let _outer = MvccSnapshot::latest();
    let mut is_new = false;
    record::lock_for_writing()?;
    let mut locked = loop {
        if let Some(locked) = workspace::lock_latest(workspace_id)? {
            break locked;
        }
        is_new = workspace::create_latest(workspace_id)?;
    };
    let before = locked.workspace.progress;
    Flush::of(&mut locked)?.write(marked)?;
    let head = locked.workspace.progress.head;
    if head > before.head {
        let progress = locked.workspace.progress;
        locked.save(progress)
    } else if is_new {
        locked.remove()
    } else {
        Ok(())
    }
}

/// A workspace whose records are brought to their rows.
pub struct Flush<'w> {
    locked: &'w mut LockedWorkspace,
    log: Log,
    records: Records,
    digests: Digests,
    at: Timestamp,
    changes: Changes,
}

/// A marked row and its record, as they are now.
struct Found<'f> {
    pk: &'f str,
    row: Option<TypedRow>,
    record: Option<(RowId, RecordState<'static>)>,
}

/// What to do about it.
struct Change<'f> {
    found: &'f Found<'f>,
    edit: Edit<'f>,
    /// Of a patch: what it writes.
    patch: String,
    /// The record, with what is known of its newest entry.
    state: Option<RecordState<'f>>,
}

impl Flush<'_> {
    pub fn of(locked: &mut LockedWorkspace) -> Result<Flush<'_>> {
        let key = locked.workspace.key;
        let (log, records) = (Log::open(key, Access::Write)?, Records::open(key, Access::Write)?);
        let changes = match guc::notify() {
            Notify::Changes => Changes::Few(String::new()),
            Notify::Off | Notify::Hint => Changes::Unasked,
        };
        let digests = Digests::new(server::check_interrupts);
        Ok(Flush { locked, log, records, digests, at: server::now(), changes })
    }

    pub fn write(mut self, marked: Marked) -> Result<()> {
        let before = self.locked.workspace.progress.head;
        let mut tables = BTreeMap::new();
        for (relation, pks) in marked {
            if let Some(table) = attached::find(relation)? {
                tables.insert(table.name.clone(), (table, pks));
            }
        }
        for (table, pks) in tables.into_values() {
            memory::require(pks.len() * size_of::<(Box<str>, Mark)>())?;
            // In the order of the index of records.
            let mut pks: Vec<_> = pks.into_iter().collect();
            pks.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            let mut rest = &pks[..];
            while !rest.is_empty() {
                let written = self.write_some(&table, &rest[..rest.len().min(CHUNK)])?;
                rest = &rest[written..];
            }
        }
        let head = self.locked.workspace.progress.head;
        if head > before && guc::notify() != Notify::Off {
            notify::at_commit(guc::notify_channel(), self.locked.id(), head, self.changes);
        }
        Ok(())
    }

    /// Returns how many of them, from the first on, are written.
    fn write_some(
        &mut self,
        table: &Rc<AttachedTable>,
        some: &[(Box<str>, Mark)],
    ) -> Result<usize> {
        let new = some.iter().filter(|(_, mark)| mark.is_new).count();
        if new >= MANY && Subtransaction::is_cheap() {
            let (subtransaction, before) = (Subtransaction::begin(), self.changes.clone());
            if let Some(written) = self.try_some(table, some, Duplicates::Report)? {
                subtransaction.commit();
                return Ok(written);
            }
            subtransaction.roll_back();
            self.changes = before;
        }
        Ok(self.try_some(table, some, Duplicates::Raise)?.unwrap_or(some.len()))
    }

    /// Duplicates may be reported where records of new rows are presumed to be unknown;
    /// `None` if one is not.
    fn try_some(
        &mut self,
        table: &Rc<AttachedTable>,
        some: &[(Box<str>, Mark)],
        duplicates: Duplicates,
    ) -> Result<Option<usize>> {
        let Some(mut found) = self.find(table, some, duplicates)? else {
            return Ok(Some(some.len()));
        };
        // What was written together is found side by side.
        found.sort_by_key(|found| found.record.as_ref().map(|(_, state)| state.version));
        let mut changes = Vec::new();
        {
            let mut versions = self.log.versions(&self.locked.snapshot);
            for found in &found {
                server::check_interrupts();
                changes.extend(self.change(table, found, &mut versions)?);
            }
        }
        changes.sort_unstable_by_key(|change| change.found.pk);
        Ok(self.store(table, changes, duplicates)?.then_some(found.len()))
    }

    /// Some of them, from the first on; `None` if the table is no longer there.
    fn find<'f>(
        &self,
        table: &Rc<AttachedTable>,
        some: &'f [(Box<str>, Mark)],
        duplicates: Duplicates,
    ) -> Result<Option<Vec<Found<'f>>>> {
        let snapshot = &self.locked.snapshot;
        let Some(typed) = TypedTable::open(table)? else { return Ok(None) };
        let (mut rows, mut names) = (typed.rows(snapshot)?, self.records.names(snapshot));
        let (mut all, mut bytes) = (Vec::new(), 0);
        for (pk, mark) in some {
            if bytes > CHUNK_BYTES {
                break;
            }
            server::check_interrupts();
            let row = rows.find_near(mark.at, pk, self.locked.id());
            // A row that is gone may be one that another transaction has inserted since this
            // one rolled its own back: its record is then known.
            let presumed = mark.is_new && row.is_some() && duplicates == Duplicates::Report;
            let record = if presumed {
                None
            } else {
                match names.find(&table.name, pk) {
                    Some(record) => Some((record.id(), record.state()?)),
                    None => None,
                }
            };
            bytes += row.as_ref().map_or(0, |row| row.image.len());
            memory::push(&mut all, Found { pk, row, record })?;
        }
        Ok(Some(all))
    }

    /// `None` if the record is what its row is.
    fn change<'f>(
        &self,
        table: &AttachedTable,
        found: &'f Found<'f>,
        versions: &mut Versions<'_>,
    ) -> Result<Option<Change<'f>>> {
        let mut state = found.record.as_ref().map(|(_, state)| state.clone());
        let live = state.as_mut().filter(|state| !state.deleted);
        let entry = live.as_ref().and_then(|live| versions.find(live.version));
        if let (Some(live), Some(entry)) = (live, &entry) {
            // The clocks of patches count too.
            live.newest = entry.newest()?;
        }
        let edit = match &found.row {
            None => edit_to_no_row(state.as_ref()),
            Some(row) => {
                let owner = state.as_ref().and_then(|state| state.owner.as_deref());
                if table.owner.is_some() && owner.is_some() && owner != row.owner.as_deref() {
                    let (table, pk) = (table.name.clone(), found.pk.to_owned());
                    return Err(CaptureError::OwnerChanged { table, pk }.into());
                }
                let payload = entry.as_ref().and_then(|entry| entry.payload()).unwrap_or("");
                let Difference { fields, has_more } = if payload == row.image {
                    Difference::default()
                } else {
                    memory::require(memory_for(payload))?;
                    difference(payload, &row.image, WORKSPACE_FIELD, &self.digests)
                };
                edit_to_row(state.as_ref(), fields, has_more, table.patches)
            }
        };
        let Some(edit) = edit else { return Ok(None) };
        let patch = match &edit {
            Edit::Patch(fields) => to_json(fields),
            Edit::Put | Edit::Delete => String::new(),
        };
        Ok(Some(Change { found, edit, patch, state }))
    }

    fn store(
        &mut self,
        table: &AttachedTable,
        mut changes: Vec<Change<'_>>,
        duplicates: Duplicates,
    ) -> Result<bool> {
        let mut head = self.locked.workspace.progress.head;
        {
            let snapshot = &self.locked.snapshot;
            let mut entries = self.log.writer(snapshot, self.at, Duplicates::Raise)?;
            let mut records = self.records.writer(snapshot, duplicates);
            for change in &mut changes {
                server::check_interrupts();
                head = head.next().ok_or(SyncError::VersionsExhausted { head: head.get() })?;
                let mut state = change.state.take();
                let change = &*change;
                let op = change.op(table, state.as_ref());
                let decision = decide(&op, table, change, &mut state, head)?;
                let Some(state) = &state else { continue };
                let fields = op.patch.is_some().then(|| state.fields().map(write_fields)).flatten();
                let image = change.found.row.as_ref().map(|row| Cow::Borrowed(&*row.image));
                let owner = state.owner.as_deref();
                let entry = NewEntry {
                    op: &op,
                    decision: &decision,
                    owner,
                    payload: image,
                    pushed: None,
                    filled_field: None,
                    fields,
                };
                if owner.is_none() && self.changes != Changes::Unasked {
                    entry.change(|change, telling| self.changes.add(change, telling));
                }
                entries.append(&entry);
                match &change.found.record {
                    Some((row, _)) => records.update(*row, &op.key, state)?,
                    None => records.insert(&op.key, state),
                }
            }
            if !records.finish() {
                return Ok(false);
            }
            let _ = entries.finish();
        }
        self.locked.workspace.progress.head = head;
        counters::count(Counter::OpsCaptured, changes.len());
        Ok(true)
    }
}

impl<'f> Change<'f> {
    fn op(&'f self, table: &'f AttachedTable, state: Option<&RecordState<'f>>) -> Op<'f> {
        let image = self.found.row.as_ref().map(|row| &*row.image);
        let (operation, payload, fields) = match &self.edit {
            Edit::Put => (Operation::Put, image, None),
            Edit::Delete => (Operation::Delete, None, None),
            Edit::Patch(fields) => (Operation::Patch, Some(&*self.patch), Some(fields.clone())),
        };
        let unstamped = || unstamped(server::new_op_id());
        let mut op = Op {
            key: RecordKey { table: (&*table.name).into(), pk: self.found.pk.into() },
            operation,
            payload,
            revision: unstamped(),
            device_id: DEVICE.into(),
            patch: fields.map(|fields| Box::new(Patch { base: unstamped(), fields })),
            parent: None,
            expected: None,
        };
        stamp(&mut op, state, server::next_hlc(guc::server_hlc()));
        if state.is_none() && marks::is_backfill() {
            op.revision.clock = 0;
        }
        op
    }
}

fn decide<'f>(
    op: &Op<'f>,
    table: &AttachedTable,
    change: &'f Change<'f>,
    state: &mut Option<RecordState<'f>>,
    version: Version,
) -> Result<Decision> {
    let turn = turn(op, state.as_ref()).map_err(|refusal| SyncError::Damaged {
        what: format!("A captured change was refused: {refusal}."),
    })?;
    let owner = match (&state, &change.found.row) {
        (Some(state), _) => state.owner.clone(),
        (None, Some(row)) => row.owner.as_deref().map(Into::into),
        (None, None) => None,
    };
    let field = table.scope_field.as_deref();
    let said = scope_said(op.payload, field);
    if said == ScopeField::Invalid {
        let (table, pk) = (table.name.clone(), change.found.pk.to_owned());
        return Err(CaptureError::Scope { table, pk }.into());
    }
    let scope = scope_after(state.as_ref(), op, &turn, field, &said);
    Ok(apply(state, op, &turn, owner, scope, version))
}
