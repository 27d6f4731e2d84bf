//! Rust values as Postgres datums, and rows of them in slots.

use pgrx::pg_sys;
use pgrx::varlena::{set_varsize_4b, varatt_is_1b_e, varatt_is_4b_c, varlena_to_byte_slice};
use uuid::Uuid;

use super::arena::Arena;
use super::compat;
use super::relation::Table;
use sync_ext_core::rules::op::Timestamp;

/// A column's value to store.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Null,
    Int8(i64),
    Bool(bool),
    /// For text and json columns.
    Text(&'a str),
    Uuid(Uuid),
    Time(Timestamp),
}

impl Value<'_> {
    /// The size of its text; other values are small.
    pub fn bytes(&self) -> usize {
        if let Value::Text(text) = self { text.len() } else { 0 }
    }

    fn datum(&self, arena: &Arena) -> Option<pg_sys::Datum> {
        Some(match self {
            Value::Null => return None,
            Value::Int8(value) | Value::Time(value) => pg_sys::Datum::from(*value),
            Value::Bool(value) => pg_sys::Datum::from(*value),
            Value::Text(text) => text_datum(arena, text),
            Value::Uuid(uuid) => uuid_datum(arena, uuid),
        })
    }
}

/// The text of a datum. `detoast` copies a value that is compressed or stored out of
/// line.
///
/// # Safety
/// The datum is a text or json that lives for `'a`, as does the result of `detoast`.
pub unsafe fn text_of<'a>(
    datum: pg_sys::Datum,
    detoast: impl FnOnce(*mut pg_sys::varlena) -> *mut pg_sys::varlena,
) -> &'a str {
    // SAFETY: text and json are varlenas. Postgres stores only text that is valid in
    // the database's encoding, and the extension installs only if that is UTF-8.
    unsafe {
        let mut varlena = datum.cast_mut_ptr::<pg_sys::varlena>();
        if varatt_is_1b_e(varlena) || varatt_is_4b_c(varlena) {
            varlena = detoast(varlena);
        }
        std::str::from_utf8_unchecked(varlena_to_byte_slice(varlena))
    }
}

pub fn text_datum(arena: &Arena, text: &str) -> pg_sys::Datum {
    const HEADER: usize = 4;
    let bytes = HEADER + text.len();
    let start = arena.allocate(bytes);
    // SAFETY: the allocation has `bytes` bytes, aligned for the header. A length that
    // the header cannot hold was refused by the allocation.
    unsafe {
        set_varsize_4b(start.cast(), bytes as i32);
        std::ptr::copy_nonoverlapping(text.as_ptr(), start.add(HEADER), text.len());
    }
    pg_sys::Datum::from(start)
}

pub fn uuid_datum(arena: &Arena, uuid: &Uuid) -> pg_sys::Datum {
    let bytes = uuid.as_bytes();
    let start = arena.allocate(bytes.len());
    // SAFETY: the allocation has as many bytes.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
    pg_sys::Datum::from(start)
}

/// Makes `slot` hold a row of these values, and in other columns the values of `rest`, or
/// NULL. The values' memory is in `arena`; it and `rest` must live until the row is stored.
///
/// # Safety
/// The slots are of the table, whose shape has these columns, of these types; `rest` holds a
/// row, read into its values.
pub unsafe fn fill_slot(
    slot: *mut pg_sys::TupleTableSlot,
    table: &Table,
    arena: &Arena,
    values: &[Value<'_>],
    rest: Option<*mut pg_sys::TupleTableSlot>,
) {
    // SAFETY: a slot has room for a value and a null flag per column.
    unsafe {
        compat::clear_slot(slot);
        let columns = (*(*slot).tts_tupleDescriptor).natts as usize;
        let value_of = |column: usize| match table.places() {
            None => values.get(column),
            Some(places) => {
                let ours = places.iter().position(|place| *place == Some(column));
                ours.and_then(|place| values.get(place))
            }
        };
        for column in 0..columns {
            let datum = match (value_of(column), rest) {
                (Some(value), _) => value.datum(arena),
                (None, Some(rest)) => {
                    (!*(*rest).tts_isnull.add(column)).then(|| *(*rest).tts_values.add(column))
                }
                (None, None) => None,
            };
            *(*slot).tts_isnull.add(column) = datum.is_none();
            *(*slot).tts_values.add(column) = datum.unwrap_or(pg_sys::Datum::from(0));
        }
        pg_sys::ExecStoreVirtualTuple(slot);
    }
}
