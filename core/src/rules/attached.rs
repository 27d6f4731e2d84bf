//! Which tables of the app can be attached. An attached table has typed rows of its own,
//! from which the log follows, so whatever the extension could not follow, or could not
//! read back from a payload, is refused.

use super::attach_error::AttachError as Error;
use super::attach_facts::{Column, Generated, Kind, Obstacle, Persistence, Relation, RelationKind};
use super::attach_notice::{self, Notice, Surroundings};

/// The payload's field for the workspace. Admission compares it, so no column may have it.
const WORKSPACE_FIELD: &str = "workspace_id";
const MAX_NAME_BYTES: usize = 128;
const MAX_WORKSPACE_BYTES: usize = 256;

/// The arguments of sync_attach_table.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub table_name: Option<&'a str>,
    pub workspace_column: Option<&'a str>,
    pub workspace_id: Option<&'a str>,
    pub owner_column: Option<&'a str>,
    pub deleted_column: Option<&'a str>,
    pub scope_column: Option<&'a str>,
    /// Fields and their columns; `None` for all columns by their names.
    pub columns: Option<Vec<(String, String)>>,
    pub patches: bool,
    pub direction: Option<&'a str>,
    pub apply_as: Option<&'a str>,
    pub reads: Option<&'a str>,
    pub numbers: Option<&'a str>,
}

/// How a table is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub table_name: String,
    /// Empty if the primary key has several columns: the pk is then their JSON array.
    pub pk_field: String,
    pub owner_field: Option<String>,
    /// `None`: as it is.
    pub scope_field: Option<String>,
    /// `None` if all rows are of the workspace `workspace_id`.
    pub workspace_column: Option<String>,
    pub workspace_id: Option<String>,
    pub deleted_column: Option<String>,
    /// Fields and their columns, in the order of the columns.
    pub fields: Vec<(String, String)>,
    pub patches: bool,
    pub direction: String,
    pub apply_as: String,
    pub numbers: String,
}

/// What is asked for, and the facts.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    pub relation: &'a Relation,
    pub request: &'a Request<'a>,
}

type Result<T> = std::result::Result<T, Error>;

impl<'a> Candidate<'a> {
    /// How the table will be attached, or why it cannot be.
    pub fn decide(&self) -> Result<Attachment> {
        let request = self.request;
        let table_name = name("table_name", request.table_name.unwrap_or(&self.relation.name))?;
        let direction = choice("direction", request.direction, &["both", "down"])?;
        let apply_as = choice("apply_as", request.apply_as, &["caller", "owner"])?;
        let numbers = choice("numbers", request.numbers, &["safe", "native"])?;
        if request.reads.is_some_and(|reads| reads != "workspace") {
            return Err(Error::Argument { name: "reads", must: "workspace, or NULL" });
        }
        self.check_relation()?;
        let key = self.key()?;
        let workspace = self.workspace()?;
        let deleted = self.deleted(workspace)?;
        let reserved = Reserved { workspace, deleted };
        let fields = self.fields(&reserved)?;
        self.check_left_out(&fields, &reserved)?;
        let field_of = |column: &Column| field_of(&fields, column);
        let key_fields = key.iter().map(|column| {
            reserved.check_key(column)?;
            let left_out = || Error::KeyLeftOut { column: column.name.clone() };
            field_of(column).ok_or_else(left_out)
        });
        let key_fields = key_fields.collect::<Result<Vec<_>>>()?;
        let owner_field = self.owner_field(&fields, &key_fields)?;
        let scope_field = self.scope_field(&fields, &key_fields)?;
        if self.relation.has_row_security && request.reads.is_none() {
            return Err(Error::RowSecurity);
        }
        let owned = |column: Option<&Column>| column.map(|column| column.name.clone());
        Ok(Attachment {
            table_name,
            pk_field: match key_fields.as_slice() {
                [field] => (*field).to_owned(),
                _ => String::new(),
            },
            owner_field,
            scope_field,
            workspace_column: owned(workspace),
            workspace_id: request.workspace_id.map(str::to_owned),
            deleted_column: owned(deleted),
            fields,
            patches: request.patches,
            direction,
            apply_as,
            numbers,
        })
    }

    /// What works, but perhaps not as expected.
    pub fn notices(&self, attachment: &Attachment, around: &Surroundings) -> Vec<Notice> {
        attach_notice::notices(&self.relation.columns, attachment, around)
    }

