//! Patches and conditions: what an op does at its turn.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::json::{Members, compact};
use crate::op::{Expected, Op, Revision};
use crate::push::{BASE_MISSING, Code, FIELD_CONFLICT, OVERSIZED, RECORD_CONFLICT};
use crate::server::{Record, Workspace};

/// The fields that patches hold.
pub type Fields = BTreeMap<String, Revision>;

/// A record as a patch left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    pub payload: String,
    pub fields: Fields,
}

impl Merged {
    pub(crate) fn fields(&self) -> Value {
        fields_json(&self.fields)
    }
}

pub(crate) enum Turn {
    Loses,
    /// A put or delete becomes the register.
    Replaces,
    Merges {
        merged: Merged,
        lost: Vec<String>,
    },
}

pub(crate) fn fields_json(fields: &Fields) -> Value {
    let fields = fields.iter().map(|(name, by)| (name.clone(), by.json()));
    Value::Object(fields.collect::<Map<_, _>>())
}

impl Workspace {
    pub fn fields(&self, record: &Record) -> Fields {
        let merged = self.winner(record).and_then(|entry| entry.merged.as_ref());
        merged.map(|merged| merged.fields.clone()).unwrap_or_default()
    }

    /// Whose the newest entry is; of a grave, the delete's.
    pub fn newest_id<'a>(&'a self, record: &'a Record) -> &'a str {
        let entry = self.winner(record);
        &entry.map_or(&record.revision, |entry| &entry.op.revision).op_id
    }

    /// The fields of a patch that it does not hold.
    pub(crate) fn not_held(&self, op: &Op, record: &Record) -> Vec<String> {
        let is_base = op.base.as_ref() == Some(&record.revision) && !record.is_deleted;
        let fields = self.fields(record);
        let holds = |name: &str| is_base && fields.get(name) == Some(&op.revision);
        op.fields().into_iter().map(|(name, _)| name).filter(|name| !holds(name)).collect()
    }

    pub(crate) fn turn(&self, op: &Op, max_bytes: usize) -> Result<Turn, Code> {
        let record = self.records.get(&op.key());
        let is_above = |base: &Revision| record.is_none_or(|record| *base > record.revision);
        if op.base.as_ref().is_some_and(is_above) {
            return Err(BASE_MISSING);
        }
        if let Some(expected) = &op.expected {
            self.check(expected, op, record)?;
        }
        match (&op.base, record) {
            (None, Some(record)) if op.revision <= record.revision => Ok(Turn::Loses),
            (None, _) => Ok(Turn::Replaces),
            (Some(base), Some(record)) if *base == record.revision && !record.is_deleted => {
                self.merge(op, record, max_bytes)
            }
            (Some(_), _) => Ok(Turn::Loses),
        }
    }

    fn check(&self, expected: &Expected, op: &Op, record: Option<&Record>) -> Result<(), Code> {
        let fields = record.map(|record| self.fields(record)).unwrap_or_default();
        let is_register = record.is_some_and(|record| record.revision == op.revision);
        // It was stored before, and purged.
        if is_register || fields.values().any(|by| *by == op.revision) {
            return Ok(());
        }
        let live = record.filter(|record| !record.is_deleted);
        match expected {
            Expected::Nothing if live.is_none() => Ok(()),
            Expected::Op(id) if record.is_some_and(|it| self.newest_id(it) == id) => Ok(()),
            Expected::Nothing | Expected::Op(_) => Err(RECORD_CONFLICT),
            Expected::Fields(expected) => {
                let is_held = |record: &Record, (name, id): (&String, &String)| {
                    fields.get(name).unwrap_or(&record.revision).op_id == *id
                };
                let are_held =
                    live.is_some_and(|record| expected.iter().all(|it| is_held(record, it)));
                if are_held { Ok(()) } else { Err(FIELD_CONFLICT) }
            }
        }
    }

    fn merge(&self, op: &Op, record: &Record, max_bytes: usize) -> Result<Turn, Code> {
        let mut fields = self.fields(record);
        let mut payload =
            self.winner(record).and_then(|entry| entry.record()).unwrap_or_default().to_owned();
        let (mut lost, mut wins) = (Vec::new(), false);
        for (name, value) in op.fields() {
            if fields.get(&name).is_some_and(|by| *by >= op.revision) {
                lost.push(name);
                continue;
            }
            wins = true;
            payload = spliced(&payload, &name, &value);
            fields.insert(name, op.revision.clone());
        }
        if !wins {
            return Ok(Turn::Loses);
        }
        if payload.len().max(compact(&fields_json(&fields)).len()) > max_bytes {
            return Err(OVERSIZED);
        }
        Ok(Turn::Merges { merged: Merged { payload, fields }, lost })
    }
}

/// The object with this value of the last member of the name, or of a new one at its end;
/// all else stays byte for byte.
pub fn spliced(object: &str, name: &str, value: &str) -> String {
    let members = Members::of(object).unwrap_or_default();
    if let Some(raw) = members.get(name) {
        let start = raw.as_ptr() as usize - object.as_ptr() as usize;
        return [&object[..start], value, &object[start + raw.len()..]].concat();
    }
    let (open, after) = object.split_at(object.rfind('}').unwrap_or(0));
    let comma = if members.0.is_empty() { "" } else { "," };
    format!("{open}{comma}{}:{value}{after}", compact(&json!(name)))
}

#[cfg(test)]
mod tests {
    use super::spliced;

    #[test]
    fn a_splice_changes_the_last_member_of_the_name_and_nothing_else() {
        for (object, name, after) in [
            ("{ }", "a", r#"{ "a":9}"#),
            (r#"{ "a" : 1.50 , "b":{"a":1} }"#, "a", r#"{ "a" : 9 , "b":{"a":1} }"#),
            (r#"{"a":1,"\u0061":2}"#, "a", r#"{"a":1,"\u0061":9}"#),
            (r#"{"b":"}"}"#, "a\"", r#"{"b":"}","a\"":9}"#),
        ] {
            assert_eq!(spliced(object, name, "9"), after);
        }
    }
}
