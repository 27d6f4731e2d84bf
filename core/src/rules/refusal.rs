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
    #[error("opId stands more than once in this batch, with different content")]
    ConflictInBatch,
    #[error("opId was pushed before with different content")]
    ConflictWithLog,
}

impl Refusal {
    pub const fn code(&self) -> RefusalCode {
        match self {
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
            | Refusal::NoOwner => RefusalCode::Validation,
            Refusal::Oversized { .. }
            | Refusal::OversizedRecord { .. }
            | Refusal::TooDeep { .. } => RefusalCode::Oversized,
            Refusal::BaseMissing => RefusalCode::BaseMissing,
            Refusal::RecordConflict => RefusalCode::RecordConflict,
            Refusal::FieldConflict => RefusalCode::FieldConflict,
            Refusal::Unauthorized => RefusalCode::Unauthorized,
            Refusal::ConflictInBatch | Refusal::ConflictWithLog => RefusalCode::Conflict,
        }
    }
}
