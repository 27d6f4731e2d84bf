//! Ops as devices of the simulation make them.

use serde_json::{Value, json};
use sync_ext_cluster::device::{Pending, Revision};

/// One edit. The payload is kept as what it says, not as it is spelled: an op
/// that is sent again may be spelled otherwise.
#[derive(Clone, Debug)]
pub struct Op {
    pub table: &'static str,
    pub pk: String,
    pub delete: bool,
    /// What the payload says besides the pk; a delete has none.
    pub text: u64,
    pub revision: Revision,
    pub device_id: String,
    /// The newest entry as its author saw it, or "none"; an old client does not tell.
    pub parent: Option<String>,
}

/// Of the content, which the parent is no part of.
impl PartialEq for Op {
    fn eq(&self, other: &Op) -> bool {
        let content = |op: &Op| {
            let Op { table, pk, delete, text, revision, device_id, parent: _ } = op.clone();
            (table, pk, delete, text, revision, device_id)
        };
        content(self) == content(other)
    }
}

/// Two ways of writing the same JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    Compact,
    Loose,
}

impl Op {
    /// The payload as sent, byte for byte; `None` for a delete.
    pub fn payload(&self, spelling: Spelling) -> Option<String> {
        let id = Value::from(self.pk.as_str());
        (!self.delete).then(|| match spelling {
            Spelling::Compact => format!(r#"{{"id":{id},"text":"{}"}}"#, self.text),
            Spelling::Loose => format!(r#"{{ "text" : "{}",  "id" : {id} }}"#, self.text),
        })
    }

    pub fn json(&self, spelling: Spelling) -> String {
        let payload = self.payload(spelling).unwrap_or_else(|| "null".to_owned());
        let operation = if self.delete { "delete" } else { "put" };
        let Revision { clock, hlc, op_id } = &self.revision;
        let (pk, hlc) = (Value::from(self.pk.as_str()), Value::from(hlc.as_str()));
        let parent =
            self.parent.as_ref().map_or(String::new(), |seen| format!("\"parent\":\"{seen}\","));
        format!(
            r#"{{{parent}"tableName":"{}","operation":"{operation}","pk":{pk},"payload":{payload},"stamp":{{"deviceId":"{}","opId":"{op_id}","hlc":{hlc},"clock":{clock}}}}}"#,
            self.table, self.device_id,
        )
    }

    pub fn pending(&self) -> Pending {
        Pending {
            json: self.json(Spelling::Compact),
            table: self.table.to_owned(),
            pk: self.pk.clone(),
            revision: self.revision.clone(),
            told: None,
        }
    }

    pub fn key(&self) -> (String, String) {
        (self.table.to_owned(), self.pk.clone())
    }
}

pub fn revision_json(revision: &Revision) -> Value {
    json!({"clock": revision.clock, "hlc": revision.hlc, "opId": revision.op_id})
}

/// An element of a batch.
#[derive(Clone, Debug)]
pub enum Item {
    Op(Op, Spelling),
    /// Not a well-formed op, with the opId that it has.
    Malformed {
        json: String,
        op_id: Option<String>,
    },
}

impl Item {
    pub fn json(&self) -> String {
        match self {
            Item::Op(op, spelling) => op.json(*spelling),
            Item::Malformed { json, .. } => json.clone(),
        }
    }

    pub fn op_id(&self) -> Option<&str> {
        match self {
            Item::Op(op, _) => Some(&op.revision.op_id),
            Item::Malformed { op_id, .. } => op_id.as_deref(),
        }
    }
}
