//! The typed rows of an attached table: found by their primary key, and read as the
//! payloads that devices see.
//!
//! Rows are read through the index of the primary key, whoever may see them: what is read
//! goes to the log, as the change that somebody was allowed to make.

use std::borrow::Cow;
use std::rc::Rc;

use pgrx::pg_sys;

use super::Result;
use super::arena::Arena;
use super::attached::{AttachedTable, WorkspaceOf};
use super::compat;
use super::image::{Column, SETTINGS, scalar_text};
use super::mvcc::MvccSnapshot;
use super::rights::Rights;
use super::row::RowId;
use super::typed_pk::{PkScan, key_values, parts, read};
use super::typed_walk::TypedWalk;
use sync_ext_core::rules::capture::CaptureError;
use sync_ext_core::wire::pk::join;

/// An open attached table.
pub struct TypedTable {
    attached: Rc<AttachedTable>,
    pub(super) relation: pg_sys::Relation,
    /// In the order of the image.
    image: Vec<Column>,
}

/// Where a table has what names a row, and decides whether it is a record. Columns are
/// counted from 0.
pub struct KeyColumns {
    pub(super) pk: Vec<(usize, pg_sys::Oid)>,
    pub(super) pk_index: pg_sys::Oid,
    workspace: Option<(usize, pg_sys::Oid)>,
    deleted: Option<(usize, pg_sys::Oid)>,
    owner: Option<(usize, pg_sys::Oid)>,
}

/// Whose a row is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowPlace<'r> {
    /// `None` if the row belongs to no workspace.
    pub workspace: Option<Cow<'r, str>>,
    /// In a table with private records.
    pub owner: Option<Cow<'r, str>>,
}

impl TypedTable {
    /// `None` if the table is no longer there.
    pub fn open(attached: &Rc<AttachedTable>) -> Result<Option<TypedTable>> {
        // SAFETY: NULL if there is no such relation.
        let relation = unsafe {
            let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
            pg_sys::try_table_open(attached.relation, lock)
        };
        if relation.is_null() {
            return Ok(None);
        }
        let mut table = TypedTable { attached: Rc::clone(attached), relation, image: Vec::new() };
        // SAFETY: it is open.
        unsafe {
            attached.columns(relation)?;
            let image = attached.fields.iter().filter_map(|(field, name)| {
                let (place, kind) = column((*relation).rd_att, name)?;
                Some(Column::new(field, place, kind, attached.has_safe_numbers))
            });
            table.image = image.collect();
        }
        Ok(Some(table))
    }

    /// Is a primary key written as the table writes it? No other text names a row.
    pub fn is_canonical(&self, pk: &str) -> Result<bool> {
        let columns = &self.columns()?.pk;
        let Some(parts) = parts(pk, columns.len()) else { return Ok(false) };
        Ok(parts.iter().zip(columns).all(|(part, column)| self.is_written_so(part, *column)))
    }

    /// Can rows of the table be of this workspace? A name that is written in another way
    /// than the column writes it names another workspace.
    pub fn is_workspace(&self, workspace_id: &str) -> Result<bool> {
        Ok(match (&self.attached.workspace, self.columns()?.workspace) {
            (WorkspaceOf::All(all), _) => all == workspace_id,
            (WorkspaceOf::Column(_), Some(column)) => self.is_written_so(workspace_id, column),
            (WorkspaceOf::Column(_), None) => false,
        })
    }

    /// The same of a record's owner.
    pub fn is_owner(&self, owner: &str) -> Result<bool> {
        let column = self.columns()?.owner;
        Ok(column.is_none_or(|column| self.is_written_so(owner, column)))
    }

    /// A value that is longer than its column would be cut off, or rounded.
    fn is_written_so(&self, text: &str, (place, kind): (usize, pg_sys::Oid)) -> bool {
        // SAFETY: a column of the relation, which is open; a look-up by oid.
        let length = unsafe {
            let column = &*compat::attribute((*self.relation).rd_att, place);
            let mut length = column.atttypmod;
            pg_sys::getBaseTypeAndTypmod(column.atttypid, &mut length);
            length
        };
        read(text, kind, length, &Arena::new()).is_some()
    }

