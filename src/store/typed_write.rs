//! Tables as statements name them, and the statements that write their rows.

use std::ffi::{CStr, CString};
use std::fmt::Write;

use pgrx::pg_sys;

use super::attached::{AttachedTable, WorkspaceOf};
use super::typed::primary_key_index;
use super::{Result, compat};
use sync_ext_core::wire::pk::split;
use sync_ext_core::wire::text::write_string;

/// A table as its statements name it.
pub struct WritableTable {
    /// Qualified and quoted, as all names here.
    name: String,
    pk: Vec<Named>,
    pub(super) workspace: Option<Named>,
    deleted: Option<Named>,
    owner_column: Option<Named>,
    columns: Vec<Writable>,
    pk_constraint: String,
    /// Whose rights its statements have, unless they are the caller's.
    pub(super) owner: Option<pg_sys::Oid>,
    pub(super) search_path: CString,
    pub has_row_security: bool,
}

pub(super) struct Named {
    name: String,
    kind: String,
}

/// A column that payloads write.
struct Writable {
    field: String,
    column: Named,
    /// An identity that is always generated is written by INSERT only.
    in_update: bool,
}

/// A row to write.
pub struct RowValues<'r> {
    pub pk: &'r str,
    /// The record's owner, which its row must keep.
    pub owner: Option<&'r str>,
    /// The values of the columns that the statement writes, as JSON.
    pub values: Vec<&'r str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Statement {
    Insert,
    Update,
    Delete,
}

