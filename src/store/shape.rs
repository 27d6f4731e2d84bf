//! The expected shape of tables and indexes, and checks of it.
//!
//! Rows are read and written by column number and type, and found through indexes by
//! name, without what Postgres would add or check. So tables and indexes are checked
//! when they are opened, unless they are [known](super::known): no ALTER of what is checked can
//! follow, because that needs a lock which conflicts with the open table.

use std::ffi::CStr;
use std::rc::Rc;

use pgrx::pg_sys;

use super::Result;
use super::compat;
use sync_ext_core::error::SyncError;

/// In pg_opfamily, where they have no constants.
const UUID_BTREE_FAMILY: pg_sys::Oid = pg_sys::Oid::from_u32(2968);
const TIME_BTREE_FAMILY: pg_sys::Oid = pg_sys::Oid::from_u32(434);

/// SESSION_REPLICATION_ROLE_REPLICA in commands/trigger.h.
const REPLICA: i32 = 1;

/// A table as the install script creates it.
pub struct Shape {
    pub name: &'static CStr,
    pub columns: &'static [(&'static str, ColumnType)],
    /// So many columns are at their positions in every version. An update adds the others: until
    /// it has run they are missing, and columns of others may be before them.
    pub first: usize,
}

/// Where the columns of a shape are in a table, by their positions from 0; `None` for one that
/// is missing.
pub type Places = Rc<[Option<usize>]>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    Bool,
    Int8,
    Json,
    RegClass,
    /// With collation "C".
    Text,
    Time,
    Uuid,
}

impl ColumnType {
    fn oid(self) -> pg_sys::Oid {
        match self {
            ColumnType::Bool => pg_sys::BOOLOID,
            ColumnType::Int8 => pg_sys::INT8OID,
            ColumnType::Json => pg_sys::JSONOID,
            ColumnType::RegClass => pg_sys::REGCLASSOID,
            ColumnType::Text => pg_sys::TEXTOID,
            ColumnType::Time => pg_sys::TIMESTAMPTZOID,
            ColumnType::Uuid => pg_sys::UUIDOID,
        }
    }

    fn collation(self) -> pg_sys::Oid {
        if self == ColumnType::Text { pg_sys::C_COLLATION_OID } else { pg_sys::InvalidOid }
    }

    /// The family of the operators that a scan compares with.
    fn btree_family(self) -> pg_sys::Oid {
        match self {
            ColumnType::Int8 => pg_sys::INTEGER_BTREE_FAM_OID,
            ColumnType::Text => pg_sys::TEXT_BTREE_FAM_OID,
            ColumnType::Time => TIME_BTREE_FAMILY,
            ColumnType::Uuid => UUID_BTREE_FAMILY,
            _ => pg_sys::InvalidOid,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            ColumnType::Bool => "boolean",
            ColumnType::Int8 => "bigint",
            ColumnType::Json => "json",
            ColumnType::RegClass => "regclass",
            ColumnType::Text => "text collate \"C\"",
            ColumnType::Time => "timestamptz",
            ColumnType::Uuid => "uuid",
        }
    }
}

/// An index as the install script creates it: ascending.
pub struct IndexShape {
    pub name: &'static CStr,
    /// Its key columns by their positions in the table, from 0.
    pub keys: &'static [usize],
    pub is_unique: bool,
    /// It has only rows in which this column is not NULL.
    pub not_null: Option<usize>,
}

const COLUMNS: &str = "Columns that sync_ext did not make must come after its own and allow NULL; \
                       its own must stay as they were.";
const TRIGGER: &str = "sync_ext bypasses triggers, so this one would miss changes. Wait for the \
                       tool that created it to finish, or drop or disable it.";
const CONSTRAINT: &str = "sync_ext bypasses foreign keys and deferrable constraints: drop the one \
                          that created it.";
const RULE: &str = "sync_ext bypasses rules: drop or disable it.";
const TABLE: &str = "Make it an ordinary permanent table again.";
const INDEX: &str = "Recreate it with its original definition.";

impl Shape {
    fn name(&self) -> String {
        format!("sync_ext.{}", self.name.to_string_lossy())
    }

