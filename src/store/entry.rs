//! Entry points for Postgres, and how a call ends.
//!
//! pgrx' own entry points know a closed list of SQLSTATEs, and of a Postgres error that
//! passes through Rust they keep only message, detail and hint. So the entry points are
//! made here: an error of this extension has its own SQLSTATE, and a Postgres error is
//! passed on unchanged, with its SQLSTATE, context, constraint and table.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::AssertUnwindSafe;

use pgrx::datum::Interval;
use pgrx::pg_sys::elog::PgLogLevel;
use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode, PgTryBuilder, direct_function_call, pg_sys};

use super::Result;
use super::memory;
use super::trigger::RowChange;
use super::values::text_of;
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::op::Timestamp;

/// Defines C functions for Postgres to call: `NAME: |call| BODY;` with a body of type
/// `Result<impl Answer, SyncError>`.
macro_rules! entry_points {
    ($($(#[$attribute:meta])* $name:ident: |$call:ident| $body:expr;)*) => {
        $(
            $(#[$attribute])*
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name(
                frame: ::pgrx::pg_sys::FunctionCallInfo,
            ) -> ::pgrx::pg_sys::Datum {
                // SAFETY: Postgres calls this with the frame of the call, and this
                // function has nothing to drop.
                unsafe { $crate::store::entry::enter(frame, |$call| $body) }
            }

            const _: () = {
                // Postgres looks for this symbol beside each function: "version 1".
                #[unsafe(export_name = concat!("pg_finfo_", stringify!($name)))]
                pub extern "C-unwind" fn info() -> &'static ::pgrx::pg_sys::Pg_finfo_record {
                    const V1: ::pgrx::pg_sys::Pg_finfo_record =
                        ::pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
                    &V1
                }
            };
        )*
    };
}
pub(crate) use entry_points;

/// The arguments of a call, read on demand.
pub struct Call<'c> {
    arguments: &'c [pg_sys::NullableDatum],
    context: *mut pg_sys::Node,
}

impl<'c> Call<'c> {
    fn datum(&self, place: usize) -> Option<pg_sys::Datum> {
        self.arguments.get(place).filter(|given| !given.isnull).map(|given| given.value)
    }

    /// The row that changed, where a trigger calls; `None` if nothing else may.
    pub fn row_change(&self) -> Option<RowChange<'c>> {
        // SAFETY: of a call that goes on.
        unsafe { RowChange::of(self.context) }
    }

    /// An argument of type text or json.
    pub fn text(&self, place: usize) -> Option<&'c str> {
        // SAFETY: the declarations in SQL give the arguments these types, here and
        // below; they and their detoasted copies live as long as the call.
        self.datum(place).map(|datum| unsafe {
            text_of(datum, |packed| pg_sys::pg_detoast_datum_packed(packed))
        })
    }

    pub fn int4(&self, place: usize) -> Option<i32> {
        self.datum(place).map(|datum| datum.value() as i32)
    }

    pub fn int8(&self, place: usize) -> Option<i64> {
        self.datum(place).map(|datum| datum.value() as i64)
    }

    /// An argument of type name.
    pub fn name(&self, place: usize) -> Option<&'c str> {
        // SAFETY: as in `text`: a name is NUL-terminated, and in the encoding of the
        // database, which is UTF-8.
        self.datum(place).map(|datum| unsafe {
            let name = CStr::from_ptr(datum.cast_mut_ptr::<c_char>());
            std::str::from_utf8_unchecked(name.to_bytes())
        })
    }

    /// An argument of type jsonb, as text.
    pub fn jsonb(&self, place: usize) -> Option<&'c str> {
        // SAFETY: as in `text`; jsonb_out returns a NUL-terminated copy.
        self.datum(place).map(|datum| unsafe {
            let text = direct_function_call::<&'c CStr>(pg_sys::jsonb_out, &[Some(datum)]);
            std::str::from_utf8_unchecked(text.unwrap_or(c"null").to_bytes())
        })
    }

    pub fn boolean(&self, place: usize) -> Option<bool> {
        self.datum(place).map(|datum| datum.value() & 0xff != 0)
    }

    /// An argument of a type for oids.
    pub fn oid(&self, place: usize) -> Option<pg_sys::Oid> {
        self.datum(place).map(|datum| pg_sys::Oid::from(datum.value() as u32))
    }

    pub fn timestamp(&self, place: usize) -> Option<Timestamp> {
        self.int8(place)
    }

    /// Months, days, microseconds.
    pub fn interval(&self, place: usize) -> Option<(i32, i32, i64)> {
        // SAFETY: as in `text`.
        let interval = unsafe { Interval::from_datum(self.datum(place)?, false) };
        interval.map(|span| (span.months(), span.days(), span.micros()))
    }

    pub fn texts(&self, place: usize) -> Option<Texts<'c>> {
        // SAFETY: as in `text`. The array is not copied unless it is compressed
        // or stored apart; its elements are read on demand.
        let array = unsafe { pgrx::Array::from_datum(self.datum(place)?, false) };
        array.map(Texts)
    }
}

