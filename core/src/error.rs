//! Errors that end a call. The primary message is fixed; the variable part is in the
//! DETAIL.

use thiserror::Error;

use crate::rules::access::{Action, Role};
use crate::rules::attach_error::AttachError;
use crate::rules::capture::CaptureError;
use crate::rules::repair::RepairError;

#[derive(Debug, Error)]
pub enum SyncError {
    // The caller's arguments.
    #[error("invalid workspace_id")]
    WorkspaceId,
    #[error("invalid device_id")]
    DeviceId,
    #[error("invalid {argument}")]
    RegistryName { argument: &'static str },
    #[error("ops must be a JSON array")]
    OpsNotAnArray,
    #[error("too many ops in one push")]
    TooManyOps { max: usize },
    #[error("too many ops in one push")]
    TooMuchTogether { why: &'static str },
    #[error("too many names in tables")]
    TooManyTables { given: usize, max: usize },
    #[error("too many names in scopes")]
    TooManyScopes { given: usize, max: usize },
    #[error("have does not match")]
    Have { why: &'static str },
    #[error("scope_field is taken")]
    ScopeFieldTaken,
    #[error("table has records")]
    ScopeFieldKept,
    #[error("records of the table have scopes")]
    ScopesLeft,
    #[error("invalid cursor")]
    Cursor { given: Option<i64> },
    #[error("invalid proof")]
    Proof,
    #[error("invalid page_token")]
    PageToken { of_scopes: bool },
    #[error("invalid version")]
    AcknowledgedVersion { given: Option<i64> },
    #[error("version is above the head")]
    AcknowledgedAboveHead { given: i64, head: i64 },
    #[error("retention is too short")]
    Retention,
    #[error("invalid batch_size")]
    BatchSize,
    #[error("invalid server")]
    KeyRange { max: i64 },
    #[error("invalid user_id")]
    UserId,
    #[error("invalid role")]
    Role,
    #[error("owner_field is taken")]
    OwnerFieldTaken,
    #[error("invalid validation")]
    Validation,
    #[error("invalid request.jwt.claims")]
    Claims,

    // Missing permissions. They do not reveal to a user who is not a member whether the
    // workspace exists.
    #[error("no user is set")]
    UserRequired { why: &'static str },
    #[error("a setting was refused")]
    SettingRefused { name: String },
    #[error("permission denied for workspace")]
    AccessDenied { role: Option<(Role, Action)> },
    #[error("only trusted callers may do this")]
    TrustedOnly,

    // The state of workspaces and members.
    #[error("workspace does not exist")]
    UnknownWorkspace,
    #[error("table is not registered")]
    UnregisteredTable { table: String },
    #[error("workspace already exists")]
    WorkspaceExists,
    #[error("workspace must keep an owner")]
    LastOwner,
    #[error("table has an owner_field")]
    OwnerFieldKept,
    #[error("members are kept elsewhere")]
    MembersElsewhere,
    #[error("sync_ext.membership_function returned no role")]
    NoRole,
    #[error("sync_ext.membership_function is not to be trusted")]
    MembershipFunctionsOwner,
    #[error("validation function is not to be trusted")]
    ValidationOwner,
    #[error("validation function does not exist")]
    ValidationGone { name: String },
    #[error("workspace is being pushed to")]
    WorkspaceClosed,

    // A table of the app is not attached or detached.
    #[error(transparent)]
    Attach(#[from] AttachError),

    // The state of the server or of the transaction.
    #[error("snapshot expired")]
    SnapshotExpired,
    #[error("standby is behind the snapshot")]
    StandbyBehindSnapshot,
    #[error("could not serialize access due to concurrent sync")]
    ConcurrentSync,
    #[error("reply is too large")]
    ReplyTooLarge { max: usize },
    #[error("out of memory")]
    OutOfMemory,
    #[error("workspace is elsewhere")]
    Elsewhere(Elsewhere),

    // Somebody, or a tool, has changed the tables of the extension.
    #[error("sync_ext table is not as installed")]
    NotAsInstalled { found: String, mend: &'static str },
    #[error("versions of the workspace are exhausted")]
    VersionsExhausted { head: i64 },

    // Attached tables.
    #[error("rows are held by another transaction")]
    RowsHeld,
    #[error("attached table is gone")]
    AttachedTableGone { table: String },
    #[error("session replays changes")]
    ReplicaSession,
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Repair(#[from] RepairError),

    // SPI refused a statement of the extension. Errors raised by the statement itself
    // keep their SQLSTATE and are not represented here.
    #[error("sync_ext statement failed")]
    Sql { what: String },

    // The contents of the tables are not what this extension wrote.
    #[error("sync_ext tables are damaged")]
    Damaged { what: String },
}

/// Why this server does not serve a workspace.
#[derive(Debug)]
pub enum Elsewhere {
    /// It was moved, to the server of this name if it is known.
    Departed { to: Option<String> },
    /// It is being moved here.
    Arriving,
    /// Its move from here is about to end; pulls are served.
    Held,
    /// It is not here, and this server does not own its bucket.
    Bucket(i64),
}

impl SyncError {
    pub fn sql(error: impl std::fmt::Display) -> SyncError {
        SyncError::Sql { what: error.to_string() }
    }

    /// Class SX belongs to this extension: errors that a client must distinguish have
    /// codes that nothing else raises.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            SyncError::WorkspaceId
            | SyncError::DeviceId
            | SyncError::RegistryName { .. }
            | SyncError::OpsNotAnArray
            | SyncError::TooManyTables { .. }
            | SyncError::TooManyScopes { .. }
            | SyncError::Have { .. }
            | SyncError::ScopeFieldTaken
            | SyncError::Cursor { .. }
            | SyncError::Proof
            | SyncError::PageToken { .. }
            | SyncError::AcknowledgedVersion { .. }
            | SyncError::Retention
            | SyncError::BatchSize
            | SyncError::KeyRange { .. }
            | SyncError::UserId
            | SyncError::Role
            | SyncError::OwnerFieldTaken
            | SyncError::Validation
            | SyncError::Claims => "22023",
            SyncError::Attach(error) => error.sqlstate(),
            SyncError::SnapshotExpired => "SX001",
            SyncError::StandbyBehindSnapshot => "SX002",
            SyncError::AcknowledgedAboveHead { .. } => "SX003",
            SyncError::Elsewhere(_) => "SX004",
            SyncError::UserRequired { .. }
            | SyncError::SettingRefused { .. }
            | SyncError::AccessDenied { .. }
            | SyncError::TrustedOnly
            | SyncError::MembershipFunctionsOwner
            | SyncError::ValidationOwner => "42501",
            SyncError::UnknownWorkspace | SyncError::UnregisteredTable { .. } => "42704",
            SyncError::WorkspaceExists => "42710",
            SyncError::ValidationGone { .. } => "42883",
            SyncError::NoRole => "39000",
            SyncError::TooManyOps { .. }
            | SyncError::TooMuchTogether { .. }
            | SyncError::ReplyTooLarge { .. } => "54000",
            SyncError::OutOfMemory => "53200",
            SyncError::LastOwner
            | SyncError::OwnerFieldKept
            | SyncError::ScopeFieldKept
            | SyncError::ScopesLeft
            | SyncError::MembersElsewhere
            | SyncError::WorkspaceClosed
            | SyncError::NotAsInstalled { .. }
            | SyncError::VersionsExhausted { .. } => "55000",
            SyncError::ConcurrentSync => "40001",
            SyncError::RowsHeld => "55P03",
            SyncError::AttachedTableGone { .. } | SyncError::ReplicaSession => "55000",
            SyncError::Capture(error) => error.sqlstate(),
            SyncError::Repair(error) => error.sqlstate(),
            SyncError::Sql { .. } => "XX000",
            SyncError::Damaged { .. } => "XX001",
        }
    }

    pub fn detail(&self) -> Option<String> {
        let given = |value: &Option<i64>| match value {
            Some(value) => format!("It is {value}."),
            None => "It is NULL.".to_owned(),
        };
        Some(match self {
            SyncError::Attach(error) => return error.detail(),
            SyncError::WorkspaceId => "workspace_id must be 1 to 256 bytes.".to_owned(),
            SyncError::DeviceId => "device_id must be 1 to 256 bytes.".to_owned(),
            SyncError::RegistryName { argument } => format!("{argument} must be 1 to 128 bytes."),
            SyncError::TooManyOps { max } => {
                format!("sync_ext.max_ops_per_push allows {max}.")
            }
            SyncError::TooMuchTogether { why } => (*why).to_owned(),
            SyncError::TooManyTables { given, max } | SyncError::TooManyScopes { given, max } => {
                format!("There are {given}; {max} are allowed.")
            }
            SyncError::UnregisteredTable { table } => format!("It is \"{table}\"."),
            SyncError::Have { why } => (*why).to_owned(),
            SyncError::ScopeFieldTaken => "It must not be the pk_field.".to_owned(),
            SyncError::ScopeFieldKept => {
                "Their scopes would not be those of the new field.".to_owned()
            }
            SyncError::ScopesLeft => {
                "Devices that follow some of them would not be told of the others.".to_owned()
            }
            SyncError::Cursor { given: cursor } => given(cursor),
            SyncError::AcknowledgedVersion { given: version } => given(version),
            SyncError::AcknowledgedAboveHead { given, head } => {
                format!("The version is {given}, the head of the workspace is {head}.")
            }
            SyncError::ReplyTooLarge { max } => {
                format!("It would pass {max} bytes.")
            }
            SyncError::UserId => "user_id must be 1 to 256 bytes.".to_owned(),
            SyncError::KeyRange { max } => format!("It must be from 0 to {max}."),
            SyncError::Role => "A role is owner, editor or viewer.".to_owned(),
            SyncError::OwnerFieldTaken => {
                "It must be neither pk_field nor workspace_id.".to_owned()
            }
            SyncError::Claims => {
                "It must be a JSON object; its sub, if it has one, a text of 1 to 256 bytes."
                    .to_owned()
            }
            SyncError::UserRequired { why } => (*why).to_owned(),
            SyncError::SettingRefused { name } => {
                format!(
                    "The session's first value of {name} is invalid, or its role may not set it."
                )
            }
            SyncError::AccessDenied { role: None } => {
                "It does not exist, or the user is not a member of it.".to_owned()
            }
            SyncError::AccessDenied { role: Some((role, action)) } => format!(
                "The user's role is {}; this needs {}.",
                role.as_str(),
                action.least_role().as_str()
            ),
            SyncError::OwnerFieldKept => {
                "Without it, new records would be shared from now on.".to_owned()
            }
            SyncError::MembersElsewhere => {
                "sync_ext.membership_function is set and determines the roles.".to_owned()
            }
            SyncError::Validation => {
                "It must be a function (json, json, json) that returns text, and neither a set \
                 nor STRICT."
                    .to_owned()
            }
            SyncError::ValidationGone { name } => format!(
                "{name}(json, json, json) was dropped, renamed or altered since the table was \
                 registered."
            ),
            SyncError::WorkspaceClosed => {
                "A validation function is called for an op of this workspace.".to_owned()
            }
            SyncError::MembershipFunctionsOwner | SyncError::ValidationOwner => {
                "It belongs neither to a superuser nor to the owner of sync_ext.".to_owned()
            }
            SyncError::NoRole => "It must return owner, editor, viewer or NULL.".to_owned(),
            SyncError::Sql { what } | SyncError::Damaged { what } => what.clone(),
            SyncError::OutOfMemory => "The call needs more than the process can have.".to_owned(),
            SyncError::Elsewhere(Elsewhere::Departed { to: Some(to) }) => {
                format!("It was moved to \"{to}\".")
            }
            SyncError::Elsewhere(Elsewhere::Departed { to: None }) => "It was moved.".to_owned(),
            SyncError::Elsewhere(Elsewhere::Arriving) => "It has not arrived yet.".to_owned(),
            SyncError::Elsewhere(Elsewhere::Held) => "It is about to be moved.".to_owned(),
            SyncError::Elsewhere(Elsewhere::Bucket(bucket)) => {
                format!("This server does not own its bucket, {bucket}.")
            }
            SyncError::NotAsInstalled { found, .. } => found.clone(),
            SyncError::VersionsExhausted { head } => format!("Its head is {head}."),
            SyncError::RowsHeld => "sync_ext.apply_wait has passed.".to_owned(),
            SyncError::AttachedTableGone { table } => {
                format!("Table \"{table}\" was dropped without being detached.")
            }
            SyncError::ReplicaSession => {
                "session_replication_role is replica: constraints and triggers would not apply."
                    .to_owned()
            }
            SyncError::Capture(error) => return error.detail(),
            SyncError::Repair(error) => return error.detail().map(str::to_owned),
            SyncError::OpsNotAnArray
            | SyncError::Proof
            | SyncError::PageToken { .. }
            | SyncError::Retention
            | SyncError::BatchSize
            | SyncError::SnapshotExpired
            | SyncError::StandbyBehindSnapshot
            | SyncError::TrustedOnly
            | SyncError::UnknownWorkspace
            | SyncError::WorkspaceExists
            | SyncError::LastOwner
            | SyncError::ConcurrentSync => return None,
        })
    }

    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            SyncError::Attach(error) => return error.hint(),
            SyncError::OpsNotAnArray => {
                "Pass an array of ops, in most drivers as a string with $2::json."
            }
            SyncError::TooManyOps { .. } | SyncError::TooMuchTogether { .. } => {
                "Push the ops in several batches."
            }
            SyncError::Cursor { .. } => "Pass 0 at first, then the nextCursor of the last pull.",
            SyncError::Proof => "Pass the proof of the last pull or snapshot unchanged, or NULL.",
            SyncError::PageToken { of_scopes: false } => {
                "Pass the nextPageToken of the last page unchanged, with the same workspace and tables."
            }
            SyncError::PageToken { of_scopes: true } => {
                "Pass the nextPageToken of the last page unchanged, with the same workspace, tables and scopes."
            }
            SyncError::AcknowledgedVersion { .. } => {
                "Pass the nextCursor of the last pull that was applied."
            }
            SyncError::AcknowledgedAboveHead { .. } => {
                "The server may have been restored: pull before acknowledging."
            }
            SyncError::Retention => {
                "Pass an interval of at least one hour, or NULL for sync_ext.retention."
            }
            SyncError::BatchSize => "Pass at least 1.",
            SyncError::SnapshotExpired => "Start the snapshot again without a page_token.",
            SyncError::StandbyBehindSnapshot => {
                "Retry later, or on the server that sent the last page."
            }
            SyncError::ConcurrentSync => "Retry the transaction.",
            SyncError::Elsewhere(_) => "Look at the map of servers again, and retry.",
            SyncError::ReplyTooLarge { .. } => "Push fewer ops at once, or ask for smaller pages.",
            SyncError::UserRequired { .. } => {
                "Set sync_ext.user_id for the transaction, or request.jwt.claims with a sub."
            }
            SyncError::SettingRefused { .. } => "Connect without it, or have it corrected.",
            SyncError::TrustedOnly => "Call it with neither sync_ext.user_id nor a sub set.",
            SyncError::UnregisteredTable { .. } => "Register it with sync_register_table.",
            SyncError::UnknownWorkspace => "Create it with sync_create_workspace.",
            SyncError::WorkspaceExists => "Change its members with sync_set_member.",
            SyncError::OwnerFieldKept => {
                "Pass the owner_field, or remove it with sync_unregister_table first."
            }
            SyncError::ScopeFieldKept => {
                "Register it without scope_field, then CALL sync_set_scope_field."
            }
            SyncError::ScopesLeft => "CALL sync_set_scope_field(table_name, NULL) first.",
            SyncError::LastOwner => "Make somebody else an owner first.",
            SyncError::ValidationGone { .. } => {
                "Register the table again, with another function or none."
            }
            SyncError::WorkspaceClosed => {
                "Do not write to the workspace from a validation function."
            }
            SyncError::Sql { .. } => "This is a bug in sync_ext; please report it.",
            SyncError::Damaged { .. } | SyncError::VersionsExhausted { .. } => {
                "Somebody wrote to the tables, or a restore was incomplete."
            }
            SyncError::NotAsInstalled { mend, .. } => mend,
            SyncError::RowsHeld => {
                "Nothing was stored: push again when that transaction has ended."
            }
            SyncError::AttachedTableGone { .. } => "Call sync_unregister_table.",
            SyncError::ReplicaSession => "Push in a session with session_replication_role origin.",
            SyncError::Capture(error) => return error.hint(),
            SyncError::Repair(error) => return error.hint(),
            SyncError::OutOfMemory => "Send less at a time, or give the server more memory.",
            SyncError::TooManyScopes { .. } => {
                "Name fewer scopes, or pass NULL for the whole workspace."
            }
            SyncError::TooManyTables { .. } => "Name fewer tables, or pass NULL for all of them.",
            SyncError::KeyRange { .. } => "Give each server a number of its own.",
            SyncError::WorkspaceId
            | SyncError::DeviceId
            | SyncError::RegistryName { .. }
            | SyncError::UserId
            | SyncError::Role
            | SyncError::OwnerFieldTaken
            | SyncError::ScopeFieldTaken
            | SyncError::Have { .. }
            | SyncError::Validation
            | SyncError::Claims
            | SyncError::AccessDenied { .. }
            | SyncError::MembersElsewhere
            | SyncError::MembershipFunctionsOwner
            | SyncError::ValidationOwner
            | SyncError::NoRole => return None,
        })
    }
}