/// Locks a table as a statement that writes would; false if it is no longer there.
pub fn lock(attached: &AttachedTable) -> bool {
    // SAFETY: NULL if there is no such relation; closing keeps the lock.
    unsafe {
        let lock = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
        let relation = pg_sys::try_table_open(attached.relation, lock);
        if !relation.is_null() {
            pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
        !relation.is_null()
    }
}

impl WritableTable {
    /// The table must be locked.
    pub fn of(attached: &AttachedTable) -> Result<WritableTable> {
        // SAFETY: a relation with a lock stays; it is closed again.
        unsafe {
            let none = pg_sys::NoLock as pg_sys::LOCKMODE;
            let relation = pg_sys::table_open(attached.relation, none);
            let table = WritableTable::read(attached, relation);
            pg_sys::table_close(relation, none);
            table
        }
    }

    /// # Safety
    /// The attached relation, open.
    unsafe fn read(attached: &AttachedTable, relation: pg_sys::Relation) -> Result<WritableTable> {
        // SAFETY: an open relation has its row of pg_class and a descriptor.
        unsafe {
            let class = &*(*relation).rd_rel;
            let descriptor = (*relation).rd_att;
            let count = usize::try_from((*descriptor).natts).unwrap_or(0);
            let columns = || {
                let all = (0..count).map(|place| &*compat::attribute(descriptor, place));
                all.filter(|column| !column.attisdropped)
            };
            let named = |name: &str| {
                let column = columns().find(|column| column.name() == name)?;
                Some(Named { name: quoted(name), kind: plain_type_of(column) })
            };
            let pk_index = primary_key_index(attached, relation)?;
            let index = pg_sys::index_open(pk_index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let row = &*(*index).rd_index;
            let keys = usize::try_from(row.indnkeyatts).unwrap_or(0);
            let numbers = row.indkey.values.as_slice(keys).to_vec();
            let pk_constraint = name_of(index);
            pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
            let pk = numbers.iter().filter_map(|number| {
                let column = columns().find(|column| column.attnum == *number)?;
                Some(Named { name: quoted(column.name()), kind: plain_type_of(column) })
            });
            let writable = attached.fields.iter().filter_map(|(field, name)| {
                let column = columns().find(|column| column.name() == name)?;
                let is_key = numbers.contains(&column.attnum);
                let is_identity = column.attidentity as u8 == pg_sys::ATTRIBUTE_IDENTITY_ALWAYS;
                (column.attgenerated == 0 && !is_key).then(|| Writable {
                    field: field.clone(),
                    column: Named { name: quoted(name), kind: type_of(column) },
                    in_update: !is_identity,
                })
            });
            Ok(WritableTable {
                name: qualified(class.relnamespace, &name_of(relation)),
                pk: pk.collect(),
                workspace: match &attached.workspace {
                    WorkspaceOf::Column(name) => named(name),
                    WorkspaceOf::All(_) => None,
                },
                deleted: attached.deleted_column.as_deref().and_then(named),
                owner_column: attached.owner.as_ref().and_then(|(_, name)| named(name)),
                columns: writable.collect(),
                pk_constraint,
                owner: attached.applies_as_owner.then_some(class.relowner),
                search_path: CString::new(search_path(attached)).unwrap_or_default(),
                has_row_security: class.relrowsecurity,
            })
        }
    }

    /// Do the statements of both have the same rights, and find the same names?
    pub fn is_applied_as(&self, other: &WritableTable) -> bool {
        self.owner == other.owner && self.search_path == other.search_path
    }

    /// The place of the column that a field is written to.
    pub fn column_of(&self, field: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.field == field)
    }

    pub fn in_update(&self, column: usize) -> bool {
        self.columns[column].in_update
    }

    pub fn is_pk(&self, constraint: &str) -> bool {
        self.pk_constraint == constraint
    }

    /// `insert ... select` and the like for rows that write these columns. Of each row
    /// that is written as it should be, it returns the place in the parameter, and the
    /// number of all that were written.
    pub(super) fn sql(&self, statement: Statement, columns: &[usize]) -> String {
        let workspace = self.workspace.as_ref();
        let values = || columns.iter().map(|at| &self.columns[*at].column).enumerate();
        let written = match statement {
            Statement::Insert => {
                let into =
                    self.pk.iter().chain(values().map(|(_, column)| column)).chain(workspace);
                let keys = (0..self.pk.len()).map(|at| format!("x.k{at}"));
                let from = keys.chain(values().map(|(at, _)| format!("x.v{at}")));
                format!(
                    "insert into {} ({}) overriding system value select {} from x",
                    self.name,
                    joined(into.map(|column| column.name.clone()), ", "),
                    joined(from.chain(workspace.map(cast)), ", "),
                )
            }
            Statement::Delete if self.deleted.is_none() => {
                format!("delete from {} as t using x where {}", self.name, self.same("t"))
            }
            Statement::Update | Statement::Delete => {
                let sets = values().map(|(at, column)| format!("{} = x.v{at}", column.name));
                let deleted = self.deleted.as_ref().map(|column| {
                    let value = match (statement, column.kind == "boolean") {
                        (Statement::Delete, true) => "true",
                        (Statement::Delete, false) => "pg_catalog.now()",
                        (_, true) => "false",
                        (_, false) => "null",
                    };
                    format!("{} = {value}", column.name)
                });
                let sets = joined(sets.chain(deleted), ", ");
                let same = self.same("t");
                format!("update {} as t set {sets} from x where {same}", self.name)
            }
        };
        // The rows that are returned are those of the table, after its triggers.
        let qualifier = if statement == Statement::Insert { "" } else { "t." };
        let returned = self.pk.iter().chain(workspace).chain(&self.owner_column);
        let owner = self.owner_column.as_ref().map(|owner| {
            format!(" and (x.o is null or w.{} operator(pg_catalog.=) x.o)", owner.name)
        });
        format!(
            "with x as materialized (select * from {}), w as ({written} returning {}) \
             select m.i, c.n from (select pg_catalog.count(*) as n from w) as c \
             left join (select x.i from x join w on {}{}) as m on true",
            self.source(columns),
            joined(returned.map(|column| format!("{qualifier}{}", column.name)), ", "),
            self.same("w"),
            owner.unwrap_or_default(),
        )
    }

    /// The parameter as rows: i, the owner as o, the key's columns k0.., and these columns
    /// as v0..
    fn source(&self, columns: &[usize]) -> String {
        let keys = self.pk.iter().enumerate().map(|(at, key)| format!(", k{at} {}", key.kind));
        let columns = columns.iter().map(|at| &self.columns[*at].column).enumerate();
        let values = columns.map(|(at, column)| format!(", v{at} {}", column.kind));
        let owner = self.owner_column.iter().map(|owner| format!(", o {}", owner.kind));
        let typed = joined(owner.chain(keys).chain(values), "");
        format!("pg_catalog.json_to_recordset($1) as x(i int4{typed})")
    }

    /// Is a row that of the parameter?
    fn same(&self, row: &str) -> String {
        let equals = "operator(pg_catalog.=)";
        let keys = self.pk.iter().enumerate();
        let keys = keys.map(|(at, key)| format!("{row}.{} {equals} x.k{at}", key.name));
        let workspace = self.workspace.as_ref();
        let workspace = workspace.map(|w| format!("{row}.{} {equals} {}", w.name, cast(w)));
        joined(keys.chain(workspace), " and ")
    }

    /// The statement that finds which of such rows can be updated.
    pub(super) fn sql_of_seen(&self) -> String {
        let (source, same) = (self.source(&[]), self.same("t"));
        format!(
            "select x.i, 0::int8 from {} as t, {source} where {same} for update of t",
            self.name
        )
    }

    /// The parameter of such a statement.
    pub(super) fn parameter(&self, rows: &[RowValues<'_>]) -> String {
        let mut out = String::from("[");
        for (place, row) in rows.iter().enumerate() {
            let _ = write!(out, "{}{{\"i\":{place}", if place == 0 { "" } else { "," });
            let parts = match self.pk.len() {
                1 => vec![row.pk.to_owned()],
                _ => split(row.pk).unwrap_or_default(),
            };
            for (at, part) in parts.iter().enumerate() {
                let _ = write!(out, ",\"k{at}\":");
                write_string(&mut out, part);
            }
            if let Some(owner) = row.owner {
                out.push_str(",\"o\":");
                write_string(&mut out, owner);
            }
            for (at, value) in row.values.iter().enumerate() {
                let _ = write!(out, ",\"v{at}\":{value}");
            }
            out.push('}');
        }
        out.push(']');
        out
    }
}

/// # Safety
/// The relation is open.
unsafe fn name_of(relation: pg_sys::Relation) -> String {
    // SAFETY: an open relation has its row of pg_class, whose name ends with a NUL.
    unsafe { CStr::from_ptr((*(*relation).rd_rel).relname.data.as_ptr()) }
        .to_string_lossy()
        .into_owned()
}

/// The workspace, as the column's type.
fn cast(column: &Named) -> String {
    format!("cast($2 as {})", column.kind)
}

fn joined(parts: impl Iterator<Item = String>, separator: &str) -> String {
    parts.collect::<Vec<_>>().join(separator)
}

fn quoted(name: &str) -> String {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: the result is the argument, or a new allocation.
    let quoted = unsafe { CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())) };
    quoted.to_string_lossy().into_owned()
}