    fn check_relation(&self) -> Result<()> {
        let relation = self.relation;
        let what = match relation.kind {
            RelationKind::Table => None,
            RelationKind::Partitioned => return Err(Error::Partitions { is: "partitioned" }),
            RelationKind::View => Some("a view"),
            RelationKind::MaterializedView => Some("a materialized view"),
            RelationKind::Foreign => Some("a foreign table"),
            RelationKind::Other => Some("an index, a sequence or a type"),
        };
        if let Some(is) = what {
            return Err(Error::NotATable { is });
        }
        match relation.persistence {
            Persistence::Permanent => {}
            Persistence::Unlogged => return Err(Error::NotPermanent { is: "unlogged" }),
            Persistence::Temporary => return Err(Error::NotPermanent { is: "temporary" }),
        }
        if relation.is_system {
            return Err(Error::SystemTable);
        }
        if relation.is_partition {
            return Err(Error::Partitions { is: "a partition" });
        }
        if relation.inherits {
            return Err(Error::Inheritance);
        }
        if relation.has_rules {
            return Err(Error::Rules);
        }
        Ok(())
    }

    /// The columns of the primary key, in its order.
    fn key(&self) -> Result<Vec<&'a Column>> {
        match self.relation.deferrable_key {
            None => return Err(Error::NoKey),
            Some(true) => return Err(Error::DeferrableKey),
            Some(false) => {}
        }
        let in_key = |column: &&Column| column.key_place.is_some();
        let mut key: Vec<_> = self.relation.columns.iter().filter(in_key).collect();
        key.sort_by_key(|column| column.key_place);
        for column in &key {
            let is_text_exact = match column.kind {
                Kind::Text => column.is_deterministic,
                kind => kind != Kind::Other,
            };
            if !is_text_exact {
                return Err(Error::KeyType { column: column.described() });
            }
            column.require_written("primary key")?;
        }
        Ok(key)
    }

    fn column(&self, name: &str) -> Result<&'a Column> {
        let found = self.relation.columns.iter().find(|column| column.name == name);
        found.ok_or_else(|| Error::Column { name: name.to_owned() })
    }

    /// `None` if all rows are of one workspace.
    fn workspace(&self) -> Result<Option<&'a Column>> {
        if let Some(workspace_id) = self.request.workspace_id {
            return match (1..=MAX_WORKSPACE_BYTES).contains(&workspace_id.len()) {
                true => Ok(None),
                false => Err(Error::Argument { name: "workspace_id", must: "1 to 256 bytes" }),
            };
        }
        let Some(name) = self.request.workspace_column else {
            return Err(Error::Argument {
                name: "workspace_column",
                must: "given, unless workspace_id is",
            });
        };
        let missing = |_| Error::WorkspaceColumn { name: name.to_owned() };
        let column = self.column(name).map_err(missing)?;
        // Rows are selected by it: a workspace must not equal another.
        if !column.is_text_like() || !column.is_deterministic {
            return Err(Error::WorkspaceType { column: column.described() });
        }
        column.require_written("workspace column")?;
        Ok(Some(column))
    }

    fn deleted(&self, workspace: Option<&Column>) -> Result<Option<&'a Column>> {
        let Some(name) = self.request.deleted_column else { return Ok(None) };
        let column = self.column(name)?;
        if workspace.is_some_and(|workspace| workspace.name == name) {
            return Err(Error::Argument {
                name: "deleted_column",
                must: "another column than workspace_column",
            });
        }
        // A put that brings a record back clears the column.
        let fits = match column.kind {
            Kind::Boolean => true,
            Kind::Timestamp | Kind::Timestamptz => !column.is_not_null,
            _ => false,
        };
        if !fits {
            return Err(Error::DeletedType { column: column.described() });
        }
        column.require_written("deleted column")?;
        Ok(Some(column))
    }

    /// The synced columns with their fields, in the order of the columns.
    fn fields(&self, reserved: &Reserved<'_>) -> Result<Vec<(String, String)>> {
        let named = self.request.columns.as_ref();
        for (at, (field, column)) in named.into_iter().flatten().enumerate() {
            if !(1..=MAX_NAME_BYTES).contains(&field.len()) {
                return Err(Error::Columns { found: "A field is empty or over 128 bytes.".into() });
            }
            let column = self.column(column)?;
            if let Some(role) = reserved.role(column) {
                let found = format!("\"{}\" is the {role}.", column.name);
                return Err(Error::Columns { found });
            }
            let earlier = named.into_iter().flatten().take(at);
            if earlier.into_iter().any(|(_, other)| *other == column.name) {
                let found = format!("Two fields are for \"{}\".", column.name);
                return Err(Error::Columns { found });
            }
        }
        let field = |column: &Column| match named {
            Some(named) => {
                named.iter().find(|(_, name)| *name == column.name).map(|named| named.0.clone())
            }
            None => reserved.role(column).is_none().then(|| column.name.clone()),
        };
        let synced = |column: &'a Column| field(column).map(|field| (field, column));
        let synced: Vec<_> = self.relation.columns.iter().filter_map(synced).collect();
        for (field, column) in &synced {
            if field == WORKSPACE_FIELD {
                return Err(Error::WorkspaceField { column: column.name.clone() });
            }
            let what = column.described();
            match (&column.obstacle, column.generated) {
                (Some(Obstacle::CastToJson(within)), _) => {
                    let why = format!("{what}: {within} has a cast to json.");
                    return Err(Error::DoesNotComeBack { why });
                }
                (Some(Obstacle::Unreadable(within)), _) => {
                    let why = format!("{what}: {within} depends on the session, or has no input.");
                    return Err(Error::DoesNotComeBack { why });
                }
                (None, Generated::Virtual) => {
                    let why = format!("{what}: it is generated, but not stored.");
                    return Err(Error::DoesNotComeBack { why });
                }
                (None, _) => {}
            }
        }
        Ok(synced.into_iter().map(|(field, column)| (field, column.name.clone())).collect())
    }

    /// An insert must be possible without the columns that are not synced.
    fn check_left_out(&self, fields: &[(String, String)], reserved: &Reserved<'_>) -> Result<()> {
        let is_missed = |column: &&Column| {
            field_of(fields, column).is_none()
                && column.key_place.is_none()
                && column.is_not_null
                && !column.has_default
                && column.generated == Generated::No
                && reserved.workspace.is_none_or(|workspace| workspace.name != column.name)
        };
        match self.relation.columns.iter().find(is_missed) {
            Some(column) => Err(Error::LeftOut { column: column.described() }),
            None => Ok(()),
        }
    }

    fn owner_field(
        &self,
        fields: &[(String, String)],
        key_fields: &[&str],
    ) -> Result<Option<String>> {
        let Some(name) = self.request.owner_column else { return Ok(None) };
        let column = self.column(name)?;
        let field = field_of(fields, column).filter(|field| !key_fields.contains(field));
        let Some(field) = field else {
            return Err(Error::Argument {
                name: "owner_column",
                must: "a synced column outside of the primary key",
            });
        };
        if !column.is_text_like() {
            return Err(Error::OwnerType { column: column.described() });
        }
        column.require_written("owner column")?;
        Ok(Some(field.to_owned()))
    }
}

