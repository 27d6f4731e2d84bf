//! Why a single op can be refused. The text is the `error` of its result.

use thiserror::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    Validation,
    Oversized,
    Conflict,
    Unauthorized,
    BaseMissing,
    RecordConflict,
    FieldConflict,
    Constraint,
    Rejected,
    ReadOnly,
}

impl RefusalCode {
    pub const fn as_str(self) -> &'static str {
        match self {
            RefusalCode::Validation => "VALIDATION_ERROR",
            RefusalCode::Oversized => "OVERSIZED",
            RefusalCode::Conflict => "CONFLICT",
            RefusalCode::Unauthorized => "UNAUTHORIZED",
            RefusalCode::BaseMissing => "BASE_MISSING",
            RefusalCode::RecordConflict => "RECORD_CONFLICT",
            RefusalCode::FieldConflict => "FIELD_CONFLICT",
            RefusalCode::Constraint => "CONSTRAINT",
            RefusalCode::Rejected => "REJECTED",
            RefusalCode::ReadOnly => "READ_ONLY",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("an op must be a JSON object")]
    NotAnObject,
    #[error("operation must be \"put\", \"delete\" or \"patch\"")]
    Operation,
    #[error("{field} must be a string of 1 to {max} bytes")]
    Text { field: &'static str, max: usize },
    #[error("{field} must not contain NUL or a lone surrogate")]
    Characters { field: &'static str },
    #[error("the payload of a put must be an object")]
    PutPayload,
    #[error("the payload of a delete must be an object, null or absent")]
    DeletePayload,
    #[error("the payload of a patch must be an object with at least one field")]
    PatchPayload,
    #[error("base must have the clock, hlc and opId of the put that is patched")]
    Base,
    #[error("base must be below the revision of its patch")]
    BaseAbove,
    #[error(
        "expected must be an opId, \"none\" or, on a patch, an object of field names and opIds"
    )]
    Expected,
    #[error("opId must be a hyphenated UUID")]
    OpId,
    #[error("parent must be an opId or \"none\"")]
    Parent,
    #[error("clock must be an integer from 0 to 9007199254740991, without fraction or exponent")]
    Clock,
    #[error("hlc is {by} ms further ahead than sync_ext.max_clock_drift allows")]
    ClockAhead { by: i64 },
    #[error("table \"{table}\" is not registered; register it with sync_register_table")]
    Unregistered { table: String },
    #[error("table \"{table}\" does not allow patches; allow them with sync_register_table")]
    PatchesNotAllowed { table: String },
    #[error("payload field \"{field}\" must equal pk")]
    PkField { field: String },
    #[error("payload field \"workspace_id\" must equal the workspace")]
    WorkspaceField,
    #[error(
        "payload field \"{field}\" must be null or a string of at most 256 bytes without NUL or a lone surrogate"
    )]
    Scope { field: String },
    #[error("the payload has {size} bytes, more than sync_ext.max_payload_bytes ({max})")]
    Oversized { size: usize, max: usize },
    #[error(
        "the record or its fields would have {size} bytes, more than sync_ext.max_payload_bytes ({max})"
    )]
    OversizedRecord { size: usize, max: usize },
    #[error("the payload is nested deeper than sync_ext.max_payload_depth ({max})")]
    TooDeep { max: usize },
    #[error("without a user, the payload must name the record's owner")]
    NoOwner,
    #[error("the record is another user's, or the payload says so")]
    Unauthorized,
    #[error("the put that is patched is not stored here")]
    BaseMissing,
    #[error("the record is not as expected")]
    RecordConflict,
    #[error("a field is not as expected")]
    FieldConflict,
    #[error("{reason}")]
    Rejected { reason: String },
    #[error("opId stands more than once in this batch, with different content")]
    ConflictInBatch,
    #[error("opId was pushed before with different content")]
    ConflictWithLog,
    #[error("{0}")]
    Row(Box<RowRefusal>),
}

