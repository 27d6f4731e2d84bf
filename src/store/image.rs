//! Columns as JSON: the same for every session, whatever its settings.

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_int};
use std::fmt::Write;

use pgrx::pg_sys;

use super::values::text_of;
use sync_ext_core::wire::text::{write_string, write_uuid};
use uuid::Uuid;

/// Types write themselves as these say.
pub const SETTINGS: [(&CStr, &CStr); 8] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"TimeZone", c"UTC"),
    (c"DateStyle", c"ISO, YMD"),
    (c"IntervalStyle", c"iso_8601"),
    (c"bytea_output", c"hex"),
    (c"extra_float_digits", c"1"),
    (c"lc_monetary", c"C"),
    (c"xmloption", c"content"),
];

/// A column of an image.
pub struct Column {
    pub place: usize,
    /// The field's name as JSON, with what comes before it and the colon after it.
    name: String,
    form: Form,
}

/// How a type is written as JSON.
enum Form {
    Bool,
    Int2,
    Int4,
    Int8,
    Text,
    Uuid,
    /// ISO 8601, a timestamp with time zone in UTC.
    Time(pg_sys::Oid),
    /// Text that is JSON.
    Json,
    /// What the type's output function writes, as a string.
    Output(pg_sys::Oid),
    /// As `to_json` writes it.
    Converted(Box<pg_sys::FmgrInfo>),
}

impl Column {
    /// A field of a column of this base type.
    pub fn new(field: &str, place: usize, kind: pg_sys::Oid, has_safe_numbers: bool) -> Column {
        let mut name = String::new();
        write_string(&mut name, field);
        name.push(':');
        let form = match kind {
            pg_sys::BOOLOID => Form::Bool,
            pg_sys::INT2OID => Form::Int2,
            pg_sys::INT4OID => Form::Int4,
            pg_sys::INT8OID if has_safe_numbers => Form::Output(output_of(kind)),
            pg_sys::NUMERICOID if has_safe_numbers => Form::Output(output_of(kind)),
            pg_sys::INT8OID => Form::Int8,
            pg_sys::TEXTOID | pg_sys::VARCHAROID => Form::Text,
            pg_sys::UUIDOID => Form::Uuid,
            pg_sys::DATEOID | pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID => Form::Time(kind),
            pg_sys::JSONOID => Form::Json,
            _ => Form::Converted(Box::new(conversion(kind))),
        };
        Column { place, name, form }
    }

    pub fn depends_on_settings(&self) -> bool {
        matches!(self.form, Form::Converted(_))
    }

    /// # Safety
    /// The datum is of the column's type. The current memory context may grow.
    pub unsafe fn write(&self, out: &mut String, datum: Option<pg_sys::Datum>) {
        if !out.ends_with('{') {
            out.push(',');
        }
        out.push_str(&self.name);
        let Some(datum) = datum else {
            out.push_str("null");
            return;
        };
        // SAFETY: the caller's promise.
        unsafe {
            match &self.form {
                Form::Bool => {
                    out.push_str(if datum.value() & 0xff != 0 { "true" } else { "false" })
                }
                Form::Int2 => drop(write!(out, "{}", datum.value() as i16)),
                Form::Int4 => drop(write!(out, "{}", datum.value() as i32)),
                Form::Int8 => drop(write!(out, "{}", datum.value() as i64)),
                Form::Text => write_string(out, text(datum)),
                Form::Uuid => {
                    out.push('"');
                    write_uuid(out, uuid(datum));
                    out.push('"');
                }
                Form::Time(kind) => {
                    out.push('"');
                    write_time(out, datum, *kind);
                    out.push('"');
                }
                Form::Json => out.push_str(text(datum)),
                Form::Output(function) => {
                    let written = pg_sys::OidOutputFunctionCall(*function, datum);
                    write_string(out, &CStr::from_ptr(written).to_string_lossy());
                }
                Form::Converted(function) => {
                    let function = (&raw const **function).cast_mut();
                    let written = pg_sys::FunctionCall1Coll(function, pg_sys::InvalidOid, datum);
                    out.push_str(text(written));
                }
            }
        }
    }
}

