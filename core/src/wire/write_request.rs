//! One op as the arguments of `sync_put`, `sync_patch` or `sync_delete`; checks their form
//! as that of a pushed op.

use std::borrow::Cow;

use uuid::Uuid;

use super::push_request::{MAX_PK, MAX_TABLE_NAME, patched_fields, payload};
use crate::rules::op::{Op, Operation, Patch, RecordKey};
use crate::rules::refusal::Refusal;
use crate::rules::server_op::{DEVICE, unstamped};

#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    pub table_name: Option<&'a str>,
    pub pk: Option<&'a str>,
    /// Any JSON text.
    pub payload: Option<&'a str>,
}

/// The op, without its stamp but for the opId.
pub fn read<'a>(
    operation: Operation,
    arguments: Arguments<'a>,
    op_id: Uuid,
) -> Result<Op<'a>, Refusal> {
    let key = RecordKey {
        table: bounded(arguments.table_name, "tableName", MAX_TABLE_NAME)?,
        pk: bounded(arguments.pk, "pk", MAX_PK)?,
    };
    let is_space = |char| matches!(char, ' ' | '\t' | '\n' | '\r');
    let payload = payload(operation, arguments.payload.map(|json| json.trim_matches(is_space)))?;
    let revision = unstamped(op_id);
    let patch = match (operation, payload) {
        (Operation::Patch, Some(payload)) => {
            let (base, fields) = (unstamped(Uuid::nil()), patched_fields(payload)?);
            Some(Box::new(Patch { base, fields }))
        }
        _ => None,
    };
    let device_id = DEVICE.into();
    Ok(Op { key, operation, payload, revision, device_id, patch, parent: None, expected: None })
}

fn bounded<'a>(
    text: Option<&'a str>,
    field: &'static str,
    max: usize,
) -> Result<Cow<'a, str>, Refusal> {
    let text = text.filter(|text| (1..=max).contains(&text.len()));
    text.map(Cow::Borrowed).ok_or(Refusal::Text { field, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(operation: Operation, payload: &'static str) -> Result<Op<'static>, Refusal> {
        let arguments =
            Arguments { table_name: Some("notes"), pk: Some("p"), payload: Some(payload) };
        read(operation, arguments, Uuid::from_u128(1))
    }

    #[test]
    fn a_payload_is_an_object_without_the_space_around_it() {
        let put = op(Operation::Put, " \t\n\r{ \"a\" : 1 }\n").unwrap();
        assert_eq!(put.payload, Some("{ \"a\" : 1 }"));
        assert_eq!((&*put.device_id, put.op_id()), ("$server", Uuid::from_u128(1)));
        let patch = op(Operation::Patch, " {\"a\":1,\"a\":[2]} ").unwrap();
        assert_eq!(patch.patch.unwrap().fields, [("a".into(), "[2]")]);
        for other in ["null", "[]", "1", "\"{}\""] {
            assert_eq!(op(Operation::Put, other).unwrap_err(), Refusal::PutPayload, "{other}");
            assert_eq!(op(Operation::Patch, other).unwrap_err(), Refusal::PatchPayload, "{other}");
        }
        assert_eq!(op(Operation::Patch, "{}").unwrap_err(), Refusal::PatchPayload);
    }

    #[test]
    fn names_are_as_long_as_those_of_a_pushed_op() {
        let (table, pk) = ("é".repeat(64), "é".repeat(512));
        let longest = Arguments { table_name: Some(&table), pk: Some(&pk), payload: None };
        let of = |arguments| read(Operation::Delete, arguments, Uuid::nil()).map(|_| ());
        assert_eq!(of(longest), Ok(()));
        let (longer_table, longer_pk) = (format!("{table}a"), format!("{pk}a"));
        for table_name in [None, Some(""), Some(&*longer_table)] {
            let refused = Err(Refusal::Text { field: "tableName", max: 128 });
            assert_eq!(of(Arguments { table_name, ..longest }), refused);
        }
        for pk in [None, Some(""), Some(&*longer_pk)] {
            let refused = Err(Refusal::Text { field: "pk", max: 1024 });
            assert_eq!(of(Arguments { pk, ..longest }), refused);
        }
    }
}