/// An argument of type text[].
pub struct Texts<'c>(pgrx::Array<'c, &'c str>);

impl Texts<'_> {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = Option<&str>> {
        self.0.iter()
    }
}

/// A possible result of a call.
pub trait Answer {
    /// `None` for NULL.
    fn into_datum(self) -> Option<pg_sys::Datum>;
}

/// void, which is not NULL.
impl Answer for () {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(pg_sys::Datum::from(0))
    }
}

impl Answer for bool {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(pg_sys::Datum::from(self))
    }
}

/// text or json, which have the same layout.
impl Answer for &str {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        IntoDatum::into_datum(self)
    }
}

impl Answer for String {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        IntoDatum::into_datum(self)
    }
}

/// A point in time.
impl Answer for Timestamp {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(pg_sys::Datum::from(self))
    }
}

impl<T: Answer> Answer for Option<T> {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        self.and_then(Answer::into_datum)
    }
}

/// Makes a call.
///
/// # Safety
/// Only for Postgres to call, through `entry_points`: an error jumps over the caller's
/// frame, in which nothing may be left to drop.
pub unsafe fn enter<T: Answer>(
    frame: pg_sys::FunctionCallInfo,
    body: impl FnOnce(&Call<'_>) -> Result<T>,
) -> pg_sys::Datum {
    // SAFETY: the caller's promise. The result of `outcome` is plain: a datum, or a
    // pointer into a memory context. The guard catches what unwinds out of it, because
    // memory can be too short to copy an error.
    unsafe {
        let answer = || {
            let count = usize::try_from((*frame).nargs).unwrap_or(0);
            let (arguments, context) = ((*frame).args.as_slice(count), (*frame).context);
            Ok(body(&Call { arguments, context })?.into_datum())
        };
        match pg_sys::panic::pgrx_extern_c_guard(|| outcome(answer)) {
            Ok(Some(datum)) => datum,
            Ok(None) => {
                (*frame).isnull = true;
                pg_sys::Datum::from(0)
            }
            Err(raised) => {
                ThrowErrorData(raised);
                unreachable!("an error does not return")
            }
        }
    }
}

unsafe extern "C-unwind" {
    // Not pgrx' wrapper, which would catch the error that this raises.
    fn ThrowErrorData(raised: *mut pg_sys::ErrorData);
}

/// Runs what Postgres calls back at a moment of its own, and raises its error.
///
/// # Safety
/// As for [`enter`].
pub unsafe fn call_back(body: impl FnOnce() -> Result<()>) {
    // SAFETY: as in `enter`.
    unsafe {
        let answer = || body().map(|()| None);
        if let Err(raised) = pg_sys::panic::pgrx_extern_c_guard(|| outcome(answer)) {
            ThrowErrorData(raised);
        }
    }
}

/// The outcome, after all Rust values are dropped. Never inlined: its frame must be
/// gone when an error is raised.
#[inline(never)]
fn outcome(
    answer: impl FnOnce() -> Result<Option<pg_sys::Datum>>,
) -> std::result::Result<Option<pg_sys::Datum>, *mut pg_sys::ErrorData> {
    let raised = Raised::in_current_context();
    let answered = raised.while_keeping(|| {
        memory::require(memory::FOR_ANY_CALL)?;
        answer()
    });
    match answered {
        Ok(answer) => answer.map_err(own),
        Err(cause) => Err(raised.passed_on(&cause)),
    }
}

/// The Postgres error that was raised during a call. pgrx catches it, and keeps only
/// what `raised.passed_on` receives.
pub(super) struct Raised {
    /// The context of the call, which is alive when the call ends.
    context: pg_sys::MemoryContext,
    latest: Cell<*mut pg_sys::ErrorData>,
}

/// Copies the error that is being raised. Postgres calls this before the error is
/// thrown, from the innermost callback to the outermost: inner callbacks have added
/// their context already, and outer ones will when the error is thrown again.
///
/// # Safety
/// Called by Postgres, with the argument that `outcome` registered.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn keep(raised: *mut c_void) {
    // SAFETY: the caller's promise; an error is being raised, so there is one to copy.
    // Not copied if memory is short, or must not be allocated.
    unsafe {
        if pg_sys::geterrcode() == PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY as c_int
            || pg_sys::CritSectionCount > 0
        {
            return;
        }
        let raised = &*raised.cast::<Raised>();
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = raised.context;
        let copy = pg_sys::CopyErrorData();
        pg_sys::CurrentMemoryContext = before;
        // A message of a lower level does not end the call.
        let is_error = (*copy).elevel >= PgLogLevel::ERROR as c_int;
        let gone = if is_error { raised.latest.replace(copy) } else { copy };
        if !gone.is_null() {
            pg_sys::FreeErrorData(gone);
        }
    }
}

