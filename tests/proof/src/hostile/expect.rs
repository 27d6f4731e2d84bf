//! What the contract says of a batch, read from the contract alone and with
//! none of the extension's code: which error ends the call, else what each op
//! is and whether its form is right.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::generate::TABLES;

/// The settings that the run makes.
pub const MAX_OPS: usize = 40;
pub const MAX_PAYLOAD: usize = 2048;
pub const MAX_DEPTH: usize = 4;

/// From this nesting on Postgres' own parser may give up with 54001, depending
/// on its stack.
const DEEP: usize = 1000;

/// An op as it must be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub table: String,
    pub pk: String,
    pub operation: String,
    pub payload: Option<String>,
    pub clock: i64,
    pub hlc: String,
    pub device_id: String,
    /// In lower case.
    pub op_id: String,
}

impl Op {
    /// Equal but for the payload's text, of which more than one may mean the same.
    pub fn is_like(&self, other: &Op) -> bool {
        let payload = other.payload.clone();
        Op { payload, ..self.clone() } == *other
            && self.payload.is_some() == other.payload.is_some()
    }
}

pub struct Element {
    /// As given, raw; `null` if there was none.
    pub op_id: String,
    /// `None` where the form is wrong.
    pub op: Option<Op>,
}

pub enum Whole {
    /// The SQLSTATE that ends the call.
    Error(&'static str),
    Elements(Vec<Element>),
}

/// What becomes of a text given as `ops`, and whether Postgres may find it too
/// deep.
pub fn expect(text: &[u8]) -> (Whole, bool) {
    let Ok(text) = std::str::from_utf8(text) else { return (Whole::Error("22021"), false) };
    if text.contains('\0') {
        return (Whole::Error("22021"), false);
    }
    let may_be_too_deep = depth_at_most(text) > DEEP;
    let whole = match serde_json::from_str::<&RawValue>(text) {
        Err(_) => Whole::Error("22P02"),
        Ok(value) if !value.get().starts_with('[') => Whole::Error("22023"),
        Ok(value) => match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
            Ok(elements) if elements.len() > MAX_OPS => Whole::Error("54000"),
            Ok(elements) => Whole::Elements(elements.iter().map(|raw| element(raw)).collect()),
            Err(_) => Whole::Error("22P02"),
        },
    };
    (whole, may_be_too_deep)
}

fn depth_at_most(text: &str) -> usize {
    text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count()
}

fn element(raw: &RawValue) -> Element {
    let nothing = Element { op_id: "null".to_owned(), op: None };
    let Some(flat) = Members::of(raw.get()) else { return nothing };
    let stamp = flat.get("stamp").and_then(Members::of).unwrap_or_default();
    let stamped = |names: &[&str]| stamp.first(names).or_else(|| flat.first(names));
    let op_id = stamped(&["opId", "op_id"]);
    let op = || {
        let parent = flat.get("parent");
        let is_parent = |raw: &str| {
            raw == "null" || text(raw).is_some_and(|seen| seen == "none" || uuid(&seen).is_some())
        };
        if !parent.is_none_or(is_parent) {
            return None;
        }
        Some(Op {
            table: name(flat.first(&["tableName", "table_name"])?, 128)?,
            pk: name(flat.get("pk")?, 1024)?,
            operation: text(flat.get("operation")?).filter(|it| it == "put" || it == "delete")?,
            payload: payload(flat.get("operation")?, flat.get("payload"))?,
            clock: clock(stamped(&["clock"])?)?,
            hlc: name(stamped(&["hlc"])?, 512)?,
            device_id: name(stamped(&["deviceId", "device_id"])?, 256)?,
            op_id: uuid(&text(op_id?)?)?,
        })
    };
    Element { op_id: op_id.unwrap_or("null").to_owned(), op: op() }
}

