//! Errors that end a call. The primary message is fixed; what varies is in
//! the DETAIL.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::{PgSqlErrorCode, PgTryBuilder};
use thiserror::Error;

use crate::rules::access::{Action, Role};

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
    #[error("invalid cursor")]
    Cursor { given: Option<i64> },
    #[error("invalid proof")]
    Proof,
    #[error("invalid page_token")]
    PageToken,
    #[error("invalid version")]
    AcknowledgedVersion { given: Option<i64> },
    #[error("version is above the head")]
    AcknowledgedAboveHead { given: i64, head: i64 },
    #[error("retention is too short")]
    Retention,
    #[error("invalid batch_size")]
    BatchSize,
    #[error("invalid user_id")]
    UserId,
    #[error("invalid role")]
    Role,
    #[error("owner_field is taken")]
    OwnerFieldTaken,
    #[error("invalid request.jwt.claims")]
    Claims,

    // What the caller may not do. Nothing in these tells a user who is not a
    // member whether a workspace exists.
    #[error("no user is set")]
    UserRequired,
    #[error("a setting was refused")]
    SettingRefused { name: String },
    #[error("permission denied for workspace")]
    AccessDenied { role: Option<(Role, Action)> },
    #[error("only trusted callers may do this")]
    TrustedOnly,

    // The state of workspaces and members.
    #[error("workspace does not exist")]
    UnknownWorkspace,
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
    #[error("sync_ext.membership_function failed")]
    MembershipFailed { what: String },
    #[error("sync_ext.membership_function is not to be trusted")]
    MembershipFunctionsOwner,

    // The state of the server or of the transaction.
    #[error("snapshot expired")]
    SnapshotExpired,
    #[error("standby is behind the snapshot")]
    StandbyBehindSnapshot,
    #[error("could not serialize access due to concurrent sync")]
    ConcurrentSync,
    #[error("reply is too large")]
    ReplyTooLarge { max: usize },

    // SPI's own complaint about a statement of ours; errors that the statement
    // itself raises keep their SQLSTATE and never arrive here.
    #[error("sync_ext statement failed")]
    Sql { what: String },

    // Our tables are not as this extension left them.
    #[error("sync_ext tables are damaged")]
    Damaged { what: String },
}

impl SyncError {
    pub fn sql(error: pgrx::spi::Error) -> SyncError {
        SyncError::Sql { what: error.to_string() }
    }

    fn code(&self) -> PgSqlErrorCode {
        use PgSqlErrorCode::*;
        match self {
            SyncError::WorkspaceId
            | SyncError::DeviceId
            | SyncError::RegistryName { .. }
            | SyncError::OpsNotAnArray
            | SyncError::Cursor { .. }
            | SyncError::Proof
            | SyncError::PageToken
            | SyncError::AcknowledgedVersion { .. }
            | SyncError::AcknowledgedAboveHead { .. }
            | SyncError::Retention
            | SyncError::BatchSize
            | SyncError::UserId
            | SyncError::Role
            | SyncError::OwnerFieldTaken
            | SyncError::Claims => ERRCODE_INVALID_PARAMETER_VALUE,
            SyncError::UserRequired
            | SyncError::SettingRefused { .. }
            | SyncError::AccessDenied { .. }
            | SyncError::TrustedOnly
            | SyncError::MembershipFunctionsOwner => ERRCODE_INSUFFICIENT_PRIVILEGE,
            SyncError::UnknownWorkspace => ERRCODE_UNDEFINED_OBJECT,
            SyncError::WorkspaceExists => ERRCODE_DUPLICATE_OBJECT,
            SyncError::MembershipFailed { .. } => ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
            SyncError::NoRole => ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION,
            SyncError::TooManyOps { .. } | SyncError::ReplyTooLarge { .. } => {
                ERRCODE_PROGRAM_LIMIT_EXCEEDED
            }
            SyncError::SnapshotExpired
            | SyncError::StandbyBehindSnapshot
            | SyncError::LastOwner
            | SyncError::OwnerFieldKept
            | SyncError::MembersElsewhere => ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            SyncError::ConcurrentSync => ERRCODE_T_R_SERIALIZATION_FAILURE,
            SyncError::Sql { .. } => ERRCODE_INTERNAL_ERROR,
            SyncError::Damaged { .. } => ERRCODE_DATA_CORRUPTED,
        }
    }

