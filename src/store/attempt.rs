//! Work that may fail without failing the call.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;

use super::entry::{Raised, is_same};
use super::subtransaction::Subtransaction;

/// An error that was raised, and whose work was undone.
pub struct Failure {
    pub sqlstate: String,
    pub message: String,
    pub constraint: Option<String>,
    /// The function of Postgres that raised it.
    function: Option<String>,
    /// All that was said of the error is known.
    is_copied: bool,
    cause: Box<CaughtError>,
}

/// Runs `body` in a subtransaction, which is rolled back if it fails.
pub fn attempt<T, E>(body: impl FnOnce() -> Result<T, E>) -> Result<Result<T, E>, Box<Failure>> {
    let subtransaction = Subtransaction::begin();
    let raised = Raised::in_current_context();
    match raised.while_keeping(body) {
        Ok(Ok(done)) => {
            subtransaction.commit();
            Ok(Ok(done))
        }
        Ok(failed) => {
            subtransaction.roll_back();
            Ok(failed)
        }
        Err(cause) => {
            subtransaction.roll_back();
            Err(Box::new(Failure::of(raised.latest(), cause)))
        }
    }
}

impl Failure {
    fn of(raised: *const pg_sys::ErrorData, cause: CaughtError) -> Failure {
        let (state, message) = match &cause {
            CaughtError::PostgresError(report)
            | CaughtError::ErrorReport(report)
            | CaughtError::RustPanic { ereport: report, .. } => {
                (report.sql_error_code() as i32, report.message().to_owned())
            }
        };
        // The latest copy need not be of this error: it may be of one that was caught, and this
        // one of our own, or one for whose copy memory was short.
        let is_it = matches!(&cause, CaughtError::PostgresError(report)
            if !raised.is_null() && is_same(raised, report));
        // SAFETY: the copy, if there is one, is complete and alive: its context is that of
        // the call.
        let raised = unsafe { raised.as_ref() }.filter(|_| is_it);
        let text = |text: *const c_char| {
            // SAFETY: NULL or NUL-terminated.
            (!text.is_null())
                .then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        Failure {
            sqlstate: unpacked(raised.map_or(state, |raised| raised.sqlerrcode)),
            message,
            constraint: raised.and_then(|raised| text(raised.constraint_name)),
            function: raised.and_then(|raised| text(raised.funcname)),
            is_copied: is_it,
            cause: Box::new(cause),
        }
    }

    /// Did the extension raise it, in a trigger? Errors of Postgres and of other languages name
    /// the function that raised them.
    pub fn is_own(&self) -> bool {
        self.is_copied && self.function.is_none()
    }

    /// Was a row refused by the WITH CHECK of a policy? A missing right has the same
    /// SQLSTATE, and the message is translated.
    pub fn is_of_policy(&self) -> bool {
        self.sqlstate == "42501" && self.function.as_deref() == Some("ExecWithCheckOptions")
    }

    /// Fails the call with the error after all.
    pub fn raise(self) -> ! {
        self.cause.rethrow()
    }
}

/// A SQLSTATE that Postgres has packed: six bits per character.
fn unpacked(state: i32) -> String {
    (0..5).map(|place| char::from((state >> (6 * place) & 0x3f) as u8 + b'0')).collect()
}

#[cfg(test)]
mod tests {
    use pgrx::PgSqlErrorCode;

    use super::*;

    #[test]
    fn a_state_is_unpacked_as_postgres_packs_it() {
        for (state, code) in [
            ("22023", PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE),
            ("XX000", PgSqlErrorCode::ERRCODE_INTERNAL_ERROR),
        ] {
            assert_eq!(unpacked(code as i32), state);
        }
    }
}
