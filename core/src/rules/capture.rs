//! Changes of typed rows: what may be captured, and the op that brings a record to its row.

use std::borrow::Cow;

use thiserror::Error;

use super::merge::RecordState;

/// Why a statement on an attached table, or its transaction, fails.
#[derive(Debug, Error)]
pub enum CaptureError {
    #[error("sync_ext.capture() is a row trigger of attached tables")]
    NotAttached,
    #[error("attached table has lost a column")]
    Column { table: String, column: String },
    #[error("attached table has lost its primary key")]
    NoKey { table: String },
    #[error("workspace of the row is invalid")]
    WorkspaceId { table: String },
    #[error("primary key of the row is invalid")]
    Pk { table: String },
    #[error("a record keeps its owner")]
    OwnerChanged { table: String, pk: String },
    #[error("scope of the row is invalid")]
    Scope { table: String, pk: String },
    #[error("too many rows captured in one transaction")]
    TooManyRows { max: usize },
    #[error("row changed after its transaction was captured")]
    TooLate,
}

impl CaptureError {
    pub fn sqlstate(&self) -> &'static str {
        match self {
            CaptureError::WorkspaceId { .. }
            | CaptureError::Pk { .. }
            | CaptureError::Scope { .. } => "22023",
            CaptureError::TooManyRows { .. } => "54000",
            CaptureError::NotAttached
            | CaptureError::Column { .. }
            | CaptureError::NoKey { .. }
            | CaptureError::OwnerChanged { .. }
            | CaptureError::TooLate => "55000",
        }
    }

    pub fn detail(&self) -> Option<String> {
        Some(match self {
            CaptureError::NotAttached => return None,
            CaptureError::Column { table, column } => {
                format!("Table \"{table}\" was attached with column \"{column}\".")
            }
            CaptureError::NoKey { table } => {
                format!("The rows of table \"{table}\" have no names.")
            }
            CaptureError::WorkspaceId { table } => {
                format!("In table \"{table}\" it must be 1 to 256 bytes.")
            }
            CaptureError::Pk { table } => {
                format!("In table \"{table}\" its text must be 1 to 1024 bytes.")
            }
            CaptureError::OwnerChanged { table, pk } => {
                format!("The statement gives record {pk} of table \"{table}\" to another user.")
            }
            CaptureError::Scope { table, pk } => {
                format!(
                    "In record {pk} of table \"{table}\" it must be a text of at most 256 bytes."
                )
            }
            CaptureError::TooManyRows { max } => {
                format!("sync_ext.max_captured_rows allows {max}.")
            }
            CaptureError::TooLate => {
                "Another extension wrote to an attached table at the end of the transaction."
                    .to_owned()
            }
        })
    }

    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            CaptureError::NotAttached => "Create it with sync_attach_table; otherwise drop it.",
            CaptureError::Column { .. } | CaptureError::NoKey { .. } => {
                "Detach the table and attach it again with its columns of today."
            }
            CaptureError::OwnerChanged { .. } => {
                "Insert a row with another key for the other user, and delete this one."
            }
            CaptureError::TooManyRows { .. } => {
                "Change the rows in several transactions, or with sync_ext.capture off and \
                 sync_repair_table afterwards."
            }
            CaptureError::WorkspaceId { .. }
            | CaptureError::Pk { .. }
            | CaptureError::Scope { .. }
            | CaptureError::TooLate => return None,
        })
    }
}

/// The longest name of a workspace and of a record, in bytes.
const MAX_WORKSPACE_ID: usize = 256;
const MAX_PK: usize = 1024;

/// Whether a row can be a record.
pub fn admit_row(table: &str, workspace: &str, pk: &str) -> Result<(), CaptureError> {
    if !(1..=MAX_WORKSPACE_ID).contains(&workspace.len()) {
        return Err(CaptureError::WorkspaceId { table: table.to_owned() });
    }
    if !(1..=MAX_PK).contains(&pk.len()) {
        return Err(CaptureError::Pk { table: table.to_owned() });
    }
    Ok(())
}

/// How a record becomes what its row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit<'i> {
    Put,
    /// Of these fields, with their new values.
    Patch(Vec<(Cow<'i, str>, &'i str)>),
    Delete,
}

/// The edit of a record whose row is there. `changed` are the fields that differ from
/// the record, `has_more` says that the record has others.
pub fn edit_to_row<'i>(
    record: Option<&RecordState<'_>>,
    changed: Vec<(Cow<'i, str>, &'i str)>,
    has_more: bool,
    patches: bool,
) -> Option<Edit<'i>> {
    let is_live = record.is_some_and(|record| !record.deleted);
    match is_live {
        true if changed.is_empty() && !has_more => None,
        // A patch cannot take a field away.
        true if patches && !has_more => Some(Edit::Patch(changed)),
        _ => Some(Edit::Put),
    }
}

/// The edit of a record whose row is not there.
pub fn edit_to_no_row(record: Option<&RecordState<'_>>) -> Option<Edit<'static>> {
    record.is_some_and(|record| !record.deleted).then_some(Edit::Delete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::merge::{apply, turn};
    use crate::rules::model::{delete, op};
    use crate::rules::op::{Op, Version};

    fn record(op: &Op<'static>) -> RecordState<'static> {
        let mut record = None;
        apply(&mut record, op, &turn(op, None).unwrap(), None, None, Version::stored(1));
        record.unwrap()
    }

    #[test]
    fn a_row_is_put_where_no_live_record_is() {
        let deleted = record(&delete(1, "a", 1));
        for known in [None, Some(&deleted)] {
            for patches in [false, true] {
                assert_eq!(edit_to_row(known, Vec::new(), false, patches), Some(Edit::Put));
            }
            assert_eq!(edit_to_no_row(known), None);
        }
    }

    #[test]
    fn a_live_record_is_edited_only_where_it_differs() {
        let live = record(&op(1, "a", 1));
        let changed = || vec![("x".into(), "1")];
        assert_eq!(edit_to_row(Some(&live), Vec::new(), false, true), None);
        assert_eq!(edit_to_row(Some(&live), changed(), false, false), Some(Edit::Put));
        assert_eq!(edit_to_row(Some(&live), changed(), false, true), Some(Edit::Patch(changed())));
        assert_eq!(edit_to_row(Some(&live), changed(), true, true), Some(Edit::Put));
        assert_eq!(edit_to_row(Some(&live), Vec::new(), true, true), Some(Edit::Put));
        assert_eq!(edit_to_no_row(Some(&live)), Some(Edit::Delete));
    }

    #[test]
    fn names_are_bounded_as_in_a_push() {
        let long = |bytes| "x".repeat(bytes);
        assert!(admit_row("t", &long(256), &long(1024)).is_ok());
        for (workspace, pk) in [(long(257), long(1)), (String::new(), long(1))] {
            let error = admit_row("t", &workspace, &pk).unwrap_err();
            assert!(matches!(error, CaptureError::WorkspaceId { .. }));
        }
        for pk in [String::new(), long(1025)] {
            assert!(matches!(admit_row("t", "w", &pk), Err(CaptureError::Pk { .. })));
        }
    }
}