/// Why the row of an attached table refuses an op.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RowRefusal {
    #[error("{message}")]
    Constraint {
        sqlstate: String,
        constraint: Option<String>,
        message: String,
        /// A missing parent may be pushed later, or by another device.
        may_come: bool,
    },
    #[error("{message}")]
    Value { sqlstate: String, message: String },
    #[error("{message}")]
    Rejected { message: String },
    #[error("a trigger cancelled the change of the row")]
    Cancelled,
    #[error("a trigger changed the primary key, the workspace or the owner of the row")]
    Moved,
    #[error("the row is not there for this user to write")]
    NotYours,
    #[error("devices only read this table")]
    ReadOnly,
    #[error("pk must be written as its type writes it")]
    PkSpelling,
    #[error("clock must be at most 9007199253692415 in an attached table")]
    Clock,
}

impl RowRefusal {
    pub const fn code(&self) -> RefusalCode {
        match self {
            RowRefusal::Constraint { .. } => RefusalCode::Constraint,
            RowRefusal::Rejected { .. } | RowRefusal::Cancelled => RefusalCode::Rejected,
            RowRefusal::NotYours => RefusalCode::Unauthorized,
            RowRefusal::ReadOnly => RefusalCode::ReadOnly,
            RowRefusal::Value { .. }
            | RowRefusal::Moved
            | RowRefusal::PkSpelling
            | RowRefusal::Clock => RefusalCode::Validation,
        }
    }

    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            RowRefusal::Constraint { sqlstate, .. } | RowRefusal::Value { sqlstate, .. } => {
                Some(sqlstate)
            }
            _ => None,
        }
    }

    pub fn constraint(&self) -> Option<&str> {
        match self {
            RowRefusal::Constraint { constraint, .. } => constraint.as_deref(),
            _ => None,
        }
    }

    /// May it be accepted later, unchanged?
    pub fn may_come(&self) -> bool {
        matches!(self, RowRefusal::Constraint { may_come: true, .. })
    }
}

impl Refusal {
    /// What the row of an attached table said.
    pub fn row(&self) -> Option<&RowRefusal> {
        match self {
            Refusal::Row(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// By the app, for this reason, which is cut after 1,024 bytes.
    pub fn rejected(reason: &str) -> Refusal {
        const MAX: usize = 1024;
        let reason = match reason.trim() {
            "" => "the validation function of the table rejects the op",
            reason => &reason[..reason.floor_char_boundary(MAX)],
        };
        Refusal::Rejected { reason: reason.to_owned() }
    }

    pub fn code(&self) -> RefusalCode {
        match self {
            Refusal::Row(refusal) => refusal.code(),
            Refusal::NotAnObject
            | Refusal::Operation
            | Refusal::Text { .. }
            | Refusal::Characters { .. }
            | Refusal::PutPayload
            | Refusal::DeletePayload
            | Refusal::PatchPayload
            | Refusal::Base
            | Refusal::BaseAbove
            | Refusal::Expected
            | Refusal::OpId
            | Refusal::Parent
            | Refusal::Clock
            | Refusal::ClockAhead { .. }
            | Refusal::Unregistered { .. }
            | Refusal::PatchesNotAllowed { .. }
            | Refusal::PkField { .. }
            | Refusal::WorkspaceField
            | Refusal::Scope { .. }
            | Refusal::NoOwner => RefusalCode::Validation,
            Refusal::Oversized { .. }
            | Refusal::OversizedRecord { .. }
            | Refusal::TooDeep { .. } => RefusalCode::Oversized,
            Refusal::BaseMissing => RefusalCode::BaseMissing,
            Refusal::RecordConflict => RefusalCode::RecordConflict,
            Refusal::FieldConflict => RefusalCode::FieldConflict,
            Refusal::Unauthorized => RefusalCode::Unauthorized,
            Refusal::Rejected { .. } => RefusalCode::Rejected,
            Refusal::ConflictInBatch | Refusal::ConflictWithLog => RefusalCode::Conflict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_bounded_and_never_empty() {
        let shown = |reason: &str| Refusal::rejected(reason).to_string();
        assert_eq!(shown(" too long "), "too long");
        assert_eq!(shown(&"é".repeat(512)), "é".repeat(512));
        assert_eq!(shown(&format!("a{}", "é".repeat(512))), format!("a{}", "é".repeat(511)));
        for empty in ["", " \n"] {
            assert_eq!(shown(empty), "the validation function of the table rejects the op");
        }
    }
}