    pub fn rows<'s>(&'s self, snapshot: &'s MvccSnapshot) -> Result<TypedRows<'s>> {
        TypedRows::begin(self, snapshot)
    }

    /// The rows after a primary key, all without one; see [`TypedWalk`].
    pub fn walk<'s>(
        &'s self,
        after: Option<&str>,
        snapshot: &'s MvccSnapshot,
    ) -> Result<TypedWalk<'s>> {
        TypedWalk::begin(self, after, snapshot)
    }

    pub(super) fn columns(&self) -> Result<&KeyColumns> {
        // SAFETY: it is open.
        unsafe { self.attached.columns(self.relation) }
    }

    /// Whose a row is, and whether it cannot be a record: it is soft-deleted, or has no
    /// owner where records are private.
    ///
    /// # Safety
    /// The slot holds a row of the table, read into its values, for `'r`. The current
    /// memory context may grow.
    pub(super) unsafe fn place<'r>(
        &'r self,
        columns: &'r KeyColumns,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> (RowPlace<'r>, bool) {
        // SAFETY: the caller's promise.
        unsafe {
            let place = columns.place(&self.attached, slot);
            let has_owner = columns.owner.is_none() || place.owner.is_some();
            let is_hidden = !has_owner || columns.is_deleted(slot);
            (place, is_hidden)
        }
    }

    /// Appends the payload that devices see.
    ///
    /// # Safety
    /// The slot holds a row of the table, read into its values, with the rights of
    /// [`TypedTable::rights`]. The current memory context may grow.
    pub(super) unsafe fn write_image(&self, image: &mut String, slot: *mut pg_sys::TupleTableSlot) {
        image.push('{');
        for column in &self.image {
            // SAFETY: the caller's promise.
            unsafe { column.write(image, value(slot, column.place)) };
        }
        image.push('}');
    }

    /// What images need while they are made: settings, and the rights of the table's owner.
    pub(super) fn rights(&self) -> Option<Rights> {
        let depends = self.image.iter().any(Column::depends_on_settings);
        // SAFETY: an open relation has its row of pg_class.
        let owner = unsafe { (*(*self.relation).rd_rel).relowner };
        depends.then(|| Rights::of_values(owner, &SETTINGS))
    }
}

impl Drop for TypedTable {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by `open`, closed once. NoLock keeps the lock.
            unsafe { pg_sys::table_close(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE) };
        }
    }
}

