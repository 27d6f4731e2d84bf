//! A batch of ops as sent by a client; checks the form of each op by itself.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use serde_json::value::RawValue;
use uuid::Uuid;

use super::fields::{ArrayOf, Elements, Fields, FieldsOf, members};
use super::{owner, text, value};
use crate::error::SyncError;
use crate::rules::admission::{Limits, PayloadFacts, SyncedTable};
use crate::rules::op::{Expected, Op, Operation, Parent, Patch, RecordKey, Revision};
use crate::rules::ownership::OwnerField;
use crate::rules::refusal::Refusal;
use crate::rules::scope::ScopeField;
use crate::wire::ids::MAX_SCOPE_BYTES;

/// An element of a batch: its raw opId, if any, and its op.
pub type Parsed<'a> = (Option<&'a str>, Result<Op<'a>, Refusal>);

/// The longest names of tables and records, in bytes.
pub const MAX_TABLE_NAME: usize = 128;
pub const MAX_PK: usize = 1024;

/// All spellings of an op's keys. Camel case comes immediately before snake case; `get`
/// relies on that. The others have one spelling.
const NAMES: [&str; 15] = [
    "tableName",
    "table_name",
    "deviceId",
    "device_id",
    "opId",
    "op_id",
    "operation",
    "pk",
    "payload",
    "stamp",
    "hlc",
    "clock",
    "parent",
    "base",
    "expected",
];
const OP: FieldsOf<'static, 15> = FieldsOf(&NAMES);

#[derive(Clone, Copy)]
enum Key {
    TableName = 0,
    DeviceId = 2,
    OpId = 4,
    Operation = 6,
    Pk = 7,
    Payload = 8,
    Stamp = 9,
    Hlc = 10,
    Clock = 11,
    Parent = 12,
    Base = 13,
    Expected = 14,
}

/// Parses a batch; an item that is not a well-formed op has a refusal. `each` is called
/// before each element and may interrupt the call.
pub fn parse<'a>(
    ops: &'a str,
    max_ops: usize,
    each: impl Fn(),
) -> Result<Vec<Parsed<'a>>, SyncError> {
    // In one pass if every element is an object; otherwise element by element, to
    // refuse only those that are not objects.
    let objects = ArrayOf { element: OP, max: max_ops, each: &each }.read(ops);
    match objects {
        Some(Elements::All(objects)) => Ok(items(objects, Some)),
        Some(Elements::TooMany) => Err(SyncError::TooManyOps { max: max_ops }),
        Some(Elements::TooLarge) => Err(SyncError::OutOfMemory),
        None => {
            let element = std::marker::PhantomData::<&RawValue>;
            match (ArrayOf { element, max: max_ops, each: &each }.read(ops)) {
                Some(Elements::All(elements)) => {
                    Ok(items(elements, |element| OP.read(element.get())))
                }
                Some(Elements::TooMany) => Err(SyncError::TooManyOps { max: max_ops }),
                Some(Elements::TooLarge) => Err(SyncError::OutOfMemory),
                None => Err(SyncError::OpsNotAnArray),
            }
        }
    }
}

fn items<'a, T>(elements: Vec<T>, object: impl Fn(T) -> Option<Fields<'a, 15>>) -> Vec<Parsed<'a>> {
    elements.into_iter().map(|element| item(object(element))).collect()
}

fn item(object: Option<Fields<'_, 15>>) -> Parsed<'_> {
    let Some(flat) = object else {
        return (None, Err(Refusal::NotAnObject));
    };
    let stamp = flat[Key::Stamp as usize].and_then(|raw| OP.read(raw)).unwrap_or_default();
    (stamped(&stamp, &flat, Key::OpId), op(&stamp, &flat))
}

fn get<'a>(fields: &Fields<'a, 15>, key: Key) -> Option<&'a str> {
    let place = key as usize;
    match key {
        Key::TableName | Key::DeviceId | Key::OpId => fields[place].or(fields[place + 1]),
        _ => fields[place],
    }
}

/// A key of the stamp, which may also be a key of the op itself.
fn stamped<'a>(stamp: &Fields<'a, 15>, flat: &Fields<'a, 15>, key: Key) -> Option<&'a str> {
    get(stamp, key).or_else(|| get(flat, key))
}