/// The text of a value that names a row: of a base type that a primary key may have.
///
/// # Safety
/// The datum is of this type, and lives for `'r`, as does the current memory context.
pub unsafe fn scalar_text<'r>(datum: pg_sys::Datum, kind: pg_sys::Oid) -> Cow<'r, str> {
    let mut out = String::new();
    // SAFETY: the caller's promise.
    unsafe {
        match kind {
            pg_sys::TEXTOID | pg_sys::VARCHAROID => return text(datum).into(),
            pg_sys::BOOLOID => {
                return if datum.value() & 0xff != 0 { "true" } else { "false" }.into();
            }
            pg_sys::INT2OID => drop(write!(out, "{}", datum.value() as i16)),
            pg_sys::INT4OID => drop(write!(out, "{}", datum.value() as i32)),
            pg_sys::INT8OID => drop(write!(out, "{}", datum.value() as i64)),
            pg_sys::UUIDOID => write_uuid(&mut out, uuid(datum)),
            pg_sys::DATEOID | pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID => {
                write_time(&mut out, datum, kind);
            }
            _ => {
                let written = pg_sys::OidOutputFunctionCall(output_of(kind), datum);
                out.push_str(&CStr::from_ptr(written).to_string_lossy());
            }
        }
    }
    out.into()
}

/// # Safety
/// As for [`scalar_text`].
unsafe fn write_time(out: &mut String, datum: pg_sys::Datum, kind: pg_sys::Oid) {
    // MAXDATELEN in utils/datetime.h, and a NUL.
    let mut buffer = [0 as c_char; 129];
    let utc: c_int = 0;
    // SAFETY: the buffer has the required size, and ends with a NUL.
    unsafe {
        pg_sys::JsonEncodeDateTime(buffer.as_mut_ptr(), datum, kind, &utc);
        out.push_str(&CStr::from_ptr(buffer.as_ptr()).to_string_lossy());
    }
}

/// # Safety
/// The datum is a text or json; it lives, or its copy in the current memory context, as
/// long as the result is used.
unsafe fn text<'a>(datum: pg_sys::Datum) -> &'a str {
    // SAFETY: the caller's promise.
    unsafe { text_of(datum, |packed| pg_sys::pg_detoast_datum_packed(packed)) }
}

/// # Safety
/// The datum is a uuid.
unsafe fn uuid(datum: pg_sys::Datum) -> Uuid {
    // SAFETY: a uuid is 16 bytes by reference.
    Uuid::from_bytes(unsafe { *datum.cast_mut_ptr::<[u8; 16]>() })
}

fn output_of(kind: pg_sys::Oid) -> pg_sys::Oid {
    let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
    // SAFETY: a look-up by oid.
    unsafe { pg_sys::getTypeOutputInfo(kind, &mut output, &mut is_varlena) };
    output
}

/// `to_json` for this type, in the current memory context. It finds its argument's type in
/// the expression that calls it.
fn conversion(kind: pg_sys::Oid) -> pg_sys::FmgrInfo {
    let mut function = pg_sys::FmgrInfo::default();
    // SAFETY: nodes of a call of a built-in function, and a look-up by its oid.
    unsafe {
        let to_json = pg_sys::Oid::from(pg_sys::F_TO_JSON);
        pg_sys::fmgr_info_cxt(to_json, &mut function, pg_sys::CurrentMemoryContext);
        let argument = pg_sys::makeNullConst(kind, -1, pg_sys::InvalidOid);
        let arguments = pg_sys::lappend(std::ptr::null_mut(), argument.cast());
        function.fn_expr = pg_sys::makeFuncExpr(
            to_json,
            pg_sys::JSONOID,
            arguments,
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        )
        .cast();
    }
    function
}
