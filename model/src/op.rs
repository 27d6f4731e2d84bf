//! The ops of a batch: which spelling counts, and whether the form is right.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use std::collections::{BTreeMap, HashSet};

use crate::json::{Members, name, text};
use crate::refusal::{Refusal, refusal};
use crate::reply::echoed;
use crate::server::Key;

/// What LWW compares: the derived order, texts by bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision {
    pub clock: i64,
    pub hlc: String,
    /// In lower case.
    pub op_id: String,
}

impl Revision {
    pub fn json(&self) -> Value {
        json!({"clock": self.clock, "hlc": self.hlc, "opId": self.op_id})
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub table: String,
    pub pk: String,
    pub is_delete: bool,
    /// Of a patch: the put whose record it edits.
    pub base: Option<Revision>,
    /// Byte for byte; of a patch the new values of its fields.
    pub payload: Option<String>,
    pub revision: Revision,
    pub device_id: String,
    /// The newest entry as its author saw it, or "none"; no part of the content.
    pub parent: Option<String>,
    /// What must hold at its turn; no part of the content.
    pub expected: Option<Expected>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No live record.
    Nothing,
    /// The newest entry is this op's.
    Op(String),
    /// Each field is held by this op.
    Fields(BTreeMap<String, String>),
}

impl Op {
    pub fn key(&self) -> Key {
        (self.table.clone(), self.pk.clone())
    }

    pub fn word(&self) -> &'static str {
        if self.base.is_some() { "patch" } else { word(self.is_delete) }
    }

    pub fn stamp(&self) -> Value {
        let mut stamp = self.revision.json();
        stamp["deviceId"] = json!(self.device_id);
        stamp
    }

    /// Is the content the same, but for the payload?
    pub fn is_like(&self, other: &Op) -> bool {
        let bare = |op: &Op| {
            let Op { table, pk, is_delete, base, revision, device_id, .. } = op.clone();
            (table, pk, is_delete, base, revision, device_id)
        };
        bare(self) == bare(other)
    }

    /// Of a patch: its fields and their values. Of equal names the last one counts.
    pub fn fields(&self) -> Vec<(String, String)> {
        let payload = self.payload.as_deref().filter(|_| self.base.is_some());
        let members = payload.and_then(Members::of).unwrap_or_default();
        let mut seen = HashSet::new();
        let mut fields = Vec::new();
        for (name, value) in members.0.into_iter().rev() {
            if seen.insert(name.clone()) {
                fields.push((String::from_utf8_lossy(&name).into_owned(), value.to_owned()));
            }
        }
        fields.reverse();
        fields
    }
}

pub fn word(is_delete: bool) -> &'static str {
    if is_delete { "delete" } else { "put" }
}

/// An element of a batch.
#[derive(Clone, Debug)]
pub struct Element {
    /// As it is echoed.
    pub op_id: Value,
    /// `None` where the form is wrong.
    pub op: Option<Op>,
}

/// The elements of an argument `ops`, which is valid JSON.
pub fn read(ops: &str, max: usize) -> Result<Vec<Element>, Refusal> {
    let elements = serde_json::from_str::<Vec<&RawValue>>(ops);
    let Ok(elements) = elements else { return Err(refusal("22023", "ops must be a JSON array")) };
    if elements.len() > max {
        return Err(refusal("54000", "too many ops in one push"));
    }
    Ok(elements.iter().map(|raw| element(raw.get())).collect())
}

fn element(raw: &str) -> Element {
    let Some(flat) = Members::of(raw) else { return Element { op_id: Value::Null, op: None } };
    let stamp = flat.get("stamp").and_then(Members::of).unwrap_or_default();
    let stamped = |names: &[&str]| stamp.first(names).or_else(|| flat.first(names));
    let op_id = stamped(&["opId", "op_id"]);
    let op = || {
        let operation = text(flat.get("operation")?)?;
        let revision = revision(stamped)?;
        let is_patch = operation == "patch";
        let payload = payload(&operation, flat.get("payload"))?;
        let base = match is_patch {
            true => Some(base(flat.get("base")?, &revision, payload.as_deref()?)?),
            false => None,
        };
        Some(Op {
            table: name(flat.first(&["tableName", "table_name"])?, 128)?,
            pk: name(flat.get("pk")?, 1024)?,
            is_delete: operation == "delete",
            base,
            payload,
            revision,
            device_id: name(stamped(&["deviceId", "device_id"])?, 256)?,
            // A patch has none, whatever it says.
            parent: if is_patch { None } else { parent(flat.get("parent"))? },
            expected: expected(flat.get("expected"), is_patch)?,
        })
    };
    Element { op_id: op_id.map_or(Value::Null, echoed), op: op() }
}

fn payload(operation: &str, raw: Option<&str>) -> Option<Option<String>> {
    match (operation, raw) {
        ("put" | "delete" | "patch", Some(object)) if object.starts_with('{') => {
            Some(Some(object.to_owned()))
        }
        ("delete", None | Some("null")) => Some(None),
        _ => None,
    }
}

fn revision<'a>(get: impl Fn(&[&str]) -> Option<&'a str>) -> Option<Revision> {
    Some(Revision {
        clock: clock(get(&["clock"])?)?,
        hlc: name(get(&["hlc"])?, 512)?,
        op_id: uuid(&text(get(&["opId", "op_id"])?)?)?,
    })
}

/// Of a patch with these values, at least one.
fn base(raw: &str, patch: &Revision, payload: &str) -> Option<Revision> {
    let names = Members::of(payload)?.0;
    let are_right = !names.is_empty() && names.iter().all(|(name, _)| field(name).is_some());
    let members = Members::of(raw)?;
    let base = revision(|names| members.first(names))?;
    (are_right && base < *patch).then_some(base)
}

fn field(name: &[u8]) -> Option<String> {
    let name = String::from_utf8(name.to_owned()).ok()?;
    ((1..=128).contains(&name.len()) && !name.contains('\0')).then_some(name)
}

fn expected(raw: Option<&str>, is_patch: bool) -> Option<Option<Expected>> {
    match raw {
        None | Some("null") => Some(None),
        Some(raw) if raw.starts_with('{') && is_patch => {
            let mut fields = BTreeMap::new();
            for (name, value) in Members::of(raw)?.0 {
                let value = if value == "null" { None } else { Some(uuid(&text(value)?)?) };
                fields.insert(String::from_utf8(name.to_vec()).ok()?, value);
            }
            let fields: BTreeMap<_, _> =
                fields.into_iter().filter_map(|(name, id)| Some((name, id?))).collect();
            Some((!fields.is_empty()).then_some(Expected::Fields(fields)))
        }
        Some(raw) => match text(raw)? {
            none if none == "none" => Some(Some(Expected::Nothing)),
            id => uuid(&id).map(|id| Some(Expected::Op(id))),
        },
    }
}

fn parent(raw: Option<&str>) -> Option<Option<String>> {
    match raw {
        None | Some("null") => Some(None),
        Some(raw) => {
            let seen = text(raw)?;
            if seen == "none" { Some(Some(seen)) } else { uuid(&seen).map(Some) }
        }
    }
}

fn clock(raw: &str) -> Option<i64> {
    let is_plain = raw.bytes().all(|byte| byte.is_ascii_digit());
    raw.parse().ok().filter(|clock| is_plain && *clock < 1 << 53)
}

/// A hyphenated UUID, in lower case.
fn uuid(text: &str) -> Option<String> {
    let is_right = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    is_right.then(|| text.to_ascii_lowercase())
}