fn op<'a>(stamp: &Fields<'a, 15>, flat: &Fields<'a, 15>) -> Result<Op<'a>, Refusal> {
    let stamped = |key| stamped(stamp, flat, key);
    let op_id = op_id(stamped(Key::OpId)).ok_or(Refusal::OpId)?;
    let operation = get(flat, Key::Operation)
        .and_then(|raw| text::short_string(raw, 8))
        .and_then(|word| Operation::parse(&word))
        .ok_or(Refusal::Operation)?;
    let key = RecordKey {
        table: bounded(get(flat, Key::TableName), "tableName", MAX_TABLE_NAME)?,
        pk: bounded(get(flat, Key::Pk), "pk", MAX_PK)?,
    };
    let payload = payload(operation, get(flat, Key::Payload))?;
    let device_id = bounded(stamped(Key::DeviceId), "deviceId", 256)?;
    let hlc = bounded(stamped(Key::Hlc), "hlc", 512)?;
    let clock = stamped(Key::Clock).and_then(text::clock).ok_or(Refusal::Clock)?;
    let revision = Revision { clock, hlc, op_id };
    let patch = match (operation, payload) {
        (Operation::Patch, Some(payload)) => {
            Some(Box::new(patch(&revision, payload, get(flat, Key::Base))?))
        }
        _ => None,
    };
    let parent = match operation {
        Operation::Put | Operation::Delete => parent(get(flat, Key::Parent))?,
        // It merges with what its author has not seen.
        Operation::Patch => None,
    };
    let expected = expected(operation, get(flat, Key::Expected))?.map(Box::new);
    Ok(Op { key, operation, payload, revision, device_id, patch, parent, expected })
}

fn patch<'a>(
    revision: &Revision<'a>,
    payload: &'a str,
    base: Option<&'a str>,
) -> Result<Patch<'a>, Refusal> {
    let fields = patched_fields(payload)?;
    let base = base.and_then(|raw| OP.read(raw)).ok_or(Refusal::Base)?;
    let base = Revision {
        clock: get(&base, Key::Clock).and_then(text::clock).ok_or(Refusal::Base)?,
        hlc: bounded(get(&base, Key::Hlc), "hlc", 512).map_err(|_| Refusal::Base)?,
        op_id: op_id(get(&base, Key::OpId)).ok_or(Refusal::Base)?,
    };
    if base >= *revision {
        return Err(Refusal::BaseAbove);
    }
    Ok(Patch { base, fields })
}

/// What a patch with this payload writes.
pub fn patched_fields(payload: &str) -> Result<Vec<(Cow<'_, str>, &str)>, Refusal> {
    let mut fields = Vec::new();
    for (name, value) in members(payload).ok_or(Refusal::PatchPayload)? {
        fields.push((field_name(name)?, value));
    }
    if fields.is_empty() {
        return Err(Refusal::PatchPayload);
    }
    // Of equal names the last one counts.
    let mut seen = HashSet::new();
    let mut is_last: Vec<bool> =
        fields.iter().rev().map(|(name, _)| seen.insert(name.clone())).collect();
    fields.retain(|_| is_last.pop() == Some(true));
    Ok(fields)
}

/// `None` with a lone surrogate.
fn decoded(name: Cow<'_, [u8]>) -> Option<Cow<'_, str>> {
    match name {
        Cow::Borrowed(name) => std::str::from_utf8(name).map(Cow::Borrowed).ok(),
        Cow::Owned(name) => String::from_utf8(name).map(Cow::Owned).ok(),
    }
}

fn field_name(name: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Refusal> {
    const MAX: usize = 128;
    let field = "the name of a patched field";
    match decoded(name) {
        Some(name) if name.contains('\0') => Err(Refusal::Characters { field }),
        Some(name) if name.is_empty() || name.len() > MAX => Err(Refusal::Text { field, max: MAX }),
        Some(name) => Ok(name),
        None => Err(Refusal::Characters { field }),
    }
}

fn expected(operation: Operation, raw: Option<&str>) -> Result<Option<Expected<'_>>, Refusal> {
    match raw {
        None | Some("null") => Ok(None),
        Some(raw) if equals(raw, "none") => Ok(Some(Expected::None)),
        Some(raw) if text::is_object(raw) && operation == Operation::Patch => {
            let mut fields = BTreeMap::new();
            for (name, value) in members(raw).ok_or(Refusal::Expected)? {
                let name = decoded(name).ok_or(Refusal::Expected)?;
                let op_id = match value {
                    "null" => None,
                    value => Some(op_id(Some(value)).ok_or(Refusal::Expected)?),
                };
                fields.insert(name, op_id);
            }
            let fields: Vec<_> = fields.into_iter().filter_map(|(k, v)| Some((k, v?))).collect();
            Ok((!fields.is_empty()).then_some(Expected::Fields(fields)))
        }
        Some(raw) => op_id(Some(raw)).map(|op| Some(Expected::Op(op))).ok_or(Refusal::Expected),
    }
}

fn parent(raw: Option<&str>) -> Result<Option<Parent>, Refusal> {
    match raw {
        None | Some("null") => Ok(None),
        Some(raw) if equals(raw, "none") => Ok(Some(Parent::None)),
        Some(raw) => op_id(Some(raw)).map(|seen| Some(Parent::Op(seen))).ok_or(Refusal::Parent),
    }
}

fn op_id(raw: Option<&str>) -> Option<Uuid> {
    // uuid accepts other spellings; only the hyphenated one has this length.
    let text = text::short_string(raw?, 36)?;
    (text.len() == 36).then(|| Uuid::try_parse(&text).ok())?
}

pub fn payload(operation: Operation, raw: Option<&str>) -> Result<Option<&str>, Refusal> {
    let object = raw.filter(|raw| text::is_object(raw));
    match (operation, raw) {
        (_, Some(_)) if object.is_some() => Ok(object),
        (Operation::Delete, None | Some("null")) => Ok(None),
        (Operation::Delete, Some(_)) => Err(Refusal::DeletePayload),
        (Operation::Put, _) => Err(Refusal::PutPayload),
        (Operation::Patch, _) => Err(Refusal::PatchPayload),
    }
}

fn bounded<'a>(
    raw: Option<&'a str>,
    field: &'static str,
    max: usize,
) -> Result<Cow<'a, str>, Refusal> {
    let raw = raw.filter(|raw| text::is_string(raw)).ok_or(Refusal::Text { field, max })?;
    if raw.len() > 6 * max + 2 {
        // Too long however it is escaped.
        return Err(Refusal::Text { field, max });
    }
    let text = text::string(raw).ok_or(Refusal::Characters { field })?;
    if text.contains('\0') {
        return Err(Refusal::Characters { field });
    }
    if text.is_empty() || text.len() > max {
        return Err(Refusal::Text { field, max });
    }
    Ok(text)
}