    fn detail(&self) -> Option<String> {
        let given = |value: &Option<i64>| match value {
            Some(value) => format!("It is {value}."),
            None => "It is NULL.".to_owned(),
        };
        Some(match self {
            SyncError::WorkspaceId => "A workspace_id has 1 to 256 bytes.".to_owned(),
            SyncError::DeviceId => "A device_id has 1 to 256 bytes.".to_owned(),
            SyncError::RegistryName { argument } => {
                let article = if argument.starts_with('o') { "An" } else { "A" };
                format!("{article} {argument} has 1 to 128 bytes.")
            }
            SyncError::TooManyOps { max } => {
                format!("sync_ext.max_ops_per_push allows {max}.")
            }
            SyncError::Cursor { given: cursor } => given(cursor),
            SyncError::AcknowledgedVersion { given: version } => given(version),
            SyncError::AcknowledgedAboveHead { given, head } => {
                format!("The version is {given}, the head of the workspace is {head}.")
            }
            SyncError::ReplyTooLarge { max } => {
                format!("It would pass {max} bytes.")
            }
            SyncError::UserId => "A user_id has 1 to 256 bytes.".to_owned(),
            SyncError::Role => "A role is owner, editor or viewer.".to_owned(),
            SyncError::OwnerFieldTaken => {
                "It must be neither pk_field nor workspace_id.".to_owned()
            }
            SyncError::Claims => {
                "It must be a JSON object; its sub, if it has one, a text of 1 to 256 bytes."
                    .to_owned()
            }
            SyncError::UserRequired => "sync_ext.require_user is on.".to_owned(),
            SyncError::SettingRefused { name } => {
                format!("What {name} began with is not valid, or was not the caller's to set.")
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
                "Without it, new records would be everybody's from now on.".to_owned()
            }
            SyncError::MembersElsewhere => {
                "sync_ext.membership_function is set and tells the roles.".to_owned()
            }
            SyncError::MembershipFunctionsOwner => {
                "It belongs neither to a superuser nor to the owner of sync_ext.".to_owned()
            }
            SyncError::NoRole => "It must return owner, editor, viewer or NULL.".to_owned(),
            SyncError::MembershipFailed { what }
            | SyncError::Sql { what }
            | SyncError::Damaged { what } => what.clone(),
            SyncError::OpsNotAnArray
            | SyncError::Proof
            | SyncError::PageToken
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

    fn hint(&self) -> Option<&'static str> {
        Some(match self {
            SyncError::OpsNotAnArray => {
                "Pass an array of ops, in most drivers as a string with $2::json."
            }
            SyncError::TooManyOps { .. } => "Push the ops in several batches.",
            SyncError::Cursor { .. } => "Pass 0 at first, then the nextCursor of the last pull.",
            SyncError::Proof => "Pass the proof of the last pull or snapshot unchanged, or NULL.",
            SyncError::PageToken => {
                "Pass the nextPageToken of the last page unchanged, with the same workspace and tables."
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
            SyncError::ReplyTooLarge { .. } => {
                "Winners are told with their payloads: push smaller batches."
            }
            SyncError::UserRequired => {
                "Set sync_ext.user_id for the transaction, or request.jwt.claims with a sub."
            }
            SyncError::SettingRefused { .. } => "Connect without it, or have it corrected.",
            SyncError::TrustedOnly => "Call it with neither sync_ext.user_id nor a sub set.",
            SyncError::UnknownWorkspace => "Create it with sync_create_workspace.",
            SyncError::WorkspaceExists => "Change its members with sync_set_member.",
            SyncError::OwnerFieldKept => {
                "Pass the owner_field, or take it off with sync_unregister_table first."
            }
            SyncError::LastOwner => "Make somebody else an owner first.",
            SyncError::Sql { .. } => "This is a bug in sync_ext; please report it.",
            SyncError::Damaged { .. } => "Somebody wrote to them, or a restore was incomplete.",
            SyncError::WorkspaceId
            | SyncError::DeviceId
            | SyncError::RegistryName { .. }
            | SyncError::UserId
            | SyncError::Role
            | SyncError::OwnerFieldTaken
            | SyncError::Claims
            | SyncError::AccessDenied { .. }
            | SyncError::MembersElsewhere
            | SyncError::MembershipFunctionsOwner
            | SyncError::MembershipFailed { .. }
            | SyncError::NoRole => return None,
        })
    }
}

impl From<SyncError> for ErrorReport {
    #[track_caller]
    fn from(error: SyncError) -> ErrorReport {
        let mut report = ErrorReport::new(error.code(), error.to_string(), "sync_ext");
        if let Some(detail) = error.detail() {
            report = report.set_detail(detail);
        }
        if let Some(hint) = error.hint() {
            report = report.set_hint(hint);
        }
        report
    }
}

/// Makes a call and gives its error as pgrx reports it.
///
/// Errors that Postgres raised inside, an expired lock_timeout say, are made anew:
/// where pgrx passes one on as it caught it, it leaks a copy of its message
/// domain, for which the error leaves no time to be freed. A few bytes; but they
/// lie between larger chunks that are free, which then cannot be used again, and
/// a session that retries long enough takes megabytes.
#[expect(clippy::result_large_err, reason = "pgrx reports an error of this type alone")]
pub fn reported<T>(call: impl FnOnce() -> Result<T, SyncError>) -> Result<T, ErrorReport> {
    // Of what unwinds nothing is used afterwards.
    PgTryBuilder::new(AssertUnwindSafe(|| call().map_err(ErrorReport::from)))
        .catch_others(|cause| match cause {
            CaughtError::PostgresError(raised) => Err(without_domain(&raised)),
            other => other.rethrow(),
        })
        .execute()
}

fn without_domain(raised: &ErrorReportWithLevel) -> ErrorReport {
    let message = raised.message().to_owned();
    let mut report = ErrorReport::new(raised.sql_error_code(), message, "sync_ext");
    if let Some(detail) = raised.detail() {
        report = report.set_detail(detail);
    }
    if let Some(hint) = raised.hint() {
        report = report.set_hint(hint);
    }
    report
}
