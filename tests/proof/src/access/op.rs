//! Ops as users and trusted callers of the run send them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Always private, shared, and sometimes the one or the other.
pub const TABLES: [&str; 3] = ["diary", "notes", "album"];
pub const DIARY: &str = TABLES[0];

/// How it is spelled is not part of an op: see [`Item`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub table: &'static str,
    pub pk: String,
    pub delete: bool,
    /// Keys and values as JSON.
    pub payload: Option<Vec<(&'static str, String)>>,
    pub clock: i64,
    pub hlc: String,
    pub device: String,
    pub op_id: String,
    /// What its author saw as the newest entry, or "none".
    pub parent: Option<String>,
}

/// What a payload's member says about the owner.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    Nothing,
    User(String),
    Nobody,
}

/// An element of a batch: an op, and which way its payload is written.
#[derive(Clone, Debug)]
pub struct Item {
    pub op: Op,
    pub is_loose: bool,
}

impl Op {
    pub fn key(&self) -> (String, String) {
        (self.table.to_owned(), self.pk.clone())
    }

    /// Higher wins.
    pub fn revision(&self) -> (i64, String, String) {
        (self.clock, self.hlc.clone(), self.op_id.clone())
    }

    pub fn told(&self, field: &str) -> Told {
        let members = self.payload.iter().flatten();
        match members.rev().find(|(key, _)| *key == field).map(|(_, raw)| raw) {
            None => Told::Nothing,
            Some(raw) if raw.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                Told::User(raw.clone())
            }
            Some(raw) => match serde_json::from_str::<String>(raw) {
                Ok(user) if !user.is_empty() => Told::User(user),
                _ => Told::Nobody,
            },
        }
    }

    /// The payload's members as values.
    pub fn members(&self) -> Option<BTreeMap<String, Value>> {
        let value = |raw: &str| serde_json::from_str(raw).unwrap_or_default();
        self.payload
            .as_ref()
            .map(|all| all.iter().map(|(key, raw)| ((*key).to_owned(), value(raw))).collect())
    }

    /// Equal in all content but the payload.
    pub fn is_like(&self, other: &Op) -> bool {
        let bare = |op: &Op| Op { payload: None, parent: None, ..op.clone() };
        bare(self) == bare(other)
    }

    /// Equal as JSON.
    pub fn is_same(&self, other: &Op) -> bool {
        self.is_like(other) && self.members() == other.members()
    }
}

impl Item {
    /// The payload as sent, byte for byte.
    pub fn payload(&self) -> Option<String> {
        let members = self.op.payload.as_ref()?;
        Some(match self.is_loose {
            false => {
                let members: Vec<String> =
                    members.iter().map(|(key, raw)| format!("\"{key}\":{raw}")).collect();
                format!("{{{}}}", members.join(","))
            }
            true => {
                let members: Vec<String> =
                    members.iter().rev().map(|(key, raw)| format!(" \"{key}\" : {raw}")).collect();
                format!("{{{} }}", members.join(" ,"))
            }
        })
    }

    pub fn json(&self) -> String {
        let Op { table, pk, delete, clock, hlc, device, op_id, parent, .. } = &self.op;
        let parent = json!(parent);
        let payload = self.payload().unwrap_or_else(|| "null".to_owned());
        let operation = if *delete { "delete" } else { "put" };
        let stamp = json!({"deviceId": device, "opId": op_id, "hlc": hlc, "clock": clock});
        format!(
            r#"{{"tableName":"{table}","operation":"{operation}","pk":"{pk}","payload":{payload},"parent":{parent},"stamp":{stamp}}}"#
        )
    }
}

/// A batch as it is sent.
pub fn json_of(items: &[Item]) -> String {
    let items: Vec<String> = items.iter().map(Item::json).collect();
    format!("[{}]", items.join(","))
}