impl Candidate<'_> {
    fn scope_field(
        &self,
        fields: &[(String, String)],
        key_fields: &[&str],
    ) -> Result<Option<String>> {
        let Some(name) = self.request.scope_column else { return Ok(None) };
        let column = self.column(name)?;
        let field = field_of(fields, column).filter(|field| !key_fields.contains(field));
        let Some(field) = field else {
            return Err(Error::Argument {
                name: "scope_column",
                must: "a synced column outside of the primary key",
            });
        };
        // A scope is a string in the payload.
        if !matches!(column.kind, Kind::Text | Kind::Uuid | Kind::Enum) {
            return Err(Error::ScopeType { column: column.described() });
        }
        Ok(Some(field.to_owned()))
    }
}

/// Columns that the payload does not have.
struct Reserved<'a> {
    workspace: Option<&'a Column>,
    deleted: Option<&'a Column>,
}

impl Reserved<'_> {
    fn role(&self, column: &Column) -> Option<&'static str> {
        let is = |other: Option<&Column>| other.is_some_and(|other| other.name == column.name);
        if is(self.workspace) {
            Some("workspace column")
        } else if is(self.deleted) {
            Some("deleted column")
        } else {
            None
        }
    }

    fn check_key(&self, column: &Column) -> Result<()> {
        match self.role(column) {
            Some(role) => Err(Error::KeyReserved { column: column.name.clone(), role }),
            None => Ok(()),
        }
    }
}

fn field_of<'f>(fields: &'f [(String, String)], column: &Column) -> Option<&'f str> {
    fields.iter().find(|(_, name)| *name == column.name).map(|(field, _)| field.as_str())
}

fn name(argument: &'static str, text: &str) -> Result<String> {
    match (1..=MAX_NAME_BYTES).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => Err(Error::Argument { name: argument, must: "1 to 128 bytes" }),
    }
}

fn choice(name: &'static str, given: Option<&str>, of: &[&'static str; 2]) -> Result<String> {
    let must = match name {
        "direction" => "both or down",
        "apply_as" => "caller or owner",
        _ => "safe or native",
    };
    let given = given.filter(|given| of.contains(given));
    given.map(str::to_owned).ok_or(Error::Argument { name, must })
}

#[cfg(test)]
#[path = "attached_tests.rs"]
mod tests;
