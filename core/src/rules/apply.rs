//! Pushes to attached tables: what an error of the typed table says about an op.

use super::op::Op;
use super::refusal::{Refusal, RowRefusal};
use super::server_op::MAX_CLOCK;

/// Clocks above it are left to the server, whose ops must come after those of devices.
pub const MAX_DEVICE_CLOCK: i64 = MAX_CLOCK - (1 << 20);

/// An error that a statement on a typed table raised.
#[derive(Clone, Copy, Debug)]
pub struct RowError<'e> {
    pub sqlstate: &'e str,
    pub message: &'e str,
    pub constraint: Option<&'e str>,
    /// The row violates a policy, as opposed to a right that is missing.
    pub is_of_policy: bool,
    /// This extension raised it, in a trigger.
    pub is_own: bool,
}

/// What follows from an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The fault is in the op.
    Refuse(Refusal),
    /// Another transaction holds a row: try again when it may have ended.
    Wait,
    /// A limit of the server, which this op may have reached because of those before it: fewer
    /// at once may pass.
    Split,
    /// The fault is in the server or its set-up: no device can mend it.
    Fail,
}

/// The classes of SQLSTATEs that Postgres and the standard define, apart from those of
/// data faults. All others are an app's own.
const CLASSES: [&str; 40] = [
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "24", "25",
    "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "53", "54",
    "55", "57", "58", "72", "F0", "HV", "SX", "XX",
];

pub fn verdict(error: &RowError<'_>) -> Verdict {
    let sqlstate = error.sqlstate;
    let class = sqlstate.get(..2).unwrap_or("");
    let refuse = |refusal| Verdict::Refuse(Refusal::Row(Box::new(refusal)));
    let message = || error.message.to_owned();
    match (sqlstate, class) {
        ("55P03" | "40P01", _) => Verdict::Wait,
        ("42501", _) if error.is_of_policy => refuse(RowRefusal::NotYours),
        // What a trigger raises: P0001, or by a query that finds no row, or too many, for
        // this op. Were it the server's fault, the device would be stuck for ever.
        (_, "P0" | "21" | "44") => refuse(RowRefusal::Rejected { message: message() }),
        ("54000", _) if error.is_own => Verdict::Split,
        // 54000 is a value too long for an index: the server is as it should be.
        ("54000", _) | (_, "22") => {
            refuse(RowRefusal::Value { sqlstate: sqlstate.to_owned(), message: message() })
        }
        (_, "23") => refuse(RowRefusal::Constraint {
            sqlstate: sqlstate.to_owned(),
            constraint: error.constraint.map(str::to_owned),
            message: message(),
            // Of ON DELETE RESTRICT from Postgres 18 on.
            may_come: matches!(sqlstate, "23503" | "23001"),
        }),
        _ if CLASSES.contains(&class) => Verdict::Fail,
        _ => refuse(RowRefusal::Rejected { message: message() }),
    }
}

/// Checks an op of an attached table. `is_canonical` says whether the pk is written as the
/// table's primary key writes itself.
pub fn admit_op(
    op: &Op<'_>,
    is_read_only: bool,
    is_canonical: bool,
    max_clock: i64,
) -> Result<(), Refusal> {
    let refusal = if is_read_only {
        RowRefusal::ReadOnly
    } else if !is_canonical {
        RowRefusal::PkSpelling
    } else if op.revision.clock > max_clock {
        RowRefusal::Clock
    } else {
        return Ok(());
    };
    Err(Refusal::Row(Box::new(refusal)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::model::op;
    use crate::rules::refusal::RefusalCode;

    fn code(sqlstate: &str, is_of_policy: bool) -> Result<RefusalCode, Verdict> {
        let error =
            RowError { sqlstate, message: "m", constraint: Some("c"), is_of_policy, is_own: false };
        match verdict(&error) {
            Verdict::Refuse(refusal) => Ok(refusal.code()),
            other => Err(other),
        }
    }

    #[test]
    fn data_faults_are_the_ops() {
        for sqlstate in ["23502", "23503", "23505", "23514", "23P01"] {
            assert_eq!(code(sqlstate, false), Ok(RefusalCode::Constraint), "{sqlstate}");
        }
        for sqlstate in ["22P02", "22001", "22003", "22007", "54000"] {
            assert_eq!(code(sqlstate, false), Ok(RefusalCode::Validation), "{sqlstate}");
        }
        for sqlstate in ["P0001", "P0002", "P0004", "21000", "44000", "APP01", "PT409", "90001"] {
            assert_eq!(code(sqlstate, false), Ok(RefusalCode::Rejected), "{sqlstate}");
        }
        assert_eq!(code("42501", true), Ok(RefusalCode::Unauthorized));
    }

    #[test]
    fn what_no_device_can_mend_fails_the_call() {
        for sqlstate in [
            "42501", "42P01", "42703", "42883", "40001", "53100", "53200", "54001", "55000",
            "57014", "58030", "XX000", "0A000", "25006",
        ] {
            assert_eq!(code(sqlstate, false), Err(Verdict::Fail), "{sqlstate}");
        }
    }

    #[test]
    fn a_limit_of_the_extension_is_not_the_ops_fault() {
        let error = RowError {
            sqlstate: "54000",
            message: "m",
            constraint: None,
            is_of_policy: false,
            is_own: true,
        };
        assert_eq!(verdict(&error), Verdict::Split);
    }

    #[test]
    fn a_row_that_another_transaction_holds_is_waited_for() {
        for sqlstate in ["55P03", "40P01"] {
            assert_eq!(code(sqlstate, false), Err(Verdict::Wait), "{sqlstate}");
        }
    }

    #[test]
    fn only_a_missing_parent_may_come() {
        let retries = |sqlstate| {
            let error = RowError {
                sqlstate,
                message: "m",
                constraint: None,
                is_of_policy: false,
                is_own: false,
            };
            match verdict(&error) {
                Verdict::Refuse(refusal) => refusal.row().is_some_and(RowRefusal::may_come),
                _ => false,
            }
        };
        assert!(retries("23503") && retries("23001"));
        assert!(!retries("23505") && !retries("22P02"));
    }

    #[test]
    fn an_op_must_fit_the_table() {
        let refused = |op: &Op<'_>, is_read_only, is_canonical| {
            admit_op(op, is_read_only, is_canonical, MAX_DEVICE_CLOCK)
                .map_err(|refusal| refusal.code())
        };
        let highest = op(1, "a", MAX_DEVICE_CLOCK);
        assert_eq!(refused(&highest, false, true), Ok(()));
        assert_eq!(refused(&highest, true, true), Err(RefusalCode::ReadOnly));
        assert_eq!(refused(&highest, false, false), Err(RefusalCode::Validation));
        let above = op(1, "a", MAX_DEVICE_CLOCK + 1);
        assert_eq!(refused(&above, false, true), Err(RefusalCode::Validation));
    }
}