impl KeyColumns {
    /// An error if a column that decides which record a row is has gone.
    ///
    /// # Safety
    /// The relation is open.
    pub unsafe fn of(attached: &AttachedTable, relation: pg_sys::Relation) -> Result<KeyColumns> {
        // SAFETY: an open relation has a descriptor; a table's list of columns of its
        // primary key has as many elements as it says.
        unsafe {
            let descriptor = (*relation).rd_att;
            let find = |name: &str| column(descriptor, name);
            let required = |name: &str| {
                let (table, column) = (attached.name.clone(), name.to_owned());
                let gone = CaptureError::Column { table, column };
                find(name).ok_or(gone)
            };
            let pk_index = primary_key_index(attached, relation)?;
            let index = pg_sys::index_open(pk_index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let row = &*(*index).rd_index;
            let keys = usize::try_from(row.indnkeyatts).unwrap_or(0);
            let pk = row.indkey.values.as_slice(keys).iter().map(|number| {
                let place = usize::try_from(*number - 1).unwrap_or(0);
                (place, pg_sys::getBaseType((*compat::attribute(descriptor, place)).atttypid))
            });
            let pk = pk.collect();
            pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
            Ok(KeyColumns {
                pk,
                pk_index,
                workspace: match &attached.workspace {
                    WorkspaceOf::Column(name) => Some(required(name)?),
                    WorkspaceOf::All(_) => None,
                },
                deleted: attached.deleted_column.as_deref().map(required).transpose()?,
                owner: attached.owner.as_ref().map(|(_, name)| required(name)).transpose()?,
            })
        }
    }

    /// Whose a row is.
    ///
    /// # Safety
    /// The slot holds a row of the table, read into its values, for `'r`.
    pub unsafe fn place<'r>(
        &'r self,
        attached: &'r AttachedTable,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> RowPlace<'r> {
        // SAFETY: the caller's promise.
        let text =
            |(place, kind)| unsafe { value(slot, place).map(|datum| scalar_text(datum, kind)) };
        let workspace = match (&attached.workspace, self.workspace) {
            (WorkspaceOf::All(workspace), _) => Some(workspace.into()),
            (WorkspaceOf::Column(_), column) => column.and_then(text),
        };
        RowPlace { workspace, owner: self.owner.and_then(text) }
    }

    /// The primary key as text; of several columns as [`join`] writes it.
    ///
    /// # Safety
    /// As for `place`.
    pub unsafe fn pk<'r>(&'r self, slot: *mut pg_sys::TupleTableSlot) -> Option<Cow<'r, str>> {
        // SAFETY: the caller's promise.
        let text = |(place, kind): &(usize, pg_sys::Oid)| unsafe {
            value(slot, *place).map(|datum| scalar_text(datum, *kind))
        };
        match self.pk.as_slice() {
            [only] => text(only),
            several => join(several.iter().map(text)).map(Cow::Owned),
        }
    }

    /// # Safety
    /// The slot holds a row of the table, read into its values.
    unsafe fn is_deleted(&self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        let Some((place, kind)) = self.deleted else { return false };
        // SAFETY: the caller's promise.
        match unsafe { value(slot, place) } {
            Some(datum) if kind == pg_sys::BOOLOID => datum.value() & 0xff != 0,
            found => found.is_some(),
        }
    }
}

/// Looks up rows by their primary key.
pub struct TypedRows<'s> {
    table: &'s TypedTable,
    columns: &'s KeyColumns,
    scan: PkScan<'s>,
    keys: Vec<pg_sys::ScanKeyData>,
    values: Arena,
    /// Of the last image: the next will be about as large.
    image_bytes: usize,
    /// The size of the table: this transaction may have rewritten it.
    blocks: pg_sys::BlockNumber,
    snapshot: &'s MvccSnapshot,
    _rights: Option<Rights>,
}

/// A row that is a record.
pub struct TypedRow {
    /// In a table with private records.
    pub owner: Option<String>,
    /// The payload that devices see.
    pub image: String,
}

