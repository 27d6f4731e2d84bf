//! Why a table is not attached or detached. As with all errors that end a call, the
//! primary message is fixed.

use thiserror::Error;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AttachError {
    // The arguments.
    #[error("invalid table")]
    NullTable,
    #[error("table does not exist")]
    NoTable,
    #[error("invalid {name}")]
    Argument { name: &'static str, must: &'static str },
    #[error("invalid columns")]
    Columns { found: String },
    #[error("column does not exist")]
    Column { name: String },
    #[error("workspace column does not exist")]
    WorkspaceColumn { name: String },

    // The relation.
    #[error("must be owner of the table")]
    NotOwner,
    #[error("only ordinary tables can be attached")]
    NotATable { is: &'static str },
    #[error("partitioned tables and partitions cannot be attached")]
    Partitions { is: &'static str },
    #[error("temporary and unlogged tables cannot be attached")]
    NotPermanent { is: &'static str },
    #[error("system tables cannot be attached")]
    SystemTable,
    #[error("tables with inheritance cannot be attached")]
    Inheritance,
    #[error("tables with rules cannot be attached")]
    Rules,
    #[error("table has row security")]
    RowSecurity,

    // The primary key.
    #[error("table has no primary key")]
    NoKey,
    #[error("primary key is deferrable")]
    DeferrableKey,
    #[error("primary key has an unsuitable type")]
    KeyType { column: String },
    #[error("primary key is left out")]
    KeyLeftOut { column: String },
    #[error("primary key includes a reserved column")]
    KeyReserved { column: String, role: &'static str },

    // Other columns.
    #[error("workspace column has an unsuitable type")]
    WorkspaceType { column: String },
    #[error("owner column has an unsuitable type")]
    OwnerType { column: String },
    #[error("scope column has an unsuitable type")]
    ScopeType { column: String },
    #[error("deleted column has an unsuitable type")]
    DeletedType { column: String },
    #[error("column is generated")]
    GeneratedColumn { column: String, role: &'static str },
    #[error("field workspace_id is reserved")]
    WorkspaceField { column: String },
    #[error("column does not come back from JSON")]
    DoesNotComeBack { why: String },
    #[error("column without a default is left out")]
    LeftOut { column: String },

    // The registry.
    #[error("table is already attached")]
    AlreadyAttached { table_name: String },
    #[error("table_name is attached to another table")]
    NameTaken { by: String },
    #[error("table is attached")]
    Attached { to: String },
    #[error("table is not attached")]
    NotAttached,
}

impl AttachError {
    pub fn sqlstate(&self) -> &'static str {
        match self {
            AttachError::NullTable
            | AttachError::Argument { .. }
            | AttachError::Columns { .. }
            | AttachError::WorkspaceField { .. }
            | AttachError::KeyLeftOut { .. } => "22023",
            AttachError::NotOwner => "42501",
            AttachError::Column { .. } | AttachError::WorkspaceColumn { .. } => "42703",
            AttachError::NotAttached => "42704",
            AttachError::NoTable => "42P01",
            AttachError::AlreadyAttached { .. } | AttachError::NameTaken { .. } => "42710",
            AttachError::RowSecurity | AttachError::Attached { .. } => "55000",
            AttachError::NotATable { .. }
            | AttachError::Partitions { .. }
            | AttachError::NotPermanent { .. }
            | AttachError::SystemTable
            | AttachError::Inheritance
            | AttachError::Rules
            | AttachError::NoKey
            | AttachError::DeferrableKey
            | AttachError::KeyType { .. }
            | AttachError::KeyReserved { .. }
            | AttachError::WorkspaceType { .. }
            | AttachError::OwnerType { .. }
            | AttachError::ScopeType { .. }
            | AttachError::DeletedType { .. }
            | AttachError::GeneratedColumn { .. }
            | AttachError::DoesNotComeBack { .. }
            | AttachError::LeftOut { .. } => "0A000",
        }
    }

    pub fn detail(&self) -> Option<String> {
        Some(match self {
            AttachError::NullTable => "table must not be NULL.".to_owned(),
            AttachError::Argument { name, must } => format!("{name} must be {must}."),
            AttachError::Columns { found } => found.clone(),
            AttachError::Column { name } | AttachError::WorkspaceColumn { name } => {
                format!("The table has no column \"{name}\".")
            }
            AttachError::NotATable { is }
            | AttachError::Partitions { is }
            | AttachError::NotPermanent { is } => format!("It is {is}."),
            AttachError::KeyType { column }
            | AttachError::WorkspaceType { column }
            | AttachError::OwnerType { column }
            | AttachError::ScopeType { column }
            | AttachError::DeletedType { column }
            | AttachError::LeftOut { column } => format!("{column}."),
            AttachError::KeyLeftOut { column } => format!("Column \"{column}\" has no field."),
            AttachError::KeyReserved { column, role } => {
                format!("Column \"{column}\" is the {role}.")
            }
            AttachError::GeneratedColumn { column, role } => {
                format!("The {role}, \"{column}\", could not be written.")
            }
            AttachError::WorkspaceField { column } => {
                format!("It would be the field of column \"{column}\".")
            }
            AttachError::DoesNotComeBack { why } => why.clone(),
            AttachError::AlreadyAttached { table_name } => {
                format!("Its table_name is \"{table_name}\".")
            }
            AttachError::NameTaken { by } => format!("That table is {by}."),
            AttachError::Attached { to } => format!("Its rows are in {to}."),
            AttachError::NoTable
            | AttachError::NotOwner
            | AttachError::SystemTable
            | AttachError::Inheritance
            | AttachError::Rules
            | AttachError::RowSecurity
            | AttachError::NoKey
            | AttachError::DeferrableKey
            | AttachError::NotAttached => return None,
        })
    }

    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            AttachError::WorkspaceColumn { .. } => {
                "Pass workspace_column, or workspace_id if all rows are of one workspace."
            }
            AttachError::NotOwner => "Call it as the table's owner, or as a superuser.",
            AttachError::NotATable { .. } => "Attach the tables that it reads.",
            AttachError::Partitions { .. } => "Keep the rows in one ordinary table.",
            AttachError::NotPermanent { .. } => "Make it a permanent, logged table first.",
            AttachError::SystemTable => "Attach a table of your app.",
            AttachError::Inheritance => {
                "Triggers do not see rows of children: remove the inheritance first."
            }
            AttachError::Rules => "Replace the rules by triggers.",
            AttachError::RowSecurity => {
                "Devices read all of a workspace, whatever policies say. Pass reads => 'workspace' to accept that; policies still hold for writes."
            }
            AttachError::NoKey => "Add a primary key, best a uuid that devices make.",
            AttachError::DeferrableKey => "Make it NOT DEFERRABLE.",
            AttachError::KeyType { .. } => {
                "Use an integer, uuid, boolean, text or varchar with a deterministic collation, enum, date or timestamp."
            }
            AttachError::KeyLeftOut { .. } => "Give each column of the primary key a field.",
            AttachError::KeyReserved { .. } => {
                "Make the other columns of the key the primary key; keep this key as a unique constraint."
            }
            AttachError::WorkspaceType { .. } => {
                "Use text or varchar with a deterministic collation, uuid or an integer."
            }
            AttachError::OwnerType { .. } => "Use text, varchar, uuid or an integer.",
            AttachError::ScopeType { .. } => "Use text, varchar, uuid or an enum.",
            AttachError::DeletedType { .. } => {
                "Use boolean, or timestamp or timestamptz that allows NULL."
            }
            AttachError::GeneratedColumn { .. } => "Make it an ordinary column, or name another.",
            AttachError::WorkspaceField { .. } => "Name its field by columns, or leave it out.",
            AttachError::DoesNotComeBack { .. } => "Leave it out by columns.",
            AttachError::LeftOut { .. } => {
                "Give the column a default or a field, or let it be NULL."
            }
            AttachError::AlreadyAttached { .. } | AttachError::Attached { .. } => {
                "Detach it with sync_detach_table first."
            }
            AttachError::NameTaken { .. } => {
                "Pass another table_name, or unregister this one by sync_unregister_table first."
            }
            AttachError::NotAttached => "Attach it with sync_attach_table.",
            AttachError::NullTable
            | AttachError::NoTable
            | AttachError::Argument { .. }
            | AttachError::Columns { .. }
            | AttachError::Column { .. } => return None,
        })
    }
}