/// A string's contents; none for a lone surrogate.
fn text(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

fn name(raw: &str, max: usize) -> Option<String> {
    text(raw).filter(|name| (1..=max).contains(&name.len()) && !name.contains('\0'))
}

fn payload(operation: &str, raw: Option<&str>) -> Option<Option<String>> {
    match raw {
        Some(object) if object.starts_with('{') => Some(Some(object.to_owned())),
        None | Some("null") if text(operation)? == "delete" => Some(None),
        _ => None,
    }
}

fn clock(raw: &str) -> Option<i64> {
    let is_plain = raw.bytes().all(|byte| byte.is_ascii_digit());
    let clock: u64 = raw.parse().ok().filter(|clock| is_plain && *clock < 1 << 53)?;
    i64::try_from(clock).ok()
}

fn uuid(text: &str) -> Option<String> {
    let is_right = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    is_right.then(|| text.to_ascii_lowercase())
}

/// What the rules of today say of an op whose form is right and that is new.
pub fn error_code(op: &Op, workspace: &str) -> Option<&'static str> {
    let registered = TABLES.iter().find(|(table, _)| *table == op.table);
    let Some((_, pk_field)) = registered else { return Some("VALIDATION_ERROR") };
    let payload = op.payload.as_ref()?;
    let members = Members::of(payload).unwrap_or_default();
    let claims = |key: &str, expected: &str| match members.get(key) {
        None => true,
        Some(raw) if raw.starts_with('"') => text(raw).as_deref() == Some(expected),
        // An integer key needs no quotes.
        Some(raw) => raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && raw == expected,
    };
    if payload.len() > MAX_PAYLOAD || depth(payload) > MAX_DEPTH {
        Some("OVERSIZED")
    } else if !claims(pk_field, &op.pk) || !claims("workspace_id", workspace) {
        Some("VALIDATION_ERROR")
    } else {
        None
    }
}

/// How many containers the innermost value is in; brackets in strings are none.
pub fn depth(json: &str) -> usize {
    let (mut deepest, mut now, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' if !in_string => now -= 1,
            _ => {}
        }
    }
    deepest
}

/// Whom claims name.
pub enum Subject {
    Nobody,
    User,
    /// They are no object, or their sub cannot be a user.
    Invalid,
}

pub fn subject(claims: &str) -> Subject {
    // What comes as json has been parsed before; a setting has not.
    let members = serde_json::from_str::<&RawValue>(claims).ok();
    let Some(members) = members.and_then(|raw| Members::of(raw.get())) else {
        return Subject::Invalid;
    };
    match members.get("sub") {
        None => Subject::Nobody,
        Some(raw) if name(raw, 256).is_some() => Subject::User,
        Some(_) => Subject::Invalid,
    }
}

/// Whom a member of a payload names.
pub enum Told {
    Nothing,
    Name(String),
    Nobody,
}

pub fn told(payload: &str, field: &str) -> Told {
    let members = Members::of(payload).unwrap_or_default();
    match members.get(field) {
        None => Told::Nothing,
        Some(raw) if raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            Told::Name(raw.to_owned())
        }
        Some(raw) => name(raw, 256).map_or(Told::Nobody, Told::Name),
    }
}

/// An object's members in order; keys as bytes, for they may hold lone surrogates.
#[derive(Default)]
struct Members<'a>(Vec<(Vec<u8>, &'a str)>);

impl<'a> Members<'a> {
    fn of(raw: &'a str) -> Option<Members<'a>> {
        serde_json::Deserializer::from_str(raw).deserialize_map(MembersVisitor).ok()
    }

    /// The last one of the name counts.
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(key, _)| key == name.as_bytes()).map(|(_, raw)| *raw)
    }

    fn first(&self, names: &[&str]) -> Option<&'a str> {
        names.iter().find_map(|name| self.get(name))
    }
}

struct MembersVisitor;

impl<'a> Visitor<'a> for MembersVisitor {
    type Value = Members<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Members<'a>, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key_seed(Bytes)? {
            members.push((key, map.next_value::<&'a RawValue>()?.get()));
        }
        Ok(Members(members))
    }
}

struct Bytes;

impl<'a> DeserializeSeed<'a> for Bytes {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}
