//! Facts about tables of the app, as the catalogues say them.

use super::attach_error::AttachError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    Partitioned,
    View,
    MaterializedView,
    Foreign,
    /// An index, a sequence, a composite type.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    Permanent,
    Unlogged,
    Temporary,
}

#[derive(Clone, Debug)]
pub struct Relation {
    /// Its name without the schema.
    pub name: String,
    pub kind: RelationKind,
    pub persistence: Persistence,
    pub is_partition: bool,
    /// It is a catalogue, or in a schema that Postgres or this extension owns.
    pub is_system: bool,
    /// It has parents or children.
    pub inherits: bool,
    pub has_rules: bool,
    pub has_row_security: bool,
    /// `None` without a primary key, otherwise whether it is deferrable.
    pub deferrable_key: Option<bool>,
    pub columns: Vec<Column>,
}

/// The type of a column, below its domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Integer,
    Uuid,
    Boolean,
    /// text or varchar.
    Text,
    Date,
    Timestamp,
    Timestamptz,
    Enum,
    Other,
}

/// Why the values of a type would not come back from their JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The type within the column's that has a cast to json.
    CastToJson(String),
    /// One whose text depends on the search_path, or that has no input.
    Unreadable(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generated {
    No,
    Stored,
    Virtual,
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    /// As it is declared.
    pub type_name: String,
    pub kind: Kind,
    pub is_deterministic: bool,
    pub is_not_null: bool,
    pub has_default: bool,
    pub generated: Generated,
    /// An identity, or a sequence belongs to it.
    pub is_numbered: bool,
    /// Its place in the primary key.
    pub key_place: Option<usize>,
    pub obstacle: Option<Obstacle>,
}

impl Column {
    pub fn described(&self) -> String {
        let collation =
            if self.is_deterministic { "" } else { ", whose collation is not deterministic" };
        format!("Column \"{}\" {}{collation}", self.name, self.type_name)
    }

    /// Of a type whose values a payload, a workspace or a user can name as text.
    pub fn is_text_like(&self) -> bool {
        matches!(self.kind, Kind::Text | Kind::Uuid | Kind::Integer)
    }

    /// An error if Postgres generates it.
    pub fn require_written(&self, role: &'static str) -> Result<(), AttachError> {
        match self.generated {
            Generated::No => Ok(()),
            _ => Err(AttachError::GeneratedColumn { column: self.name.clone(), role }),
        }
    }
}
