//! Ops as users and trusted callers of the run send them.

use serde_json::json;

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
    /// Of a patch: the put whose record it edits, as JSON.
    pub base: Option<String>,
    /// As JSON.
    pub expected: Option<String>,
}

/// An element of a batch: an op, and which way its payload is written.
#[derive(Clone, Debug)]
pub struct Item {
    pub op: Op,
    pub is_loose: bool,
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
        let operation = match self.op.base {
            Some(_) => "patch",
            None if *delete => "delete",
            None => "put",
        };
        let base = self.op.base.as_deref().unwrap_or("null");
        let expected = self.op.expected.as_deref().unwrap_or("null");
        let stamp = json!({"deviceId": device, "opId": op_id, "hlc": hlc, "clock": clock});
        format!(
            r#"{{"tableName":"{table}","operation":"{operation}","pk":"{pk}","payload":{payload},"parent":{parent},"base":{base},"expected":{expected},"stamp":{stamp}}}"#
        )
    }
}

/// A batch as it is sent.
pub fn json_of(items: &[Item]) -> String {
    let items: Vec<String> = items.iter().map(Item::json).collect();
    format!("[{}]", items.join(","))
}