/// Whether it is a string with this value.
fn equals(raw: &str, expected: &str) -> bool {
    text::short_string(raw, expected.len()).is_some_and(|text| text == expected)
}

pub const WORKSPACE_FIELD: &str = "workspace_id";

/// Reads the facts about a payload. A number equals its text, so that integer keys need
/// no quotes; other values that are not strings equal nothing.
pub fn payload_facts<'a>(
    payload: &'a str,
    table: &SyncedTable,
    pk: &str,
    limits: Limits<'_>,
) -> PayloadFacts<'a> {
    let workspace_id = limits.workspace_id;
    let equals = |raw: &str, expected: &str| match text::is_number(raw) {
        true => raw == expected,
        false => equals(raw, expected),
    };
    let pk_field = table.pk_field.as_str();
    let (owner_field, scope_field) = (table.owner_field.as_deref(), table.scope_field.as_deref());
    let names = [
        pk_field,
        WORKSPACE_FIELD,
        owner_field.unwrap_or(pk_field),
        scope_field.unwrap_or(pk_field),
    ];
    let raws = if owner_field.or(scope_field).is_some() {
        FieldsOf(&names).read(payload).unwrap_or_default()
    } else {
        let [pk, workspace] =
            FieldsOf(&[pk_field, WORKSPACE_FIELD]).read(payload).unwrap_or_default();
        [pk, workspace, None, None]
    };
    // A repeated name is found only at its first index.
    let raw = |name| names.iter().position(|other| *other == name).and_then(|place| raws[place]);
    PayloadFacts {
        is_shallow: value::is_shallow(payload, limits.max_payload_depth),
        // The pk of an attached table with several key columns is in no field.
        pk_matches: raw(pk_field).filter(|_| !pk_field.is_empty()).map(|raw| equals(raw, pk)),
        workspace_matches: raw(WORKSPACE_FIELD).map(|raw| equals(raw, workspace_id)),
        owner: owner_field.map_or(OwnerField::Unasked, |field| owner::owner_field(raw(field))),
        scope: scope_field.map_or(ScopeField::Unasked, |field| scope_field_of(raw(field))),
    }
}

fn scope_field_of(raw: Option<&str>) -> ScopeField<'_> {
    match raw {
        None => ScopeField::Absent,
        Some("null") => ScopeField::Named("".into()),
        Some(raw) => match text::short_string(raw, MAX_SCOPE_BYTES) {
            Some(scope) if scope.len() <= MAX_SCOPE_BYTES && !scope.contains('\0') => {
                ScopeField::Named(scope)
            }
            _ => ScopeField::Invalid,
        },
    }
}

/// What a payload says in the scope field of its table.
pub fn scope_said<'a>(payload: Option<&'a str>, field: Option<&str>) -> ScopeField<'a> {
    let Some(field) = field else { return ScopeField::Unasked };
    let raw = payload.and_then(|payload| FieldsOf(&[field]).read(payload)).and_then(|[raw]| raw);
    scope_field_of(raw)
}

/// The maximal memory for a batch besides its own text and its items: decoded strings, patched
/// fields, and payloads that are compared or filled in.
pub fn memory_for(ops: &str) -> usize {
    2 * ops.len() + 3 * value::memory_for(ops)
}

/// The maximal memory for an item that is parsed, decided and written.
pub const MEMORY_FOR_ITEM: usize = 4096;

#[cfg(test)]
#[path = "push_request_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "push_request_properties.rs"]
mod properties;