fn qualified(schema: pg_sys::Oid, name: &str) -> String {
    // SAFETY: a look-up by oid; NULL if there is none.
    let schema = unsafe {
        let schema = pg_sys::get_namespace_name(schema);
        if schema.is_null() {
            String::new()
        } else {
            CStr::from_ptr(schema).to_string_lossy().into()
        }
    };
    format!("{}.{}", quoted(&schema), quoted(name))
}

/// Where names are found. What acts as the owner must not find a caller's temporary tables
/// first.
fn search_path(attached: &AttachedTable) -> String {
    match (attached.applies_as_owner, &*attached.search_path) {
        (true, "") => "pg_temp".to_owned(),
        (true, path) => format!("{path}, pg_temp"),
        (false, path) => path.to_owned(),
    }
}

/// The type below domains and without a length, which would cut a longer value off, so
/// that it equalled another.
///
/// # Safety
/// The row of an existing column.
unsafe fn plain_type_of(column: &pg_sys::FormData_pg_attribute) -> String {
    // SAFETY: look-ups by oid, with a new allocation as their result.
    unsafe {
        let base = pg_sys::getBaseType(column.atttypid);
        let flags = pg_sys::FORMAT_TYPE_FORCE_QUALIFY as u16;
        let text = pg_sys::format_type_extended(base, -1, flags);
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

/// The column's type as SQL, with its schema.
///
/// # Safety
/// The row of an existing column.
unsafe fn type_of(column: &pg_sys::FormData_pg_attribute) -> String {
    let flags = pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN | pg_sys::FORMAT_TYPE_FORCE_QUALIFY;
    // SAFETY: a look-up by oid, with a new allocation as its result.
    unsafe {
        let text = pg_sys::format_type_extended(column.atttypid, column.atttypmod, flags as u16);
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}