    /// Where the columns are, if not at the positions of the shape. An error unless rows can
    /// be read by column number and type.
    ///
    /// # Safety
    /// The relation is open.
    pub unsafe fn check_for_reading(&self, relation: pg_sys::Relation) -> Result<Option<Places>> {
        // SAFETY: an open relation has its row of pg_class and a descriptor.
        unsafe {
            if (*(*relation).rd_rel).relkind as u8 != pg_sys::RELKIND_RELATION {
                return found(format!("{} is not an ordinary table.", self.name()), TABLE);
            }
            let descriptor = (*relation).rd_att;
            let count = usize::try_from((*descriptor).natts).unwrap_or(0);
            let is_at = |place: usize, (name, kind): (&str, ColumnType)| {
                place < count && {
                    let column = &*compat::attribute(descriptor, place);
                    !column.attisdropped
                        && column.atttypid == kind.oid()
                        && column.attcollation == kind.collation()
                        && column.name() == name
                }
            };
            let mut places = None;
            for (place, column) in self.columns.iter().enumerate() {
                if is_at(place, *column) {
                    continue;
                }
                if place < self.first {
                    let (number, (name, kind)) = (place + 1, (column.0, column.1.as_str()));
                    let what = format!("Column {number} of {} is not {name} {kind}.", self.name());
                    return found(what, COLUMNS);
                }
                let places: &mut Vec<_> =
                    places.get_or_insert_with(|| (0..self.columns.len()).map(Some).collect());
                places[place] = (self.first..count).find(|place| is_at(*place, *column));
            }
            Ok(places.map(Rc::from))
        }
    }

    /// An error unless direct writes have the same effect as statements. Reading must
    /// be possible. True if that is so in every session, until the table is altered: nothing
    /// of it depends on the session or on other objects.
    ///
    /// # Safety
    /// The relation is open.
    pub unsafe fn check_for_writing(
        &self,
        relation: pg_sys::Relation,
        places: Option<&[Option<usize>]>,
    ) -> Result<bool> {
        let mut is_writable = true;
        // SAFETY: as in `check_for_reading`. Checking a domain may rebuild the
        // descriptor of a relation that was altered; the lock prevents that.
        unsafe {
            if (*(*relation).rd_rel).relpersistence as u8 != pg_sys::RELPERSISTENCE_PERMANENT {
                return found(format!("{} is not a permanent table.", self.name()), TABLE);
            }
            let descriptor = (*relation).rd_att;
            let count = usize::try_from((*descriptor).natts).unwrap_or(0);
            for place in self.first..count {
                let column = &*compat::attribute(descriptor, place);
                let is_ours = match places {
                    Some(places) => places.contains(&Some(place)),
                    None => place < self.columns.len(),
                };
                if is_ours || column.attisdropped {
                    continue;
                }
                is_writable = false;
                let why = if column.attnotnull {
                    "does not allow NULL"
                } else if pg_sys::DomainHasConstraints(column.atttypid) {
                    "has a domain with constraints"
                } else if column.attgenerated as u8 == pg_sys::ATTRIBUTE_GENERATED_STORED {
                    "is generated"
                } else {
                    continue;
                };
                let what = format!("Column {} of {} {why}.", column.name(), self.name());
                return found(what, COLUMNS);
            }
            self.check_triggers(relation)?;
            Ok(is_writable && (*relation).trigdesc.is_null() && (*relation).rd_rules.is_null())
        }
    }

    /// # Safety
    /// The relation is open.
    unsafe fn check_triggers(&self, relation: pg_sys::Relation) -> Result<()> {
        // SAFETY: pointers that are not NULL have as many triggers and rules as they
        // say.
        unsafe {
            if let Some(triggers) = (*relation).trigdesc.as_ref() {
                let count = usize::try_from(triggers.numtriggers).unwrap_or(0);
                let all = std::slice::from_raw_parts(triggers.triggers, count);
                let writes = pg_sys::TRIGGER_TYPE_INSERT
                    | pg_sys::TRIGGER_TYPE_UPDATE
                    | pg_sys::TRIGGER_TYPE_DELETE;
                let of_writes = |trigger: &&pg_sys::Trigger| {
                    trigger.tgtype as u32 & writes != 0 && fires(trigger.tgenabled)
                };
                if let Some(trigger) = all.iter().find(of_writes) {
                    let name = CStr::from_ptr(trigger.tgname).to_string_lossy();
                    let what = format!("Trigger {name} of {} is enabled.", self.name());
                    return found(what, if trigger.tgisinternal { CONSTRAINT } else { TRIGGER });
                }
            }
            if let Some(rules) = (*relation).rd_rules.as_ref() {
                let count = usize::try_from(rules.numLocks).unwrap_or(0);
                let all = std::slice::from_raw_parts(rules.rules, count);
                if all.iter().any(|rule| fires((**rule).enabled)) {
                    return found(format!("A rule of {} is enabled.", self.name()), RULE);
                }
            }
        }
        Ok(())
    }
}