impl Raised {
    /// Runs `body`; an error that it raises is copied.
    #[expect(clippy::result_large_err, reason = "memory may be too short for a box")]
    pub(super) fn while_keeping<T>(
        &self,
        body: impl FnOnce() -> T,
    ) -> std::result::Result<T, CaughtError> {
        // SAFETY: the callback is removed from the stack before `self` is dropped, even
        // while unwinding.
        unsafe {
            let previous = pg_sys::error_context_stack;
            let mut callback = pg_sys::ErrorContextCallback {
                previous,
                callback: Some(keep),
                arg: (&raw const *self).cast_mut().cast(),
            };
            pg_sys::error_context_stack = &raw mut callback;
            // Nothing that unwinds is used afterwards.
            PgTryBuilder::new(AssertUnwindSafe(|| Ok(body())))
                .catch_others(Err)
                .finally(|| pg_sys::error_context_stack = previous)
                .execute()
        }
    }

    /// The copy of the last error.
    pub(super) fn latest(&self) -> *mut pg_sys::ErrorData {
        self.latest.get()
    }

    pub(super) fn in_current_context() -> Raised {
        // SAFETY: a variable of this process, valid whenever Rust runs.
        let context = unsafe { pg_sys::CurrentMemoryContext };
        Raised { context, latest: Cell::new(std::ptr::null_mut()) }
    }

    fn passed_on(&self, cause: &CaughtError) -> *mut pg_sys::ErrorData {
        let (report, is_postgres) = match cause {
            CaughtError::PostgresError(report) => (report, true),
            CaughtError::ErrorReport(report) | CaughtError::RustPanic { ereport: report, .. } => {
                (report, false)
            }
        };
        // SAFETY: the context is alive; the context that was current when the error was
        // raised is no longer needed.
        unsafe { pg_sys::CurrentMemoryContext = self.context };
        let latest = self.latest.get();
        // The latest error need not be the one that arrived here: a function in between
        // may have caught another one.
        if is_postgres && !latest.is_null() && is_same(latest, report) {
            return latest;
        }
        let state = report.sql_error_code() as c_int;
        error_data(state, report.message(), report.detail(), report.hint())
    }
}

/// Whether a copy is that of an error that has arrived.
pub(super) fn is_same(raised: *const pg_sys::ErrorData, report: &ErrorReportWithLevel) -> bool {
    // SAFETY: the copy is complete and alive; its message, if it has one, is
    // NUL-terminated.
    unsafe {
        let message = (*raised).message;
        PgSqlErrorCode::from((*raised).sqlerrcode) == report.sql_error_code()
            && !message.is_null()
            && std::ffi::CStr::from_ptr(message).to_string_lossy() == report.message()
    }
}

fn own(error: SyncError) -> *mut pg_sys::ErrorData {
    let detail = error.detail();
    error_data(packed(error.sqlstate()), &error.to_string(), detail.as_deref(), error.hint())
}

/// An error, in the memory of the call.
fn error_data(
    state: c_int,
    message: &str,
    detail: Option<&str>,
    hint: Option<&str>,
) -> *mut pg_sys::ErrorData {
    let copied = |text: Option<&str>| text.map_or(std::ptr::null_mut(), copied);
    // SAFETY: zeros are a valid ErrorData, and palloc0 gives room for one.
    unsafe {
        let raised = pg_sys::palloc0(size_of::<pg_sys::ErrorData>()).cast::<pg_sys::ErrorData>();
        (*raised).elevel = PgLogLevel::ERROR as c_int;
        (*raised).sqlerrcode = state;
        (*raised).message = copied(Some(message));
        (*raised).detail = copied(detail);
        (*raised).hint = copied(hint);
        raised
    }
}

fn copied(text: &str) -> *mut c_char {
    let text = CString::new(text.replace('\0', "")).unwrap_or_default();
    // SAFETY: copies a NUL-terminated text.
    unsafe { pg_sys::pstrdup(text.as_ptr()) }
}

/// A SQLSTATE as Postgres packs it: six bits per character.
fn packed(state: &str) -> c_int {
    state.bytes().rev().fold(0, |packed, byte| packed << 6 | (c_int::from(byte) - 0x30) & 0x3f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_packed_as_postgres_packs_it() {
        for (state, code) in [
            ("22023", PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE),
            ("XX000", PgSqlErrorCode::ERRCODE_INTERNAL_ERROR),
            ("40001", PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE),
        ] {
            assert_eq!(packed(state), code as c_int, "{state}");
        }
    }
}