impl<'s> TypedRows<'s> {
    fn begin(table: &'s TypedTable, snapshot: &'s MvccSnapshot) -> Result<TypedRows<'s>> {
        let columns = table.columns()?;
        let scan = PkScan::begin(table, columns, columns.pk.len(), snapshot);
        let strategy = pg_sys::BTEqualStrategyNumber;
        let keys = (0..columns.pk.len()).map(|place| scan.comparison(place, strategy)).collect();
        // SAFETY: the table is open, and has storage.
        let blocks = unsafe {
            let main = pg_sys::ForkNumber::MAIN_FORKNUM;
            pg_sys::RelationGetNumberOfBlocksInFork(table.relation, main)
        };
        Ok(TypedRows {
            table,
            columns,
            scan,
            keys,
            values: Arena::new(),
            image_bytes: 0,
            blocks,
            snapshot,
            _rights: table.rights(),
        })
    }

    /// The row with this primary key, as [`KeyColumns::pk`] has it, if it is a record of the
    /// workspace.
    pub fn find(&mut self, pk: &str, workspace_id: &str) -> Option<TypedRow> {
        self.find_near(None, pk, workspace_id)
    }

    /// The same for a row that may be here.
    pub fn find_near(
        &mut self,
        here: Option<RowId>,
        pk: &str,
        workspace_id: &str,
    ) -> Option<TypedRow> {
        let is_here = here.is_some_and(|here| self.is_at(here, pk));
        let (place, is_hidden) = if is_here { self.place() } else { self.find_place(pk)? };
        if is_hidden || place.workspace.as_deref() != Some(workspace_id) {
            return None;
        }
        let owner = place.owner.map(Cow::into_owned);
        let mut image = String::with_capacity(self.image_bytes);
        // SAFETY: the slot holds the row, read into its values.
        self.values.enter(|| unsafe { self.table.write_image(&mut image, self.scan.slot()) });
        self.image_bytes = image.len();
        Some(TypedRow { owner, image })
    }

    /// Whether the row with this primary key is a record of the workspace.
    pub fn has(&mut self, pk: &str, workspace_id: &str) -> bool {
        self.find_place(pk).is_some_and(|(place, is_hidden)| {
            !is_hidden && place.workspace.as_deref() == Some(workspace_id)
        })
    }

    /// Whose the row with this primary key is, and whether it cannot be a record.
    pub fn find_place(&mut self, pk: &str) -> Option<(RowPlace<'_>, bool)> {
        self.values.reset();
        let values = key_values(pk, self.columns, &self.values)?;
        for (key, value) in self.keys.iter_mut().zip(values) {
            key.sk_argument = value;
        }
        self.scan.seek(&mut self.keys);
        self.scan.next().then(|| self.place())
    }

    /// Reads the row at a place, if it is visible and has this primary key.
    fn is_at(&mut self, here: RowId, pk: &str) -> bool {
        self.values.reset();
        if here.block() >= self.blocks {
            return false;
        }
        let mut tid = here.0;
        // SAFETY: the table is open, the slot its own, and the snapshot alive; a place that
        // has no row, or another one, is not taken for it.
        unsafe {
            let (relation, slot) = (self.table.relation, self.scan.slot());
            compat::fetch_visible_row(relation, &mut tid, self.snapshot.as_ptr(), slot)
                && self.values.enter(|| self.columns.pk(slot)).as_deref() == Some(pk)
        }
    }

    fn place(&self) -> (RowPlace<'_>, bool) {
        // SAFETY: the slot holds a row, read into its values, until the next look-up.
        self.values.enter(|| unsafe { self.table.place(self.columns, self.scan.slot()) })
    }
}

/// # Safety
/// The attached relation, open.
pub(super) unsafe fn primary_key_index(
    attached: &AttachedTable,
    relation: pg_sys::Relation,
) -> Result<pg_sys::Oid> {
    // SAFETY: the caller's promise.
    match unsafe { compat::primary_key_index(relation) } {
        pg_sys::InvalidOid => Err(CaptureError::NoKey { table: attached.name.clone() }.into()),
        index => Ok(index),
    }
}

/// A column's position and base type; `None` if there is none of this name.
///
/// # Safety
/// The descriptor is valid.
unsafe fn column(descriptor: pg_sys::TupleDesc, name: &str) -> Option<(usize, pg_sys::Oid)> {
    // SAFETY: the caller's promise.
    unsafe {
        let count = usize::try_from((*descriptor).natts).unwrap_or(0);
        let columns = (0..count).map(|place| (place, &*compat::attribute(descriptor, place)));
        let is_named =
            |column: &pg_sys::FormData_pg_attribute| !column.attisdropped && column.name() == name;
        columns
            .filter(|(_, column)| is_named(column))
            .map(|(place, column)| (place, pg_sys::getBaseType(column.atttypid)))
            .next()
    }
}

/// # Safety
/// The slot holds a row.
pub unsafe fn read_values(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: the caller's promise.
    unsafe { pg_sys::slot_getsomeattrs_int(slot, (*(*slot).tts_tupleDescriptor).natts) };
}

/// # Safety
/// The slot holds a row, read into its values, with more columns than `place`.
unsafe fn value(slot: *mut pg_sys::TupleTableSlot, place: usize) -> Option<pg_sys::Datum> {
    // SAFETY: the caller's promise.
    unsafe { (!*(*slot).tts_isnull.add(place)).then(|| *(*slot).tts_values.add(place)) }
}