/// Whether a trigger or rule with this state fires in this session.
fn fires(enabled: std::ffi::c_char) -> bool {
    // SAFETY: a variable of this process.
    let role = unsafe { pg_sys::SessionReplicationRole };
    let here = if role == REPLICA {
        pg_sys::TRIGGER_FIRES_ON_REPLICA
    } else {
        pg_sys::TRIGGER_FIRES_ON_ORIGIN
    };
    enabled as u8 == here || enabled as u8 == pg_sys::TRIGGER_FIRES_ALWAYS
}

impl IndexShape {
    /// An error unless the index has all rows of the table, in the order of its keys.
    ///
    /// # Safety
    /// Both are open.
    pub unsafe fn check(
        &self,
        index: pg_sys::Relation,
        table: pg_sys::Relation,
        shape: &Shape,
        places: Option<&[Option<usize>]>,
    ) -> Result<()> {
        let number = |column: usize| match places {
            Some(places) => places[column].map(|place| place + 1),
            None => Some(column + 1),
        };
        // SAFETY: an open index has its row of pg_index, and arrays with an element
        // for each of its key columns.
        let is_ours = unsafe {
            let row = &*(*index).rd_index;
            let keys = usize::try_from(row.indnkeyatts).unwrap_or(0);
            row.indrelid == (*table).rd_id
                && (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID
                && row.indisvalid
                && row.indisready
                && row.indimmediate
                && (row.indisunique || !self.is_unique)
                && keys == self.keys.len()
                && is_predicate(
                    pg_sys::RelationGetIndexPredicate(index),
                    self.not_null.and_then(number),
                )
                && self.keys.iter().enumerate().all(|(place, column)| {
                    let kind = shape.columns[*column].1;
                    let stored = row.indkey.values.as_slice(keys)[place];
                    usize::try_from(stored).ok() == number(*column)
                        && *(*index).rd_opfamily.add(place) == kind.btree_family()
                        && *(*index).rd_opcintype.add(place) == kind.oid()
                        && *(*index).rd_indcollation.add(place) == kind.collation()
                        && *(*index).rd_indoption.add(place) == 0
                })
        };
        if is_ours {
            return Ok(());
        }
        let keys: Vec<&str> = self.keys.iter().map(|column| shape.columns[*column].0).collect();
        found(
            format!(
                "Index sync_ext.{} is not a valid {}btree index of {} on ({}).",
                self.name.to_string_lossy(),
                if self.is_unique { "unique " } else { "" },
                shape.name(),
                keys.join(", "),
            ),
            INDEX,
        )
    }
}

/// Whether a predicate is that this column, by its number, is not NULL; or that there is none.
///
/// # Safety
/// The list is one of conditions.
unsafe fn is_predicate(conditions: *mut pg_sys::List, not_null: Option<usize>) -> bool {
    // SAFETY: a list has as many elements as it says, a node has the type that its tag says.
    unsafe {
        let Some(column) = not_null else { return conditions.is_null() };
        let Some(list) = conditions.as_ref().filter(|list| list.length == 1) else { return false };
        let node = (*list.elements).ptr_value.cast::<pg_sys::Node>();
        if (*node).type_ != pg_sys::NodeTag::T_NullTest {
            return false;
        }
        let test = &*node.cast::<pg_sys::NullTest>();
        let argument = test.arg.cast::<pg_sys::Node>();
        test.nulltesttype == pg_sys::NullTestType::IS_NOT_NULL
            && (*argument).type_ == pg_sys::NodeTag::T_Var
            && usize::try_from((*argument.cast::<pg_sys::Var>()).varattno) == Ok(column)
    }
}

fn found<T>(found: String, mend: &'static str) -> Result<T> {
    Err(SyncError::NotAsInstalled { found, mend })
}

pub fn missing<T>(name: &CStr) -> Result<T> {
    let what = format!("sync_ext.{} is missing.", name.to_string_lossy());
    found(what, "Restore it from a backup; an index can be recreated.")
}
